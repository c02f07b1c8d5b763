"""What the whole history says about vendors: who has a symbol at all, and who may fill whose gaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from quanto.stages.canonical.choice import Overlap, Verdicts
from quanto.stages.canonical.config import Fallback

# Without any overlap a vendor's rows are a history of their own if this many days lie between them and the others':
# no return is formed across the gap.
SEPARATE_DAYS = 30


@dataclass(frozen=True)
class YearOverlap:
    """The overlap that one partition measured, with its symbols and year."""

    year: int
    symbols: tuple[str, ...]
    overlap: Overlap


@dataclass
class _Record:
    """One (vendor, symbol): sessions compared and agreed by year, and the span of its valid bars."""

    years: dict[int, tuple[int, int]]
    first: int
    last: int


def assumed_verdicts(symbols: Sequence[Iterable[str]]) -> Verdicts:
    """Return the verdicts to begin with: every vendor (in priority order) has its raw symbols, nobody is refused."""
    return Verdicts(_present([(position, name) for position, names in enumerate(symbols) for name in names]))


def judge(measured: Iterable[YearOverlap], settings: Fallback) -> Verdicts:
    """Return the verdicts of the whole history.

    A vendor may fill gaps of a symbol in a year if, in that year or the nearest one with `overlap_sessions` compared
    sessions (the earlier of two), a share of `agreement` of its raw closes agreed with the best other vendor's. On one
    basis equal closes mean equal returns, so a change of basis never becomes a return. A vendor that overlaps with
    nobody fills nothing, unless its rows lie a month or more apart from all others: then they are a segment of their own.
    """
    records = _collect(measured)
    present = _present(list(records))
    refused = {}
    for (position, symbol), record in records.items():
        if len(present[symbol]) > 1:
            others = [records[other, symbol] for other in present[symbol] if other != position]
            for year in record.years:
                reason = _objection(record, year, others, settings)
                if reason is not None:
                    refused[position, symbol, year] = reason
    return Verdicts(present, refused)


def _collect(measured: Iterable[YearOverlap]) -> dict[tuple[int, str], _Record]:
    records: dict[tuple[int, str], _Record] = {}
    for item in measured:
        for position, column in zip(*np.nonzero(item.overlap.valid), strict=True):
            first, last = int(item.overlap.first[position, column]), int(item.overlap.last[position, column])
            record = records.setdefault((int(position), item.symbols[column]), _Record({}, first, last))
            compared, agreed = record.years.get(item.year, (0, 0))
            more = int(item.overlap.compared[position, column]), int(item.overlap.agreed[position, column])
            record.years[item.year] = compared + more[0], agreed + more[1]
            record.first, record.last = min(record.first, first), max(record.last, last)
    return dict(sorted(records.items()))


def _present(pairs: Sequence[tuple[int, str]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for position, symbol in sorted(pairs):
        found.setdefault(symbol, []).append(position)
    return {symbol: tuple(positions) for symbol, positions in sorted(found.items())}


def _objection(record: _Record, year: int, others: Sequence[_Record], settings: Fallback) -> str | None:
    enough = [other for other, (compared, _) in record.years.items() if compared >= settings.overlap_sessions]
    if enough:
        nearest = min(enough, key=lambda other: (abs(other - year), other))
        compared, agreed = record.years[nearest]
        return None if agreed >= settings.agreement * compared else "fallback_disagrees"
    apart = all(record.first - other.last > SEPARATE_DAYS or other.first - record.last > SEPARATE_DAYS for other in others)
    return None if apart else "fallback_without_overlap"
