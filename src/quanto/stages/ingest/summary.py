"""What one vendor's checked rows of a domain hold, gathered partition by partition: counts, days, bases, oddities. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quanto.market.calendar import DateArray, as_date
from quanto.market.schema import BASES, DATE_COLUMN, PRICES
from quanto.stages.ingest.quality import WINDOW, oddities_by_symbol
from quanto.stages.ingest.validate import Checked

NO_DAYS: DateArray = np.empty(0, "datetime64[D]")


@dataclass(frozen=True)
class Bars:
    """Bars of many symbols: symbol i has the rows edges[i] to edges[i + 1] - 1 of `days` and `values` (n, k)."""

    names: tuple[str, ...]
    edges: npt.NDArray[np.int64]
    days: DateArray
    values: npt.NDArray[np.float64]

    def followed_by(self, other: Bars) -> tuple[Bars, npt.NDArray[np.int64]]:
        """Return the bars of both, each symbol's own first, and how many of each symbol are own."""
        if not len(self.days):
            return other, np.zeros(len(other.names), dtype=np.int64)
        names = tuple(dict.fromkeys([*self.names, *other.names]))
        number = {name: index for index, name in enumerate(names)}
        parts = [(part, np.array([number[name] for name in part.names], dtype=np.int64)) for part in (self, other)]
        counts = np.zeros((2, len(names)), dtype=np.int64)
        for row, (part, codes) in enumerate(parts):
            counts[row, codes] = np.diff(part.edges)
        edges = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
        days = np.empty(edges[-1], self.days.dtype)
        values = np.empty((edges[-1], self.values.shape[1]))
        for start, (part, codes) in zip((edges[:-1], edges[:-1] + counts[0]), parts, strict=True):
            # Each symbol's rows move together: by as much as its first one moves.
            at = np.arange(len(part.days)) + np.repeat(start[codes] - part.edges[:-1], np.diff(part.edges))
            days[at], values[at] = part.days, part.values
        return Bars(names, edges, days, values), counts[0]

    def last(self, count: int) -> Bars:
        """Return the last `count` bars of each symbol."""
        left = np.repeat(self.edges[1:], np.diff(self.edges)) - np.arange(len(self.days))
        keep = left <= count
        edges = np.concatenate([[0], np.cumsum(np.minimum(np.diff(self.edges), count))])
        return Bars(self.names, edges, self.days[keep], self.values[keep])

    def symbol_at(self, row: int) -> int:
        """Return the number of the symbol that a row belongs to."""
        return int(np.searchsorted(self.edges, row, side="right")) - 1


@dataclass
class Held:
    """One symbol or series: how many rows of which days, the bases of its rows, and what looks odd in its bars."""

    first: np.datetime64
    last: np.datetime64
    rows: int = 0
    bases: set[str] = field(default_factory=set)
    provisional: int = 0
    days: list[DateArray] = field(default_factory=list)  # only of names whose every day is wanted
    stale: dict[date, date] = field(default_factory=dict)  # first day of a run -> last
    outliers: dict[date, float] = field(default_factory=dict)  # session -> distance in robust scales

    @property
    def every_day(self) -> DateArray:
        """The distinct days, ascending; empty for a name whose days were not kept."""
        days = np.concatenate([NO_DAYS, *self.days])
        return days if (np.diff(days) > np.timedelta64(0, "D")).all() else np.unique(days)


class Summary:
    """Takes checked partitions in the order of their dates; keeps every day of the names in `wanted`."""

    def __init__(self, domain: str, wanted: Collection[str] = ()) -> None:
        self.domain = domain
        self.rows = 0
        self.merged = 0
        self.earlier = 0
        self.rejected = 0
        self.reasons: Counter[str] = Counter()
        self.names: dict[str, Held] = {}
        self._wanted = frozenset(wanted)
        self._tail = Bars((), np.zeros(1, dtype=np.int64), NO_DAYS, np.empty((0, len(PRICES) + 1)))

    def add(self, checked: Checked) -> None:
        """Count the rows of one partition."""
        self.rows += len(checked.table)
        self._count_others(checked)
        rows = _Rows(self.domain, checked.table)
        self._count(rows)
        if self.domain == "equity_ohlcv":
            self._add_oddities(Bars(rows.names, rows.edges, rows.days, rows.bars))

    def add_earlier(self, checked: Checked) -> None:
        """Count versions of rows that later answers replaced; days and oddities are those of the current rows."""
        self.earlier += len(checked.table)
        self._count_others(checked)

    def _count_others(self, checked: Checked) -> None:
        self.merged += checked.merged
        self.rejected += len(checked.quarantine)
        self.reasons.update(checked.quarantine["reason"].to_pylist())

    def _count(self, rows: _Rows) -> None:
        starts, stops = rows.edges[:-1].tolist(), rows.edges[1:].tolist()
        for name, start, stop in zip(rows.names, starts, stops, strict=True):
            held = self.names.get(name)
            if held is None:
                held = self.names[name] = Held(rows.days[start], rows.days[stop - 1])
            held.rows += stop - start
            held.last = rows.days[stop - 1]
            if name in self._wanted:
                held.days.append(rows.days[start:stop].copy())
            if self.domain == "equity_ohlcv":
                held.bases.update(rows.bases if len(rows.bases) == 1 else np.unique(rows.basis[start:stop]).tolist())
                held.provisional += int(rows.provisional[stop] - rows.provisional[start])

    def _add_oddities(self, new: Bars) -> None:
        """Look at a partition's bars together with the last ones of the partitions before: their surroundings."""
        bars, before = self._tail.followed_by(new)
        found = oddities_by_symbol(bars.values[:, PRICES.index("close")], bars.values, bars.edges)
        for first, last in found.stale:
            held = self.names[bars.names[bars.symbol_at(first)]]
            held.stale[as_date(bars.days[first])] = as_date(bars.days[last])
        for at, scales in found.outliers:
            number = bars.symbol_at(at)
            if at - bars.edges[number] >= before[number]:
                self.names[bars.names[number]].outliers[as_date(bars.days[at])] = scales
        self._tail = bars.last(WINDOW + 1)

    def as_json(self, actions: Mapping[tuple[str, date], str]) -> dict[str, object]:
        """Return the counts for the report; `actions` (symbol, ex-date) -> kind stand beside the outliers they explain."""
        return {
            "rows": self.rows,
            "earlier_versions": self.earlier,
            "rejected": self.rejected,
            "merged_duplicates": self.merged,
            "rejected_by_reason": dict(sorted(self.reasons.items())),
            "symbols": {name: self._name_json(name, held, actions) for name, held in sorted(self.names.items())},
        }

    def _name_json(self, name: str, held: Held, actions: Mapping[tuple[str, date], str]) -> dict[str, object]:
        told: dict[str, object] = {"rows": held.rows, "first": as_date(held.first), "last": as_date(held.last)}
        if self.domain == "equity_ohlcv":
            told |= {"basis": sorted(held.bases), "provisional": held.provisional}
            told["outliers"] = [
                {"session": day, "scales": round(scales, 1), "action": actions.get((name, day))}
                for day, scales in sorted(held.outliers.items())
            ]
            told["stale"] = [{"first": first, "last": last} for first, last in sorted(held.stale.items())]
        return told


class _Rows:
    """The columns of a table that are looked at, with the rows of each symbol or series together, in their order.

    `provisional` has one entry more than there are rows: how many rows before this one are provisional.
    """

    def __init__(self, domain: str, table: pa.Table) -> None:
        codes = table["series" if domain == "index_level" else "symbol"].combine_chunks().dictionary_encode()
        self.names: tuple[str, ...] = tuple(codes.dictionary.to_pylist())
        number = codes.indices.to_numpy(zero_copy_only=False)
        if len(self.names) < 2**16:
            number = number.astype(np.uint16)  # sixteen bits are sorted by radix, several times faster
        order = np.argsort(number, kind="stable")
        self.edges = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=len(self.names)))])
        self.days: DateArray = table[DATE_COLUMN[domain]].to_numpy().astype("datetime64[D]")[order]
        if domain == "equity_ohlcv":
            self.bars = np.stack([table[name].to_numpy()[order] for name in (*PRICES, "volume")], axis=1)
            self.bases = pc.unique(table["basis"]).to_pylist()
            if len(self.bases) > 1:
                self.basis = np.asarray(BASES)[pc.index_in(table["basis"].combine_chunks(), pa.array(BASES)).to_numpy()][order]
            self.provisional = np.concatenate([[0], np.cumsum(table["provisional"].to_numpy()[order])])
