"""`xsec_v1`: each name among the others of its session.

A cross-section is the members of the universe with the value at t; with fewer than three the column is missing. The market of beta is the
mean return of the *other* names, so that a large name is not explained by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from quanto.market.panel import FloatArray
from quanto.market.windows import CARRIED_SESSIONS, TINY, window_mean, window_moments, window_regression
from quanto.stages.features.column import FeatureColumn, FeatureSet
from quanto.stages.features.core_v1 import dollar_volume, realised
from quanto.stages.features.derived import ANNUAL_SESSIONS, MINIMUM_NAMES, Derived, row_mean, row_rank, row_zscore
from quanto.stages.features.view import ACTIONS, BARS

_READS = frozenset({BARS, ACTIONS})
_NAMES = "missing without the underlying value at t, for non-members, or where fewer than 3 names have one"
BETA_SESSIONS = 63
TREND_SESSIONS = 20


def _return_5(market: Derived) -> FloatArray:
    return market.log_return(5)


def _return_21(market: Derived) -> FloatArray:
    return market.log_return(21)


def _volatility(market: Derived) -> FloatArray:
    return realised(market, 21)


def _liquidity(market: Derived) -> FloatArray:
    traded = np.isfinite(market.panel.close)
    return np.where(traded, np.log1p(window_mean(dollar_volume(market), 20)), np.nan)


def _relative_strength(market: Derived) -> FloatArray:
    returns = market.peers(market.log_return(TREND_SESSIONS))
    return returns - row_mean(returns)[:, None]


def _trend_strength(market: Derived) -> FloatArray:
    _, deviation = window_moments(market.log_return(1), TREND_SESSIONS)
    scale = deviation * np.sqrt(TREND_SESSIONS)
    moves = scale > TINY
    return np.where(moves, market.log_return(TREND_SESSIONS) / np.where(moves, scale, 1.0), np.nan)


def _others_mean(market: Derived) -> FloatArray:
    returns = market.peers(market.log_return(1))
    seen = np.isfinite(returns)
    own = np.where(seen, returns, 0.0)
    others = seen.sum(axis=1)[:, None] - seen
    return np.where(others >= MINIMUM_NAMES - 1, (own.sum(axis=1)[:, None] - own) / np.maximum(others, 1), np.nan)


def _regression(market: Derived) -> FloatArray:
    """Return slope and residual deviation, stacked on a new first axis; NaN without a bar at t."""
    both = np.stack(window_regression(_others_mean(market), market.log_return(1), BETA_SESSIONS))
    return np.where(np.isfinite(market.panel.close), both, np.nan)


def _beta(market: Derived) -> FloatArray:
    slope: FloatArray = market.once(_regression)[0]
    return slope


def _idiosyncratic(market: Derived) -> FloatArray:
    residual: FloatArray = market.once(_regression)[1] * np.sqrt(ANNUAL_SESSIONS)
    return residual


def _compared(
    what: str, formula: str, lookback: int, value: Callable[[Derived], FloatArray], reads: frozenset[str] = _READS
) -> tuple[FeatureColumn, FeatureColumn]:
    """Return the z-score and the rank of a value among the names of its session."""
    zscore = FeatureColumn(
        name=f"xsec_{what}_zscore",
        axis="asset",
        formula=f"(x - mean(x)) / std(x, ddof 1) over the session's names, x = {formula}; 0 if all are equal",
        unit="standard deviations",
        lookback=lookback,
        nan_rule=_NAMES,
        source="Gu, Kelly, Xiu (2020), cross-sectional standardisation",
        reads=reads,
        compute=lambda market: row_zscore(market.peers(market.once(value))),
    )
    rank = FeatureColumn(
        name=f"xsec_{what}_rank",
        axis="asset",
        formula=f"(rank(x) - 1) / (n - 1) - 0.5 over the session's n names, ties at their mean rank, x = {formula}",
        unit="-0.5 (lowest) to 0.5 (highest)",
        lookback=lookback,
        nan_rule=_NAMES,
        source="Gu, Kelly, Xiu (2020), section 2.1",
        reads=reads,
        compute=lambda market: row_rank(market.peers(market.once(value))),
    )
    return zscore, rank


def _own(name: str, formula: str, unit: str, lookback: int, source: str, compute: Callable[[Derived], FloatArray]) -> FeatureColumn:
    return FeatureColumn(
        name=name,
        axis="asset",
        formula=formula,
        unit=unit,
        lookback=lookback,
        nan_rule=_NAMES,
        source=source,
        reads=_READS,
        compute=compute,
    )


XSEC_V1 = FeatureSet(
    "xsec_v1",
    "Return, volatility and liquidity of a name among its peers, relative and trend strength, beta and idiosyncratic volatility.",
    (
        *_compared("return_5", "return_5", 5 + CARRIED_SESSIONS, _return_5),
        *_compared("return_21", "return_21", 21 + CARRIED_SESSIONS, _return_21),
        *_compared("volatility_21", "volatility_21", 21 + 2 * CARRIED_SESSIONS, _volatility),
        *_compared("liquidity_20", "ln(1 + mean(close * volume over t-19..t))", 19 + CARRIED_SESSIONS, _liquidity, frozenset({BARS})),
        _own(
            "relative_strength_20",
            "log return over 20 sessions - its mean over the session's names",
            "log fraction",
            TREND_SESSIONS + CARRIED_SESSIONS,
            "Jegadeesh, Titman (1993), over 20 sessions",
            _relative_strength,
        ),
        _own(
            "trend_strength_20",
            "log return over 20 sessions / (std(return_1 over t-19..t, ddof 1) * sqrt(20))",
            "standard deviations",
            TREND_SESSIONS + 2 * CARRIED_SESSIONS,
            "Moskowitz, Ooi, Pedersen (2012), eq. 1",
            _trend_strength,
        ),
        _own(
            "beta_63",
            "slope of return_1 on the mean return_1 of the other names over t-62..t",
            "1",
            BETA_SESSIONS + 2 * CARRIED_SESSIONS,
            "Frazzini, Pedersen (2014), against the other names",
            _beta,
        ),
        _own(
            "idiosyncratic_volatility_63",
            "std(residual of that regression, n - 2) * sqrt(252)",
            "fraction per year",
            BETA_SESSIONS + 2 * CARRIED_SESSIONS,
            "Ang, Hodrick, Xing, Zhang (2006), one factor",
            _idiosyncratic,
        ),
    ),
)
