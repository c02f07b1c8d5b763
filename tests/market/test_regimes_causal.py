from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from arch.data import sp500
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quanto.core.errors import ConfigError, DataError, UnknownNameError
from quanto.market.regimes import LABELLERS, episodes, expanding_percentile, expanding_quantiles, realised_volatility, volatility_labels

LABELLER = LABELLERS["volatility_hysteresis_v1"]
Values = arrays(np.float64, st.integers(1, 60), elements=st.one_of(st.just(np.nan), st.floats(0, 1).map(lambda x: round(x, 2))))


@pytest.fixture(scope="module")
def returns() -> pd.Series:
    return sp500.load()["Adj Close"].pct_change()


@pytest.mark.parametrize(
    ("first", "last", "sessions", "runs"), [("2000-03-01", "2006-12-31", 305, 8), ("2008-01-01", "2013-12-31", 455, 6)]
)
def test_the_index_gives_the_published_number_of_sessions_and_episodes(
    returns: pd.Series, first: str, last: str, sessions: int, runs: int
) -> None:
    high = pd.Series(LABELLER.label(returns.to_numpy()).high, index=returns.index)[first:last].to_numpy()
    assert high.sum() == sessions
    assert len(episodes(high)) == runs


def test_the_labels_equal_those_of_pandas(returns: pd.Series) -> None:
    volatility = returns.rolling(21).std() * np.sqrt(252)
    upper, lower = (volatility.expanding(252).quantile(level) for level in (0.8, 0.65))
    state, expected = False, []
    for value, enter, leave in zip(volatility, upper, lower, strict=True):
        expected.append(state)
        if np.isfinite(enter):
            state = value > enter if not state else value >= leave
    labels = LABELLER.label(returns.to_numpy())
    assert labels.high.tolist() == expected
    np.testing.assert_allclose(labels.enter_threshold[1:], upper.to_numpy()[:-1], rtol=1e-12)


def test_no_label_sees_its_own_return_or_a_later_one(returns: pd.Series) -> None:
    values = returns.to_numpy()[:900]
    whole = LABELLER.label(values)
    for cut in range(260, 900, 37):
        crash = values.copy()
        crash[cut:] = -0.5
        changed = LABELLER.label(crash)
        assert np.array_equal(changed.high[: cut + 1], whole.high[: cut + 1])
        assert np.array_equal(changed.enter_threshold[: cut + 1], whole.enter_threshold[: cut + 1], equal_nan=True)


def test_a_session_is_unlabelled_before_the_warm_up_and_after_a_missing_volatility() -> None:
    volatility = np.concatenate([np.linspace(0.1, 0.2, 30), [np.nan], np.linspace(0.2, 0.3, 10)])
    labels = volatility_labels(volatility, warmup=20, enter=0.8, exit_=0.65)
    assert np.flatnonzero(~labels.known).tolist() == [*range(20), 31]


def test_hysteresis_holds_the_state_between_the_thresholds() -> None:
    base = np.linspace(0.0, 1.0, 101)
    volatility = np.concatenate([base, [0.5, 0.9, 0.7, 0.7, 0.6, 0.7]])
    labels = volatility_labels(volatility, warmup=50, enter=0.8, exit_=0.65)
    assert labels.high[-5:].tolist() == [False, True, True, True, False]


@settings(deadline=None, max_examples=50)
@given(values=Values, minimum=st.integers(1, 10))
def test_expanding_quantiles_equal_numpy_on_every_prefix(values: np.ndarray, minimum: int) -> None:
    ours = expanding_quantiles(values, (0.8, 0.65), minimum)
    for level, out in zip((0.8, 0.65), ours, strict=True):
        for stop in range(1, len(values) + 1):
            seen = values[:stop][np.isfinite(values[:stop])]
            expected = np.quantile(seen, level) if len(seen) >= minimum else np.nan
            np.testing.assert_allclose(out[stop - 1], expected, rtol=1e-12, atol=1e-15)


@settings(deadline=None, max_examples=50)
@given(values=Values, minimum=st.integers(1, 10))
def test_the_expanding_percentile_counts_what_is_not_above(values: np.ndarray, minimum: int) -> None:
    expected = pd.Series(values).expanding(minimum).rank(method="max", pct=True).where(np.isfinite(values)).to_numpy()
    np.testing.assert_allclose(expanding_percentile(values, minimum), expected)


def test_the_expanding_percentile_agrees_across_its_blocks() -> None:
    values = np.random.default_rng(4).standard_normal(1200).round(1)
    np.testing.assert_allclose(expanding_percentile(values, 1), pd.Series(values).expanding().rank(method="max", pct=True).to_numpy())


def test_episodes_are_runs() -> None:
    assert episodes(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert episodes(np.zeros(3, dtype=bool)) == []
    assert episodes(np.zeros(0, dtype=bool)) == []


def test_realised_volatility_bridges_a_missing_return_and_refuses_tables() -> None:
    returns = np.random.default_rng(2).standard_normal(60) * 0.01
    returns[30] = np.nan
    out = realised_volatility(returns)
    assert out[40] == pytest.approx(np.nanstd(returns[20:41], ddof=1) * np.sqrt(252))
    with pytest.raises(DataError, match="one series"):
        realised_volatility(np.zeros((3, 2)))


def test_wrong_settings_and_unknown_labellers_are_refused() -> None:
    with pytest.raises(ConfigError, match="exit"):
        volatility_labels(np.ones(3), warmup=1, enter=0.6, exit_=0.7)
    with pytest.raises(DataError, match="one session"):
        volatility_labels(np.empty(0), warmup=1, enter=0.8, exit_=0.65)
    with pytest.raises(UnknownNameError, match="volatility_hysteresis_v1"):
        LABELLERS["volatility_hysteresis"]
