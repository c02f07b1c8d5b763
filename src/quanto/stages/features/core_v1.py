"""`core_v1`: each name's own bars."""

from __future__ import annotations

import numpy as np

from quanto.market.panel import FloatArray
from quanto.market.windows import (
    CARRIED_SESSIONS,
    TINY,
    window_mean,
    window_moments,
    window_price_extremes,
    window_price_mean,
)
from quanto.stages.features.column import FeatureColumn, FeatureSet
from quanto.stages.features.derived import ANNUAL_SESSIONS, Derived
from quanto.stages.features.view import ACTIONS, BARS

_READS = frozenset({BARS, ACTIONS})
_FULL = "missing without a bar at t, with more than 4 sessions (or a tenth) of the window missing, or none of the five up to its oldest"
_CARRIED = "missing without a bar at t or without any bar in the five sessions up to the older end"


def log_return(sessions: int) -> FeatureColumn:
    """Return the column of the log return over `sessions` sessions."""
    return FeatureColumn(
        name=f"return_{sessions}",
        axis="asset",
        formula=f"ln(close(t) * splits(t-{sessions - 1}..t) / close carried to t-{sessions})",
        unit="log fraction",
        lookback=sessions + CARRIED_SESSIONS,
        nan_rule=_CARRIED,
        source="Campbell, Lo, MacKinlay (1997), section 1.4",
        reads=_READS,
        compute=lambda market: market.log_return(sessions),
    )


def volatility(sessions: int) -> FeatureColumn:
    """Return the column of the realised volatility over `sessions` returns."""
    return FeatureColumn(
        name=f"volatility_{sessions}",
        axis="asset",
        formula=f"std(return_1 over t-{sessions - 1}..t, ddof 1) * sqrt(252)",
        unit="fraction per year",
        lookback=sessions + 2 * CARRIED_SESSIONS,
        nan_rule=_FULL,
        source="Hull (2018), section 15.4",
        reads=_READS,
        compute=lambda market: realised(market, sessions),
    )


def realised(market: Derived, sessions: int) -> FloatArray:
    """Return the annualised standard deviation of the last `sessions` daily log returns; NaN without a bar at t."""
    returns = market.log_return(1)
    _, deviation = window_moments(returns, sessions)
    return _where_traded(market, deviation * np.sqrt(ANNUAL_SESSIONS))


def dollar_volume(market: Derived) -> FloatArray:
    """Return raw close times raw volume in USD, which no split changes."""
    return market.panel.close * market.panel.volume


def _where_traded(market: Derived, values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(market.panel.close), values, np.nan)


def _overnight(market: Derived) -> FloatArray:
    return _where_traded(market, np.log(market.panel.open / market.previous_close))


def _intraday(market: Derived) -> FloatArray:
    return np.log(market.panel.close / market.panel.open)


def _true_range(market: Derived) -> FloatArray:
    panel, previous = market.panel, market.previous_close
    span = (np.maximum(panel.high, previous) - np.minimum(panel.low, previous)) / panel.close
    return _where_traded(market, window_mean(span, 14))


def _distance_high(market: Derived) -> FloatArray:
    highest, _ = window_price_extremes(market.panel.high, market.panel.low, market.panel.split, 20)
    return market.panel.close / highest - 1.0


def _distance_low(market: Derived) -> FloatArray:
    _, lowest = window_price_extremes(market.panel.high, market.panel.low, market.panel.split, 20)
    return market.panel.close / lowest - 1.0


def _distance_mean(market: Derived) -> FloatArray:
    return market.panel.close / window_price_mean(market.panel.close, market.panel.split, 200) - 1.0


def _log_dollar_volume(market: Derived) -> FloatArray:
    return np.log1p(dollar_volume(market))


def _volume_zscore(market: Derived) -> FloatArray:
    logs = np.log(np.maximum(market.panel.volume, 1.0))
    mean, deviation = window_moments(logs, 20, shift=np.log(market.panel.split))
    equal = deviation <= TINY * np.maximum(np.abs(mean), 1.0)
    return np.where(equal, (logs - mean) * 0.0, (logs - mean) / np.where(equal, 1.0, deviation))


CORE_V1 = FeatureSet(
    "core_v1",
    "Returns, volatility, range, distance from highs, lows and the long mean, and volume of each name's own bars.",
    (
        log_return(1),
        log_return(5),
        log_return(21),
        FeatureColumn(
            name="overnight_return",
            axis="asset",
            formula="ln(open(t) * split(t) / close carried to t-1)",
            unit="log fraction",
            lookback=1 + CARRIED_SESSIONS,
            nan_rule=_CARRIED,
            source="Lou, Polk, Skouras (2019), section 2",
            reads=_READS,
            compute=_overnight,
        ),
        FeatureColumn(
            name="intraday_return",
            axis="asset",
            formula="ln(close(t) / open(t))",
            unit="log fraction",
            lookback=0,
            nan_rule="missing without a bar at t",
            source="Lou, Polk, Skouras (2019), section 2",
            reads=frozenset({BARS}),
            compute=_intraday,
        ),
        volatility(21),
        volatility(63),
        FeatureColumn(
            name="true_range_14",
            axis="asset",
            formula="mean over t-13..t of (max(high, previous close) - min(low, previous close)) / close",
            unit="fraction",
            lookback=14 + 2 * CARRIED_SESSIONS,
            nan_rule=_FULL,
            source="Wilder (1978), chapter 3, over the close of its own session",
            reads=_READS,
            compute=_true_range,
        ),
        FeatureColumn(
            name="distance_high_20",
            axis="asset",
            formula="close(t) / max(high over t-19..t, split-adjusted to t) - 1",
            unit="fraction, 0 or below",
            lookback=19 + CARRIED_SESSIONS,
            nan_rule=_FULL,
            source="George, Hwang (2004), over 20 sessions",
            reads=_READS,
            compute=_distance_high,
        ),
        FeatureColumn(
            name="distance_low_20",
            axis="asset",
            formula="close(t) / min(low over t-19..t, split-adjusted to t) - 1",
            unit="fraction, 0 or above",
            lookback=19 + CARRIED_SESSIONS,
            nan_rule=_FULL,
            source="George, Hwang (2004), over 20 sessions",
            reads=_READS,
            compute=_distance_low,
        ),
        FeatureColumn(
            name="distance_mean_200",
            axis="asset",
            formula="close(t) / mean(close over t-199..t, split-adjusted to t) - 1",
            unit="fraction",
            lookback=199 + CARRIED_SESSIONS,
            nan_rule=_FULL,
            source="Faber (2007)",
            reads=_READS,
            compute=_distance_mean,
        ),
        FeatureColumn(
            name="log_dollar_volume",
            axis="asset",
            formula="ln(1 + close(t) * volume(t)), both raw",
            unit="log USD",
            lookback=0,
            nan_rule="missing without a bar at t",
            source="Amihud (2002), the denominator",
            reads=frozenset({BARS}),
            compute=_log_dollar_volume,
        ),
        FeatureColumn(
            name="volume_zscore_20",
            axis="asset",
            formula="(v(t) - mean(v)) / std(v, ddof 1) over t-19..t, v = ln(max(volume, 1)) split-adjusted to t; 0 if all v are equal",
            unit="standard deviations",
            lookback=19 + CARRIED_SESSIONS,
            nan_rule=_FULL,
            source="Gervais, Kaniel, Mingelgrin (2001), as a z-score",
            reads=_READS,
            compute=_volume_zscore,
        ),
    ),
)
