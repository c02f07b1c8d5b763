"""Performance of one series of simple session returns; the numbers are empyrical's where it defines them.

Conventions: arithmetic means, ddof 1, 252 sessions a year, the wealth path starts at 1, drawdowns are 0 or below,
losses (VaR, CVaR) are positive. A number that is not defined for its input is None, never NaN or infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import empyrical
import numpy as np
import numpy.typing as npt
from scipy import stats

from quanto.portfolio.drawdowns import deepest, drawdown_episodes, drawdowns
from quanto.portfolio.series import SESSIONS_PER_YEAR, FloatArray, is_constant, rates, same_length, simple_returns

TAIL = 0.05


@dataclass(frozen=True)
class ReturnMetrics:
    """The metrics of one return series; fractions, per year unless the name says `per_session` or `sessions`.

    Attributes
    ----------
    sharpe, sharpe_per_session, skew, kurtosis
        Of the returns in excess of the risk-free series; the kurtosis is raw (3 for a normal).
    max_drawdown_sessions
        From the peak before the deepest drawdown to the first session that regains it, or to the end where
        `max_drawdown_open`.
    ruined
        A return was -1: wealth is 0 from there on, annual return and drawdown are -1.
    beta, alpha, information_ratio, tracking_error
        Against the baseline; None without one.
    """

    sessions: int
    total_return: float | None = None
    annual_return: float | None = None
    annual_log_growth: float | None = None
    annual_volatility: float | None = None
    sharpe: float | None = None
    sharpe_per_session: float | None = None
    sortino: float | None = None
    calmar: float | None = None
    max_drawdown: float | None = None
    max_drawdown_sessions: int | None = None
    max_drawdown_open: bool | None = None
    longest_drawdown_sessions: int | None = None
    value_at_risk: float | None = None
    cvar: float | None = None
    hit_rate: float | None = None
    skew: float | None = None
    kurtosis: float | None = None
    best_session: float | None = None
    worst_session: float | None = None
    ruined: bool = False
    beta: float | None = None
    alpha: float | None = None
    information_ratio: float | None = None
    tracking_error: float | None = None


def return_metrics(
    returns: npt.ArrayLike,
    risk_free: npt.ArrayLike = 0.0,
    baseline: npt.ArrayLike | None = None,
    minimum_acceptable: float = 0.0,
) -> ReturnMetrics:
    """Return all metrics of a series of simple returns.

    An empty series has 0 sessions and None for every number; one session has no dispersion, and so no ratios.

    Parameters
    ----------
    returns, baseline
        Shape (n_sessions,), simple returns of the same sessions. NaN and infinite values are refused.
    risk_free
        Shape (n_sessions,) or one number: the rate of each session, not per year.
    minimum_acceptable
        Sortino's target per session.

    Raises
    ------
    DataError
        If a value is NaN, infinite or below -1, or the lengths differ.
    """
    r = simple_returns("returns", returns)
    rf = rates("risk_free", risk_free, len(r))
    b = None if baseline is None else simple_returns("baseline", same_length("baseline", baseline, len(r)))
    if len(r) == 0:
        return ReturnMetrics(sessions=0)
    episodes = drawdown_episodes(r)
    worst = deepest(episodes)
    excess = r - rf
    sharpe = sharpe_ratio(excess)
    skew, kurtosis = moments(excess)
    moved = r[r != 0]
    relative = {} if b is None else _relative(r, b, rf)
    with np.errstate(all="ignore"):  # what overflows becomes None
        annual = _number(empyrical.annual_return(r, annualization=SESSIONS_PER_YEAR))
        calmar = _number(empyrical.calmar_ratio(r, annualization=SESSIONS_PER_YEAR))
        total = _number(float(np.prod(1 + r)) - 1)
    return ReturnMetrics(
        sessions=len(r),
        total_return=total,
        annual_return=annual,
        annual_log_growth=log_growth(r),
        annual_volatility=volatility(r),
        sharpe=sharpe,
        sharpe_per_session=None if sharpe is None else sharpe / math.sqrt(SESSIONS_PER_YEAR),
        sortino=sortino_ratio(r, minimum_acceptable),
        calmar=None if worst is None else calmar,  # a fall of one rounding is no drawdown
        max_drawdown=float(drawdowns(r).min()),
        max_drawdown_sessions=0 if worst is None else worst.sessions,
        max_drawdown_open=worst is not None and worst.recovery is None,
        longest_drawdown_sessions=max((episode.sessions for episode in episodes), default=0),
        value_at_risk=value_at_risk(r),
        cvar=cvar(r),
        hit_rate=float((moved > 0).mean()) if len(moved) else None,
        skew=skew,
        kurtosis=kurtosis,
        best_session=float(r.max()),
        worst_session=float(r.min()),
        ruined=bool((r == -1).any()),
        **relative,
    )


def volatility(returns: FloatArray) -> float | None:
    """Return std(r, ddof=1) sqrt(252); 0 for a constant series, None below two sessions."""
    if len(returns) < 2:
        return None
    return 0.0 if is_constant(returns) else _number(empyrical.annual_volatility(returns, annualization=SESSIONS_PER_YEAR))


def sharpe_ratio(excess: FloatArray) -> float | None:
    """Return mean/std(ddof=1) sqrt(252) of returns in excess of the risk-free rate; None without dispersion.

    Sharpe (1994), "The Sharpe Ratio", equation 6, annualised.
    """
    return None if is_constant(excess) else _number(empyrical.sharpe_ratio(excess, annualization=SESSIONS_PER_YEAR))


def sortino_ratio(returns: FloatArray, minimum_acceptable: float = 0.0) -> float | None:
    """Return mean(r - MAR) sqrt(252) / sqrt(mean(min(r - MAR, 0)^2)); None where nothing fell below the target.

    Both means run over all sessions. Rollinger and Hoffman (2013), "Sortino: A 'Sharper'Ratio".
    """
    return _number(empyrical.sortino_ratio(returns, required_return=minimum_acceptable, annualization=SESSIONS_PER_YEAR))


def log_growth(returns: FloatArray) -> float | None:
    """Return 252 mean(log(1 + r)), the growth a year; None for an empty or ruined series."""
    if len(returns) == 0 or (returns <= -1).any():
        return None
    return float(np.log1p(returns).mean() * SESSIONS_PER_YEAR)


def value_at_risk(returns: FloatArray, tail: float = TAIL) -> float | None:
    """Return the loss that a share `tail` of the sessions exceeds: -quantile(r, tail), linear interpolation."""
    return _number(-empyrical.value_at_risk(returns, cutoff=tail))


def cvar(returns: FloatArray, tail: float = TAIL) -> float | None:
    """Return the mean loss of the floor((n-1) tail) + 1 worst sessions: those at or below the quantile, ties cut."""
    return _number(-empyrical.conditional_value_at_risk(returns, cutoff=tail))


def moments(values: FloatArray) -> tuple[float | None, float | None]:
    """Return skew and raw kurtosis (both with the biased moments of the PSR); None without dispersion."""
    if is_constant(values):
        return None, None
    return _number(stats.skew(values)), _number(stats.kurtosis(values, fisher=False))


def _relative(r: FloatArray, b: FloatArray, rf: FloatArray) -> dict[str, float | None]:
    """Return beta, alpha = A (mean(r-rf) - beta mean(b-rf)), information ratio and tracking error."""
    beta = _number(empyrical.beta_aligned(r - rf, b - rf))
    alpha = None if beta is None else _number(((r - rf).mean() - beta * (b - rf).mean()) * SESSIONS_PER_YEAR)
    return {"beta": beta, "alpha": alpha, "information_ratio": sharpe_ratio(r - b), "tracking_error": volatility(r - b)}


def _number(value: float) -> float | None:
    # + 0.0 turns -0.0 into 0.0, which prints without a sign.
    return float(value) + 0.0 if math.isfinite(value) else None
