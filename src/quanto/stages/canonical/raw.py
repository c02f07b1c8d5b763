"""Access to the raw tables of ingest: which vendors have what, and slices of sessions without reading whole files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quanto.core.errors import ConfigError, DataError, MissingDataError
from quanto.market.schema import DATE_COLUMN, DOMAINS, RAW

# Few distinct values: as dictionaries they are read, compared and written many times faster.
DICTIONARIES = ("symbol", "basis", "volume_basis", "payload", "series", "unit", "kind", "side")


@dataclass(frozen=True)
class RawFile:
    """One vendor's table of one domain."""

    vendor: str
    domain: str
    path: Path


def find_raw(folder: Path, domain: str, priority: tuple[str, ...]) -> tuple[RawFile, ...]:
    """Return the raw tables of a domain in the order of priority.

    Raises
    ------
    ConfigError
        If a vendor has rows and stands in no priority list: whom to believe must be explicit.
    """
    present = {path.parent.parent.name: path for path in sorted(folder.glob(f"*/{domain}/part.parquet"))}
    unlisted = sorted(set(present) - set(priority))
    if unlisted:
        raise ConfigError(
            f"data_sources.{domain}.priority does not list {', '.join(unlisted)}, which has raw rows; add it where it belongs"
            f" (listed: {', '.join(priority) or 'none'})"
        )
    return tuple(RawFile(name, domain, present[name]) for name in priority if name in present)


def refuse_empty(folder: Path) -> None:
    """Refuse a raw folder without any table.

    Raises
    ------
    MissingDataError
        If no vendor has a table.
    """
    if not any(True for domain in DOMAINS for _ in folder.glob(f"*/{domain}/part.parquet")):
        raise MissingDataError(f"{folder} holds no raw table (<vendor>/<domain>/part.parquet); run the ingest stage (dvc repro)")


@dataclass(frozen=True)
class Outline:
    """What a raw table holds, without its values: rows per day and the sorted symbols."""

    days: npt.NDArray[np.int64]  # days since 1970, ascending, distinct
    rows: npt.NDArray[np.int64]
    symbols: tuple[str, ...]

    @property
    def total(self) -> int:
        """The number of rows."""
        return int(self.rows.sum())


def outline(file: RawFile) -> Outline:
    """Return rows per day and symbols of a raw table, reading two columns one row group at a time.

    Raises
    ------
    DataError
        If the file is corrupt or has another schema.
    """
    column = DATE_COLUMN[file.domain]
    name = "series" if file.domain == "index_level" else "symbol"
    counts: dict[int, int] = {}
    symbols: set[str] = set()
    source = _open(file)
    for group in range(source.metadata.num_row_groups):
        table = source.read_row_group(group, columns=[column, name], use_threads=False)
        days, rows = np.unique(_day_numbers(table[column]), return_counts=True)
        for day, count in zip(days.tolist(), rows.tolist(), strict=True):
            counts[day] = counts.get(day, 0) + count
        symbols.update(pc.unique(table[name]).to_pylist())
    days = np.array(sorted(counts), dtype=np.int64)
    return Outline(days, np.array([counts[day] for day in days.tolist()], dtype=np.int64), tuple(sorted(symbols)))


def read_slice(file: RawFile, first: date, last: date) -> pa.Table:
    """Return the rows of the days first..last, in file order; repeated text columns come as dictionaries.

    Row groups that the statistics place outside are not read.

    Raises
    ------
    DataError
        If the file is corrupt or has another schema.
    """
    column = DATE_COLUMN[file.domain]
    source = _open(file)
    index = source.schema_arrow.get_field_index(column)
    parts = []
    for group in range(source.metadata.num_row_groups):
        statistics = source.metadata.row_group(group).column(index).statistics
        if statistics is not None and statistics.has_min_max and (statistics.max < first or statistics.min > last):
            continue
        table = source.read_row_group(group, use_threads=False)
        days = _day_numbers(table[column])
        inside = (days >= _number(first)) & (days <= _number(last))
        parts.append(table if inside.all() else _filter(table, inside))
    if not parts:
        return source.schema_arrow.empty_table()
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


def read_all(file: RawFile) -> pa.Table:
    """Return a whole raw table as `read_slice` does."""
    return read_slice(file, date.min, date.max)


def read_columns(file: RawFile, columns: Sequence[str]) -> pa.Table:
    """Return some columns of a whole raw table, in file order.

    Raises
    ------
    DataError
        If the file is corrupt or has another schema.
    """
    return _open(file).read(columns=list(columns), use_threads=False).unify_dictionaries().combine_chunks()


def has_values(file: RawFile, column: str) -> bool:
    """Return whether a column has any value that is not null, from the statistics alone where the file has them."""
    source = _open(file)
    index = source.schema_arrow.get_field_index(column)
    for group in range(source.metadata.num_row_groups):
        part = source.metadata.row_group(group)
        statistics = part.column(index).statistics
        if statistics is None or not statistics.has_null_count or statistics.null_count < part.num_rows:
            return True
    return False


def distinct(file: RawFile, column: str) -> set[str]:
    """Return the distinct values of a text column."""
    return set(pc.unique(read_columns(file, [column])[column]).to_pylist())


def _filter(table: pa.Table, inside: npt.NDArray[np.bool_]) -> pa.Table:
    rows = np.flatnonzero(inside)
    # Rows are sorted by session in most files: a slice costs nothing.
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return table.slice(int(rows[0]), len(rows))
    return table.filter(pa.array(inside))


def _open(file: RawFile) -> pq.ParquetFile:
    wanted = RAW[file.domain]
    try:
        metadata = pq.read_metadata(file.path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file.path} is no readable Parquet file: {error}; run the ingest stage again") from error
    found = {field.name: str(field.type) for field in metadata.schema.to_arrow_schema()}
    faults = [f"{f.name}: expected {f.type}, found {found.get(f.name, 'nothing')}" for f in wanted if found.get(f.name) != str(f.type)]
    faults += [f"{name}: unexpected column" for name in found if name not in wanted.names]
    if faults:
        raise DataError(f"{file.path} has another schema than RAW[{file.domain!r}]: {'; '.join(faults)}")
    return pq.ParquetFile(file.path, metadata=metadata, read_dictionary=[name for name in DICTIONARIES if name in wanted.names])


def _day_numbers(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    days: npt.NDArray[np.int64] = column.cast(pa.int32()).to_numpy().astype(np.int64)
    return days


def _number(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()
