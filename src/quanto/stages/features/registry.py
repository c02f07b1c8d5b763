"""The closed table of feature sets; adding one is one module and one line here."""

from __future__ import annotations

from quanto.core.registry import Registry
from quanto.stages.features.column import FeatureSet, compose
from quanto.stages.features.core_v1 import CORE_V1
from quanto.stages.features.options_surface_v1 import OPTIONS_SURFACE_V1, OPTIONS_SURFACE_V1_LAG1
from quanto.stages.features.regime_v1 import REGIME_V1
from quanto.stages.features.regime_vix_v1 import REGIME_VIX_V1
from quanto.stages.features.xsec_v1 import XSEC_V1

_XSEC_REGIME = (CORE_V1, XSEC_V1, REGIME_V1)

FEATURE_SETS: Registry[FeatureSet] = Registry(
    "feature set",
    CORE_V1,
    XSEC_V1,
    REGIME_V1,
    REGIME_VIX_V1,
    OPTIONS_SURFACE_V1,
    OPTIONS_SURFACE_V1_LAG1,
    compose("core_v1_regime", "Own bars and the state of the market.", CORE_V1, REGIME_V1),
    compose("core_v1_xsec_regime", "Own bars, place among the others, state of the market.", *_XSEC_REGIME),
    compose("core_v1_xsec_regime_opts_v1", "The same with the options surface of the session.", *_XSEC_REGIME, OPTIONS_SURFACE_V1),
    compose("core_v1_xsec_regime_opts_v1_lag1", "The same with the surface of the session before.", *_XSEC_REGIME, OPTIONS_SURFACE_V1_LAG1),
)
