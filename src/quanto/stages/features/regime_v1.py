"""`regime_v1`: the state of the market, one value for all names."""

from __future__ import annotations

import numpy as np

from quanto.market.panel import FloatArray
from quanto.market.regimes import expanding_percentile, realised_volatility
from quanto.market.windows import CARRIED_SESSIONS, TINY, window_mean, window_median, window_moments, window_price_mean, window_sum
from quanto.stages.features.column import FeatureColumn, FeatureSet
from quanto.stages.features.derived import MINIMUM_NAMES, Derived, row_mean, row_moments
from quanto.stages.features.view import ACTIONS, BARS, INDEX

# Where no index is configured its place is taken by the mean return of the names: hence the bars.
_INDEX = frozenset({INDEX, BARS, ACTIONS})
_BARS = frozenset({BARS, ACTIONS})
_NAMES = "missing where fewer than 3 names are observed"
PERCENTILE_SESSIONS = 252
CORRELATION_SESSIONS = 20


def _index_volatility(market: Derived) -> FloatArray:
    return realised_volatility(market.index_return, 21)


def _index_percentile(market: Derived) -> FloatArray:
    return expanding_percentile(market.once(_index_volatility), PERCENTILE_SESSIONS)


def _index_trend(market: Derived) -> FloatArray:
    return window_sum(np.log1p(market.index_return), 20)


def _dispersion(market: Derived) -> FloatArray:
    _, deviation = row_moments(market.peers(market.log_return(1)))
    return window_mean(deviation, 20)


def _mean_correlation(market: Derived) -> FloatArray:
    # With z the returns of a name over the window, standardised to unit length, the sum of all pairwise correlations
    # is |sum of z over names|^2: O(window) passes instead of O(names^2).
    window = CORRELATION_SESSIONS
    returns = market.log_return(1)
    mean, deviation = window_moments(returns, window, minimum=window)
    used = np.isfinite(mean) & (deviation > TINY) & market.view.member
    scale = np.where(used, 1.0 / (np.where(used, deviation, 1.0) * np.sqrt(window - 1.0)), 0.0)
    centre = (np.where(used, mean, 0.0) * scale).sum(axis=1)
    names = used.sum(axis=1)
    total = np.zeros(len(names))
    filled = np.where(np.isfinite(returns), returns, 0.0)
    for back in range(min(window, len(names))):
        length = np.zeros(len(names))
        length[back:] = (filled[: len(filled) - back] * scale[back:]).sum(axis=1)
        total += (length - centre) ** 2
    pairs = np.maximum(names * (names - 1.0), 1.0)
    return np.where(names >= MINIMUM_NAMES, (total - names) / pairs, np.nan)


def _correlation_spike(market: Derived) -> FloatArray:
    correlation = market.once(_mean_correlation)
    return correlation - window_median(correlation, 60)


def _breadth(market: Derived) -> FloatArray:
    distance = market.panel.close / window_price_mean(market.panel.close, market.panel.split, 50) - 1.0
    above = np.where(np.isfinite(distance), (distance > 0.0).astype(np.float64), np.nan)
    return row_mean(market.peers(above))


REGIME_V1 = FeatureSet(
    "regime_v1",
    "Volatility and trend of the market index, dispersion, mean correlation and breadth of the universe.",
    (
        FeatureColumn(
            name="index_volatility_21",
            axis="market",
            formula="std(simple index return over t-20..t, ddof 1) * sqrt(252)",
            unit="fraction per year",
            lookback=21 + 2 * CARRIED_SESSIONS,
            nan_rule="missing where fewer than 17 of the 21 returns are observed",
            source="Hull (2018), section 15.4",
            reads=_INDEX,
            compute=lambda market: market.once(_index_volatility),
        ),
        FeatureColumn(
            name="index_volatility_percentile",
            axis="market",
            formula="share of all index_volatility_21 up to t that are <= that of t",
            unit="fraction, above 0 up to 1",
            lookback=None,
            nan_rule="missing until 252 volatilities were seen",
            source="expanding empirical distribution function",
            reads=_INDEX,
            compute=_index_percentile,
        ),
        FeatureColumn(
            name="index_trend_20",
            axis="market",
            formula="sum of ln(1 + simple index return) over t-19..t",
            unit="log fraction",
            lookback=20 + 2 * CARRIED_SESSIONS,
            nan_rule="missing where fewer than 16 of the 20 returns are observed",
            source="Moskowitz, Ooi, Pedersen (2012), over 20 sessions",
            reads=_INDEX,
            compute=_index_trend,
        ),
        FeatureColumn(
            name="dispersion_20",
            axis="market",
            formula="mean over t-19..t of std(return_1 over the session's names, ddof 1)",
            unit="log fraction per session",
            lookback=20 + 2 * CARRIED_SESSIONS,
            nan_rule=_NAMES,
            source="Solnik, Roulet (2000)",
            reads=_BARS,
            compute=_dispersion,
        ),
        FeatureColumn(
            name="mean_correlation_20",
            axis="market",
            formula="mean over all pairs of names of corr(return_1 over t-19..t); names with all 20 returns and some variance",
            unit="correlation",
            lookback=20 + CARRIED_SESSIONS,
            nan_rule=_NAMES,
            source="Pollet, Wilson (2010), equally weighted",
            reads=_BARS,
            compute=lambda market: market.once(_mean_correlation),
        ),
        FeatureColumn(
            name="correlation_spike_60",
            axis="market",
            formula="mean_correlation_20(t) - median(mean_correlation_20 over t-59..t)",
            unit="correlation",
            lookback=79 + 2 * CARRIED_SESSIONS,
            nan_rule="missing with mean_correlation_20 or fewer than 54 of the 60 observed",
            source="Pollet, Wilson (2010), against its own median",
            reads=_BARS,
            compute=_correlation_spike,
        ),
        FeatureColumn(
            name="breadth",
            axis="market",
            formula="share of names whose close(t) is above mean(close over t-49..t, split-adjusted to t)",
            unit="fraction",
            lookback=49 + CARRIED_SESSIONS,
            nan_rule=_NAMES,
            source="Zakamulin (2017), share above the 50-session mean",
            reads=_BARS,
            compute=_breadth,
        ),
    ),
)
