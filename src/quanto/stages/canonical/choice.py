"""Choosing one vendor's bar per cell: priority with overrides, consensus, and fallback that must have proved itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from quanto.stages.canonical.axes import Axes, IntArray
from quanto.stages.canonical.bars import FIELDS, BoolArray, FloatArray, VendorBars
from quanto.stages.canonical.config import DomainSources, Fallback, Tolerances

METHODS = ("only", "priority", "fallback", "consensus")


@dataclass(frozen=True)
class Verdicts:
    """What the whole history says about vendors, which no partition can see by itself.

    Attributes
    ----------
    symbols
        Sorted names.
    present
        (n_vendors, n_symbols), vendors in priority order: the vendor has any valid bar of the symbol.
    refused
        (vendor position, symbol, year) -> reason, where a vendor may not fill gaps.
    """

    symbols: tuple[str, ...]
    present: BoolArray
    refused: dict[tuple[int, str, int], str] = field(default_factory=dict)

    def within(self, symbols: Sequence[str], year: int) -> Verdicts:
        """Return the part that concerns one partition, for its symbols in their order."""
        order = {name: column for column, name in enumerate(self.symbols)}
        columns = np.array([order.get(name, -1) for name in symbols], dtype=np.int64)
        padded = np.concatenate([self.present, np.zeros((len(self.present), 1), dtype=np.bool_)], axis=1)
        wanted = set(symbols)
        refused = {key: reason for key, reason in self.refused.items() if key[2] == year and key[1] in wanted}
        return Verdicts(tuple(symbols), padded[:, columns], refused)

    def same(self, other: Verdicts) -> bool:
        """Return whether two parts say the same."""
        return self.symbols == other.symbols and np.array_equal(self.present, other.present) and self.refused == other.refused


@dataclass(frozen=True)
class Overlap:
    """How a partition's vendors agree with each other; arrays (n_vendors, n_symbols).

    `valid`, `compared`, `agreed` count sessions; `first` and `last` are days since 1970, meaningless without valid bars.
    """

    valid: IntArray
    compared: IntArray
    agreed: IntArray
    first: IntArray
    last: IntArray


def measure_overlap(vendors: Sequence[VendorBars], barred: Sequence[BoolArray], axes: Axes, settings: Fallback) -> Overlap:
    """Return per vendor and symbol the valid bars, and how many closes agree with the best of the other vendors.

    Cells that are `barred` (per vendor) count as missing.
    """
    shape = (len(vendors), len(axes.symbols))
    valid, compared, agreed, early, late = (np.zeros(shape, dtype=np.int64) for _ in range(5))
    days = axes.sessions[axes.core].astype(np.int64)
    closes = [
        np.where(out[axes.core], np.nan, bars.fields["close"][axes.core]) if out.any() else bars.fields["close"][axes.core]
        for bars, out in zip(vendors, barred, strict=True)
    ]
    first, second = np.full(closes[0].shape, np.nan), np.full(closes[0].shape, np.nan)
    holder = np.full(closes[0].shape, -1, dtype=np.int8)
    for position, close in enumerate(closes):
        here = np.isfinite(close)
        valid[position] = here.sum(axis=0)
        if len(days):
            early[position] = days[here.argmax(axis=0)]
            late[position] = days[len(days) - 1 - here[::-1].argmax(axis=0)]
        later = here & (holder >= 0) & np.isnan(second)
        second[later] = close[later]
        opening = here & (holder < 0)
        first[opening] = close[opening]
        holder[opening] = position
    for position, close in enumerate(closes):
        with np.errstate(invalid="ignore"):
            difference = np.abs(close / np.where(holder == position, second, first) - 1.0)
        compared[position] = np.isfinite(difference).sum(axis=0)
        agreed[position] = (difference <= settings.tolerance).sum(axis=0)
    return Overlap(valid, compared, agreed, early, late)


@dataclass(frozen=True)
class Choice:
    """The chosen vendor per cell (position, -1: none), the method (index into METHODS), and refused cells by reason."""

    vendor: IntArray
    method: IntArray
    refused: list[tuple[int, str, BoolArray]]


def choose(
    vendors: Sequence[VendorBars],
    names: Sequence[str],
    axes: Axes,
    year: int,
    sources: DomainSources,
    verdicts: Verdicts,
    tolerances: Tolerances,
    barred: Sequence[BoolArray],
) -> Choice:
    """Return the choice for every cell; a bar that is `barred` (per vendor) is never chosen, only compared.

    A cell's order of vendors is the priority, changed by the first override that fits. The first vendor with a valid
    bar is taken; one that stands below the cell's leader (the first that has the symbol at all) is a fallback, and
    must not have been refused. Under `consensus` the bar whose close most others confirm is taken, ties by order.
    """
    valid = np.stack([bars.valid & ~out if out.any() else bars.valid for bars, out in zip(vendors, barred, strict=True)])
    vendor = np.full(axes.shape, -1, dtype=np.int64)
    method = np.zeros(axes.shape, dtype=np.int64)
    refused: list[tuple[int, str, BoolArray]] = []
    for order, cells in orders_of(names, axes, sources):
        leaders = _leaders(order, verdicts)
        left = valid & cells
        for rank, position in enumerate(order):
            candidate = left[position] & (vendor < 0)
            below = candidate & (leaders < rank)[None, :]
            for reason, mask in _refused_cells(position, year, axes, verdicts):
                hit = below & mask
                if hit.any():
                    refused.append((position, reason, hit))
                    candidate &= ~hit
                    below &= ~hit
            vendor[candidate] = position
            method[candidate] = METHODS.index("priority")
            method[below] = METHODS.index("fallback")
    # Where nobody else has the bar, it is quarantined with its reason.
    refused += [
        (at, "split_contradicted", alone) for at, out in enumerate(barred) if (alone := out & vendors[at].valid & (vendor < 0)).any()
    ]
    usable = valid.copy()
    for position, _, hit in refused:
        usable[position] &= ~hit
    if sources.policy == "consensus":
        _vote(vendors, usable, vendor, method, tolerances)
    alone = (usable.sum(axis=0) == 1) & (method == METHODS.index("priority"))
    method[alone] = METHODS.index("only")
    return Choice(vendor, method, refused)


def orders_of(names: Sequence[str], axes: Axes, sources: DomainSources) -> list[tuple[list[int], BoolArray]]:
    """Return (order of vendor positions, cells) pairs that cover the grid; the first override that fits a cell holds."""
    everything = [names.index(name) for name in sources.priority if name in names]
    free = np.ones(axes.shape, dtype=np.bool_)
    found: list[tuple[list[int], BoolArray]] = []
    for override in sources.overrides:
        cells = free.copy()
        if override.symbols:
            cells &= np.isin(np.array(axes.symbols), np.array(override.symbols))[None, :]
        if override.start:
            cells &= (axes.sessions >= np.datetime64(override.start, "D"))[:, None]
        if override.end:
            cells &= (axes.sessions <= np.datetime64(override.end, "D"))[:, None]
        first = [names.index(name) for name in override.priority if name in names]
        if cells.any():
            found.append(([*first, *(position for position in everything if position not in first)], cells))
            free &= ~cells
    found.append((everything, free))
    return found


def _leaders(order: Sequence[int], verdicts: Verdicts) -> IntArray:
    """Return per symbol the rank, within this order, of its leader: the first vendor that has any valid bar of it."""
    ordered = verdicts.present[list(order)]
    return np.where(ordered.any(axis=0), ordered.argmax(axis=0), len(order))


def _refused_cells(position: int, year: int, axes: Axes, verdicts: Verdicts) -> list[tuple[str, BoolArray]]:
    by_reason: dict[str, BoolArray] = {}
    order = {name: column for column, name in enumerate(axes.symbols)}
    for (vendor, symbol, when), reason in verdicts.refused.items():
        if vendor == position and when == year and symbol in order:
            by_reason.setdefault(reason, np.zeros(axes.shape, dtype=np.bool_))[:, order[symbol]] = True
    return sorted(by_reason.items())


def _vote(vendors: Sequence[VendorBars], usable: BoolArray, vendor: IntArray, method: IntArray, tolerances: Tolerances) -> None:
    """Move cells to the vendor with most confirmations where the chosen has fewer (in place)."""
    count = len(vendors)
    votes = np.zeros((count, *vendor.shape), dtype=np.int64)
    for one in range(count):
        for other in range(one + 1, count):
            agree = _bars_agree(vendors[one].fields, vendors[other].fields, tolerances) & usable[one] & usable[other]
            votes[one] += agree
            votes[other] += agree
    best = votes.max(axis=0)
    chosen = np.take_along_axis(votes, np.maximum(vendor, 0)[None], axis=0)[0]
    moved = (vendor >= 0) & (chosen < best)
    vendor[moved] = np.argmax(votes, axis=0)[moved]
    method[moved] = METHODS.index("consensus")


def _bars_agree(one: dict[str, FloatArray], other: dict[str, FloatArray], tolerances: Tolerances) -> BoolArray:
    with np.errstate(invalid="ignore"):
        return np.abs(one["close"] / other["close"] - 1.0) <= tolerances.close


def relative_disagreement(vendors: Sequence[VendorBars], vendor: IntArray, chosen: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return per field max over other vendors of |other / chosen - 1|; NaN where no other vendor has the bar.

    Where the chosen volume is zero and another's is not, the disagreement is 1.
    """
    out = {}
    for name in FIELDS:
        worst = np.full(vendor.shape, np.nan)
        for position, bars in enumerate(vendors):
            difference = difference_to(bars.fields[name], chosen[name])
            difference[vendor == position] = np.nan
            np.fmax(worst, difference, out=worst)
        out[name] = worst
    return out


def difference_to(other: FloatArray, chosen: FloatArray) -> FloatArray:
    """Return |other / chosen - 1|; 1 where chosen is zero and other is not, 0 where both are; NaN where one is missing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(other / chosen - 1.0)
    zero = chosen == 0
    if zero.any():
        difference[zero] = np.where(np.isnan(other[zero]), np.nan, (other[zero] != 0).astype(np.float64))
    return difference
