"""Causal labels of high volatility: the label of session t is made from what was known after session t-1.

Realised volatility of the market index over 21 sessions against its own expanding quantiles, with hysteresis: a
session enters the high state above the 80 % quantile and leaves it below the 65 % quantile, so that what trades on the
label does not flip at the threshold. No quantile sees the evaluated window's future, and no label sees its own return.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.errors import ConfigError, DataError
from quanto.core.registry import Registry
from quanto.market.panel import BoolArray, FloatArray
from quanto.market.windows import window_moments

ANNUAL_SESSIONS = 252

# Rows compared with each other at once: bounds the memory of the expanding percentile.
_BLOCK = 256


@dataclass(frozen=True)
class RegimeLabels:
    """Labels and what they were made from; all of shape (n_sessions,).

    Attributes
    ----------
    high
        Whether session t is labelled high volatility. False where not `known`.
    known
        Whether there is a label: enough history, and a volatility for t-1.
    volatility
        Annualised realised volatility after session t-1 (a fraction); NaN where missing.
    enter_threshold, exit_threshold
        The expanding quantiles after session t-1; NaN before the warm-up is complete.
    """

    high: BoolArray
    known: BoolArray
    volatility: FloatArray
    enter_threshold: FloatArray
    exit_threshold: FloatArray


@dataclass(frozen=True)
class RegimeLabeller:
    """A versioned rule from index returns to labels; its look-back is `expanding`, its lag one session.

    Attributes
    ----------
    volatility
        From simple index returns, shape (n_sessions,), to annualised volatility known after each session.
    warmup_sessions
        Volatilities that must have been seen before the first label.
    """

    name: str
    sentence: str
    volatility: Callable[[FloatArray], FloatArray]
    warmup_sessions: int
    enter_quantile: float
    exit_quantile: float

    def label(self, returns: FloatArray) -> RegimeLabels:
        """Return the labels of all sessions from simple index returns, shape (n_sessions,), NaN where missing."""
        volatility = self.volatility(returns)
        return volatility_labels(volatility, warmup=self.warmup_sessions, enter=self.enter_quantile, exit_=self.exit_quantile)


def volatility_labels(volatility: FloatArray, *, warmup: int, enter: float, exit_: float) -> RegimeLabels:
    """Return causal labels with hysteresis.

    Parameters
    ----------
    volatility
        Shape (n_sessions,): realised volatility known after session t. NaN is no observation: the next session gets
        no label, and the state stays as it was.
    warmup
        Observations needed before the first label.

    Raises
    ------
    ConfigError
        If the quantiles are not 0 < exit_ <= enter < 1 or the warm-up is shorter than one session.
    DataError
        If there is no session.
    """
    if len(volatility) == 0:
        raise DataError("regime labels need one session or more, found none")
    if not 0.0 < exit_ <= enter < 1.0 or warmup < 1:
        raise ConfigError(f"regime labels need 0 < exit <= enter < 1 and a warm-up, found exit {exit_}, enter {enter}, warm-up {warmup}")
    upper, lower = expanding_quantiles(volatility, (enter, exit_), warmup)
    ready = np.isfinite(volatility) & np.isfinite(upper)
    after = np.zeros(len(volatility), dtype=np.bool_)
    state = False
    for index in np.flatnonzero(ready):
        state = bool(volatility[index] >= lower[index]) if state else bool(volatility[index] > upper[index])
        after[index] = state
    return RegimeLabels(
        high=np.concatenate([[False], after[:-1]]),
        known=np.concatenate([[False], ready[:-1]]),
        volatility=np.concatenate([[np.nan], volatility[:-1]]),
        enter_threshold=np.concatenate([[np.nan], upper[:-1]]),
        exit_threshold=np.concatenate([[np.nan], lower[:-1]]),
    )


def expanding_quantiles(values: FloatArray, levels: Sequence[float], minimum: int) -> list[FloatArray]:
    """Return for each level the quantile (linear interpolation) of the finite values up to and including each session.

    Shapes (n_sessions,); NaN until `minimum` finite values were seen.
    """
    finite = np.isfinite(values)
    counts = np.cumsum(finite)
    ready = np.flatnonzero(counts >= minimum)
    places = [level * (counts[ready] - 1.0) for level in levels]
    below = [place.astype(np.int64) for place in places]
    above = [np.minimum(low + 1, counts[ready] - 1) for low in below]
    picked = _expanding_order_statistics(values[finite].tolist(), counts[ready].tolist(), [*below, *above])
    out = [np.full(len(values), np.nan) for _ in levels]
    for level in range(len(levels)):
        low, high = picked[level], picked[len(levels) + level]
        out[level][ready] = low + (high - low) * (places[level] - below[level])
    return out


def expanding_percentile(values: FloatArray, minimum: int) -> FloatArray:
    """Return the share of finite values up to and including each session that are <= its own value, in (0, 1].

    Shape (n_sessions,); NaN where the value is missing or fewer than `minimum` were seen.
    """
    out = np.full(len(values), np.nan)
    finite = np.flatnonzero(np.isfinite(values))
    observed = values[finite]
    for start in range(0, len(observed), _BLOCK):
        rows = observed[start : start + _BLOCK]
        before = np.searchsorted(np.sort(observed[:start]), rows, side="right")
        inside = np.tril(rows[None, :] <= rows[:, None]).sum(axis=1)
        counts = np.arange(start, start + len(rows)) + 1.0
        out[finite[start : start + _BLOCK]] = np.where(counts >= minimum, (before + inside) / counts, np.nan)
    return out


def episodes(high: BoolArray) -> list[tuple[int, int]]:
    """Return the runs of true values as (start, stop) positions, stop excluded; shape of the input (n_sessions,).

    >>> episodes(np.array([False, True, True, False, True]))
    [(1, 3), (4, 5)]
    """
    edges = np.diff(np.concatenate([[False], high, [False]]).astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]


def realised_volatility(returns: FloatArray, window: int = 21) -> FloatArray:
    """Return the annualised standard deviation (ddof 1) of the last `window` simple returns; shape (n_sessions,).

    Missing returns are left out; NaN where a window lacks more than `windows.required` allows, or has not begun.

    Raises
    ------
    DataError
        If returns are not one-dimensional.
    """
    if returns.ndim != 1:
        raise DataError(f"expected returns of one series, shape (n_sessions,), found shape {returns.shape}")
    _, deviation = window_moments(returns, window)
    annual: FloatArray = deviation * np.sqrt(ANNUAL_SESSIONS)
    return annual


def _expanding_order_statistics(observed: list[float], counts: list[int], places: list[npt.NDArray[np.int64]]) -> list[FloatArray]:
    """Return for each list of places the value at that place among the first `counts[i]` observed, in ascending order."""
    ordered: list[float] = []
    out = [np.empty(len(counts)) for _ in places]
    for row, (count, *wanted) in enumerate(zip(counts, *(place.tolist() for place in places), strict=True)):
        while len(ordered) < count:
            insort(ordered, observed[len(ordered)])
        for target, place in zip(out, wanted, strict=True):
            target[row] = ordered[place]
    return out


LABELLERS: Registry[RegimeLabeller] = Registry(
    "regime labeller",
    RegimeLabeller(
        name="volatility_hysteresis_v1",
        sentence="High from when 21-session index volatility was above its expanding 80 % quantile until it is below the 65 % one.",
        volatility=realised_volatility,
        warmup_sessions=252,
        enter_quantile=0.8,
        exit_quantile=0.65,
    ),
)
