"""Trailing windows whose bits depend on nothing but the values inside the window.

A running sum carries rounding from the first session to the last, so that a value at t would change when history is
cut on the left. Here each window is folded from blocks of 1, 2, 4, 8 ... sessions in one fixed order (newest block
first): elementwise operations only, the same tree for every position, array length and number of symbols, and
O(log window) passes. Moments are merged by Chan's formula, which is exact for constant data.

1. a leaf is the state of one session; a state is a tuple of arrays, and the arrays of an empty session hold the
   neutral element;
2. `_fold` doubles blocks by `merge(newer, older)` and joins those that the binary digits of the window ask for;
3. what lies before the first session is neutral, as a missing session is.

Missing values are left out. Unless a minimum is given, a window needs nine tenths of its sessions, and must have begun
(`CARRIED_SESSIONS`).

Prices and volumes enter with the `split` ratios: inside a merge the older block is brought to the share basis of the
newer one, so that the result is in the basis of t and no later split can change it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from quanto.market.panel import BoolArray, FloatArray

State: TypeAlias = tuple[FloatArray, ...]
Merge: TypeAlias = Callable[[State, State], State]

# Symbols folded at a time: the arrays of a block stay in the processor's cache.
BLOCK_SYMBOLS = 16

# Share of a window that must be observed: one missing bar does not silence a name for 200 sessions.
REQUIRED_SHARE = 0.9

# Sessions that a close may be carried over, the length of a trading week. A window has begun if its oldest session, or
# one of the four before it, was observed: a new listing waits for a full window, a halt at its old end does not matter.
CARRIED_SESSIONS = 4

# Below this standard deviation values count as equal: what is left is rounding.
TINY = 1e-12


def required(window: int) -> int:
    """Return how many observations a window of `window` sessions needs: nine tenths, rounded up."""
    return math.ceil(REQUIRED_SHARE * window - 1e-9)


def lag(values: FloatArray, count: int) -> FloatArray:
    """Return the values of `count` sessions earlier; NaN before the first session. Time is the first axis."""
    out = np.full_like(values, np.nan)
    if count < len(values):
        out[count:] = values[: len(values) - count]
    return out


def window_product(values: FloatArray, window: int) -> FloatArray:
    """Return the product over the last `window` sessions; sessions before the first count as 1. NaN spreads."""
    return _fold((values,), window, lambda new, old: (new[0] * old[0],))[0]


def window_sum(values: FloatArray, window: int, minimum: int | None = None) -> FloatArray:
    """Return the sum of the observed values of the last `window` sessions.

    NaN where fewer than `minimum` of them are observed (default: nine tenths, of a window that has begun).
    """
    seen = np.isfinite(values)
    leaf = (seen.astype(np.float64), np.where(seen, values, 0.0))
    count, total = _fold(leaf, window, lambda new, old: (new[0] + old[0], new[1] + old[1]))
    return np.where(_full(seen, count, window, minimum), total, np.nan)


def window_mean(values: FloatArray, window: int, minimum: int | None = None) -> FloatArray:
    """Return the mean of the observed values of the last `window` sessions; NaN as `window_sum`."""
    seen = np.isfinite(values)
    leaf = (seen.astype(np.float64), np.where(seen, values, 0.0))
    count, total = _fold(leaf, window, lambda new, old: (new[0] + old[0], new[1] + old[1]))
    return np.where(_full(seen, count, window, minimum), total / np.maximum(count, 1.0), np.nan)


def window_moments(values: FloatArray, window: int, minimum: int | None = None, shift: FloatArray | None = None) -> State:
    """Return mean and standard deviation (ddof 1) of the observed values of the last `window` sessions.

    Parameters
    ----------
    shift
        What must be added to all values before t to bring them to the basis of t, per session (the logarithm of the
        split ratio for log volumes). Never NaN.

    NaN where fewer than `minimum` are observed (default: nine tenths, of a window that has begun).
    """
    seen = np.isfinite(values)
    leaf = (seen.astype(np.float64), np.where(seen, values, 0.0), np.zeros_like(values))
    if shift is None:
        count, mean, square = _fold(leaf, window, _merge_moments)
    else:
        count, mean, square, _ = _fold((*leaf, shift), window, _merge_shifted)
    deviation = np.sqrt(square / np.maximum(count - 1.0, 1.0))
    full = _full(seen, count, window, minimum)
    return np.where(full, mean, np.nan), np.where(full, deviation, np.nan)


def window_regression(x: FloatArray, y: FloatArray, window: int, minimum: int | None = None) -> State:
    """Return the least-squares slope of y on x (with intercept) and the residuals' standard deviation (n - 2).

    A session counts where both are observed. NaN where fewer than `minimum` count (default as `window_sum`) or x does not vary.
    """
    seen = np.isfinite(x) & np.isfinite(y)
    zero = np.zeros_like(y)
    leaf = (seen.astype(np.float64), np.where(seen, x, 0.0), np.where(seen, y, 0.0), zero, zero, zero)
    count, _, _, xx, yy, xy = _fold(leaf, window, _merge_pairs)
    varies = xx > TINY**2 * np.maximum(count, 1.0)
    slope = np.divide(xy, xx, out=np.full_like(xx, np.nan), where=varies)
    rest = np.maximum(yy - slope * xy, 0.0)
    residual = np.sqrt(rest / np.maximum(count - 2.0, 1.0))
    full = _full(seen, count, window, minimum)
    return np.where(full, slope, np.nan), np.where(full, residual, np.nan)


def window_price_extremes(high: FloatArray, low: FloatArray, split: FloatArray, window: int) -> State:
    """Return highest high and lowest low of the last `window` sessions, in the share basis of t.

    NaN as `window_sum`.
    """
    seen = np.isfinite(high) & np.isfinite(low)
    leaf = (split, seen.astype(np.float64), np.where(seen, high, -np.inf), np.where(seen, low, np.inf))
    _, count, highest, lowest = _fold(leaf, window, _merge_extremes)
    full = _full(seen, count, window, None)
    return np.where(full, highest, np.nan), np.where(full, lowest, np.nan)


def window_price_mean(price: FloatArray, split: FloatArray, window: int) -> FloatArray:
    """Return the mean price of the last `window` sessions, in the share basis of t; NaN as `window_sum`."""
    seen = np.isfinite(price)
    leaf = (split, seen.astype(np.float64), np.where(seen, price, 0.0))
    _, count, total = _fold(leaf, window, _merge_price_sums)
    return np.where(_full(seen, count, window, None), total / np.maximum(count, 1.0), np.nan)


def window_extremes(values: FloatArray, window: int, minimum: int) -> State:
    """Return the largest and the smallest observed value of the last `window` sessions; NaN below `minimum`."""
    seen = np.isfinite(values)
    leaf = (seen.astype(np.float64), np.where(seen, values, -np.inf), np.where(seen, values, np.inf))
    count, largest, smallest = _fold(leaf, window, _merge_plain_extremes)
    full = _full(seen, count, window, minimum)
    return np.where(full, largest, np.nan), np.where(full, smallest, np.nan)


def window_share_at_most(values: FloatArray, window: int, minimum: int) -> FloatArray:
    """Return the share of the observed values of the last `window` sessions (t included) that are <= the value at t.

    NaN where the value at t is missing or fewer than `minimum` are observed.
    """
    (out,) = _by_block((values,), lambda block: (_share_at_most(block[0], window, minimum),))
    return out


def _share_at_most(values: FloatArray, window: int, minimum: int) -> FloatArray:
    below, count = np.zeros(values.shape), np.zeros(values.shape)
    seen = np.isfinite(values)
    for back in range(min(window, len(values))):
        stop = len(values) - back
        count[back:] += seen[:stop]
        below[back:] += values[:stop] <= values[back:]
    return np.where(seen & (count >= minimum), below / np.maximum(count, 1.0), np.nan)


def window_median(values: FloatArray, window: int) -> FloatArray:
    """Return the median of the observed values of the last `window` sessions; shape (n_sessions,); NaN as `window_sum`."""
    padded = np.concatenate([np.full(window - 1, np.nan), values])
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    rows = np.arange(len(values))
    upper = ordered[rows, np.minimum(count // 2, window - 1)]
    lower = ordered[rows, np.maximum((count - 1) // 2, 0)]
    full = _full(np.isfinite(values), count.astype(np.float64), window, None)
    return np.where(full, 0.5 * (lower + upper), np.nan)


def _fold(leaf: State, window: int, merge: Merge) -> State:
    return _by_block(leaf, lambda block: _fold_block(block, window, merge))


def _by_block(arrays: State, function: Callable[[State], State]) -> State:
    """Return what an elementwise-by-symbol function gives, computed a few symbols at a time."""
    if arrays[0].ndim == 1 or arrays[0].shape[1] <= BLOCK_SYMBOLS:
        return function(arrays)
    starts = range(0, arrays[0].shape[1], BLOCK_SYMBOLS)
    parts = [function(tuple(np.ascontiguousarray(array[:, start : start + BLOCK_SYMBOLS]) for array in arrays)) for start in starts]
    return tuple(np.concatenate(pieces, axis=1) for pieces in zip(*parts, strict=True))


def _fold_block(leaf: State, window: int, merge: Merge) -> State:
    result: State | None = None
    covered = 0
    block, size = leaf, 1
    while True:
        if window & size:
            result = block if result is None else _join(result, block, covered, merge)
            covered += size
        if 2 * size > window:
            break
        block, size = _join(block, block, size, merge), 2 * size
    if result is None:
        raise ValueError(f"a window has one session or more, found {window}")
    return result


def _join(newer: State, older: State, distance: int, merge: Merge) -> State:
    """Merge the block that ends at t with the block that ends at t - distance; before the first session: newer alone."""
    length = len(newer[0])
    if distance >= length:
        return newer
    merged = merge(tuple(array[distance:] for array in newer), tuple(array[: length - distance] for array in older))
    return tuple(np.concatenate([array[:distance], part]) for array, part in zip(newer, merged, strict=True))


def _full(seen: BoolArray, count: FloatArray, window: int, minimum: int | None) -> BoolArray:
    """Return where a window is observed well enough."""
    if minimum is not None:
        return np.asarray(count >= minimum)
    begun = np.zeros(seen.shape, dtype=np.bool_)
    for back in range(window - 1, window + CARRIED_SESSIONS):
        if back < len(seen):
            begun[back:] |= seen[: len(seen) - back]
    return begun & (count >= required(window))


def _merge_moments(new: State, old: State) -> State:
    # Chan, Golub, LeVeque (1983), eq. 2.1.
    (n, mean, square), (n_old, mean_old, square_old) = new, old
    total = n + n_old
    delta = mean_old - mean
    share = n_old / np.maximum(total, 1.0)
    # An empty newer block has mean 0, which is no value: take the older mean as it is.
    merged = np.where(n == 0.0, mean_old, mean + delta * share)
    return total, merged, square + square_old + delta * delta * (n * share)


def _merge_shifted(new: State, old: State) -> State:
    n_old, mean_old, square_old, shift_old = old
    moved = np.where(n_old == 0.0, 0.0, mean_old + new[3])
    return (*_merge_moments(new[:3], (n_old, moved, square_old)), new[3] + shift_old)


def _merge_pairs(new: State, old: State) -> State:
    (n, x, y, xx, yy, xy), (n_old, x_old, y_old, xx_old, yy_old, xy_old) = new, old
    total = n + n_old
    share = n_old / np.maximum(total, 1.0)
    weight = n * share
    dx, dy = x_old - x, y_old - y
    return (
        total,
        np.where(n == 0.0, x_old, x + dx * share),
        np.where(n == 0.0, y_old, y + dy * share),
        xx + xx_old + dx * dx * weight,
        yy + yy_old + dy * dy * weight,
        xy + xy_old + dx * dy * weight,
    )


def _merge_extremes(new: State, old: State) -> State:
    (split, n, high, low), (split_old, n_old, high_old, low_old) = new, old
    return split * split_old, n + n_old, np.maximum(high, high_old / split), np.minimum(low, low_old / split)


def _merge_price_sums(new: State, old: State) -> State:
    (split, n, total), (split_old, n_old, total_old) = new, old
    return split * split_old, n + n_old, total + total_old / split


def _merge_plain_extremes(new: State, old: State) -> State:
    return new[0] + old[0], np.maximum(new[1], old[1]), np.minimum(new[2], old[2])
