"""Drawdowns: the fall from the running peak, the episodes below it, and the falls inside runs of sessions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from empyrical.stats import drawdown_series

from quanto.core.errors import DataError
from quanto.portfolio.series import ROUNDING, BoolArray, FloatArray, simple_returns


@dataclass(frozen=True)
class DrawdownEpisode:
    """One stay below a peak. Positions on the wealth path: 0 before the first return, t+1 after the return of row t.

    Attributes
    ----------
    depth
        The drawdown at the trough, a fraction of the peak, below 0.
    recovery
        The first position that regains the peak; None while the episode is open.
    sessions
        From the peak to the recovery, or to the end of the series.
    """

    peak: int
    trough: int
    recovery: int | None
    depth: float
    sessions: int


def drawdowns(returns: npt.ArrayLike) -> FloatArray:
    """Return W_t / max(W_0..W_t) - 1 for each return, in [-1, 0]; W_0 = 1 counts as a peak. Shape (n_sessions,).

    Raises
    ------
    DataError
        If a return is NaN, infinite or below -1 (a missing value would hide the peak), or wealth leaves what a
        double can hold.
    """
    r = simple_returns("returns", returns)
    if len(r) == 0:
        return r.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        falls = np.asarray(drawdown_series(r))
    if not np.isfinite(falls).all():
        first = int(np.flatnonzero(~np.isfinite(falls))[0])
        raise DataError(f"compounded returns must stay finite; wealth overflowed at session {first}: check the units of the returns")
    return falls


def drawdown_episodes(returns: npt.ArrayLike) -> tuple[DrawdownEpisode, ...]:
    """Return every stay below a peak, in order of time; a peak regained up to rounding is regained.

    Raises
    ------
    DataError
        As `drawdowns`.
    """
    falls = drawdowns(returns)
    found = []
    for start, stop in runs(falls < -ROUNDING):
        trough = start + int(np.argmin(falls[start:stop]))
        closed = stop < len(falls)
        end = stop + 1 if closed else len(falls)
        found.append(DrawdownEpisode(start, trough + 1, end if closed else None, float(falls[trough]), end - start))
    return tuple(found)


def deepest(episodes: tuple[DrawdownEpisode, ...]) -> DrawdownEpisode | None:
    """Return the episode with the lowest trough, the earliest of equals; None of none."""
    return min(episodes, key=lambda episode: episode.depth, default=None)


def runs(mask: npt.ArrayLike) -> list[tuple[int, int]]:
    """Return (start, stop) of each contiguous run of True; `stop` is the first index after the run.

    >>> runs([False, True, True, False, True])
    [(1, 3), (4, 5)]
    """
    flags = np.concatenate([[False], np.asarray(mask, dtype=bool), [False]])
    edges = np.flatnonzero(flags[1:] != flags[:-1])
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def drawdown_within(returns: npt.ArrayLike, mask: BoolArray) -> float | None:
    """Return the deepest drawdown inside any one contiguous run of the mask; each run starts at a fresh peak.

    A fall that began before a run, or lasts across a gap, counts only with its part inside. None where the mask
    selects nothing.

    Raises
    ------
    DataError
        If a return is not usable or the mask has another length.
    """
    r = simple_returns("returns", returns)
    if len(mask) != len(r):
        raise DataError(f"the mask must cover the same {len(r)} sessions as the returns; found {len(mask)}")
    return min((float(drawdowns(r[start:stop]).min()) for start, stop in runs(mask)), default=None)
