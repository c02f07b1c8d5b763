"""Read the verdicts, write the promotion record and the model card; a rejected candidate is no error."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path

from quanto.core.digest import digest_tree, digest_value
from quanto.core.errors import DataError
from quanto.core.store import read_json, write_bytes, write_json
from quanto.stages.promote.card import model_card
from quanto.stages.promote.config import PromoteConfig
from quanto.stages.promote.record import promotion_record

# What the verdicts rest on; each enters the record by its digest.
SUBJECTS = (
    "models",
    "reports/canonical/canonical_report.json",
    "reports/evaluation/evaluation.json",
    "reports/evaluation/metrics.json",
    "reports/evaluation/regime_slices.json",
    "reports/evaluation/returns.parquet",
    "reports/evaluation/trial.json",
    "reports/features/leak_proof.json",
    "reports/promotion/calibration.json",
    "reports/promotion/qualification_report.json",
)


def run(config: PromoteConfig, workspace: Path, executor: Executor) -> None:  # noqa: ARG001  # every stage is called alike; this one writes two files
    """Write `reports/promotion/promotion_record.json` and `MODEL_CARD.md`."""
    report, metrics, evaluation, policy = (
        _mapping(workspace / name)
        for name in (
            "reports/promotion/qualification_report.json",
            "reports/evaluation/metrics.json",
            "reports/evaluation/evaluation.json",
            "models/policy.json",
        )
    )
    subjects = {name: digest_tree(workspace / name) for name in SUBJECTS if (workspace / name).exists()}
    record = promotion_record(report, subjects, digest_value(policy), config.risk.digest())
    out = workspace / "reports/promotion"
    write_json(out / "promotion_record.json", record)
    write_bytes(out / "MODEL_CARD.md", model_card(config.purpose, record, report, metrics, evaluation, policy).encode())


def _mapping(path: Path) -> Mapping[str, object]:
    value = read_json(path)
    if not isinstance(value, Mapping):
        raise DataError(f"{path} must hold a mapping; found {type(value).__name__}. Run the stage that writes it again")
    return value
