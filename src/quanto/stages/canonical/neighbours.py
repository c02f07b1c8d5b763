"""Faults that show only against the sessions around a bar: spikes that revert, and bars that repeat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quanto.market.schema import PRICES
from quanto.stages.canonical.bars import FIELDS, FloatArray, VendorBars
from quanto.stages.canonical.config import Validation

BoolArray = npt.NDArray[np.bool_]

# Sessions on either side whose moves make the scale of a suspected spike; the two moves of the spike itself are left out.
_SCALE_REACH = 5
# The same bar number may be seen twice in a quiet name; below this many raw moves there is no scale.
_LEAST_MOVES = 3
_CONFIRMED = 0.02


def repeats(bars: VendorBars, longest: int) -> npt.NDArray[np.int64]:
    """Return how many sessions running, up to `longest`, each bar has repeated the bar of the session before.

    Shape (n_sessions, n_symbols); 0 where a value differs or a bar is missing. A bar repeats where all prices and the
    volume are equal, or where nothing traded and all prices equal the close before.
    """
    close, volume = bars.fields["close"], bars.fields["volume"]
    same = np.zeros(close.shape, dtype=np.bool_)
    same[1:] = close[1:] == close[:-1]
    if same.any():
        equal = np.ones_like(same)
        quiet = volume == 0
        for name in FIELDS:
            equal[1:] &= bars.fields[name][1:] == bars.fields[name][:-1]
        for name in PRICES:
            quiet[1:] &= bars.fields[name][1:] == close[:-1]
        same &= equal | quiet
    run = same.astype(np.int64)
    counted = run.copy()
    for step in range(1, longest):
        # The run goes on only through an unbroken chain of repeats.
        counted[step:] += (counted[step:] == step) & (run[:-step] == 1)
    return counted


def spikes(close: FloatArray, settings: Validation) -> BoolArray:
    """Return the closes that jump away from both neighbours and back by more than their surroundings explain.

    The size of a spike is the smaller of its two moves (log); it must exceed `spike_move`, and `spike_scales` times the
    median absolute move of the sessions around it, its own two moves left out. A level shift (a split, a crash that
    stays) is no spike. Shape (n_sessions, n_symbols); False at the edges and next to missing bars.
    """
    hit = np.zeros(close.shape, dtype=np.bool_)
    if len(close) < 3:
        return hit
    with np.errstate(invalid="ignore", divide="ignore"):
        move = np.diff(np.log(close), axis=0)
        size = np.minimum(np.abs(move[:-1]), np.abs(move[1:]))
        candidates = (move[:-1] * move[1:] < 0) & (size > settings.spike_move)
    for row, column in zip(*np.nonzero(candidates), strict=True):
        low, high = max(0, row - _SCALE_REACH), row + 2 + _SCALE_REACH
        around = np.abs(np.concatenate([move[low:row, column], move[row + 2 : high, column]]))
        around = around[np.isfinite(around)]
        if len(around) >= _LEAST_MOVES and size[row, column] > settings.spike_scales * np.median(around):
            hit[row + 1, column] = True
    return hit


def excursions(bars: VendorBars, settings: Validation) -> dict[str, BoolArray]:
    """Return, for high and low, the extremes that lie out of all proportion to their own bar and its surroundings.

    An extreme's excursion is its distance (log) from the nearer of open and close; it must exceed `range_move`, and
    `spike_scales` times the median excursion of the sessions around it, its own left out (where there are any).
    """
    opened, high, low, close = (bars.fields[name] for name in PRICES)
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes = {"high": np.log(high / np.maximum(opened, close)), "low": np.log(np.minimum(opened, close) / low)}
    found = {}
    for name, size in sizes.items():
        hit = np.zeros(size.shape, dtype=np.bool_)
        for row, column in zip(*np.nonzero(size > settings.range_move), strict=True):
            around = np.concatenate([size[max(0, row - _SCALE_REACH) : row, column], size[row + 1 : row + 1 + _SCALE_REACH, column]])
            around = around[np.isfinite(around)]
            hit[row, column] = not len(around) or size[row, column] > settings.spike_scales * np.median(around)
        found[name] = hit
    return found


def confirmed(spike: BoolArray, name: str, bars: VendorBars, others: list[VendorBars]) -> BoolArray:
    """Return the odd values of a field that another vendor has as well (within 2 %): news, not a bad tick."""
    out = np.zeros_like(spike)
    for other in others:
        with np.errstate(invalid="ignore"):
            out |= spike & (np.abs(other.fields[name] / bars.fields[name] - 1.0) <= _CONFIRMED)
    return out
