"""Coverage: which requested sessions no vendor has a row for, and which of those gaps stop the work. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quanto.market.calendar import DateArray, as_date, sessions_between

# The domains in which every requested name must have rows; corporate actions may honestly be none.
COVERED = ("equity_ohlcv", "options_surface", "index_level")

# Actions after which a symbol has no more bars.
ENDINGS = ("cash_merger", "stock_merger", "delisting", "symbol_change")


@dataclass(frozen=True)
class Coverage:
    """One requested name: how many days were wanted, how many have a row, the ranges without one, and what is wrong."""

    domain: str
    name: str
    wanted: int
    covered: int
    gaps: tuple[tuple[date, date], ...]
    fault: str  # empty where the gaps may stand: a later listing, single missing sessions

    def as_json(self) -> dict[str, object]:
        """Return the coverage for the report."""
        gaps = [{"first": first, "last": last} for first, last in self.gaps]
        return {"wanted": self.wanted, "covered": self.covered, "gaps": gaps, "fault": self.fault or None}


def coverage(
    domain: str, names: Sequence[str], present: Mapping[str, DateArray], start: date, end: date, tolerance: int, endings: Mapping[str, date]
) -> list[Coverage]:
    """Return the coverage of each name over the sessions from `start` to `end`; `present`: its days with any vendor.

    A name without any row is at fault, and one whose rows end more than `tolerance` sessions before `end`, unless an
    action ended it (`endings`: symbol -> ex-date). A gap at the beginning is a later listing as far as anyone can tell,
    and a surface may be sparse: chains answer for a single session.
    A monthly series is held against the months that ended in the range.
    """
    nothing: DateArray = np.empty(0, "datetime64[D]")
    return [_one(domain, name, present.get(name, nothing), start, end, tolerance, endings.get(name)) for name in names]


def endings(actions: Sequence[pa.Table]) -> dict[str, date]:
    """Return the date on which each symbol ends by a merger, a delisting or a new name; the last one where several."""
    found: dict[str, date] = {}
    for table in actions:
        ended = table.filter(pc.is_in(table["kind"], pa.array(ENDINGS)))
        for symbol, day in zip(ended["symbol"].to_pylist(), ended["ex_date"].to_pylist(), strict=True):
            found[symbol] = max(day, found.get(symbol, day))
    return found


def ranges(days: DateArray, missing: npt.NDArray[np.bool_]) -> tuple[tuple[date, date], ...]:
    """Return the runs of missing days as (first, last)."""
    edges = np.diff(np.concatenate([[False], missing, [False]]).astype(np.int8))
    return tuple(
        (as_date(days[first]), as_date(days[last - 1]))
        for first, last in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    )


def _one(domain: str, name: str, present: DateArray, start: date, end: date, tolerance: int, ended: date | None) -> Coverage:
    if ended is not None:
        end = min(end, ended - timedelta(days=1))
    monthly = domain == "index_level" and _is_monthly(present)
    wanted = _month_ends(start, end) if monthly else sessions_between(start, end)
    missing = ~np.isin(wanted, present)
    gaps = ranges(wanted, missing)
    fault = ""
    if missing.all() and len(wanted):
        fault = f"{name} {start}..{end}"
    elif domain != "options_surface" and len(wanted) and missing[-1] and _length(wanted, gaps[-1]) > (1 if monthly else tolerance):
        fault = f"{name} {gaps[-1][0]}..{gaps[-1][1]}"
    return Coverage(domain, name, len(wanted), int((~missing).sum()), gaps, fault)


def _is_monthly(days: DateArray) -> bool:
    return len(days) > 0 and bool((days + 1 == (days + 1).astype("datetime64[M]").astype("datetime64[D]")).all())


def _month_ends(start: date, end: date) -> DateArray:
    months = np.arange(np.datetime64(start, "M"), np.datetime64(end + timedelta(days=1), "M"))
    ends: DateArray = (months + 1).astype("datetime64[D]") - 1
    return ends[ends >= np.datetime64(start, "D")]


def _length(days: DateArray, gap: tuple[date, date]) -> int:
    low, high = np.searchsorted(days, np.array(gap, dtype="datetime64[D]"))
    return int(high - low + 1)
