"""Minute bars on their way to data/raw: one file per shard while they are parsed, one file per session in the end.

Workers write and read them, so that the main process never holds a minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quanto.core.digest import digest_value
from quanto.core.store import write_table
from quanto.market.calendar import as_date
from quanto.market.minutes import MINUTE_KEY, MINUTES, RAW_MINUTES
from quanto.stages.ingest.spool import ROWS_TOGETHER
from quanto.stages.ingest.vendor import Parsed, Shard

# Vendors repeat minutes and restate them: canonical tells both apart, so every row is kept, in an order of its own.
_ORDER = (*MINUTE_KEY, "payload", "payload_row")


def store_minutes(parsed: Parsed, shard: Shard, folder: Path | None) -> Parsed:
    """Write the minutes of a shard below `folder` (nowhere, if None), sorted; return what was parsed without them."""
    if parsed.minutes is None:
        return parsed
    if folder is not None and len(parsed.minutes):
        table = parsed.minutes.sort_by([(name, "ascending") for name in _ORDER])
        write_table(folder / shard.vendor / f"{digest_value(shard.key)[:24]}.parquet", table)
    return replace(parsed, minutes=None)


@dataclass(frozen=True)
class Gather:
    """Sessions of one vendor, and the shard files that hold minutes of them."""

    vendor: str
    sessions: tuple[date, ...]
    files: tuple[Path, ...]
    target: Path

    @property
    def key(self) -> str:
        """The task's name."""
        return f"{self.vendor} {self.sessions[0]}"


def gather_minutes(folder: Path, raw: Path, executor: Executor) -> None:
    """Turn the shard files of all vendors into one file per session: <vendor>/equity_minutes/year=YYYY/<session>.parquet."""
    for vendor in sorted(path.name for path in folder.glob("*")):
        files = sorted((folder / vendor).glob("*.parquet"))
        outlines = list(executor.map(sessions_of, files))
        tasks = [Gather(vendor, days, held, raw / vendor / MINUTES) for days, held in _plan(files, outlines)]
        for _ in executor.map(write_sessions, tasks):
            pass


def sessions_of(file: Path) -> dict[date, int]:
    """Return the rows per session of a file of minutes."""
    days, rows = np.unique(pq.read_table(file, columns=["session"])["session"].to_numpy(), return_counts=True)
    return {as_date(day): int(count) for day, count in zip(days, rows, strict=True)}


def write_sessions(task: Gather) -> None:
    """Write one file per session of a task; a shard that is one session, and the only one to have it, is just moved."""
    if len(task.files) == len(task.sessions) == 1 and list(sessions_of(task.files[0])) == list(task.sessions):
        target = _place(task.target, task.sessions[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        task.files[0].rename(target)
        return
    first, last = pa.scalar(task.sessions[0], pa.date32()), pa.scalar(task.sessions[-1], pa.date32())
    inside = (pc.field("session") >= first) & (pc.field("session") <= last)
    tables = [pq.read_table(file, filters=inside, use_threads=False) for file in task.files]
    table = pa.concat_tables([RAW_MINUTES.empty_table(), *tables]).sort_by([(name, "ascending") for name in _ORDER])
    for session in task.sessions:
        write_table(_place(task.target, session), table.filter(pc.equal(table["session"], pa.scalar(session, pa.date32()))))


def _plan(files: Sequence[Path], outlines: Sequence[Mapping[date, int]]) -> list[tuple[tuple[date, ...], tuple[Path, ...]]]:
    """Return runs of sessions of at most ROWS_TOGETHER rows (one at least), and the files that hold any of them."""
    rows: dict[date, int] = {}
    for outline in outlines:
        for day, count in outline.items():
            rows[day] = rows.get(day, 0) + count
    runs: list[list[date]] = []
    room = 0
    for day in sorted(rows):
        if not runs or rows[day] > room:
            runs.append([])
            room = ROWS_TOGETHER
        runs[-1].append(day)
        room -= rows[day]
    return [
        (tuple(run), tuple(file for file, outline in zip(files, outlines, strict=True) if not outline.keys().isdisjoint(run)))
        for run in runs
    ]


def _place(target: Path, session: date) -> Path:
    return target / f"year={session.year}" / f"{session}.parquet"
