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
from quanto.market.schema import DATE_COLUMN, PRICES
from quanto.stages.ingest.quality import WINDOW, oddities
from quanto.stages.ingest.validate import Checked

NO_DAYS: DateArray = np.empty(0, "datetime64[D]")


@dataclass
class Held:
    """One symbol or series: its days, the bases of its rows, and what looks odd in its bars."""

    days: list[DateArray] = field(default_factory=list)
    rows: int = 0
    bases: set[str] = field(default_factory=set)
    provisional: int = 0
    stale: dict[date, date] = field(default_factory=dict)  # first day of a run -> last
    outliers: dict[date, float] = field(default_factory=dict)  # session -> distance in robust scales
    tail: npt.NDArray[np.float64] | None = None  # the last bars of the partition before, for their surroundings

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

    def add(self, checked: Checked) -> None:
        """Count the rows of one partition."""
        self.rows += len(checked.table)
        self.merged += checked.merged
        self.rejected += len(checked.quarantine)
        self.reasons.update(checked.quarantine["reason"].to_pylist())
        for name, rows in _by_name(self.domain, checked.table):
            self._add_name(self.names.setdefault(name, Held()), checked.table, rows)

    def as_json(self, actions: Mapping[tuple[str, date], str]) -> dict[str, object]:
        """Return the counts for the report; `actions` (symbol, ex-date) -> kind stand beside the outliers they explain."""
        return {
            "rows": self.rows,
            "rejected": self.rejected,
            "merged_duplicates": self.merged,
            "rejected_by_reason": dict(sorted(self.reasons.items())),
            "symbols": {name: self._name_json(name, held, actions) for name, held in sorted(self.names.items())},
        }

    def _add_name(self, held: Held, table: pa.Table, rows: npt.NDArray[np.int64]) -> None:
        days = table[DATE_COLUMN[self.domain]].to_numpy().astype("datetime64[D]")[rows]
        held.rows += len(rows)
        held.days.append(days)
        if self.domain != "equity_ohlcv":
            return
        index = pa.array(rows)
        held.bases.update(pc.unique(table["basis"].take(index)).to_pylist())
        held.provisional += pc.sum(table["provisional"].take(index)).as_py() or 0
        bars = np.stack([table[name].to_numpy()[rows] for name in (*PRICES, "volume")], axis=1)
        self._add_oddities(held, days, bars)

    def _add_oddities(self, held: Held, days: DateArray, bars: npt.NDArray[np.float64]) -> None:
        before = 0 if held.tail is None else len(held.tail)
        if held.tail is not None:
            bars = np.concatenate([held.tail, bars])
            days = np.concatenate([*held.days[:-1], days])[-len(bars) :]
        found = oddities(bars[:, PRICES.index("close")], bars)
        held.stale |= {as_date(days[first]): as_date(days[last]) for first, last in found.stale}
        held.outliers |= {as_date(days[at]): scales for at, scales in found.outliers if at >= before}
        held.tail = bars[-WINDOW - 1 :]

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


def _by_name(domain: str, table: pa.Table) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Yield each symbol or series with the positions of its rows, in their order; names sorted."""
    if len(table) == 0:
        return
    codes = table["series" if domain == "index_level" else "symbol"].combine_chunks().dictionary_encode()
    number = codes.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(len(codes.dictionary) + 1))
    for name, code in sorted(zip(codes.dictionary.to_pylist(), range(len(codes.dictionary)), strict=True)):
        yield name, order[starts[code] : starts[code + 1]]
