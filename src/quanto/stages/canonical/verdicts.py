"""What the whole history says about vendors: who has a symbol at all, and who may fill whose gaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.stages.canonical.axes import IntArray
from quanto.stages.canonical.choice import Overlap, Verdicts
from quanto.stages.canonical.config import Fallback

BoolArray = npt.NDArray[np.bool_]

# Without any overlap a vendor's rows are a history of their own if this many days lie between them and the others':
# no return is formed across the gap.
SEPARATE_DAYS = 30

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class YearOverlap:
    """The overlap that one partition measured, with its symbols and year."""

    year: int
    symbols: tuple[str, ...]
    overlap: Overlap


@dataclass(frozen=True)
class _History:
    """All partitions' overlaps: valid, compared, agreed by (vendor, symbol, year); spans of valid bars by (vendor, symbol)."""

    symbols: tuple[str, ...]
    years: tuple[int, ...]
    valid: IntArray
    compared: IntArray
    agreed: IntArray
    first: IntArray
    last: IntArray


def assumed_verdicts(symbols: Sequence[Iterable[str]]) -> Verdicts:
    """Return the verdicts to begin with: every vendor (in priority order) has its raw symbols, nobody is refused."""
    sets = [set(names) for names in symbols]
    every = tuple(sorted(set().union(*sets)))
    return Verdicts(every, np.array([[name in names for name in every] for names in sets], dtype=np.bool_).reshape(len(sets), len(every)))


def judge(measured: Sequence[YearOverlap], settings: Fallback) -> Verdicts:
    """Return the verdicts of the whole history.

    A vendor may fill gaps of a symbol in a year if, in that year or the nearest one with `overlap_sessions` compared
    sessions (the earlier of two), a share of `agreement` of its raw closes agreed with the best other vendor's. On one
    basis equal closes mean equal returns, so a change of basis never becomes a return. A vendor that overlaps with
    nobody fills nothing, unless its rows lie a month or more apart from all others: then they are a segment of their own.
    """
    history = _collect(measured)
    present = np.asarray(history.valid.any(axis=2), dtype=np.bool_)
    contested = present & (present.sum(axis=0) > 1)[None, :]
    unproven, wrong = _objections(history, settings)
    alone = contested & ~_apart(history, present)
    refused = {}
    for year in range(len(history.years)):
        here = contested & (history.valid[:, :, year] > 0)
        for reason, hits in (("fallback_disagrees", here & wrong[:, :, year]), ("fallback_without_overlap", here & unproven & alone)):
            for vendor, symbol in zip(*np.nonzero(hits), strict=True):
                refused[int(vendor), history.symbols[symbol], history.years[year]] = reason
    return Verdicts(history.symbols, present, refused)


def _collect(measured: Sequence[YearOverlap]) -> _History:
    symbols = tuple(sorted(set().union(*(item.symbols for item in measured))))
    years = tuple(sorted({item.year for item in measured}))
    vendors = len(measured[0].overlap.valid) if measured else 0
    counts = {name: np.zeros((vendors, len(symbols), len(years)), dtype=np.int64) for name in ("valid", "compared", "agreed")}
    first = np.full((vendors, len(symbols)), _NEVER)
    last = np.full((vendors, len(symbols)), -_NEVER)
    order = {name: column for column, name in enumerate(symbols)}
    for item in measured:
        columns = np.array([order[name] for name in item.symbols], dtype=np.int64)
        year = years.index(item.year)
        for name, values in counts.items():
            values[:, columns, year] += getattr(item.overlap, name)
        there = item.overlap.valid > 0
        first[:, columns] = np.minimum(first[:, columns], np.where(there, item.overlap.first, _NEVER))
        last[:, columns] = np.maximum(last[:, columns], np.where(there, item.overlap.last, -_NEVER))
    return _History(symbols, years, **counts, first=first, last=last)


def _objections(history: _History, settings: Fallback) -> tuple[BoolArray, BoolArray]:
    """Return (vendor, symbol) without enough overlap in any year, and (vendor, symbol, year) whose nearest overlap disagrees."""
    enough = history.compared >= settings.overlap_sessions
    fine = history.agreed >= settings.agreement * history.compared
    wrong = np.zeros(enough.shape, dtype=np.bool_)
    for index, year in enumerate(history.years):
        open_pairs = np.ones(enough.shape[:2], dtype=np.bool_)
        for near in sorted(range(len(history.years)), key=lambda other: (abs(history.years[other] - year), other)):
            decided = open_pairs & enough[:, :, near]
            wrong[:, :, index] |= decided & ~fine[:, :, near]
            open_pairs &= ~decided
    return np.asarray(~enough.any(axis=2), dtype=np.bool_), wrong


def _apart(history: _History, present: BoolArray) -> BoolArray:
    """Return the (vendor, symbol) whose valid bars lie apart in time from every other vendor's."""
    apart = np.ones(present.shape, dtype=np.bool_)
    for one in range(len(present)):
        for other in range(len(present)):
            if one != other:
                both = present[one] & present[other]
                # Spans without valid bars hold sentinels; they are masked before anything is subtracted from them.
                spans = [np.where(both, side[vendor], 0) for vendor in (one, other) for side in (history.first, history.last)]
                clear = (spans[0] - spans[3] > SEPARATE_DAYS) | (spans[2] - spans[1] > SEPARATE_DAYS)
                apart[one] &= ~both | clear
    return apart
