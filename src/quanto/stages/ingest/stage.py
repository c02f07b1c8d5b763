"""The ingest stage: plan, fetch into the landing store, parse, validate, write data/raw and data/payloads."""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from pathlib import Path

import pyarrow as pa

from quanto.core.digest import digest_value, pretty_json
from quanto.core.store import data_root, write_bytes, write_json
from quanto.market.schema import RAW
from quanto.stages.ingest.config import IngestConfig
from quanto.stages.ingest.coverage import COVERED, Coverage, coverage, endings
from quanto.stages.ingest.harvest import Piece, harvest
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.output import Staging
from quanto.stages.ingest.report import Key, failure, failure_report, ingest_report
from quanto.stages.ingest.router import route
from quanto.stages.ingest.validate import Checked, validate

logger = logging.getLogger("quanto")


def run(config: IngestConfig, workspace: Path, executor: Executor) -> None:
    """Write the typed records of all configured vendors below `workspace`, and the report.

    Raises
    ------
    QuantoError
        If a shard failed or a requested name is covered by no vendor: one error for all of it, after everything else
        was processed and a report was written below the data root's failures/ingest/. Nothing is half-written.
    """
    routes = route(config, workspace)
    landing = LandingStore(data_root() / "landing", config.as_of, offline=config.offline)
    staging = Staging(workspace / "data")
    try:
        pieces = harvest(routes, workspace, landing, executor, staging.keep)
        checked = {key: _check(key, found) for key, found in pieces.items()}
        covered = _coverage(config, checked)
        report = ingest_report(config, pieces, checked, covered)
        _stop_on_failure(pieces, covered, report)
        for (vendor, domain), found in checked.items():
            staging.add(vendor, domain, found)
        staging.publish()
    finally:
        staging.discard()
    write_json(workspace / "reports/ingest/ingest_report.json", report)
    logger.info("%s", _summary(checked))


def _check(key: Key, pieces: list[Piece]) -> Checked:
    vendor, domain = key
    parsed = [piece.parsed for piece in pieces if piece.parsed is not None]
    table = pa.concat_tables([RAW[domain].empty_table(), *(item.table for item in parsed)])
    return validate(domain, vendor, table, [record for item in parsed for record in item.rejected])


def _coverage(config: IngestConfig, checked: dict[Key, Checked]) -> list[Coverage]:
    tables = {domain: [found.table for (_, name), found in checked.items() if name == domain] for domain in RAW}
    ended = endings(tables["corporate_actions"])
    asked = {"equity_ohlcv": config.symbols, "index_level": config.series}
    if tables["options_surface"]:
        asked["options_surface"] = config.symbols
    return [
        item
        for domain in COVERED
        for item in coverage(domain, asked.get(domain, ()), tables[domain], config.start, config.end, config.tail_tolerance_sessions, ended)
    ]


def _stop_on_failure(pieces: dict[Key, list[Piece]], covered: list[Coverage], report: dict[str, object]) -> None:
    # Named by its content: runs that fail in different ways at the same time keep their reports apart.
    content = failure_report(report, pieces)
    path = data_root() / "failures" / "ingest" / f"{digest_value(content)[:16]}.json"
    error = failure(pieces, covered, str(path))
    if error is not None:
        write_bytes(path, pretty_json(content))
        raise error


def _summary(checked: dict[Key, Checked]) -> str:
    lines = [
        f"  {vendor:<22} {domain:<18} {len(found.table):>10,} rows {len(found.quarantine):>8,} rejected"
        for (vendor, domain), found in sorted(checked.items())
    ]
    return "\n".join(["ingest:", *lines])
