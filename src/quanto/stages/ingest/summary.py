"""What one vendor's checked rows of a domain hold, gathered partition by partition: counts, days, bases, oddities. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
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
        names = tuple(dict.fromkeys([*self.names, *other.names]))
        number = {name: index for index, name in enumerate(names)}
        parts = [np.repeat([number[name] for name in part.names], np.diff(part.edges)).astype(np.int64) for part in (self, other)]
        codes = np.concatenate(parts)
        order = np.argsort(codes, kind="stable")
        edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
        both = Bars(names, edges, np.concatenate([self.days, other.days])[order], np.concatenate([self.values, other.values])[order])
        return both, np.bincount(parts[0], minlength=len(names))

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
    """One symbol or series: its days, the bases of its rows, and what looks odd in its bars."""

    days: list[DateArray] = field(default_factory=list)
    rows: int = 0
    bases: set[str] = field(default_factory=set)
    provisional: int = 0
    stale: dict[date, date] = field(default_factory=dict)  # first day of a run -> last
    outliers: dict[date, float] = field(default_factory=dict)  # session -> distance in robust scales

    @property
    def every_day(self) -> DateArray:
        """The distinct days, ascending."""
        return np.unique(np.concatenate([NO_DAYS, *self.days]))


class Summary:
    """Takes checked partitions in the order of their dates."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.rows = 0
        self.merged = 0
        self.rejected = 0
        self.reasons: Counter[str] = Counter()
        self.names: dict[str, Held] = {}
        self._tail = Bars((), np.zeros(1, dtype=np.int64), NO_DAYS, np.empty((0, len(PRICES) + 1)))

    def add(self, checked: Checked) -> None:
        """Count the rows of one partition."""
        self.rows += len(checked.table)
        self.merged += checked.merged
        self.rejected += len(checked.quarantine)
        self.reasons.update(checked.quarantine["reason"].to_pylist())
        rows = _Rows(self.domain, checked.table)
        for name, part in rows.by_name():
            held = self.names.setdefault(name, Held())
            held.rows += part.stop - part.start
            held.days.append(rows.days[part])
            if self.domain == "equity_ohlcv":
                held.bases.update(rows.bases if len(rows.bases) == 1 else np.unique(rows.basis[part]).tolist())
                held.provisional += int(np.count_nonzero(rows.provisional[part]))

        if self.domain == "equity_ohlcv":
            self._add_oddities(Bars(rows.names, rows.edges, rows.days, rows.bars))

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
            "rejected": self.rejected,
            "merged_duplicates": self.merged,
            "rejected_by_reason": dict(sorted(self.reasons.items())),
            "symbols": {name: self._name_json(name, held, actions) for name, held in sorted(self.names.items())},
        }

    def _name_json(self, name: str, held: Held, actions: Mapping[tuple[str, date], str]) -> dict[str, object]:
        days = held.every_day
        told: dict[str, object] = {"rows": held.rows, "first": as_date(days[0]), "last": as_date(days[-1])}
        if self.domain == "equity_ohlcv":
            told |= {"basis": sorted(held.bases), "provisional": held.provisional}
            told["outliers"] = [
                {"session": day, "scales": round(scales, 1), "action": actions.get((name, day))}
                for day, scales in sorted(held.outliers.items())
            ]
            told["stale"] = [{"first": first, "last": last} for first, last in sorted(held.stale.items())]
        return told


class _Rows:
    """The columns of a table that are looked at, with the rows of each symbol or series together, in their order."""

    def __init__(self, domain: str, table: pa.Table) -> None:
        codes = table["series" if domain == "index_level" else "symbol"].combine_chunks().dictionary_encode()
        self.names: tuple[str, ...] = tuple(codes.dictionary.to_pylist())
        number = codes.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(number, kind="stable")
        self.edges = np.searchsorted(number[order], np.arange(len(self.names) + 1))
        self.days: DateArray = table[DATE_COLUMN[domain]].to_numpy().astype("datetime64[D]")[order]
        if domain == "equity_ohlcv":
            self.bars = np.stack([table[name].to_numpy()[order] for name in (*PRICES, "volume")], axis=1)
            self.bases = pc.unique(table["basis"]).to_pylist()
            self.basis = np.asarray(BASES)[pc.index_in(table["basis"].combine_chunks(), pa.array(BASES)).to_numpy()][order]
            self.provisional = table["provisional"].to_numpy()[order]

    def by_name(self) -> Iterator[tuple[str, slice]]:
        """Yield each name, sorted, with its rows."""
        for code in sorted(range(len(self.names)), key=self.names.__getitem__):
            yield self.names[code], slice(int(self.edges[code]), int(self.edges[code + 1]))
