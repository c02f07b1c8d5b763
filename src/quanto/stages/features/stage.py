"""The features stage: canonical tables in, features, regime labels and their leak proof out."""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from pathlib import Path

import pyarrow as pa

from quanto.core.errors import MissingDataError
from quanto.core.store import read_table, write_json, write_table
from quanto.market.calendar import as_date, sessions_between
from quanto.market.point_in_time import MEMBERSHIP
from quanto.market.schema import CANONICAL
from quanto.stages.features.audit import audit
from quanto.stages.features.compute import compute
from quanto.stages.features.config import FeaturesConfig, select_columns
from quanto.stages.features.load import CanonicalTables, build_view, first_session, wanted_series
from quanto.stages.features.proof import failed
from quanto.stages.features.report import feature_report, refuse_empty
from quanto.stages.features.surface import surfaces
from quanto.stages.features.tables import feature_table, label_table, regime_table
from quanto.stages.features.view import ACTIONS, BARS, SURFACE, MarketView

logger = logging.getLogger("quanto")


def run(config: FeaturesConfig, workspace: Path, executor: Executor) -> None:
    """Compute the configured features, prove them, and write tables and reports below `workspace`."""
    view, rejected = read_view(config, workspace)
    selection = select_columns(config)
    features = compute(view, selection)
    refuse_empty(features, config)
    proof = audit(view, config, executor)
    out = workspace / "data/features"
    write_table(out / "features.parquet", feature_table(features, config.start_date))
    write_table(out / "regime.parquet", regime_table(features, config.start_date))
    write_table(out / "labels.parquet", label_table(features, config.start_date))
    write_json(workspace / "reports/features/features.json", {**feature_report(features, selection, config), "rejected_options": rejected})
    write_json(workspace / "reports/features/leak_proof.json", proof)
    if failed(proof):
        logger.warning("the leak proof found fault with %s: no gate will pass", ", ".join(failed(proof)))


def audit_leakage(
    config: FeaturesConfig, workspace: Path, executor: Executor | None = None, *, every_session: bool = False
) -> dict[str, object]:
    """Return the leak proof of a configuration on the canonical data below `workspace`; writes nothing."""
    return audit(read_view(config, workspace)[0], config, executor, every_session=every_session)


def read_view(config: FeaturesConfig, workspace: Path) -> tuple[MarketView, dict[str, int]]:
    """Return the canonical data as a view from the first session of any history to the configured end.

    The second value counts options rows and expiries that were not used, by reason.

    Raises
    ------
    MissingDataError
        If there is no canonical data, or a symbol, series or surface has none.
    """
    bars, actions, levels, surface_rows = (
        _read(workspace, domain, CANONICAL[domain]) for domain in (BARS, ACTIONS, "index_level", SURFACE)
    )
    restated, membership = _read(workspace, f"restated/{BARS}.parquet", CANONICAL[BARS]), _read(workspace, "membership", MEMBERSHIP)
    tables = CanonicalTables(bars, actions, levels, restated, membership)
    series = wanted_series(config)
    first = first_session(tables, tuple(series.values()))
    if first is None or as_date(first) > config.end_date:
        raise MissingDataError(f"data/canonical holds no bar and no index level up to {config.end_date}; run the stages before (dvc repro)")
    sessions, symbols = sessions_between(as_date(first), config.end_date), sorted(config.symbols)
    surface = surfaces(surface_rows, sessions, symbols) if SURFACE in select_columns(config).domains else None
    view = build_view(tables, sessions, symbols, series, surface, config.membership)
    return view, {} if surface is None else surface.rejected


def _read(workspace: Path, table: str, schema: pa.Schema) -> pa.Table:
    path = workspace / "data/canonical" / table
    return read_table(path, schema) if path.exists() else schema.empty_table()
