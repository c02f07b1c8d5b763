"""Each column against pandas on fully back-adjusted series: another formula, another library, the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from quanto.policy.observation import INDICATOR_SUFFIX
from quanto.stages.features.compute import compute_columns
from quanto.stages.features.registry import FEATURE_SETS
from tests.stages.features.feature_markets import market

YEAR = np.sqrt(252)
VIEW = market(sessions=330, names=5, seed=11)
PANEL = VIEW.panel
# Back-adjusting by later splits is a leak in a feature, and the shortest independent way to the same ratios in a test.
LATER = np.cumprod(PANEL.split[::-1], axis=0)[::-1] / PANEL.split
OPEN, HIGH, LOW, CLOSE = (pd.DataFrame(getattr(PANEL, name) / LATER) for name in ("open", "high", "low", "close"))
VOLUME = pd.DataFrame(PANEL.volume * LATER)
DOLLARS = pd.DataFrame(PANEL.close * PANEL.volume)
LOG = np.log(CLOSE)
RETURN = LOG.diff()
INDEX = pd.Series(VIEW.series["index"][0])
VIX = pd.Series(VIEW.series["vix"][0])
CORRELATION = RETURN.rolling(20).corr().groupby(level=0).apply(lambda block: block.to_numpy()[np.triu_indices(5, 1)].mean())


def _zscore(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sub(frame.mean(axis=1), axis=0).div(frame.std(axis=1), axis=0)


def _rank(frame: pd.DataFrame) -> pd.DataFrame:
    return (frame.rank(axis=1) - 1).div(frame.count(axis=1) - 1, axis=0) - 0.5


def _true_range() -> pd.DataFrame:
    previous = CLOSE.shift()
    spans = [HIGH - LOW, (HIGH - previous).abs(), (LOW - previous).abs()]
    largest = pd.concat(spans).groupby(level=0).max().where(previous.notna())
    return (largest / CLOSE).rolling(14).mean()


def _regression(session: int, name: int) -> tuple[float, float]:
    y = RETURN.iloc[session - 62 : session + 1, name].to_numpy()
    x = RETURN.drop(columns=name).mean(axis=1).iloc[session - 62 : session + 1].to_numpy()
    design = np.column_stack([np.ones(63), x])
    coefficients, residual, _, _ = np.linalg.lstsq(design, y, rcond=None)
    return float(coefficients[1]), float(np.sqrt(residual[0] / 61) * YEAR)


REGRESSION = np.full((2, len(CLOSE), 5), np.nan)
for _session in range(63, len(CLOSE)):
    for _name in range(5):
        REGRESSION[:, _session, _name] = _regression(_session, _name)

VOLATILITY_21 = RETURN.rolling(21).std() * YEAR
INDEX_VOLATILITY = INDEX.pct_change().rolling(21).std() * YEAR
TREND_20 = LOG.diff(20)

SURFACE = {name: pd.DataFrame(values) for name, values in VIEW.surface.items()}
ATM = SURFACE["atm_30"]
IV_WINDOW = ATM.rolling(126, min_periods=60)
OPTIONS: dict[str, pd.DataFrame] = {
    "atm_iv_30": ATM,
    "atm_iv_60": SURFACE["atm_60"],
    "atm_iv_90": SURFACE["atm_90"],
    "term_slope_30_60": SURFACE["atm_60"] - ATM,
    "term_slope_30_90": SURFACE["atm_90"] - ATM,
    "skew_25_30": SURFACE["call_25_30"] - SURFACE["put_25_30"],
    "butterfly_25_30": (SURFACE["call_25_30"] + SURFACE["put_25_30"]) / 2 - ATM,
    "iv_minus_realised_30": ATM - VOLATILITY_21,
    "iv_rank_126": ((ATM - IV_WINDOW.min()) / (IV_WINDOW.max() - IV_WINDOW.min())).where(ATM.notna()),
    "iv_percentile_126": IV_WINDOW.rank(method="max", pct=True).where(ATM.notna()),
    "put_call_open_interest": np.log((1 + SURFACE["put_open_interest"]) / (1 + SURFACE["call_open_interest"])),
    "put_call_volume": np.log((1 + SURFACE["put_volume"]) / (1 + SURFACE["call_volume"])),
}
MASKS = {"atm_iv": "atm_iv_30", "skew": "skew_25_30", "open_interest": "put_call_open_interest", "option_volume": "put_call_volume"}
OPTIONS |= {f"{name}{INDICATOR_SUFFIX}": OPTIONS[of].notna().astype(float) for name, of in MASKS.items()}


def _lagged(name: str) -> tuple[str, pd.DataFrame]:
    if name.endswith(INDICATOR_SUFFIX):
        return f"{name.removesuffix(INDICATOR_SUFFIX)}_lag1{INDICATOR_SUFFIX}", OPTIONS[name].shift(1).fillna(0.0)
    return f"{name}_lag1", OPTIONS[name].shift(1)


GOLDEN: dict[str, pd.DataFrame | pd.Series] = {
    "return_1": RETURN,
    "return_5": LOG.diff(5),
    "return_21": LOG.diff(21),
    "overnight_return": np.log(OPEN / CLOSE.shift()),
    "intraday_return": np.log(CLOSE / OPEN),
    "volatility_21": VOLATILITY_21,
    "volatility_63": RETURN.rolling(63).std() * YEAR,
    "true_range_14": _true_range(),
    "distance_high_20": CLOSE / HIGH.rolling(20).max() - 1,
    "distance_low_20": CLOSE / LOW.rolling(20).min() - 1,
    "distance_mean_200": CLOSE / CLOSE.rolling(200).mean() - 1,
    "log_dollar_volume": np.log(1 + DOLLARS),
    "volume_zscore_20": (np.log(VOLUME) - np.log(VOLUME).rolling(20).mean()) / np.log(VOLUME).rolling(20).std(),
    "xsec_return_5_zscore": _zscore(LOG.diff(5)),
    "xsec_return_5_rank": _rank(LOG.diff(5)),
    "xsec_return_21_zscore": _zscore(LOG.diff(21)),
    "xsec_return_21_rank": _rank(LOG.diff(21)),
    "xsec_volatility_21_zscore": _zscore(VOLATILITY_21),
    "xsec_volatility_21_rank": _rank(VOLATILITY_21),
    "xsec_liquidity_20_zscore": _zscore(np.log(1 + DOLLARS.rolling(20).mean())),
    "xsec_liquidity_20_rank": _rank(np.log(1 + DOLLARS.rolling(20).mean())),
    "relative_strength_20": TREND_20.sub(TREND_20.mean(axis=1), axis=0),
    "trend_strength_20": TREND_20 / (RETURN.rolling(20).std() * np.sqrt(20)),
    "beta_63": pd.DataFrame(REGRESSION[0]),
    "idiosyncratic_volatility_63": pd.DataFrame(REGRESSION[1]),
    "index_volatility_21": INDEX_VOLATILITY,
    "index_volatility_percentile": INDEX_VOLATILITY.expanding(252).rank(method="max", pct=True),
    "index_trend_20": np.log(INDEX).diff(20),
    "dispersion_20": RETURN.std(axis=1).rolling(20).mean(),
    "mean_correlation_20": CORRELATION,
    "correlation_spike_60": CORRELATION - CORRELATION.rolling(60).median(),
    "breadth": (CLOSE.rolling(50).mean() < CLOSE).mean(axis=1).where(CLOSE.rolling(50).mean().notna().all(axis=1)),
    "vix_level": VIX,
    "vix_change_5": np.log(VIX).diff(5),
    "vix_percentile": VIX.expanding(252).rank(method="max", pct=True),
    **OPTIONS,
    **dict(map(_lagged, OPTIONS)),
}

EVERY = {column.name: column for part in FEATURE_SETS.values() for column in part.columns}


def test_every_registered_column_has_a_golden() -> None:
    assert set(GOLDEN) == set(EVERY)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_column_equals_its_computation_by_pandas(name: str) -> None:
    ours = compute_columns(VIEW, [EVERY[name]])[name]
    golden = GOLDEN[name].to_numpy()
    known = np.isfinite(golden)
    assert known.sum() > 50
    np.testing.assert_allclose(ours[known], golden[known], rtol=1e-9, atol=1e-12)
    assert np.array_equal(np.isfinite(ours), known)
