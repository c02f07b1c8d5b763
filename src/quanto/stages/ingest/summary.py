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
    tail_days: DateArray = field(default_factory=NO_DAYS.copy)

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
        rows = _Rows(self.domain, checked.table)
        for name, part in rows.by_name():
            held = self.names.setdefault(name, Held())
            held.rows += part.stop - part.start
            held.days.append(rows.days[part])
            if self.domain == "equity_ohlcv":
                held.bases.update(rows.bases if len(rows.bases) == 1 else np.unique(rows.basis[part]).tolist())
                held.provisional += int(np.count_nonzero(rows.provisional[part]))
                _add_oddities(held, rows.days[part], rows.bars[part])

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
        self._names = codes.dictionary.to_pylist()
        number = codes.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(number, kind="stable")
        self._edges = np.searchsorted(number[order], np.arange(len(self._names) + 1))
        self.days: DateArray = table[DATE_COLUMN[domain]].to_numpy().astype("datetime64[D]")[order]
        if domain == "equity_ohlcv":
            self.bars = np.stack([table[name].to_numpy()[order] for name in (*PRICES, "volume")], axis=1)
            self.bases = pc.unique(table["basis"]).to_pylist()
            self.basis = np.asarray(BASES)[pc.index_in(table["basis"].combine_chunks(), pa.array(BASES)).to_numpy()][order]
            self.provisional = table["provisional"].to_numpy()[order]

    def by_name(self) -> Iterator[tuple[str, slice]]:
        """Yield each name, sorted, with its rows."""
        for code in sorted(range(len(self._names)), key=self._names.__getitem__):
            yield self._names[code], slice(int(self._edges[code]), int(self._edges[code + 1]))


def _add_oddities(held: Held, days: DateArray, bars: npt.NDArray[np.float64]) -> None:
    before = 0 if held.tail is None else len(held.tail)
    if held.tail is not None:
        bars = np.concatenate([held.tail, bars])
        days = np.concatenate([held.tail_days, days])
    found = oddities(bars[:, PRICES.index("close")], bars)
    held.stale |= {as_date(days[first]): as_date(days[last]) for first, last in found.stale}
    held.outliers |= {as_date(days[at]): scales for at, scales in found.outliers if at >= before}
    held.tail, held.tail_days = bars[-WINDOW - 1 :].copy(), days[-WINDOW - 1 :].copy()
