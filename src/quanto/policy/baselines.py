"""Rule-based books that every candidate is compared with, through the same simulator, costs and eligibility.

A baseline is a rule over what was known at the close of the deciding session. Sources: DeMiguel, Garlappi and Uppal
(2009) for equal weight; Jegadeesh and Titman (1993) for momentum; Faber (2007) for the 200-session trend; Moreira and
Muir (2017) for volatility targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skfolio import RiskMeasure
from skfolio.optimization import MeanRisk

from quanto.core.errors import DataError
from quanto.core.registry import Registry
from quanto.env.simulation import Decide, Simulation
from quanto.env.tape import Tape
from quanto.market.calendar import DateArray
from quanto.portfolio.constraints import Limits

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SESSIONS_PER_YEAR = 252
MONTH_SESSIONS = 21
QUARTER_SESSIONS = 63
TREND_SESSIONS = 200
TARGET_VOLATILITY = 0.25


@dataclass(frozen=True)
class BaselineMarket:
    """What baselines may read; row t holds what was known at the close of session t.

    Attributes
    ----------
    returns
        Shape (n_sessions, n_symbols): total return of session t (splits and dividends included); NaN before listing.
    eligible
        Shape (n_sessions, n_symbols): whether the name may be held.
    month_end
        Shape (n_sessions,): whether the next session of the calendar lies in another month (known in advance).
    market_volatility
        Shape (n_sessions,): annualised, trailing 21 sessions; NaN where unknown.
    """

    returns: FloatArray
    eligible: BoolArray
    month_end: BoolArray
    market_volatility: FloatArray
    limits: Limits


@dataclass(frozen=True)
class Baseline:
    """A named rule: what it does, how many sessions it looks back, and the maker of its decision function.

    `limited` says whether the limits on weights cut its targets; buy-and-hold sells only what is no longer eligible.
    """

    name: str
    summary: str
    look_back: int
    make: Callable[[BaselineMarket], Decide]
    limited: bool = True
    lag: int = 0


def baseline_market(tape: Tape, sessions: DateArray, limits: Limits, index_volatility: FloatArray | None) -> BaselineMarket:
    """Return what baselines read, from the tape that the simulator runs on.

    Where there is no market index, the market is the equal-weight portfolio of the eligible names.

    Raises
    ------
    DataError
        If the axes differ in length.
    """
    if len(sessions) != len(tape.close) or (index_volatility is not None and len(index_volatility) != len(sessions)):
        raise DataError(f"baselines need one row per session: tape {len(tape.close)}, sessions {len(sessions)}")
    returns = total_returns(tape)
    months = sessions.astype("datetime64[M]")
    following = np.append(months[1:], months[-1])
    volatility = _universe_volatility(returns, tape.eligible) if index_volatility is None else index_volatility
    return BaselineMarket(returns, tape.eligible, months != following, volatility, limits)


def total_returns(tape: Tape) -> FloatArray:
    """Return each name's simple close-to-close return with splits and dividends; shape (n_sessions, n_symbols).

    NaN on the first session and where there was no price before.
    """
    out = np.full(tape.close.shape, np.nan)
    before = tape.close[:-1]
    priced = before > 0
    value = tape.close[1:] * tape.split[1:] + tape.dividend[1:]
    out[1:] = np.where(priced, value / np.where(priced, before, 1.0) - 1, np.nan)
    return out


def matched(simulation: Simulation, exposure: float) -> Decide:
    """Return the decision that holds a simulated baseline's mix at a constant gross exposure.

    Where the baseline held nothing there is no mix, and the book stays in cash. This kills "it only held less" and
    "it only held more".
    """
    gross = simulation.targets.sum(axis=1, keepdims=True)
    mix = np.where(gross > 0, simulation.targets / np.where(gross > 0, gross, 1.0), 0.0) * exposure

    def decide(t: int, _weights: FloatArray, _drawdown: float) -> FloatArray:
        return np.asarray(mix[t + 1 - simulation.start])

    return decide


def _equal(eligible: BoolArray) -> FloatArray:
    count = int(eligible.sum())
    return np.where(eligible, 1.0 / count, 0.0) if count else np.zeros(len(eligible))


def _cash(market: BaselineMarket) -> Decide:
    return lambda _t, _weights, _drawdown: np.zeros(market.returns.shape[1])


def _equal_weight(market: BaselineMarket) -> Decide:
    return lambda t, _weights, _drawdown: _equal(market.eligible[t])


def _buy_and_hold(market: BaselineMarket) -> Decide:
    bought: list[int] = []

    def decide(t: int, weights: FloatArray, _drawdown: float) -> FloatArray:
        if not bought and market.eligible[t].any():
            bought.append(t)
            return _equal(market.eligible[t])
        return weights

    return decide


def _monthly(rule: Callable[[BaselineMarket, int], FloatArray]) -> Callable[[BaselineMarket], Decide]:
    """Return a maker that applies a rule at month ends and at the first decision, and lets weights drift between."""

    def make(market: BaselineMarket) -> Decide:
        started: list[int] = []

        def decide(t: int, weights: FloatArray, _drawdown: float) -> FloatArray:
            if started and not market.month_end[t]:
                return weights
            started.append(t)
            return rule(market, t)

        return decide

    return make


def _window(market: BaselineMarket, t: int, sessions: int) -> tuple[FloatArray, BoolArray]:
    """Return the last `sessions` returns up to t and which eligible names have all of them."""
    if t + 1 < sessions:
        return np.empty((0, market.returns.shape[1])), np.zeros(market.returns.shape[1], dtype=bool)
    window = market.returns[t + 1 - sessions : t + 1]
    return window, market.eligible[t] & np.isfinite(window).all(axis=0)


def _inverse_volatility(market: BaselineMarket, t: int) -> FloatArray:
    window, known = _window(market, t, QUARTER_SESSIONS)
    weights = np.zeros(len(known))
    if known.any():
        volatility = window[:, known].std(axis=0, ddof=1)
        if (volatility > 0).all():
            weights[known] = 1 / volatility / (1 / volatility).sum()
    return weights


def _minimum_variance(market: BaselineMarket, t: int) -> FloatArray:
    window, known = _window(market, t, SESSIONS_PER_YEAR)
    weights = np.zeros(len(known))
    count = int(known.sum())
    if count == 0:
        return weights
    cap = max(market.limits.max_weight, 1.0 / count)
    if count == 1:
        weights[known] = 1.0
        return weights
    model = MeanRisk(risk_measure=RiskMeasure.VARIANCE, min_weights=0.0, max_weights=cap)
    weights[known] = np.maximum(model.fit(window[:, known]).weights_, 0.0)
    return weights


def _momentum(market: BaselineMarket, t: int) -> FloatArray:
    window, known = _window(market, t, SESSIONS_PER_YEAR)
    weights = np.zeros(len(known))
    count = int(known.sum())
    if count == 0:
        return weights
    growth = np.log1p(window[:-MONTH_SESSIONS]).sum(axis=0)
    # Enough winners that the cap per name still lets the book be fully invested.
    winners = min(count, max(math.ceil(count / 3), math.ceil(1 / market.limits.max_weight)))
    # Ties go to the earlier symbol: a stable sort of the negative growth.
    ranked = np.argsort(np.where(known, -growth, np.inf), kind="stable")[:winners]
    weights[ranked] = 1.0 / winners
    return weights


def _trend(market: BaselineMarket) -> Decide:
    level = np.cumsum(np.log1p(np.nan_to_num(market.returns)), axis=0)

    def decide(t: int, _weights: FloatArray, _drawdown: float) -> FloatArray:
        _, known = _window(market, t, TREND_SESSIONS)
        if not known.any():
            return np.zeros(len(known))
        # Relative to today's level, so that the mean is of prices, not of logarithms.
        path = np.exp(level[t + 1 - TREND_SESSIONS : t + 1] - level[t])
        return np.where(known & (path.mean(axis=0) < 1.0), 1.0 / int(market.eligible[t].sum()), 0.0)

    return decide


def _volatility_target(market: BaselineMarket) -> Decide:
    def decide(t: int, _weights: FloatArray, _drawdown: float) -> FloatArray:
        volatility = market.market_volatility[t]
        # Unknown volatility is no calm: fail closed into cash.
        share = min(1.0, TARGET_VOLATILITY / volatility) if volatility > 0 else 0.0
        return _equal(market.eligible[t]) * share

    return decide


def _universe_volatility(returns: FloatArray, eligible: BoolArray) -> FloatArray:
    held = np.vstack([np.zeros((1, returns.shape[1]), dtype=bool), eligible[:-1]]) & np.isfinite(returns)
    count = held.sum(axis=1)
    mean = np.where(count > 0, np.where(held, returns, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
    out = np.full(len(returns), np.nan)
    if len(mean) >= MONTH_SESSIONS:
        windows = np.lib.stride_tricks.sliding_window_view(mean, MONTH_SESSIONS)
        out[MONTH_SESSIONS - 1 :] = windows.std(axis=1, ddof=1) * math.sqrt(SESSIONS_PER_YEAR)
    return out


BASELINES: Registry[Baseline] = Registry(
    "baseline",
    Baseline("cash_v1", "everything in cash", 0, _cash),
    Baseline("equal_weight_v1", "the same weight in every eligible name, restored each session", 0, _equal_weight),
    Baseline("buy_and_hold_v1", "equal weight at the first decision, then never a trade", 0, _buy_and_hold, limited=False),
    Baseline(
        "inverse_volatility_v1",
        "weights by the inverse of 63-session volatility, monthly",
        QUARTER_SESSIONS,
        _monthly(_inverse_volatility),
    ),
    Baseline(
        "minimum_variance_v1",
        "long-only minimum variance on 252 sessions (skfolio), monthly",
        SESSIONS_PER_YEAR,
        _monthly(_minimum_variance),
    ),
    Baseline(
        "momentum_12_1_v1",
        "the best third by return of months 12 to 2, equally weighted, monthly",
        SESSIONS_PER_YEAR,
        _monthly(_momentum),
    ),
    Baseline("trend_200_v1", "equal shares in the names above their 200-session mean, the rest in cash", TREND_SESSIONS, _trend),
    Baseline(
        "volatility_target_v1",
        "equal weight times min(1, 25 % / trailing market volatility)",
        MONTH_SESSIONS,
        _volatility_target,
    ),
)
