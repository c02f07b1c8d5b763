"""Trailing windows whose bits depend on nothing but the values inside the window.

A running sum carries rounding from the first session to the last, so that a value at t would change when history is
cut on the left. Here each window is folded from blocks of 1, 2, 4, 8 ... sessions in one fixed order (newest block
first): elementwise operations only, the same tree for every position, array length and number of symbols, and
O(log window) passes. Moments are merged by Chan's formula, which is exact for constant data.

1. a leaf is the state of one session; a state is a tuple of arrays, and the arrays of an empty session hold the
   neutral element;
2. `_fold` doubles blocks by `merge(newer, older)` and joins those that the binary digits of the window ask for;
3. what lies before the first session is neutral, as a missing session is;
4. where a block of symbols is completely observed its counts are plain numbers instead of arrays: the same operations
   on the same values, hence the same bits, in half of the time.

Missing values are left out. Unless a minimum is given, a window may lack four sessions or a tenth of its own, whichever is
more (`required`), and must have begun (`CARRIED_SESSIONS`).

Prices and volumes enter with the `split` ratios: inside a merge the older block is brought to the share basis of the
newer one, so that the result is in the basis of t and no later split can change it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from quanto.market.panel import BoolArray, FloatArray

State: TypeAlias = tuple[FloatArray, ...]
# Arrays, or plain numbers where all sessions and symbols of a block have the same.
Folded: TypeAlias = tuple[Any, ...]
Merge: TypeAlias = Callable[[Folded, Folded], Folded]

# Symbols folded at a time: the arrays of a block stay in the processor's cache.
BLOCK_SYMBOLS = 16

# Sessions that a close may be carried over, the length of a trading week. A window has begun if its oldest session, or
# one of the four before it, was observed: a new listing waits for a full window, a halt at its old end does not matter.
CARRIED_SESSIONS = 4

# Below this standard deviation values count as equal: what is left is rounding.
TINY = 1e-12


def required(window: int) -> int:
    """Return how many observations a window of `window` sessions needs.

    It may lack a trading week but one, or a tenth, whichever is more, but never more than half: a halt of a few sessions
    does not silence a name for 200.

    >>> [required(window) for window in (5, 14, 20, 63, 200)]
    [3, 10, 16, 57, 180]
    """
    return max((window + 1) // 2, window - max(CARRIED_SESSIONS, window // 10))


def lag(values: FloatArray, count: int) -> FloatArray:
    """Return the values of `count` sessions earlier; NaN before the first session. Time is the first axis."""
    out = np.full_like(values, np.nan)
    if count < len(values):
        out[count:] = values[: len(values) - count]
    return out


def window_product(values: FloatArray, window: int) -> FloatArray:
    """Return the product over the last `window` sessions; sessions before the first count as 1. NaN spreads."""
    return _by_block(values.shape, (values,), lambda part: _fold(part, window, lambda new, old: (new[0] * old[0],)))[0]


def window_sum(values: FloatArray, window: int, minimum: int | None = None) -> FloatArray:
    """Return the sum of the observed values of the last `window` sessions.

    NaN where fewer than `minimum` of them are observed (default: `required`, of a window that has begun).
    """

    def block(part: State) -> State:
        seen, once = _observed(part, window, minimum)
        count, total = _fold((once, _filled(part[0], seen, 0.0)), window, _merge_sums)
        return (_masked(total, seen, count, window, minimum),)

    return _by_block(values.shape, (values,), block)[0]


def window_mean(values: FloatArray, window: int, minimum: int | None = None) -> FloatArray:
    """Return the mean of the observed values of the last `window` sessions; NaN as `window_sum`."""

    def block(part: State) -> State:
        seen, once = _observed(part, window, minimum)
        count, total = _fold((once, _filled(part[0], seen, 0.0)), window, _merge_sums)
        return (_masked(total / np.maximum(count, 1.0), seen, count, window, minimum),)

    return _by_block(values.shape, (values,), block)[0]


def window_moments(values: FloatArray, window: int, minimum: int | None = None, shift: FloatArray | None = None) -> State:
    """Return mean and standard deviation (ddof 1) of the observed values of the last `window` sessions.

    Parameters
    ----------
    shift
        What must be added to all values before t to bring them to the basis of t, per session (the logarithm of the
        split ratio for log volumes). Never NaN.

    NaN where fewer than `minimum` are observed (default: `required`, of a window that has begun).
    """

    def block(part: State) -> State:
        seen, once = _observed(part[:1], window, minimum)
        leaf: Folded = (once, _filled(part[0], seen, 0.0), 0.0, *part[1:])
        count, mean, square, *_ = _fold(leaf, window, _merge_moments if shift is None else _merge_shifted)
        deviation = np.sqrt(square / np.maximum(count - 1.0, 1.0))
        return tuple(_masked(result, seen, count, window, minimum) for result in (mean, deviation))

    return _by_block(values.shape, (values,) if shift is None else (values, shift), block)


def window_regression(x: FloatArray, y: FloatArray, window: int, minimum: int | None = None) -> State:
    """Return the least-squares slope of y on x (with intercept) and the residuals' standard deviation (n - 2).

    A session counts where both are observed. NaN where fewer than `minimum` count (default as `window_sum`) or x does
    not vary.
    """

    def block(part: State) -> State:
        seen, once = _observed(part, window, minimum)
        zero = np.zeros_like(part[1])
        leaf: Folded = (once, *(_filled(values, seen, 0.0) for values in part), zero, zero, zero)
        count, _, _, xx, yy, xy = _fold(leaf, window, _merge_pairs)
        varies = xx > TINY**2 * np.maximum(count, 1.0)
        slope = np.divide(xy, xx, out=np.full_like(xx, np.nan), where=varies)
        residual = np.sqrt(np.maximum(yy - slope * xy, 0.0) / np.maximum(count - 2.0, 1.0))
        return tuple(_masked(result, seen, count, window, minimum) for result in (slope, residual))

    return _by_block(y.shape, (x, y), block)


def window_price_extremes(high: FloatArray, low: FloatArray, split: FloatArray, window: int) -> State:
    """Return highest high and lowest low of the last `window` sessions, in the share basis of t; NaN as `window_sum`."""

    def block(part: State) -> State:
        seen, once = _observed(part[:2], window, None)
        leaf = (part[2], once, _filled(part[0], seen, -np.inf), _filled(part[1], seen, np.inf))
        _, count, highest, lowest = _fold(leaf, window, _merge_price_extremes)
        return tuple(_masked(result, seen, count, window, None) for result in (highest, lowest))

    return _by_block(high.shape, (high, low, split), block)


def window_price_mean(price: FloatArray, split: FloatArray, window: int) -> FloatArray:
    """Return the mean price of the last `window` sessions, in the share basis of t; NaN as `window_sum`."""

    def block(part: State) -> State:
        seen, once = _observed(part[:1], window, None)
        _, count, total = _fold((part[1], once, _filled(part[0], seen, 0.0)), window, _merge_price_sums)
        return (_masked(total / np.maximum(count, 1.0), seen, count, window, None),)

    return _by_block(price.shape, (price, split), block)[0]


def window_extremes(values: FloatArray, window: int, minimum: int) -> State:
    """Return the largest and the smallest observed value of the last `window` sessions; NaN below `minimum`."""

    def block(part: State) -> State:
        seen, once = _observed(part, window, minimum)
        count, largest, smallest = _fold((once, _filled(part[0], seen, -np.inf), _filled(part[0], seen, np.inf)), window, _merge_extremes)
        return tuple(_masked(result, seen, count, window, minimum) for result in (largest, smallest))

    return _by_block(values.shape, (values,), block)


def window_share_at_most(values: FloatArray, window: int, minimum: int) -> FloatArray:
    """Return the share of the observed values of the last `window` sessions (t included) that are <= the value at t.

    NaN where the value at t is missing or fewer than `minimum` are observed.
    """

    def block(part: State) -> State:
        (values,) = part
        below, count = np.zeros(values.shape), np.zeros(values.shape)
        seen = np.isfinite(values)
        for back in range(min(window, len(values))):
            stop = len(values) - back
            count[back:] += seen[:stop]
            below[back:] += values[:stop] <= values[back:]
        return (np.where(seen & (count >= minimum), below / np.maximum(count, 1.0), np.nan),)

    return _by_block(values.shape, (values,), block)[0]


def window_median(values: FloatArray, window: int) -> FloatArray:
    """Return the median of the observed values of the last `window` sessions; shape (n_sessions,); NaN as `window_sum`."""
    padded = np.concatenate([np.full(window - 1, np.nan), values])
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    rows = np.arange(len(values))
    upper = ordered[rows, np.minimum(count // 2, window - 1)]
    lower = ordered[rows, np.maximum((count - 1) // 2, 0)]
    return _masked(0.5 * (lower + upper), np.isfinite(values), count.astype(np.float64), window, None)


def _by_block(shape: tuple[int, ...], arrays: State, function: Callable[[State], State]) -> State:
    """Return what an elementwise-by-symbol function gives, computed a few symbols at a time."""
    if len(shape) == 1 or shape[1] <= BLOCK_SYMBOLS:
        return function(arrays)
    out: State = ()
    for start in range(0, shape[1], BLOCK_SYMBOLS):
        columns = slice(start, start + BLOCK_SYMBOLS)
        part = function(tuple(np.ascontiguousarray(array[:, columns]) for array in arrays))
        out = out or tuple(np.empty(shape) for _ in part)
        for target, result in zip(out, part, strict=True):
            target[:, columns] = result
    return out


def _observed(arrays: State, window: int, minimum: int | None) -> tuple[BoolArray, FloatArray | float]:
    """Return where all arrays are observed, and that as counts: the number 1 if no session after the first seen lacks any.

    With plain numbers the counts before the window is full are wrong; `_masked` drops those rows, which a minimum
    below the window would keep.
    """
    seen = np.isfinite(arrays[0])
    for array in arrays[1:]:
        seen &= np.isfinite(array)
    if minimum is None or minimum == window:
        rows = seen.reshape(len(seen), -1)
        first = int(np.argmax(rows.any(axis=1))) if len(rows) else 0
        if rows[first:].all():
            return seen, 1.0
    return seen, seen.astype(np.float64)


def _filled(values: FloatArray, seen: BoolArray, neutral: float) -> FloatArray:
    return np.where(seen, values, neutral)


def _masked(values: FloatArray, seen: BoolArray, count: FloatArray | float, window: int, minimum: int | None) -> FloatArray:
    """Return the values where the window is observed well enough, else NaN."""
    if isinstance(count, float) or minimum is None:
        # A completely observed block has a full window exactly where the window's oldest session is observed.
        reach = 1 if isinstance(count, float) and minimum is not None else 1 + CARRIED_SESSIONS
        begun = np.zeros(seen.shape, dtype=np.bool_)
        for back in range(window - 1, min(window - 1 + reach, len(seen))):
            begun[back:] |= seen[: len(seen) - back]
        return np.where(begun & np.asarray(count >= required(window)), values, np.nan)
    return np.where(count >= minimum, values, np.nan)


def _fold(leaf: Folded, window: int, merge: Merge) -> Folded:
    result: Folded | None = None
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


def _join(newer: Folded, older: Folded, distance: int, merge: Merge) -> Folded:
    """Merge the block that ends at t with the block that ends at t - distance; before the first session: newer alone."""
    if distance >= next(len(part) for part in newer if not isinstance(part, float)):
        return newer
    merged = merge(tuple(_rows(part, distance, None) for part in newer), tuple(_rows(part, None, -distance) for part in older))
    return tuple(_behind(part, result, distance) for part, result in zip(newer, merged, strict=True))


def _rows(part: FloatArray | float, start: int | None, stop: int | None) -> FloatArray | float:
    return part if isinstance(part, float) else part[start:stop]


def _behind(newer: FloatArray | float, merged: FloatArray | float, distance: int) -> FloatArray | float:
    if isinstance(merged, float):
        return merged
    out = np.empty((len(merged) + distance, *merged.shape[1:])) if isinstance(newer, float) else np.empty_like(newer)
    head = len(out) - len(merged)
    out[:head] = newer if isinstance(newer, float) else newer[:head]
    out[head:] = merged
    return out


def _merge_sums(new: Folded, old: Folded) -> Folded:
    return new[0] + old[0], new[1] + old[1]


def _merge_moments(new: Folded, old: Folded) -> Folded:
    # Chan, Golub, LeVeque (1983), eq. 2.1.
    (n, mean, square), (n_old, mean_old, square_old) = new, old
    total = n + n_old
    delta = mean_old - mean
    share = n_old / np.maximum(total, 1.0)
    # An empty newer block has mean 0, which is no value: take the older mean as it is.
    merged = _unless_empty(n, mean_old, mean + delta * share)
    return total, merged, square + square_old + delta * delta * (n * share)


def _merge_shifted(new: Folded, old: Folded) -> Folded:
    n_old, mean_old, square_old, shift_old = old
    moved = _unless_empty(n_old, 0.0, mean_old + new[3])
    return (*_merge_moments(new[:3], (n_old, moved, square_old)), new[3] + shift_old)


def _merge_pairs(new: Folded, old: Folded) -> Folded:
    (n, x, y, xx, yy, xy), (n_old, x_old, y_old, xx_old, yy_old, xy_old) = new, old
    total = n + n_old
    share = n_old / np.maximum(total, 1.0)
    weight = n * share
    dx, dy = x_old - x, y_old - y
    return (
        total,
        _unless_empty(n, x_old, x + dx * share),
        _unless_empty(n, y_old, y + dy * share),
        xx + xx_old + dx * dx * weight,
        yy + yy_old + dy * dy * weight,
        xy + xy_old + dx * dy * weight,
    )


def _merge_price_extremes(new: Folded, old: Folded) -> Folded:
    (split, n, high, low), (split_old, n_old, high_old, low_old) = new, old
    return split * split_old, n + n_old, np.maximum(high, high_old / split), np.minimum(low, low_old / split)


def _merge_price_sums(new: Folded, old: Folded) -> Folded:
    (split, n, total), (split_old, n_old, total_old) = new, old
    return split * split_old, n + n_old, total + total_old / split


def _merge_extremes(new: Folded, old: Folded) -> Folded:
    return new[0] + old[0], np.maximum(new[1], old[1]), np.minimum(new[2], old[2])


def _unless_empty(count: FloatArray | float, instead: FloatArray | float, values: FloatArray | float) -> FloatArray | float:
    """Return the values, but `instead` where the count is zero."""
    return values if isinstance(count, float) else np.where(count == 0.0, instead, values)
