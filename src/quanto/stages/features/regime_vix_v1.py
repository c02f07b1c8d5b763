"""`regime_vix_v1`: the state of the market with the VIX."""

from __future__ import annotations

import numpy as np

from quanto.market.panel import FloatArray
from quanto.market.regimes import expanding_percentile
from quanto.market.windows import CARRIED_SESSIONS, lag
from quanto.stages.features.column import FeatureColumn, FeatureSet, compose
from quanto.stages.features.derived import Derived, carry
from quanto.stages.features.regime_v1 import PERCENTILE_SESSIONS, REGIME_V1
from quanto.stages.features.view import VIX

_READS = frozenset({VIX})
_SOURCE = "Whaley (2009)"
CHANGE_SESSIONS = 5


def _level(market: Derived) -> FloatArray:
    return market.vix


def _change(market: Derived) -> FloatArray:
    level = market.vix[:, None]
    older = lag(carry(level, np.ones_like(level)), CHANGE_SESSIONS)
    return np.asarray(np.log(level / older)[:, 0])


def _percentile(market: Derived) -> FloatArray:
    return expanding_percentile(market.vix, PERCENTILE_SESSIONS)


REGIME_VIX_V1 = compose(
    "regime_vix_v1",
    "The state of the market with level, change and percentile of the VIX.",
    REGIME_V1,
    FeatureSet(
        "vix",
        "Level, change and percentile of the VIX.",
        (
            FeatureColumn(
                name="vix_level",
                axis="market",
                formula="VIX(t) / 100",
                unit="fraction per year",
                lookback=0,
                nan_rule="missing without a value of t",
                source=_SOURCE,
                reads=_READS,
                compute=_level,
            ),
            FeatureColumn(
                name="vix_change_5",
                axis="market",
                formula="ln(VIX(t) / VIX carried to t-5)",
                unit="log fraction",
                lookback=CHANGE_SESSIONS + CARRIED_SESSIONS,
                nan_rule="missing without a value of t, or of the five sessions up to t-5",
                source=_SOURCE,
                reads=_READS,
                compute=_change,
            ),
            FeatureColumn(
                name="vix_percentile",
                axis="market",
                formula="share of all VIX values up to t that are <= that of t",
                unit="fraction, above 0 up to 1",
                lookback=None,
                nan_rule="missing without a value of t, and until 252 values were seen",
                source=_SOURCE,
                reads=_READS,
                compute=_percentile,
            ),
        ),
    ),
)
