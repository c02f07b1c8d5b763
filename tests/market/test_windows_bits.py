from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quanto.market.windows import (
    CARRIED_SESSIONS,
    required,
    window_extremes,
    window_mean,
    window_median,
    window_moments,
    window_price_extremes,
    window_price_mean,
    window_product,
    window_regression,
    window_share_at_most,
    window_sum,
)

Function = Callable[[np.ndarray], np.ndarray]

FUNCTIONS: dict[str, tuple[Function, int]] = {
    "sum": (lambda x: window_sum(x, 20), 20),
    "mean": (lambda x: window_mean(x, 21), 21),
    "deviation": (lambda x: window_moments(x, 63)[1], 63),
    "shifted": (lambda x: window_moments(x, 20, shift=np.where(np.nan_to_num(x) > 1, 0.7, 0.0))[0], 20),
    "slope": (lambda x: window_regression(np.roll(x, 1, axis=-1), x, 30)[0], 30),
    "product": (lambda x: window_product(np.where(np.isnan(x), 1.0, x), 13), 13),
    "high": (lambda x: window_price_extremes(x + 1, x, np.where(np.nan_to_num(x) > 2, 2.0, 1.0), 20)[0], 20),
    "price mean": (lambda x: window_price_mean(x, np.where(np.nan_to_num(x) > 2, 2.0, 1.0), 50), 50),
    "largest": (lambda x: window_extremes(x, 126, 60)[0], 126),
    "share": (lambda x: window_share_at_most(x, 40, 10), 40),
}


def _noise(sessions: int, names: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((sessions, names)) * 10.0 ** rng.integers(-3, 4, (1, names))
    return np.where(rng.random(values.shape) < 0.02, np.nan, values)


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    bits = np.ascontiguousarray(one).view(np.int64) == np.ascontiguousarray(other).view(np.int64)
    return bool((bits | (np.isnan(one) & np.isnan(other))).all())


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("names", [2, 3, 40])
def test_a_value_has_the_same_bits_however_much_history_stands_around_it(name: str, names: int) -> None:
    function, window = FUNCTIONS[name]
    values = _noise(260, names, 3)
    whole = function(values)
    for stop in range(1, 261, 7):
        assert _same_bits(function(values[:stop]), whole[:stop])
    reach = window - 1 + CARRIED_SESSIONS
    for end in range(reach, 260, 5):
        assert _same_bits(function(values[end - reach : end + 1])[-1], whole[end])


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "slope"])
def test_a_name_has_the_same_bits_whoever_stands_beside_it(name: str) -> None:
    function, _ = FUNCTIONS[name]
    values = _noise(200, 37, 5)
    whole = function(values)
    for column in (0, 15, 16, 36):
        assert _same_bits(function(values[:, [column]])[:, 0], whole[:, column])
    order = np.random.default_rng(1).permutation(37)
    assert _same_bits(function(values[:, order]), whole[:, order])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_completely_observed_block_has_the_bits_of_one_with_holes_elsewhere(name: str) -> None:
    function, _ = FUNCTIONS[name]
    values = np.random.default_rng(8).standard_normal((300, 3))
    values[:2] = np.nan
    holed = values.copy()
    holed[250, 0] = np.nan
    whole, other = function(values), function(holed)
    assert _same_bits(whole[:250], other[:250])
    if name != "slope":
        assert _same_bits(whole[:, 1:], other[:, 1:])


@settings(deadline=None, max_examples=30)
@given(
    values=arrays(np.float64, (40, 2), elements=st.one_of(st.just(np.nan), st.floats(-1e3, 1e3).map(lambda x: round(x, 6)))),
    window=st.integers(1, 25),
)
def test_sums_means_and_deviations_equal_those_of_pandas(values: np.ndarray, window: int) -> None:
    frame = pd.DataFrame(values)
    rolled = frame.rolling(window, min_periods=1)
    count = frame.notna().rolling(window, min_periods=1).sum().to_numpy()
    enough = count >= required(window)
    np.testing.assert_allclose(window_sum(values, window, required(window)), np.where(enough, rolled.sum(), np.nan), rtol=1e-6, atol=1e-6)
    mean, deviation = window_moments(values, window, required(window))
    expected = np.full(values.shape, np.nan)
    for row in range(40):
        part = values[max(0, row - window + 1) : row + 1]
        for column in range(2):
            seen = part[np.isfinite(part[:, column]), column]
            if len(seen) >= required(window):
                expected[row, column] = np.std(seen, ddof=1) if len(seen) > 1 else 0.0
    np.testing.assert_allclose(mean, np.where(enough, rolled.mean(), np.nan), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(deviation, expected, rtol=1e-6, atol=1e-6)


def test_the_deviation_of_equal_values_is_exactly_zero_at_any_level() -> None:
    values = np.full((100, 3), 0.1) * np.array([1.0, 1e9, 1e-9])
    for window in (2, 3, 20, 63):
        _, deviation = window_moments(values, window)
        assert (deviation[window - 1 :] == 0.0).all()


def test_the_median_equals_pandas_where_values_are_missing() -> None:
    values = _noise(300, 1, 9)[:, 0]
    expected = pd.Series(values).rolling(60, min_periods=required(60)).median().to_numpy()
    ours = window_median(values, 60)
    both = np.isfinite(ours)
    assert both.sum() > 200
    np.testing.assert_array_equal(ours[both], expected[both])


def test_a_window_begins_when_it_is_full_and_survives_a_missing_end() -> None:
    values = np.ones((60, 1))
    values[:10] = np.nan
    values[30] = np.nan
    total = window_sum(values, 20)
    assert np.isnan(total[:29]).all()
    assert np.isfinite(total[29:]).all()
    assert total[35, 0] == 19.0


def test_a_hole_of_more_than_a_trading_week_but_one_silences_a_short_window() -> None:
    values = np.ones((80, 1))
    values[30:35] = np.nan
    total = window_sum(values, 20)
    assert np.isfinite(total[33]).all()
    assert np.isnan(total[34]).all()
    assert np.isfinite(total[50]).all()


def test_older_prices_are_brought_to_the_share_basis_of_today() -> None:
    price = np.array([[100.0], [102.0], [51.0], [50.0]])
    split = np.array([[1.0], [1.0], [2.0], [1.0]])
    assert window_price_mean(price, split, 3)[-1, 0] == pytest.approx((51 + 51 + 50) / 3)
    high, low = window_price_extremes(price, price, split, 4)
    assert (high[-1, 0], low[-1, 0]) == (51.0, 50.0)
