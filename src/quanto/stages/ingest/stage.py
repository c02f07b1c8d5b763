"""The ingest stage: plan, fetch into the landing store, parse, validate, write data/raw and data/payloads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa

from quanto.core.digest import digest_bytes
from quanto.core.store import data_root, write_bytes
from quanto.market.schema import RAW
from quanto.stages.ingest.config import IngestConfig
from quanto.stages.ingest.coverage import COVERED, Coverage, coverage, endings
from quanto.stages.ingest.harvest import Piece, harvest
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.minutes import gather_minutes
from quanto.stages.ingest.output import Staging
from quanto.stages.ingest.report import Key, failure, failure_report, ingest_report, report_bytes, summary_lines
from quanto.stages.ingest.router import route
from quanto.stages.ingest.spool import ROWS_TOGETHER, partitions
from quanto.stages.ingest.summary import Summary
from quanto.stages.ingest.validate import Checked, quarantine, rejected_rows, validate

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
        pieces = harvest(routes, workspace, landing, executor, staging.keep, staging.spool.hold, staging.minutes)
        summaries = {key: Summary(key[1], _asked(config, key[1])) for key in pieces}
        for (vendor, domain), found in pieces.items():
            staging.add(vendor, domain, _checked(vendor, domain, found, summaries[vendor, domain]))
        gather_minutes(staging.minutes, staging.raw, executor)
        covered = _coverage(config, pieces, summaries)
        report = ingest_report(config, pieces, summaries, covered)
        _stop_on_failure(pieces, covered, report)
        staging.publish()
    finally:
        staging.discard()
    write_bytes(workspace / "reports/ingest/ingest_report.json", report_bytes(report))
    logger.info("%s", "\n".join(["ingest:", *summary_lines(summaries)]))


def _checked(vendor: str, domain: str, pieces: list[Piece], summary: Summary) -> Iterator[Checked]:
    """Yield the validated partitions of one vendor and domain, telling the summary of each."""
    parsed = [piece.parsed for piece in pieces if piece.parsed is not None]
    records = [record for item in parsed for record in item.rejected]
    unread = Checked(RAW[domain].empty_table(), quarantine(rejected_rows(domain, vendor, records)), 0)
    tables = [RAW[domain].empty_table(), *(item.table for item in parsed)]
    parts = (validate(domain, vendor, part) for part in partitions(domain, tables, "M", ROWS_TOGETHER))
    for checked in chain((unread,), parts):  # one partition in memory at a time
        yield checked
        summary.add(checked)
    # After the current rows: a version of a row that was known on an earlier day is no duplicate of it.
    for versions in zip_longest(*(item.earlier for item in parsed)):
        checked = validate(domain, vendor, pa.concat_tables([table for table in versions if table is not None]))
        yield checked
        summary.add_earlier(checked)


def _coverage(config: IngestConfig, pieces: dict[Key, list[Piece]], summaries: dict[Key, Summary]) -> list[Coverage]:
    actions = [
        piece.parsed.table for (_, domain), found in pieces.items() if domain == "corporate_actions" for piece in found if piece.parsed
    ]
    ended = endings(actions)
    found: list[Coverage] = []
    for domain in COVERED:
        held = [summary for (_, name), summary in summaries.items() if name == domain]
        if not held and domain == "options_surface":
            continue  # nobody was asked for surfaces
        names = _asked(config, domain)
        days = {name: [summary.names[name].every_day for summary in held if name in summary.names] for name in names}
        present = {name: np.unique(np.concatenate(parts)) for name, parts in days.items() if parts}
        found += coverage(domain, names, present, config.start, config.end, config.tail_tolerance_sessions, ended)
    return found


def _asked(config: IngestConfig, domain: str) -> tuple[str, ...]:
    return config.series if domain == "index_level" else config.symbols


def _stop_on_failure(pieces: dict[Key, list[Piece]], covered: list[Coverage], report: dict[str, object]) -> None:
    if failure(pieces, covered, "") is None:
        return
    content = report_bytes(failure_report(report, pieces))
    # Named by its content: runs that fail in different ways at the same time keep their reports apart.
    path = data_root() / "failures" / "ingest" / f"{digest_bytes(content)[:16]}.json"
    write_bytes(path, content)
    error = failure(pieces, covered, str(path))
    if error is not None:
        raise error
