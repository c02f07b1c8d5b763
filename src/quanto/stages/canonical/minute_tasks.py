"""Minute bars as units of work: one session each, cut into blocks of symbols where it has many rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quanto.core.errors import ConfigError, DataError
from quanto.market.minutes import CANONICAL_MINUTES, MINUTES, RAW_MINUTES
from quanto.market.schema import CANONICAL, PRICES
from quanto.stages.canonical.build import Context
from quanto.stages.canonical.config import CanonicalConfig
from quanto.stages.canonical.memo import code_digest, memo_folder, minutes_key, recall_minutes, remember_minutes
from quanto.stages.canonical.minutes import MinutesContext, MinutesPart, build_minutes, in_block, minute_symbols
from quanto.stages.canonical.raw import DICTIONARIES
from quanto.stages.canonical.report import VendorCount

_DAILY = ("session", "symbol", *PRICES, "volume", "vendor")


@dataclass(frozen=True)
class MinutesTask:
    """One block of one session: the vendors' files (None: the vendor has none), and where its canonical rows go."""

    session: date
    block: int
    blocks: int
    files: tuple[Path | None, ...]
    context: MinutesContext
    building: Path
    memo: Path
    code: str

    @property
    def key(self) -> str:
        """The block's name."""
        return f"{self.session}" if self.blocks == 1 else f"{self.session}-{self.block:0{len(str(self.blocks - 1))}d}"


def build_all_minutes(raw: Path, context: Context, building: Path, executor: Executor) -> list[MinutesPart]:
    """Build the canonical minutes of all sessions below `building`, whose daily bars are there; return all but rows.

    Raises
    ------
    ConfigError
        If a vendor with minutes stands in no priority list.
    """
    config = context.config
    files = find_minutes(raw, config.sources.equity_ohlcv.priority)
    vendors = tuple(files)
    low, high = config.start_date or date.min, config.end_date or date.max
    sessions = sorted({day for found in files.values() for day in found if low <= day <= high})
    shared = MinutesContext(config, vendors, context.histories, context.blocked)
    memo, code = memo_folder(), code_digest()
    tasks = []
    for session in sessions:
        held = tuple(files[name].get(session) for name in vendors)
        blocks = max(1, -(-sum(_open(file).metadata.num_rows for file in held if file) // config.partition_rows))
        tasks += [MinutesTask(session, block, blocks, held, shared, building, memo, code) for block in range(blocks)]
    return list(executor.map(build_minutes_block, tasks))


def find_minutes(raw: Path, priority: Sequence[str]) -> dict[str, dict[date, Path]]:
    """Return the minute files by vendor, in order of priority, and session.

    Raises
    ------
    ConfigError
        If a vendor with minutes stands in no priority list.
    """
    found = {path.parent.name: sorted(path.glob("year=*/*.parquet")) for path in sorted(raw.glob(f"*/{MINUTES}"))}
    unlisted = ", ".join(sorted(set(found) - set(priority)))
    if unlisted:
        raise ConfigError(f"data_sources.equity_ohlcv.priority does not list {unlisted}, which has minutes; add it where it belongs")
    return {name: {date.fromisoformat(file.stem): file for file in found[name]} for name in priority if name in found}


def build_minutes_block(task: MinutesTask) -> MinutesPart:
    """Build and write one block of a session, or link it from the memo; return all but its rows."""
    keys = [_read(file, ["session", "symbol", "basis_as_of"]) for file in task.files]
    every = minute_symbols(keys, task.session, task.context)
    symbols = frozenset(every[len(every) * task.block // task.blocks : len(every) * (task.block + 1) // task.blocks])
    seen = [day for table in keys if (day := pc.max(table["basis_as_of"]).as_py()) is not None]
    context = task.context.within(symbols, task.session, max([task.session, *seen]))
    daily = _daily_bars(task.building / f"equity_ohlcv/year={task.session.year}", task.session)
    target = task.building / MINUTES / f"year={task.session.year}" / f"{task.key}.parquet"
    names = {name for table in keys for name in pc.unique(table["symbol"]).to_pylist()}
    key = minutes_key(f"{task.key}/{task.blocks}", task.files, names, daily, context, task.code)
    known = recall_minutes(task.memo, key, target)
    if known is not None:
        return known
    named = zip(context.vendors, task.files, strict=True)
    wanted = symbols if task.blocks > 1 else None
    tables = [_read_block(vendor, file, task.session, wanted, context.config) for vendor, file in named]
    part = build_minutes(task.session, tables, daily, context)
    remember_minutes(task.memo, key, part, target)
    return replace(part, table=CANONICAL_MINUTES.empty_table())


def minute_counts(parts: Sequence[MinutesPart]) -> list[VendorCount]:
    """Return the conservation law of each vendor's minutes; those outside the regular session are outside."""
    found = []
    for name in dict.fromkeys(name for part in parts for name in part.counts):
        counts = [part.counts[name] for part in parts]
        outside = sum(part.outside[name] for part in parts)
        terms = (sum(getattr(item, term) for item in counts) for term in ("selected", "superseded", "quarantined"))
        found.append(VendorCount(MINUTES, name, sum(item.rows for item in counts) + outside, outside, *terms))
    return found


def _read_block(vendor: str, file: Path | None, session: date, symbols: frozenset[str] | None, config: CanonicalConfig) -> pa.Table:
    """Return a vendor's minutes of some entities, one row group in memory beyond them."""
    if file is None or symbols is None:
        return _read(file)
    source = _open(file)
    groups = (source.read_row_group(group, use_threads=False) for group in range(source.metadata.num_row_groups))
    parts = [table.filter(pa.array(in_block(vendor, table, session, symbols, config))) for table in groups]
    return pa.concat_tables([source.schema_arrow.empty_table(), *parts]).unify_dictionaries().combine_chunks()


def _read(file: Path | None, columns: Sequence[str] | None = None) -> pa.Table:
    if file is None:
        table = RAW_MINUTES.empty_table()
        return table if columns is None else table.select(list(columns))
    return _open(file).read(columns=columns, use_threads=False).unify_dictionaries().combine_chunks()


def _open(file: Path) -> pq.ParquetFile:
    try:
        plain = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is no readable Parquet file: {error}; run the ingest stage again") from error
    if not plain.equals(RAW_MINUTES):
        raise DataError(f"{file} has another schema than minutes have; expected\n{RAW_MINUTES}\nfound\n{plain}")
    return pq.ParquetFile(file, read_dictionary=[name for name in DICTIONARIES if name in RAW_MINUTES.names])


def _daily_bars(folder: Path, session: date) -> pa.Table:
    """Return the canonical daily bars of one session, from the files that were just built."""
    parts = [CANONICAL["equity_ohlcv"].empty_table().select(list(_DAILY))]
    for path in sorted(folder.glob("*.parquet")):
        source = pq.ParquetFile(path)
        for group in range(source.metadata.num_row_groups):
            statistics = source.metadata.row_group(group).column(0).statistics
            if statistics is None or statistics.min <= session <= statistics.max:
                table = source.read_row_group(group, columns=list(_DAILY), use_threads=False)
                parts.append(table.filter(pc.equal(table["session"], pa.scalar(session, pa.date32()))))
    return pa.concat_tables(parts).combine_chunks()
