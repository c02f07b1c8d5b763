"""What a record against a baseline proves: tests of alpha and of tail losses, and what they cannot see.

Everything is per session inside and annual where a name says so. The alpha test (test A of the gates) is an ordinary
least-squares regression of the candidate on the baseline with a Newey-West error of the intercept: it asks for
return that holding more or less of the baseline does not explain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from quanto.core.errors import DataError
from quanto.portfolio.series import SESSIONS_PER_YEAR, FloatArray, finite

# A regression needs a residual degree of freedom.
MINIMUM_SESSIONS = 3
# Residuals below this fraction of the series' size are rounding: a copy of the baseline proves nothing.
RESIDUAL_FLOOR = 1e-10
# Rows are worked on in pieces of this many numbers, which stay in the processor's cache.
CHUNK = 1 << 18


@dataclass(frozen=True)
class AlphaTests:
    """One alpha test per row; arrays of shape (n,), never NaN.

    Attributes
    ----------
    alpha, standard_error, residual_volatility
        Annual. The error is Newey-West with `lag` lags, without small-sample factor.
    beta
        0 where the baseline does not vary (cash): then alpha is the mean difference.
    t_statistic
        Student with `sessions` - 2 degrees of freedom under no alpha.
    p_superior, p_inferior
        One-sided: of an alpha at least this high, and at least this low, when there is none.
    """

    alpha: FloatArray
    beta: FloatArray
    standard_error: FloatArray
    t_statistic: FloatArray
    p_superior: FloatArray
    p_inferior: FloatArray
    residual_volatility: FloatArray
    sessions: int
    lag: int


@dataclass(frozen=True)
class AlphaTest:
    """The alpha test of one candidate; fields as in `AlphaTests`, and the information ratio with its bounds.

    `information_ratio` is alpha over residual volatility, annual; `lower` and `upper` its one-sided 95 % bounds.
    Below three sessions every number is None.
    """

    sessions: int
    lag: int
    alpha: float | None = None
    beta: float | None = None
    standard_error: float | None = None
    t_statistic: float | None = None
    p_superior: float | None = None
    p_inferior: float | None = None
    residual_volatility: float | None = None
    information_ratio: float | None = None
    information_ratio_lower: float | None = None
    information_ratio_upper: float | None = None


def newey_west_lag(sessions: int) -> int:
    """Return floor(4 (T/100)^(2/9)), the usual lag of Newey and West (1994), at most T - 1."""
    return min(int(4 * (sessions / 100) ** (2 / 9)), sessions - 1)


def alpha_tests(candidates: npt.ArrayLike, baselines: npt.ArrayLike, lag: int | None = None) -> AlphaTests:
    """Return the alpha test of every candidate against its baseline.

    Parameters
    ----------
    candidates
        Shape (n, T): session returns in excess of cash.
    baselines
        Shape (n, T), or (T,) for one baseline of all: in excess of cash, the same sessions.
    lag
        Newey-West lags; `newey_west_lag` where None.

    Raises
    ------
    DataError
        If a value is NaN or infinite, shapes do not fit, or T is below 3.
    """
    y, x = _rows(candidates, baselines)
    sessions = y.shape[1]
    lag = newey_west_lag(sessions) if lag is None else lag
    columns = [np.empty(len(y)) for _ in range(4)]
    for rows, yr, xr in _pieces(y, x):
        alpha, beta, residuals, scores = _regress(yr, xr)
        error = np.sqrt(_long_run_variance(scores, lag) / sessions)
        size = np.sqrt((yr * yr).mean(axis=1)) + np.abs(beta) * np.sqrt((xr * xr).mean(axis=1))
        error = np.maximum(error, RESIDUAL_FLOOR * np.maximum(size, np.finfo(float).tiny))
        spread = np.sqrt((residuals * residuals).sum(axis=1) / (sessions - 2))
        spread = np.where(spread > RESIDUAL_FLOOR * size, spread, 0.0)
        for column, values in zip(columns, (alpha, beta, error, spread), strict=True):
            column[rows] = values
    alpha, beta, error, spread = columns
    t = alpha / error
    year, root = SESSIONS_PER_YEAR, math.sqrt(SESSIONS_PER_YEAR)
    p_superior, p_inferior = stats.t.sf(t, sessions - 2), stats.t.cdf(t, sessions - 2)
    return AlphaTests(alpha * year, beta, error * year, t, p_superior, p_inferior, spread * root, sessions, lag)


def alpha_test(candidate: npt.ArrayLike, baseline: npt.ArrayLike) -> AlphaTest:
    """Return the alpha test of one candidate; all numbers None below three sessions.

    Parameters
    ----------
    candidate, baseline
        Shape (T,): session returns in excess of cash.

    Raises
    ------
    DataError
        If a value is NaN or infinite, or the lengths differ.
    """
    y, x = finite("candidate", candidate), finite("baseline", baseline)
    if len(y) < MINIMUM_SESSIONS and len(x) == len(y):
        return AlphaTest(sessions=len(y), lag=0)
    tests = alpha_tests(y[None], x)
    alpha, error, spread = (float(column[0]) for column in (tests.alpha, tests.standard_error, tests.residual_volatility))
    reach = float(stats.t.isf(0.05, tests.sessions - 2)) * error
    ratios = [None, None, None] if spread == 0 else [value / spread for value in (alpha, alpha - reach, alpha + reach)]
    return AlphaTest(
        sessions=tests.sessions,
        lag=tests.lag,
        alpha=alpha,
        beta=float(tests.beta[0]),
        standard_error=error,
        t_statistic=float(tests.t_statistic[0]),
        p_superior=float(tests.p_superior[0]),
        p_inferior=float(tests.p_inferior[0]),
        residual_volatility=spread,
        information_ratio=ratios[0],
        information_ratio_lower=ratios[1],
        information_ratio_upper=ratios[2],
    )


def pseudo_alphas(candidates: npt.ArrayLike, baselines: npt.ArrayLike) -> FloatArray:
    """Return x_t = a + e_t (1 - bbar (b_t - bbar) / s_b^2): series with the mean and the variance of the alphas.

    A bootstrap over their means (SPA) tests alphas as it would test means. Shape (n, T), per session.

    Raises
    ------
    DataError
        As `alpha_tests`.
    """
    y, x = _rows(candidates, baselines)
    out = np.empty_like(y)
    for rows, yr, xr in _pieces(y, x):
        alpha, _, _, scores = _regress(yr, xr)
        out[rows] = alpha[:, None] + scores
    return out


@dataclass(frozen=True)
class CvarTests:
    """Tests whether a candidate's tail loss is larger than the baseline's; arrays of shape (n,).

    `difference` is CVaR(candidate) - CVaR(baseline) per session (above 0: the candidate loses more); `p_inferior` is
    one-sided, of a difference at least this high when there is none.
    """

    difference: FloatArray
    t_statistic: FloatArray
    p_inferior: FloatArray
    sessions: int
    tail_sessions: int


def cvar_tests(candidates: npt.ArrayLike, baselines: npt.ArrayLike, tail: float = 0.05) -> CvarTests:
    """Return a one-sided test of every candidate's CVaR against its baseline's, Newey-West on its influence function.

    CVaR is the mean of z_t = v + max(loss_t - v, 0) / tail at v = VaR, and v's own error does not matter to first
    order (Rockafellar and Uryasev 2000; Scaillet 2004), so the difference of two is tested as a mean.

    Parameters
    ----------
    candidates, baselines
        As in `alpha_tests`; returns, losses being their negatives.

    Raises
    ------
    DataError
        As `alpha_tests`.
    """
    y, x = _rows(candidates, baselines)
    sessions = y.shape[1]
    lag = newey_west_lag(sessions)
    difference, error = np.empty(len(y)), np.empty(len(y))
    for rows, yr, xr in _pieces(y, x):
        gap = _tail_losses(yr, tail) - _tail_losses(xr, tail)
        difference[rows] = gap.mean(axis=1)
        spread = np.sqrt(_long_run_variance(gap - gap.mean(axis=1, keepdims=True), lag) / sessions)
        size = np.abs(yr).max(axis=1) + np.abs(xr).max(axis=1)
        error[rows] = np.maximum(spread, RESIDUAL_FLOOR * np.maximum(size, np.finfo(float).tiny))
    t = difference / error
    return CvarTests(difference, t, stats.t.sf(t, sessions - 1), sessions, int((sessions - 1) * tail) + 1)


def sidak_level(level: float, trials: int) -> float:
    """Return 1 - (1 - level)^(1/trials): the level of each test when the best of `trials` asks (Sidak 1967).

    Raises
    ------
    DataError
        If the level is not inside (0, 1) or there is no trial.
    """
    if not 0 < level < 1 or trials < 1:
        raise DataError(f"a level inside (0, 1) and at least one trial are needed; found {level} and {trials}")
    return -math.expm1(math.log1p(-level) / trials)


def detectable_ratio(sessions: int, trials: int = 1, level: float = 0.05, power: float = 0.8) -> float:
    """Return the annual information ratio that the alpha test finds with probability `power`.

    Raises
    ------
    DataError
        As `sidak_level`, or below three sessions.
    """
    return (_critical(sessions, trials, level) + float(stats.norm.ppf(power))) * math.sqrt(SESSIONS_PER_YEAR / sessions)


def alpha_test_power(information_ratio: float, sessions: int, trials: int = 1, level: float = 0.05) -> float:
    """Return the probability that the alpha test at the Sidak level finds an annual information ratio.

    Raises
    ------
    DataError
        As `detectable_ratio`.
    """
    return float(stats.norm.cdf(information_ratio * math.sqrt(sessions / SESSIONS_PER_YEAR) - _critical(sessions, trials, level)))


def _critical(sessions: int, trials: int, level: float) -> float:
    if sessions < MINIMUM_SESSIONS:
        raise DataError(f"the alpha test needs at least {MINIMUM_SESSIONS} sessions; found {sessions}")
    return float(stats.t.isf(sidak_level(level, trials), sessions - 2))


def _rows(candidates: npt.ArrayLike, baselines: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    y = finite("candidates", candidates, 2)
    x = finite("baselines", baselines, np.ndim(baselines) if np.ndim(baselines) in (1, 2) else 2)
    if x.shape[-1] != y.shape[1] or (x.ndim == 2 and len(x) not in (1, len(y))):
        raise DataError(f"baselines must have shape (T,), (1, T) or (n, T) for candidates {y.shape}; found {x.shape}")
    if y.shape[1] < MINIMUM_SESSIONS:
        raise DataError(f"a test against a baseline needs at least {MINIMUM_SESSIONS} sessions; found {y.shape[1]}")
    return y, np.atleast_2d(x)


def _pieces(y: FloatArray, x: FloatArray) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    size = max(1, CHUNK // y.shape[1])
    for start in range(0, len(y), size):
        rows = slice(start, start + size)
        yield rows, y[rows], x if len(x) == 1 else x[rows]


def _regress(y: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return intercepts, slopes (m,), residuals and intercept scores (m, T); a score is a session's share in the intercept's error."""
    x_mean, y_mean = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    centred = x - x_mean
    variance = (centred * centred).mean(axis=1, keepdims=True)
    varies = np.sqrt(variance) > RESIDUAL_FLOOR * np.abs(x).max(axis=1, keepdims=True)
    slope_weight = np.where(varies, centred / np.where(varies, variance, 1.0), 0.0)
    beta = (slope_weight * (y - y_mean)).mean(axis=1, keepdims=True)
    residuals = y - y_mean - beta * centred
    alpha = np.where(varies, y_mean - beta * x_mean, y_mean - x_mean)
    return alpha[:, 0], beta[:, 0], residuals, residuals * (1 - x_mean * slope_weight)


def _long_run_variance(values: FloatArray, lag: int) -> FloatArray:
    """Return the Bartlett-weighted long-run variance of centred rows; shape (m,), not negative."""
    sessions = values.shape[1]
    total = np.einsum("ij,ij->i", values, values)
    for step in range(1, lag + 1):
        total += 2 * (1 - step / (lag + 1)) * np.einsum("ij,ij->i", values[:, step:], values[:, :-step])
    return np.asarray(np.maximum(total, 0.0) / sessions)


def _tail_losses(returns: FloatArray, tail: float) -> FloatArray:
    losses = -returns
    at_risk = np.quantile(losses, 1 - tail, axis=1, keepdims=True)
    return np.asarray(at_risk + np.maximum(losses - at_risk, 0.0) / tail)
