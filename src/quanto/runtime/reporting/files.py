"""The files of a revision that the report reads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from quanto.core.errors import MissingDataError, QuantoError
from quanto.runtime.reporting import figures
from quanto.runtime.revisions import Revision

JSON_FILES = {
    "metrics": "reports/evaluation/metrics.json",
    "evaluation": "reports/evaluation/evaluation.json",
    "slices": "reports/evaluation/regime_slices.json",
    "qualification": "reports/promotion/qualification_report.json",
    "record": "reports/promotion/promotion_record.json",
    "canonical": "reports/canonical/canonical_report.json",
    "ingest": "reports/ingest/ingest_report.json",
    "features": "reports/features/features.json",
    "leak_proof": "reports/features/leak_proof.json",
    "shadow": "reports/shadow/metrics.json",
    "training": "reports/training/summary.json",
}
SERIES = {
    "equity": "reports/evaluation/equity.csv",
    "drawdown": "reports/evaluation/drawdown.csv",
    "exposure": "reports/evaluation/exposure.csv",
}
CURVES = "reports/training/curves.csv"
QUALITY = "reports/canonical/quality.html"
PARQUET = {
    "returns": "reports/evaluation/returns.parquet",
    "weights": "reports/evaluation/weights.parquet",
    "shadow": "reports/shadow/sessions.parquet",
}


@dataclass(frozen=True)
class Files:
    """The files of one revision; a JSON file that it lacks is an empty mapping, `quality` the canonical stage's own page."""

    revision: Revision
    json: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    quality: str = ""


def read_files(revision: Revision) -> Files:
    """Return the files of a revision.

    Raises
    ------
    MissingDataError
        If the revision has not been evaluated, or its tables are in no cache at hand.
    """
    if not revision.exists(JSON_FILES["metrics"]):
        raise MissingDataError(f"{revision.label} holds no evaluation; run `dvc repro` there first")
    tables = {name: figures.frame(revision.open_tracked(path)) for name, path in SERIES.items()}
    tables["curves"] = pd.read_csv(io.BytesIO(revision.open_tracked(CURVES)))
    for name, path in PARQUET.items():
        if name != "shadow" or revision.exists(JSON_FILES["shadow"]):
            tables[name] = pd.read_parquet(io.BytesIO(revision.open_tracked(path)))
    quality = revision.open_tracked(QUALITY).decode()
    return Files(revision, {name: read_mapping(revision, path) for name, path in JSON_FILES.items()}, tables, quality)


def read_mapping(revision: Revision, path: str) -> Mapping[str, Any]:
    """Return a JSON file of a revision as a mapping, empty where the revision has none."""
    try:
        value = revision.read_json(path)
    except QuantoError:
        return {}
    return value if isinstance(value, dict) else {}
