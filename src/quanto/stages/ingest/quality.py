"""What looks odd in bars that are possible: prices that stand still, and returns far outside their surroundings. Pure.

Nothing is set aside for looking odd: a crash is real, and only another vendor can tell. The report names the sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STALE_SESSIONS = 5  # a run of at least so many equal bars is stale
WINDOW = 31  # sessions before and after a return that give its scale
OUTLIER_SCALES = 8.0
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Oddities:
    """Runs of equal bars as (first, last) positions, and positions of outlying returns with their distance in scales."""

    stale: tuple[tuple[int, int], ...]
    outliers: tuple[tuple[int, float], ...]


def oddities(close: FloatArray, bars: FloatArray) -> Oddities:
    """Return what is odd in one symbol's bars, ascending by session.

    `close` has shape (n,); `bars` (n, k) holds whatever must be equal for a bar to repeat the one before, e.g. prices
    and volume. A return is held against the median and the median absolute deviation of the returns around it, without
    itself, so that it cannot hide behind its own size.
    """
    return oddities_by_symbol(close, bars, np.array([0, len(close)]))


def oddities_by_symbol(close: FloatArray, bars: FloatArray, edges: IntArray) -> Oddities:
    """Return what is odd in the bars of many symbols, one after the other; positions count through all of them.

    Symbol i has the rows edges[i] to edges[i + 1] - 1, ascending by session; no run and no return crosses an edge.
    """
    starts, counts = edges[:-1], np.diff(edges)
    if len(close) == 0:
        return Oddities((), ())
    repeats = np.zeros(len(close) + 2, dtype=np.int8)
    repeats[2:-1] = (bars[1:] == bars[:-1]).all(axis=1)
    repeats[starts[counts > 0] + 1] = 0
    steps = np.diff(repeats)
    runs = zip((np.flatnonzero(steps == 1) - 1).tolist(), (np.flatnonzero(steps == -1) - 1).tolist(), strict=True)
    stale = tuple((first, last) for first, last in runs if last - first + 1 >= STALE_SESSIONS)
    log_close = np.log(close)
    scores: list[tuple[int, float]] = []
    # Symbols with equally many rows form a matrix; mostly all have.
    for count in np.unique(counts[counts > 1]).tolist():
        rows = starts[counts == count][:, None] + np.arange(count)
        scores += _outliers(np.diff(log_close[rows], axis=1), rows[:, 1:])
    return Oddities(stale, tuple(sorted(scores)))


def _outliers(returns: FloatArray, rows: IntArray) -> list[tuple[int, float]]:
    """Return (row, distance) of the outlying returns in a matrix of (symbols, returns)."""
    middle = np.median(returns, axis=1, keepdims=True)
    scale = MAD_TO_SIGMA * np.median(np.abs(returns - middle), axis=1, keepdims=True)
    # Cheap first: what is not even far from the calm half of the whole series is not tested against its surroundings.
    symbol, at = np.nonzero(np.abs(returns) > OUTLIER_SCALES / 2 * scale)
    inner = (at >= WINDOW) & (at + WINDOW < returns.shape[1])
    scores = np.zeros(len(at))
    scores[inner] = _inner_distances(returns, symbol[inner], at[inner])
    for index in np.flatnonzero(~inner).tolist():
        scores[index] = _distance(returns[symbol[index]], int(at[index]))
    far = scores > OUTLIER_SCALES
    return list(zip(rows[symbol[far], at[far]].tolist(), scores[far].tolist(), strict=True))


def _inner_distances(returns: FloatArray, symbol: IntArray, at: IntArray) -> FloatArray:
    beside = np.concatenate([np.arange(-WINDOW, 0), np.arange(1, WINDOW + 1)])
    around = returns[symbol[:, None], at[:, None] + beside]
    middle = np.median(around, axis=1)
    scale = MAD_TO_SIGMA * np.median(np.abs(around - middle[:, None]), axis=1)
    distance = np.abs(returns[symbol, at] - middle)
    still = np.where(distance > 0, 1e6, 0.0)
    return np.where(scale > 0, np.minimum(distance / np.where(scale > 0, scale, 1.0), 1e6), still)


def _distance(returns: FloatArray, at: int) -> float:
    around = np.concatenate([returns[max(0, at - WINDOW) : at], returns[at + 1 : at + 1 + WINDOW]])
    if len(around) < WINDOW:
        return 0.0
    middle = np.median(around)
    scale = MAD_TO_SIGMA * np.median(np.abs(around - middle))
    distance = abs(returns[at] - middle)
    # Surroundings without any movement have no scale; a jump out of them is as far as it gets.
    return float(min(distance / scale, 1e6)) if scale > 0 else float(1e6 * (distance > 0))
