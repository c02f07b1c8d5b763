from __future__ import annotations

import json

import numpy as np
import pytest

from quanto.core.errors import ConfigError, DataError
from quanto.policy.observation import Scaler, assemble, fit_scaler, scaler_from

NAMES, MARKET = ("a", "b"), ("m",)


def _data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = 3.0 + 2.0 * rng.standard_normal((50, 4, 2))
    market = rng.standard_normal((50, 1))
    eligible = rng.random((50, 4)) < 0.8
    features[rng.random(features.shape) < 0.05] = np.nan
    market[:3] = np.nan
    return features, market, eligible


def test_statistics_are_pooled_over_the_eligible_rows_of_all_symbols() -> None:
    features, market, eligible = _data()
    scaler = fit_scaler(features, market, eligible, NAMES, MARKET)
    pooled = features[eligible][:, 1]
    assert scaler.asset_mean[1] == pytest.approx(np.nanmean(pooled))
    assert scaler.asset_std[1] == pytest.approx(np.nanstd(pooled))
    assert scaler.market_mean[0] == pytest.approx(np.nanmean(market))
    changed = np.where(eligible[:, :, None], features, 1e9)
    assert fit_scaler(changed, market, eligible, NAMES, MARKET) == scaler


def test_missing_is_zero_after_scaling_and_masked() -> None:
    features, market, eligible = _data()
    scaler = fit_scaler(features, market, eligible, NAMES, MARKET)
    seen = assemble(features, market, eligible, scaler)
    there = np.isfinite(features) & eligible[:, :, None]
    assert (seen.asset[~there] == 0.0).all()
    expected = np.clip((features - scaler.asset_mean) / np.array(scaler.asset_std), -5, 5)
    np.testing.assert_array_equal(seen.asset[there], expected[there])
    assert np.array_equal(seen.mask, eligible)
    assert (seen.market[:3] == 0.0).all()
    assert not seen.market_mask[:3].any()
    assert all(np.isfinite(block).all() for block in (seen.asset, seen.market))


def test_outliers_are_clipped_on_both_sides() -> None:
    features, market, eligible = _data()
    scaler = fit_scaler(features, market, eligible, NAMES, MARKET, clip=2.0)
    features[0, :, 0], features[1, :, 0] = 1e12, -1e12
    eligible[:2] = True
    seen = assemble(features, market, eligible, scaler)
    assert (seen.asset[0, :, 0] == 2.0).all()
    assert (seen.asset[1, :, 0] == -2.0).all()


def test_columns_without_variance_or_values_are_all_named() -> None:
    features, market, eligible = _data()
    features[:, :, 0] = 0.1
    market[:] = np.nan
    with pytest.raises(ConfigError) as caught:
        fit_scaler(features, market, eligible, NAMES, MARKET)
    assert "a (zero variance" in str(caught.value)
    assert "m (no value)" in str(caught.value)


def test_indicators_pass_unscaled_and_may_be_constant() -> None:
    features, market, eligible = _data()
    features[:, :, 1] = 1.0
    scaler = fit_scaler(features, market, eligible, ("a", "b_available"), MARKET)
    seen = assemble(features, market, eligible, scaler)
    assert set(np.unique(seen.asset[:, :, 1])) == {0.0, 1.0}


def test_a_scaler_survives_json() -> None:
    scaler = fit_scaler(*_data(), NAMES, MARKET)
    assert scaler_from(json.loads(json.dumps(scaler.to_dict()))) == scaler


@pytest.mark.parametrize(
    "change",
    [
        {"asset_std": [1.0, 0.0]},
        {"asset_mean": [0.0]},
        {"clip": -1.0},
        {"market_mean": ["x"]},
        {"colour": 1},
        {"market_std": [float("nan")]},
    ],
)
def test_a_broken_scaler_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        scaler_from({**fit_scaler(*_data(), NAMES, MARKET).to_dict(), **change})


def test_shapes_and_infinities_are_refused() -> None:
    features, market, eligible = _data()
    scaler = fit_scaler(features, market, eligible, NAMES, MARKET)
    with pytest.raises(DataError, match="shapes"):
        assemble(features[:, :, :1], market, eligible, scaler)
    with pytest.raises(DataError, match="shapes"):
        assemble(features, market[:-1], eligible, scaler)
    features[0, 0, 0] = np.inf
    with pytest.raises(DataError, match="infinite"):
        assemble(features, market, eligible, scaler)
    with pytest.raises(ConfigError, match="clip"):
        fit_scaler(*_data(), NAMES, MARKET, clip=0.0)


def test_an_empty_block_of_columns_is_allowed() -> None:
    features, _, eligible = _data()
    nothing = np.empty((50, 0))
    scaler = fit_scaler(features, nothing, eligible, NAMES, ())
    assert assemble(features, nothing, eligible, scaler).market.shape == (50, 0)
    assert isinstance(scaler, Scaler)
