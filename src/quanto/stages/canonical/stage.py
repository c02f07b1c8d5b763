"""The canonical stage: one truth from the raw tables of all vendors.

1. settle which company a ticker meant when, and reconcile corporate actions, first the listed ones, then with what adjusted closes imply;
2. build bars partition by partition, judge over the whole history who may fill gaps, and build again what changes;
3. build index levels and surfaces, and minutes, which are held against the daily bars;
4. check the conservation law, report, and stop where a threshold is exceeded.
"""

from __future__ import annotations

import shutil
from concurrent.futures import Executor
from pathlib import Path

from quanto.core.errors import DataError
from quanto.core.store import data_root, write_bytes, write_json, write_table
from quanto.market.schema import DOMAINS
from quanto.stages.canonical.build import Context
from quanto.stages.canonical.config import CanonicalConfig
from quanto.stages.canonical.lineage import sort_quarantine
from quanto.stages.canonical.memo import memo_folder, prune
from quanto.stages.canonical.minute_tasks import build_all_minutes
from quanto.stages.canonical.page import quality_page
from quanto.stages.canonical.quality import Quality, csv_bytes, quality_of
from quanto.stages.canonical.raw import find_raw, refuse_empty
from quanto.stages.canonical.report import check_conservation
from quanto.stages.canonical.tasks import (
    build_actions,
    build_all_bars,
    build_index_levels,
    build_surfaces,
    derive_identity,
    outlines_of,
    read_membership,
    restated_tables,
    write_empty,
    write_years,
)
from quanto.stages.canonical.universe import identity_table, membership_table


def run(config: CanonicalConfig, workspace: Path, executor: Executor) -> None:
    """Build data/canonical and reports/canonical from data/raw.

    Raises
    ------
    ConfigError
        If a vendor with rows stands in no priority list.
    DataError
        If a raw table is corrupt, the conservation law is broken, or a threshold is exceeded; the last names the
        offending rows in a report under `failures/canonical/` of the data root.
    """
    raw, target = workspace / "data/raw", workspace / "data/canonical"
    refuse_empty(raw)
    files = {domain: find_raw(raw, domain, config.sources.domain(domain).priority) for domain in DOMAINS}
    # Built beside its place and renamed when whole: a killed run leaves the old tables or none.
    building = workspace / "data/.canonical.building"
    shutil.rmtree(building, ignore_errors=True)
    configured = config.sources.identity
    config, derived = derive_identity(files["corporate_actions"], files["equity_ohlcv"], config, executor)
    actions = build_actions(files["corporate_actions"], files["equity_ohlcv"], config, executor)
    write_years(building / "corporate_actions", "corporate_actions", actions.result.table)
    outlines = {name: outlines_of(files[name], executor) for name in ("equity_ohlcv", "options_surface")}
    vendors = tuple(file.vendor for file in files["equity_ohlcv"])
    context = Context(config, vendors, actions.histories, actions.days, actions.result.blocked)
    bars = build_all_bars(files["equity_ohlcv"], outlines["equity_ohlcv"], context, building / "equity_ohlcv", executor)
    levels = build_index_levels(files["index_level"], config)
    write_years(building / "index_level", "index_level", levels.table)
    surfaces = build_surfaces(files["options_surface"], outlines["options_surface"], config, building / "options_surface", executor)
    minutes = build_all_minutes(raw, context, building, executor)
    for domain, table in restated_tables(actions, bars, levels, surfaces).items():
        write_table(building / f"restated/{domain}.parquet", table)
    lists = [*config.sources.membership, *read_membership(workspace, config.sources.membership_files)]
    quality = quality_of(config, files, outlines, actions, bars, levels, surfaces, minutes, derived)
    check_conservation(quality.counts)
    if quality.faults:
        shutil.rmtree(building)
        _write_report(data_root() / "failures/canonical", quality)
        raise DataError(f"{'; '.join(quality.faults)}; the offending rows are in {data_root() / 'failures/canonical'}")
    write_empty(building)
    write_table(building / "membership/part.parquet", membership_table(lists, quality.listed, actions.result.table))
    write_table(building / "identity/part.parquet", identity_table(configured, derived))
    write_table(building / "quarantine/part.parquet", sort_quarantine(quality.quarantine))
    _write_report(workspace / "reports/canonical", quality)
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)
    prune(memo_folder())


def _write_report(folder: Path, quality: Quality) -> None:
    """Write the report of a run: JSON for machines, CSV for the details, one page for people."""
    write_json(folder / "canonical_report.json", quality.report)
    write_bytes(folder / "quality.html", quality_page(quality.report, quality.largest))
    for name, table in quality.tables.items():
        write_bytes(folder / f"{name}.csv", csv_bytes(table))
