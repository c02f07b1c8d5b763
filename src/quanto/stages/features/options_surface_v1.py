"""`options_surface_v1`: what the options market expects, joined on the same session; `_lag1` one session later.

A surface of session t is known after its close, and the decision falls before the next open: the same-day join does
not look ahead as long as the vendor's `known_on` says so; a surface known the next morning is not seen at t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from quanto.market.panel import FloatArray
from quanto.market.windows import CARRIED_SESSIONS, lag, window_extremes, window_share_at_most
from quanto.policy.observation import INDICATOR_SUFFIX
from quanto.stages.features.column import FeatureColumn, FeatureSet
from quanto.stages.features.core_v1 import realised
from quanto.stages.features.derived import Derived
from quanto.stages.features.view import ACTIONS, BARS, SURFACE

RANK_SESSIONS = 126
RANK_MINIMUM = 60
_MISSING = "missing where no surface passed the checks"


def measure(market: Derived, name: str) -> FloatArray:
    """Return a measure of the surface; NaN everywhere where the data have no surface."""
    return market.view.surface.get(name, np.full(market.panel.close.shape, np.nan))


def _atm(market: Derived) -> FloatArray:
    return measure(market, "atm_30")


def _rank(market: Derived) -> FloatArray:
    level = _atm(market)
    highest, lowest = window_extremes(level, RANK_SESSIONS, RANK_MINIMUM)
    span = highest - lowest
    # A span that is NaN (too few observed) compares as neither.
    rank = np.where(span > 0, (level - lowest) / np.where(span > 0, span, 1.0), np.where(span == 0, 0.5, np.nan))
    return np.where(np.isfinite(level), rank, np.nan)


def _log_ratio(kind: str) -> Callable[[Derived], FloatArray]:
    def compute(market: Derived) -> FloatArray:
        return np.log1p(measure(market, f"put_{kind}")) - np.log1p(measure(market, f"call_{kind}"))

    return compute


def _column(
    name: str,
    formula: str,
    unit: str,
    compute: Callable[[Derived], FloatArray],
    *,
    lookback: int = 0,
    nan_rule: str = _MISSING,
    source: str = "Xing, Zhang, Zhao (2010)",
    reads: frozenset[str] = frozenset({SURFACE}),
) -> FeatureColumn:
    """Return a column of the surface; a name without it may be held, an indicator says so."""
    return FeatureColumn(
        name=name,
        axis="asset",
        formula=formula,
        unit=unit,
        lookback=lookback,
        nan_rule=nan_rule,
        source=source,
        reads=reads,
        compute=compute,
        required=False,
    )


def _indicator(name: str, of: str, compute: Callable[[Derived], FloatArray]) -> FeatureColumn:
    def seen(market: Derived) -> FloatArray:
        return np.isfinite(compute(market)).astype(np.float64)

    return _column(name + INDICATOR_SUFFIX, f"1 where {of} is there, else 0", "0 or 1", seen, nan_rule="never missing", source="a mask")


def _skew(market: Derived) -> FloatArray:
    return measure(market, "call_25_30") - measure(market, "put_25_30")


def _butterfly(market: Derived) -> FloatArray:
    return 0.5 * (measure(market, "call_25_30") + measure(market, "put_25_30")) - _atm(market)


def _level(tenor: int) -> Callable[[Derived], FloatArray]:
    return lambda market: measure(market, f"atm_{tenor}")


def _slope(tenor: int) -> Callable[[Derived], FloatArray]:
    return lambda market: measure(market, f"atm_{tenor}") - _atm(market)


OPTIONS_SURFACE_V1 = FeatureSet(
    "options_surface_v1",
    "Level, term structure, skew and rank of implied volatility, and put/call activity, joined on the same session.",
    (
        *(
            _column(
                f"atm_iv_{tenor}",
                f"volatility at ln(K/F) = 0, linear in total variance to {tenor} calendar days",
                "fraction per year",
                _level(tenor),
            )
            for tenor in (30, 60, 90)
        ),
        _column("term_slope_30_60", "atm_iv_60 - atm_iv_30", "fraction per year", _slope(60), source="Vasquez (2017)"),
        _column("term_slope_30_90", "atm_iv_90 - atm_iv_30", "fraction per year", _slope(90), source="Vasquez (2017)"),
        _column("skew_25_30", "iv(25-delta call) - iv(25-delta put) at 30 days", "fraction per year", _skew),
        _column("butterfly_25_30", "mean of both 25-delta iv - atm_iv_30", "fraction per year", _butterfly),
        _column(
            "iv_minus_realised_30",
            "atm_iv_30 - volatility_21",
            "fraction per year",
            lambda market: _atm(market) - realised(market, 21),
            lookback=21 + 2 * CARRIED_SESSIONS,
            nan_rule="missing with atm_iv_30 or volatility_21",
            source="Goyal, Saretto (2009)",
            reads=frozenset({SURFACE, BARS, ACTIONS}),
        ),
        _column(
            "iv_rank_126",
            "(atm_iv_30 - min) / (max - min) over t-125..t; 0.5 where all are equal",
            "fraction, 0 to 1",
            _rank,
            lookback=RANK_SESSIONS - 1,
            nan_rule="missing with atm_iv_30 or fewer than 60 of the 126 observed",
            source="practice: IV rank",
        ),
        _column(
            "iv_percentile_126",
            "share of atm_iv_30 over t-125..t that are <= that of t",
            "fraction, above 0 up to 1",
            lambda market: window_share_at_most(_atm(market), RANK_SESSIONS, RANK_MINIMUM),
            lookback=RANK_SESSIONS - 1,
            nan_rule="missing with atm_iv_30 or fewer than 60 of the 126 observed",
            source="practice: IV percentile",
        ),
        _column(
            "put_call_open_interest",
            "ln((1 + open interest of puts) / (1 + of calls)), all contracts",
            "log ratio",
            _log_ratio("open_interest"),
            nan_rule="missing where a side has no open interest reported",
            source="Fodor, Krieger, Doran (2011)",
        ),
        _column(
            "put_call_volume",
            "ln((1 + volume of puts) / (1 + of calls)), all contracts",
            "log ratio",
            _log_ratio("volume"),
            nan_rule="missing where a side has no volume reported",
            source="Pan, Poteshman (2006)",
        ),
        _indicator("atm_iv", "atm_iv_30", _atm),
        _indicator("skew", "skew_25_30", _skew),
        _indicator("open_interest", "put_call_open_interest", _log_ratio("open_interest")),
        _indicator("option_volume", "put_call_volume", _log_ratio("volume")),
    ),
)


def _lagged(column: FeatureColumn) -> FeatureColumn:
    indicator = column.name.endswith(INDICATOR_SUFFIX)

    def compute(market: Derived) -> FloatArray:
        values = lag(market.once(column.compute), 1)
        # An indicator is never missing: before the first session nothing is there.
        return np.where(np.isnan(values), 0.0, values) if indicator else values

    stem = column.name.removesuffix(INDICATOR_SUFFIX)
    return replace(
        column,
        name=f"{stem}_lag1{INDICATOR_SUFFIX}" if indicator else f"{column.name}_lag1",
        formula=f"of session t-1: {column.formula}",
        lookback=None if column.lookback is None else column.lookback + 1,
        lag=column.lag + 1,
        compute=compute,
    )


OPTIONS_SURFACE_V1_LAG1 = FeatureSet(
    "options_surface_v1_lag1",
    "The columns of options_surface_v1 one session later: for data that come overnight, and to test for leaks.",
    tuple(_lagged(column) for column in OPTIONS_SURFACE_V1.columns),
)
