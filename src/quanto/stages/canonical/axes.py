"""The grid of one partition: sessions x symbols, on which all vendors are compared cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.market.calendar import FIRST, LAST, DateArray, next_session, sessions_between
from quanto.stages.canonical.config import Identity

IntArray = npt.NDArray[np.int64]

# Sessions on either side of a partition that are read as context: spikes and stale fills show against neighbours only.
CONTEXT = 5


@dataclass(frozen=True)
class Partition:
    """A run of days within one year that is built by itself; `key` names it: 2004, or 2004-01 for the second part."""

    key: str
    first: date
    last: date

    @property
    def year(self) -> int:
        """The calendar year."""
        return self.first.year

    @property
    def file(self) -> str:
        """The file name within the year's folder."""
        return "part.parquet" if self.key == str(self.year) else f"part-{self.key.partition('-')[2]}.parquet"

    def context(self) -> tuple[date, date]:
        """Return the first and last day that are read: the partition and its context sessions, within the calendar."""
        first = next_session(self.first, -CONTEXT) if self.first > date(FIRST.year, 2, 1) else self.first
        last = next_session(self.last, CONTEXT) if self.last < date(LAST.year, 12, 1) else self.last
        return first, last


@dataclass(frozen=True)
class Axes:
    """Sessions (context included) and sorted symbols of a partition; `core` are the sessions that it writes."""

    sessions: DateArray
    symbols: tuple[str, ...]
    core: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(n_sessions, n_symbols)."""
        return len(self.sessions), len(self.symbols)

    def rows_of(self, days: IntArray) -> IntArray:
        """Return the session index of each day (days since 1970), -1 for a day that is no session."""
        sessions = self.sessions.astype(np.int64)
        at = np.minimum(np.searchsorted(sessions, days), max(len(sessions) - 1, 0))
        return np.where(sessions[at] == days, at, -1) if len(sessions) else np.full(len(days), -1)


def partition_axes(partition: Partition, symbols: Iterable[str]) -> Axes:
    """Return the grid of a partition for the given symbols."""
    first, last = partition.context()
    sessions = sessions_between(max(first, FIRST), min(last, LAST)) if last >= FIRST and first <= LAST else np.empty(0, "datetime64[D]")
    low, high = np.searchsorted(sessions, np.array([partition.first, partition.last], dtype="datetime64[D]") + np.array([0, 1]))
    return Axes(sessions, tuple(sorted(symbols)), slice(int(low), int(high)))


def plan_partitions(rows_per_day: Mapping[int, int], limit: int) -> tuple[Partition, ...]:
    """Return partitions that cover all days that have rows: whole years, cut into equal runs of days above the limit."""
    by_year: dict[int, list[tuple[int, int]]] = {}
    for day in sorted(rows_per_day):
        by_year.setdefault(_date(day).year, []).append((day, rows_per_day[day]))
    found: list[Partition] = []
    for year, days in by_year.items():
        parts = -(-sum(count for _, count in days) // limit)
        if parts <= 1:
            found.append(Partition(str(year), date(year, 1, 1), date(year, 12, 31)))
            continue
        parts = min(parts, len(days))
        cuts = [days[len(days) * index // parts][0] for index in range(1, parts)]
        firsts = [date(year, 1, 1), *map(_date, cuts)]
        lasts = [*(_date(cut - 1) for cut in cuts), date(year, 12, 31)]
        width = len(str(parts - 1))
        found += [Partition(f"{year}-{i:0{width}d}", first, last) for i, (first, last) in enumerate(zip(firsts, lasts, strict=True))]
    return tuple(found)


def encode(column: pa.Array | pa.ChunkedArray) -> tuple[IntArray, list[str]]:
    """Return the codes of a text column and the texts that they point at."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not isinstance(array, pa.DictionaryArray):
        array = array.dictionary_encode()
    return array.indices.to_numpy(zero_copy_only=False).astype(np.int64), array.dictionary.to_pylist()


def entity_names(names: Sequence[str], codes: IntArray, days: IntArray, rules: Sequence[Identity]) -> tuple[list[str], IntArray]:
    """Return names and codes after the identity rules: a ticker's rows of a span of days belong to an entity.

    The first rule that fits a row holds.
    """
    texts, out, open_rows = list(names), codes.copy(), np.ones(len(codes), dtype=np.bool_)
    for rule in rules:
        if rule.symbol not in names:
            continue
        hit = open_rows & (codes == names.index(rule.symbol))
        if rule.start:
            hit &= days >= np.datetime64(rule.start, "D").astype(np.int64)
        if rule.end:
            hit &= days <= np.datetime64(rule.end, "D").astype(np.int64)
        if rule.entity not in texts:
            texts.append(rule.entity)
        out[hit] = texts.index(rule.entity)
        open_rows &= ~hit
    return texts, out


def _date(day: int) -> date:
    return date.fromordinal(day + date(1970, 1, 1).toordinal())
