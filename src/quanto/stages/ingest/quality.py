"""What looks odd in bars that are possible: prices that stand still, and returns far outside their surroundings. Pure.

Nothing is set aside for looking odd: a crash is real, and only another vendor can tell. The report names the sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

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
    if len(close) < 2:
        return Oddities((), ())
    repeats = (bars[1:] == bars[:-1]).all(axis=1)
    edges = np.diff(np.concatenate([[0], repeats.astype(np.int8), [0]]))
    runs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    stale = tuple((int(first), int(last)) for first, last in runs if last - first + 1 >= STALE_SESSIONS)
    returns = np.diff(np.log(close))
    scale = MAD_TO_SIGMA * np.median(np.abs(returns - np.median(returns)))
    # Cheap first: what is not even far from the calm half of the whole series is not tested against its surroundings.
    far = np.flatnonzero(np.abs(returns) > OUTLIER_SCALES / 2 * scale)
    scores = [(int(at) + 1, _distance(returns, int(at))) for at in far]
    return Oddities(stale, tuple((at, score) for at, score in scores if score > OUTLIER_SCALES))


def _distance(returns: FloatArray, at: int) -> float:
    around = np.concatenate([returns[max(0, at - WINDOW) : at], returns[at + 1 : at + 1 + WINDOW]])
    if len(around) < WINDOW:
        return 0.0
    middle = np.median(around)
    scale = MAD_TO_SIGMA * np.median(np.abs(around - middle))
    distance = abs(returns[at] - middle)
    # Surroundings without any movement have no scale; a jump out of them is as far as it gets.
    return float(min(distance / scale, 1e6)) if scale > 0 else float(1e6 * (distance > 0))
