"""Stationary bootstrap over sessions: intervals of every metric and of differences to a baseline.

Sessions are resampled, never seeds: a test over seeds alone takes one lucky market for skill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from arch.bootstrap import StationaryBootstrap, optimal_block_length

from quanto.core.errors import DataError
from quanto.portfolio.drawdowns import runs
from quanto.portfolio.series import SESSIONS_PER_YEAR, BoolArray, FloatArray, finite, is_constant, rates, same_length, simple_returns

IntArray = npt.NDArray[np.int64]

SHORTEST_BLOCK = 5
BLOCKS_AT_LEAST = 50
TAIL = 0.05
# Draws worked on at once: their sessions stay in the processor's cache.
DRAWS_AT_ONCE = 64


@dataclass(frozen=True)
class Interval:
    """A number with its percentile interval; None where it, or one of its draws, is not defined."""

    estimate: float | None
    low: float | None
    high: float | None
    level: float


def block_length(*series: npt.ArrayLike) -> float:
    """Return the mean block length min(max(estimate, 5), T/50), at least 1; the largest of several series.

    The estimate is arch's (Politis and White 2004; Patton, Politis and White 2009). Longer blocks make tests
    anti-conservative on short samples, hence the cap.

    Raises
    ------
    DataError
        If a series is empty or holds NaN or infinite values.
    """
    lengths = []
    for number, values in enumerate(series):
        array = finite(f"series {number}", values)
        if len(array) == 0:
            raise DataError(f"series {number} is empty; a block length needs sessions")
        cap = len(array) / BLOCKS_AT_LEAST
        # Below the shortest block the cap decides alone; without dispersion there is nothing to estimate from.
        estimated = cap > SHORTEST_BLOCK and not is_constant(array)
        estimate = float(optimal_block_length(array)["stationary"].iloc[0]) if estimated else SHORTEST_BLOCK
        lengths.append(max(1.0, min(max(estimate, SHORTEST_BLOCK), cap)))
    return max(lengths)


def stationary_indices(sessions: int, block: float, draws: int, rng: np.random.Generator) -> IntArray:
    """Return session numbers of bootstrap samples: blocks of geometric length with mean `block`, wrapped at the end.

    Shape (draws, sessions). Politis and Romano (1994), through `arch.bootstrap.StationaryBootstrap`.

    Raises
    ------
    DataError
        If there is no session, no draw, or the block is shorter than 1.
    """
    if sessions < 1 or draws < 1 or not block >= 1:
        raise DataError(f"a bootstrap needs sessions, draws and a block of 1 or more; found {sessions}, {draws}, {block}")
    sampler = StationaryBootstrap(block, np.zeros(sessions), seed=rng)  # type: ignore[arg-type]  # typed int, used as 1/block
    return np.array([sampler.update_indices() for _ in range(draws)], dtype=np.int64)


def episode_indices(mask: BoolArray, block: float, draws: int, rng: np.random.Generator) -> IntArray:
    """Return samples of the sessions of a mask whose blocks stay within one contiguous episode each.

    Shape (draws, number of True). Each episode keeps its own number of sessions.

    Raises
    ------
    DataError
        If the mask selects nothing, or there is no draw or block.
    """
    spans = runs(mask)
    if not spans or draws < 1 or not block >= 1:
        raise DataError(f"a mask with sessions, draws and a block of 1 or more are needed; found {spans}, {draws}, {block}")
    first = np.concatenate([np.full(stop - start, start) for start, stop in spans])
    length = np.concatenate([np.full(stop - start, stop - start) for start, stop in spans])
    column = np.arange(len(first))
    # A block begins with probability 1/block, and always where an episode does.
    begins = (rng.random((draws, len(first))) < 1 / block) | (np.concatenate([[True], np.diff(first) > 0]))
    since = np.maximum.accumulate(np.where(begins, column, 0), axis=1)
    offset = np.take_along_axis(rng.integers(0, length, size=(draws, len(first))), since, axis=1)
    return np.asarray(first + (offset + column - since) % length, dtype=np.int64)


def bootstrap_intervals(
    returns: npt.ArrayLike,
    risk_free: npt.ArrayLike,
    baseline: npt.ArrayLike | None,
    indices: IntArray,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return percentile intervals of the metrics, and of the differences to the baseline from the same draws.

    Parameters
    ----------
    returns, baseline
        Shape (n_sessions,): simple returns of the same sessions. NaN is refused.
    risk_free
        Shape (n_sessions,) or one number, per session.
    indices
        Shape (draws, n_sessions), of `stationary_indices`.

    Raises
    ------
    DataError
        If a value is not usable or lengths differ.
    """
    r = simple_returns("returns", returns)
    rf = rates("risk_free", risk_free, len(r))
    b = None if baseline is None else simple_returns("baseline", same_length("baseline", baseline, len(r)))
    if indices.ndim != 2 or indices.shape[1] != len(r):
        raise DataError(f"indices must have shape (draws, {len(r)}); found {indices.shape}")
    estimates = session_metrics(r[None], rf[None], None if b is None else b[None])
    draws: dict[str, list[FloatArray]] = {name: [] for name in estimates}
    for start in range(0, len(indices), DRAWS_AT_ONCE):
        rows = indices[start : start + DRAWS_AT_ONCE]
        for name, values in session_metrics(r[rows], rf[rows], None if b is None else b[rows]).items():
            draws[name].append(values)
    return {name: _interval(float(estimates[name][0]), np.concatenate(draws[name]), level) for name in estimates}


def session_metrics(r: FloatArray, rf: FloatArray, b: FloatArray | None = None) -> dict[str, FloatArray]:
    """Return the metrics of `portfolio.metrics` for many samples at once: arrays of shape (n,), NaN where undefined.

    Parameters
    ----------
    r, rf, b
        Shape (n, T): simple returns, risk-free rates, baseline returns (None for none).
    """
    found = _own_metrics(r, r - rf)
    if b is None:
        return found
    other = _own_metrics(b, b - rf)
    excess, other_excess = r - rf, b - rf
    centred = other_excess - other_excess.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = (centred * excess).sum(axis=1) / (centred * centred).sum(axis=1)
    found |= {
        "beta": beta,
        "alpha": (excess.mean(axis=1) - beta * other_excess.mean(axis=1)) * SESSIONS_PER_YEAR,
        "information_ratio": _ratio(r - b),
    }
    for name in ("sharpe", "annual_return", "annual_log_growth", "annual_volatility", "max_drawdown", "cvar"):
        found[f"{name}_difference"] = found[name] - other[name]
    return found


def volatility_ratio(
    candidate: npt.ArrayLike, baseline: npt.ArrayLike, mask: BoolArray, rng: np.random.Generator, draws: int = 2000, level: float = 0.9
) -> Interval:
    """Return the ratio of volatilities in the sessions of a mask with its one-sided bootstrap bound as `high`.

    Blocks stay within the mask's contiguous episodes. `low` is None. All None where the baseline has no dispersion
    or the mask fewer than two sessions.

    Parameters
    ----------
    candidate, baseline
        Shape (n_sessions,): returns of the same sessions.
    mask
        Shape (n_sessions,): the sessions compared, for instance those of high volatility.

    Raises
    ------
    DataError
        If a value is NaN or infinite or lengths differ.
    """
    y = finite("candidate", candidate)
    x, flags = same_length("baseline", baseline, len(y)), np.asarray(mask, dtype=bool)
    if flags.shape != y.shape:
        raise DataError(f"the mask must cover the same {len(y)} sessions as the returns; found {flags.shape}")
    if flags.sum() < 2 or is_constant(x[flags]):
        return Interval(None, None, None, level)
    indices = episode_indices(flags, block_length(y[flags], x[flags]), draws, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = y[indices].std(axis=1) / x[indices].std(axis=1)
    high = float(np.quantile(ratios, level)) if np.isfinite(ratios).all() else None
    return Interval(float(y[flags].std() / x[flags].std()), None, high, level)


def intervals_as_rows(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Return intervals as plain mappings for JSON."""
    return {name: {"estimate": i.estimate, "low": i.low, "high": i.high, "level": i.level} for name, i in intervals.items()}


def _own_metrics(r: FloatArray, excess: FloatArray) -> dict[str, FloatArray]:
    sessions = r.shape[1]
    root = math.sqrt(SESSIONS_PER_YEAR)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        growth = np.log1p(r)  # ruin is -inf: the path stays there, and the fall is -1
        mean_growth = growth.mean(axis=1)
        path = np.cumsum(growth, axis=1)
        peak = np.maximum(np.maximum.accumulate(path, axis=1), 0.0)
        fall = np.expm1((path - peak).min(axis=1))
        annual = np.expm1(mean_growth * SESSIONS_PER_YEAR)
        losses = np.minimum(r, 0.0)
        downside = np.sqrt((losses * losses).mean(axis=1))
        worst = int((sessions - 1) * TAIL) + 1
        tail = np.partition(r, worst - 1, axis=1)[:, :worst]
        return {
            "annual_return": annual,
            "annual_log_growth": np.where(np.isfinite(mean_growth), mean_growth * SESSIONS_PER_YEAR, np.nan),
            "annual_volatility": r.std(axis=1, ddof=1) * root if sessions > 1 else np.full(len(r), np.nan),
            "sharpe": _ratio(excess),
            "sortino": np.where(downside > 0, r.mean(axis=1) / downside * root, np.nan),
            "calmar": np.where(fall < 0, annual / -fall, np.nan),
            "max_drawdown": fall,
            "cvar": -tail.mean(axis=1),
        }


def _ratio(values: FloatArray) -> FloatArray:
    if values.shape[1] < 2:
        return np.full(len(values), np.nan)
    spread = values.std(axis=1, ddof=1)
    varies = spread > 1e-12 * np.abs(values).max(axis=1)
    return np.where(varies, values.mean(axis=1) / np.where(varies, spread, 1.0) * math.sqrt(SESSIONS_PER_YEAR), np.nan)


def _interval(estimate: float, draws: FloatArray, level: float) -> Interval:
    point = estimate if math.isfinite(estimate) else None
    if not np.isfinite(draws).all():
        return Interval(point, None, None, level)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(point, float(low), float(high), level)
