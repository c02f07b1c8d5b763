"""The optima by themselves: against closed forms, brute force and simulation; no policy and no environment in sight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from quanto.core.errors import ConfigError
from quanto.market.known_answers import (
    COST_ABOVE_EDGE,
    FORESIGHT,
    HOLDING,
    KELLY,
    PLANTED,
    REGIMES,
    CrossSection,
    RegimeMarket,
    benchmark_growth,
    best_weights,
    optimum,
    trading_loss,
)


def two_states(stay=0.9, mean=((0.002, -0.001), (-0.001, 0.001)), deviation=0.01):
    return RegimeMarket(((stay, 1 - stay), (1 - stay, stay)), mean, tuple((deviation,) * len(row) for row in mean))


def test_kelly_holds_what_merton_says():
    # Merton (1969) in continuous time: drift over variance; the drift of the price is that of the log plus half the variance.
    merton = (KELLY.mean[0][0] + 0.04**2 / 2) / 0.04**2
    assert best_weights(KELLY, 0)[0] == pytest.approx(merton, rel=0.02)


@pytest.mark.parametrize("market", [KELLY, REGIMES, HOLDING])
def test_expected_growth_is_the_mean_of_many_draws(market):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(market.n_symbols + 1))[:-1]
    for state in range(len(market.transition)):
        chain = RegimeMarket(((1.0,),), (market.mean[state],), (market.deviation[state],), market.correlation)
        drawn = chain.sample(rng, 250_000)
        realised = np.log1p((drawn.close[1:] / drawn.close[:-1] - 1) @ weights)
        assert market.growth(state, weights) == pytest.approx(realised.mean(), abs=4 * realised.std() / np.sqrt(len(realised)))


@pytest.mark.parametrize("market", [REGIMES, two_states(), KELLY])
def test_no_weights_of_a_fine_grid_beat_the_best_weights(market):
    rng = np.random.default_rng(0)
    grid = np.vstack([rng.dirichlet(np.full(market.n_symbols + 1, 0.5), size=20_000)[:, :-1], np.eye(market.n_symbols)])
    for state in range(len(market.transition)):
        best = best_weights(market, state)
        assert best.sum() <= 1 + 1e-9
        assert (best >= 0).all()
        assert market.growth(state, best) >= market.growth(state, grid).max() - 1e-12


def test_where_switching_pays_the_optimum_is_free_growth_minus_what_the_switches_cost():
    cost = 0.005
    # Half of the sessions in either state, one in fifty changes it: each way once in a hundred sessions.
    losses = 0.01 * np.log1p(cost) - 0.01 * np.log1p(-cost)
    assert optimum(HOLDING, cost).growth == pytest.approx(optimum(HOLDING).growth - losses, abs=2e-7)


def test_where_the_cost_is_above_the_edge_the_optimum_holds_still():
    best = optimum(COST_ABOVE_EDGE, 0.005)
    path = best.walk(np.random.default_rng(0).integers(0, 2, size=500))
    assert np.ptp(path[5:], axis=0).max() == 0
    constant = minimize_scalar(
        lambda w: -sum(COST_ABOVE_EDGE.growth(s, np.array([w])) / 2 for s in (0, 1)), bounds=(0, 1), method="bounded"
    )
    assert best.growth == pytest.approx(-constant.fun, abs=2e-7)


@settings(deadline=None, max_examples=30)
@given(
    stay=st.floats(0.5, 0.98),
    means=st.lists(st.floats(-0.003, 0.003), min_size=4, max_size=4),
    cost=st.floats(1e-4, 0.01),
    choices=st.lists(st.integers(0, 65), min_size=2, max_size=2),
)
def test_no_policy_that_holds_by_state_beats_the_optimum_at_a_cost(stay, means, cost, choices):
    market = two_states(stay, ((means[0], means[1]), (means[2], means[3])), 0.012)
    best = optimum(market, cost, steps=10)
    held = best.grid[choices]
    growth = sum(0.5 * market.growth(state, held[state]) for state in (0, 1))
    losses = sum(0.5 * (1 - stay) * trading_loss(held[1 - state], held[state], cost) for state in (0, 1))
    assert growth - losses <= best.growth + 2e-7


@settings(deadline=None, max_examples=15)
@given(stay=st.floats(0.5, 0.97), low=st.floats(0, 0.002), more=st.floats(1e-4, 0.005))
def test_a_higher_cost_never_raises_the_optimum(stay, low, more):
    market = two_states(stay)
    assert optimum(market, low + more, steps=10).growth <= optimum(market, low, steps=10).growth + 3e-7


def test_the_walk_of_the_optimum_earns_its_growth_on_a_long_sample():
    for market, cost in ((REGIMES, 0.0), (REGIMES, 0.001), (HOLDING, 0.005)):
        sample = market.sample(np.random.default_rng(1), 20_000)
        best, equal = benchmark_growth(market, sample, cost)
        assert best == pytest.approx(optimum(market, cost).growth, rel=0.1)
        assert equal < best


def test_a_cross_sections_best_weights_satisfy_the_first_order_conditions():
    signal = np.random.default_rng(0).normal(size=(300, 30))
    for cap in (1.0, 0.2):
        best = PLANTED.best_weights(signal, cap)
        mean, variance = PLANTED.moments(signal)
        assert (best.sum(axis=1) <= 1 + 1e-9).all()
        price = mean - variance * best
        for row in range(300):
            inside = (best[row] > 1e-12) & (best[row] < cap - 1e-12)
            level = price[row][inside].max() if inside.any() else 0.0
            assert np.ptp(price[row][inside]) < 1e-9 if inside.any() else True
            assert (mean[row][best[row] <= 1e-12] <= level + 1e-9).all() or not inside.any()


def test_random_portfolios_never_beat_the_best_of_a_cross_section():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(200, 30))
    best = PLANTED.growth(signal, PLANTED.best_weights(signal))
    for _ in range(50):
        other = rng.dirichlet(np.full(31, rng.uniform(0.05, 1)), size=200)[:, :-1]
        # The first-order conditions leave out terms of third order in returns.
        assert (PLANTED.growth(signal, other) <= best + 2e-6).all()


def test_a_cross_sections_expected_growth_is_the_mean_of_many_draws():
    market = CrossSection(names=4, information=0.3, deviation=0.02, drift=0.0005)
    rng = np.random.default_rng(0)
    sample = market.sample(rng, 200_000)
    weights = market.best_weights(sample.asset_signal[..., 0])
    realised = np.log1p(((sample.close[1:] / sample.close[:-1] - 1) * weights[:-1]).sum(axis=1))
    expected = sample.growth(weights)[:-1]
    gap = realised - expected
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))


def test_signals_correlate_with_the_next_return_as_much_as_they_claim():
    sample = PLANTED.sample(np.random.default_rng(0), 20_000)
    after = np.log(sample.close[1:] / sample.close[:-1])
    found = np.corrcoef(sample.asset_signal[:-1, :, 0].ravel(), after.ravel())[0, 1]
    assert found == pytest.approx(0.05, abs=0.005)
    before = np.corrcoef(sample.asset_signal[1:, :, 0].ravel(), after.ravel())[0, 1]
    assert abs(before) < 0.005


def test_foresight_is_worth_the_best_name_of_every_session():
    sample = FORESIGHT.sample(np.random.default_rng(0), 5_000)
    best, _ = benchmark_growth(FORESIGHT, sample)
    ahead = np.maximum((sample.close[1:] / sample.close[:-1] - 1).max(axis=1), 0)
    assert best == pytest.approx(np.log1p(ahead).mean())
    with pytest.raises(ConfigError, match="foresight"):
        optimum(FORESIGHT)


def test_equal_seeds_give_equal_samples_and_the_dollar_volume_shows_the_signal():
    one, two = (PLANTED.sample(np.random.default_rng(3), 100) for _ in range(2))
    np.testing.assert_array_equal(one.close, two.close)
    np.testing.assert_allclose(np.log(one.dollar_volume) - 18, one.asset_signal[..., 0], atol=1e-9)
    assert np.array_equal(one.open[1:], one.close[:-1])


def test_a_history_too_long_for_its_drift_is_refused_instead_of_overflowing():
    with pytest.raises(ConfigError, match="price level leaves"):
        RegimeMarket(((1.0,),), ((0.01,),), ((0.001,),)).sample(np.random.default_rng(0), 100_000)


def test_tables_that_are_no_chain_are_refused():
    with pytest.raises(ConfigError, match="add to 1"):
        RegimeMarket(((0.9, 0.2), (0.5, 0.5)), ((0.0,), (0.0,)), ((0.01,), (0.01,)))
    with pytest.raises(ConfigError, match="one row per state"):
        RegimeMarket(((1.0,),), ((0.0,), (0.0,)), ((0.01,), (0.01,)))
    with pytest.raises(ConfigError, match="up to 4 names"):
        best_weights(RegimeMarket(((1.0,),), ((0.0,) * 5,), ((0.01,) * 5,)), 0)
