from __future__ import annotations

import numpy as np
import pytest
from fakes.books import fuzzed_tape
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import DataError
from quanto.env.simulation import simulate
from quanto.env.tape import Tape
from quanto.market.calendar import DateArray
from quanto.policy.baselines import BASELINES, BaselineMarket, baseline_market, matched, total_returns
from quanto.portfolio.constraints import Limits

WIDE = Limits(1.0, 1.0, 0.0, 2.0)
LIMITS = Limits(0.35, 1.0, 0.0, 1.0)


def smooth_tape(sessions: int = 320, symbols: int = 6, seed: int = 0) -> tuple[Tape, DateArray]:
    """Return a market without actions, costs or halts, in which every name is always eligible, and its session axis."""
    rng = np.random.default_rng(seed)
    shape = (sessions, symbols)
    volatility = np.linspace(0.005, 0.03, symbols)
    close = 50 * np.exp(np.cumsum(volatility * rng.standard_normal(shape), axis=0))
    tape = Tape(
        open=close * np.exp(0.001 * rng.standard_normal(shape)), close=close, fillable=np.ones(shape, bool), eligible=np.ones(shape, bool),
        split=np.ones(shape), dividend=np.zeros(shape), payout=np.full(shape, np.nan), cash_rate=np.full(sessions, 1e-4),
        linear_cost=np.zeros(sessions), impact=np.zeros(shape),
    )  # fmt: skip
    return tape, np.busday_offset("2001-01-02", np.arange(sessions), roll="forward").astype("datetime64[D]")


def market_of(tape: Tape, days: DateArray, limits: Limits = LIMITS, volatility: float | None = None) -> BaselineMarket:
    index = None if volatility is None else np.full(len(days), volatility)
    return baseline_market(tape, days, limits, index)


def decision(name: str, market: BaselineMarket, t: int) -> np.ndarray:
    return BASELINES[name].make(market)(t, np.zeros(market.returns.shape[1]), 0.0)


def test_total_returns_hold_through_splits_and_dividends() -> None:
    tape, _ = smooth_tape(4, 1)
    tape = tape._replace(
        close=np.array([[100.0], [50.0], [49.0], [60.0]]),
        split=np.array([[1.0], [2.0], [1.0], [1.0]]),
        dividend=np.array([[0.0], [0.0], [1.0], [0.0]]),
    )
    assert total_returns(tape)[1:, 0] == pytest.approx([0.0, 0.0, 60 / 49 - 1])


def test_cash_never_trades() -> None:
    tape, days = smooth_tape()
    book = simulate(tape, 260, 320, BASELINES["cash_v1"].make(market_of(tape, days)), WIDE)
    assert book.returns == pytest.approx(np.full(60, 1e-4))
    assert not book.traded.any()


def test_buy_and_hold_buys_once_and_then_drifts() -> None:
    tape, days = smooth_tape()
    book = simulate(tape, 260, 320, BASELINES["buy_and_hold_v1"].make(market_of(tape, days)), WIDE)
    assert np.count_nonzero(np.abs(book.traded) > 1.0) == 6
    assert book.shares == pytest.approx(np.repeat(book.shares[:1], 60, axis=0), rel=1e-9)


def test_equal_weight_is_equal_over_what_is_eligible() -> None:
    tape, days = smooth_tape()
    tape.eligible[300, 2] = False
    assert decision("equal_weight_v1", market_of(tape, days), 300) == pytest.approx([0.2, 0.2, 0.0, 0.2, 0.2, 0.2])


def test_inverse_volatility_holds_more_of_what_moves_less() -> None:
    tape, days = smooth_tape()
    market = market_of(tape, days)
    weights = decision("inverse_volatility_v1", market, 300)
    spread = market.returns[238:301].std(axis=0, ddof=1)
    assert weights == pytest.approx(1 / spread / (1 / spread).sum())


def test_minimum_variance_has_no_more_variance_than_equal_weight_or_any_single_name() -> None:
    tape, days = smooth_tape()
    market = market_of(tape, days, WIDE)
    weights = decision("minimum_variance_v1", market, 300)
    covariance = np.cov(market.returns[49:301].T)
    variances = [weights @ covariance @ weights, np.full(6, 1 / 6) @ covariance @ np.full(6, 1 / 6), *np.diag(covariance)]
    assert weights.sum() == pytest.approx(1.0)
    assert variances[0] <= min(variances) * (1 + 1e-6)


def test_momentum_picks_the_winners_of_months_twelve_to_two() -> None:
    tape, days = smooth_tape()
    market = market_of(tape, days)
    growth = tape.close[300 - 21] / tape.close[300 - 252]
    expected = np.zeros(6)
    expected[np.argsort(-growth)[:3]] = 1 / 3
    assert decision("momentum_12_1_v1", market, 300) == pytest.approx(expected)


def test_momentum_ignores_the_last_month() -> None:
    tape, days = smooth_tape()
    before = decision("momentum_12_1_v1", market_of(tape, days), 300)
    tape.close[280:301] *= np.linspace(1, 9, 6)
    assert decision("momentum_12_1_v1", market_of(tape, days), 300) == pytest.approx(before)


def test_trend_holds_what_is_above_its_two_hundred_session_mean() -> None:
    tape, days = smooth_tape()
    above = tape.close[300] > tape.close[101:301].mean(axis=0)
    assert decision("trend_200_v1", market_of(tape, days), 300) == pytest.approx(np.where(above, 1 / 6, 0.0))


@pytest.mark.parametrize(("volatility", "exposure"), [(0.10, 1.0), (0.25, 1.0), (0.5, 0.5), (np.nan, 0.0), (0.0, 0.0)])
def test_the_volatility_target_scales_equal_weight_and_unknown_volatility_is_cash(volatility: float, exposure: float) -> None:
    tape, days = smooth_tape()
    assert decision("volatility_target_v1", market_of(tape, days, volatility=volatility), 300).sum() == pytest.approx(exposure)


def test_without_an_index_the_market_is_the_equal_weight_universe() -> None:
    tape, days = smooth_tape()
    market = market_of(tape, days)
    expected = market.returns[280:301].mean(axis=1).std(ddof=1) * np.sqrt(252)
    assert market.market_volatility[300] == pytest.approx(expected)


def test_a_matched_book_holds_the_mix_at_the_wanted_exposure() -> None:
    tape, days = smooth_tape()
    book = simulate(tape, 260, 320, BASELINES["inverse_volatility_v1"].make(market_of(tape, days)), WIDE)
    other = simulate(tape, 260, 320, matched(book, 0.4), WIDE)
    assert other.targets.sum(axis=1) == pytest.approx(np.full(60, 0.4))
    assert other.targets / 0.4 == pytest.approx(book.targets / book.targets.sum(axis=1, keepdims=True))


def test_axes_of_different_lengths_are_refused() -> None:
    tape, days = smooth_tape()
    with pytest.raises(DataError, match="one row per session"):
        baseline_market(tape, days[:-1], LIMITS, None)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**16), t=st.integers(2, 70), name=st.sampled_from(sorted(BASELINES)))
def test_no_baseline_sees_the_future(seed: int, t: int, name: str) -> None:
    tape = fuzzed_tape(seed, 90, 4)
    days = np.arange(90).astype("datetime64[D]")
    rng = np.random.default_rng(seed)
    changed = {}
    for field in ("open", "close", "dividend"):
        array = getattr(tape, field).copy()
        array[t + 1 :] *= rng.uniform(0.5, 2, array[t + 1 :].shape)
        changed[field] = array
    weights = np.full(4, 0.2)
    own = BASELINES[name].make(market_of(tape, days))(t, weights, 0.0)
    other = BASELINES[name].make(market_of(tape._replace(**changed), days))(t, weights, 0.0)
    assert np.array_equal(own, other)
