import math
from itertools import combinations

import numpy as np
import pytest
from arch.bootstrap import SPA
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.portfolio.bootstrap import stationary_indices
from quanto.portfolio.multiplicity import MARKETS_AT_ONCE, SeedSpread, _stationary_variance, overfitting, seed_spread, superior_ability
from quanto.portfolio.significance import pseudo_alphas

pytestmark = pytest.mark.filterwarnings("error")


def trials(count: int, sessions: int, seed: int = 1, edge: float = 0.0) -> np.ndarray:
    rng = generator(seed, "trials")
    base = 0.01 * rng.standard_normal(sessions)
    own = 0.005 * rng.standard_normal((count, sessions)) - 0.0002 * rng.random((count, 1))
    own[0] += edge
    return pseudo_alphas(0.5 * base + own, base)


@pytest.mark.parametrize(("count", "edge", "block"), [(1, 0.0, 5), (8, 0.0, 5), (8, 0.0006, 5), (20, 0.0003, 12)])
def test_the_smallest_p_value_is_archs_spa_from_the_same_draws(count: int, edge: float, block: int):
    x = trials(count, 300, count, edge)
    spa = SPA(np.zeros(300), -x.T, block_size=block, reps=400, bootstrap="stationary", seed=generator(2, "spa"))
    spa.compute()
    found = superior_ability(x, stationary_indices(300, block, 400, generator(2, "spa")), block)
    assert found.min() == pytest.approx(spa.pvalues["consistent"], abs=1e-12)
    assert found.argmin() == x.mean(axis=1).argmax()


@pytest.mark.parametrize("shortfall", np.linspace(0.0002, 0.0016, 12))
def test_losing_trials_are_centred_as_archs_consistent_spa_does(shortfall: float):
    x = trials(2, 200, 11, edge=0.0002)
    x[1] += -shortfall - x[1].mean()
    spa = SPA(np.zeros(200), -x.T, block_size=5, reps=500, bootstrap="stationary", seed=generator(2, "spa"))
    spa.compute()
    found = superior_ability(x, stationary_indices(200, 5, 500, generator(2, "spa")))
    assert found.min() == pytest.approx(spa.pvalues["consistent"], abs=1e-12)


def test_the_variance_of_the_means_is_archs():
    x = np.cumsum(generator(3, "spa").standard_normal((4, 90)), axis=1) + 5
    for block in (2.0, 5.0, 30.0):
        spa = SPA(np.zeros(90), -x.T, block_size=block, reps=2, seed=1)
        spa.compute()
        np.testing.assert_allclose(_stationary_variance(x, block), spa._loss_diff_var, rtol=1e-9)


def test_a_draw_that_only_equals_the_mean_does_not_count_against_it():
    flat = np.full((1, 12), 0.25)
    assert superior_ability(flat, stationary_indices(12, 5, 50, generator(1, "spa")))[0] == 0.0
    zero = np.zeros((2, 12))
    assert superior_ability(zero, stationary_indices(12, 5, 50, generator(1, "spa"))).tolist() == [0.0, 0.0]


def test_markets_together_give_what_each_gives_alone():
    markets = np.array([trials(5, 120, seed) for seed in range(MARKETS_AT_ONCE + 3)])
    draws = stationary_indices(120, 5, 200, generator(1, "spa"))
    np.testing.assert_allclose(superior_ability(markets, draws), [superior_ability(market, draws) for market in markets])


def test_noise_passes_the_best_of_ten_near_its_nominal_rate():
    draws = stationary_indices(250, 5, 500, generator(3, "spa"))
    rng = generator(5, "noise")
    baselines = 0.01 * rng.standard_normal((600, 1, 250))
    candidates = 0.6 * baselines + 0.005 * rng.standard_normal((600, 10, 250))
    markets = pseudo_alphas(candidates.reshape(-1, 250), np.repeat(baselines[:, 0], 10, axis=0)).reshape(600, 10, 250)
    passed = superior_ability(markets, draws).min(axis=1) < 0.04
    assert 0.02 <= np.mean(passed) <= 0.065


def test_an_edge_is_found_among_noise():
    draws = stationary_indices(500, 5, 500, generator(3, "spa"))
    found = superior_ability(trials(10, 500, 7, edge=0.0012), draws)
    assert found[0] < 0.01
    assert found[1:].min() > 0.2


@given(st.floats(0, 0.002))
@settings(deadline=None, max_examples=30)
def test_a_trial_with_a_higher_mean_never_has_a_higher_p_value(extra: float):
    x = trials(6, 100, 3)
    draws = stationary_indices(100, 5, 100, generator(4, "spa"))
    found = superior_ability(x, draws)
    order = np.argsort(x.mean(axis=1))
    assert (np.diff(found[order]) <= 0).all()
    raised = x.copy()
    raised[0] += extra
    # Its own centred draws are unchanged while it is not far below zero, so only the bar it must pass is.
    assert superior_ability(raised, draws)[0] <= found[0] + 1e-12


def test_draws_of_other_sessions_and_nan_are_refused():
    x = trials(3, 60)
    draws = stationary_indices(60, 5, 10, generator(1, "spa"))
    with pytest.raises(DataError, match="indices must have shape"):
        superior_ability(x[:, :50], draws)
    with pytest.raises(DataError, match="indices must have shape"):
        superior_ability(x[:0], draws)
    x[1, 2] = math.nan
    with pytest.raises(DataError, match="pseudo_alphas must be finite"):
        superior_ability(x, draws)
    with pytest.raises(DataError, match="dimension"):
        superior_ability(x[0], draws)


def slow_overfitting(x: np.ndarray, blocks: int) -> list[float]:
    pieces, logits = np.array_split(np.arange(x.shape[1]), blocks), []
    for half in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([pieces[i] for i in half])
        outside = np.concatenate([pieces[i] for i in range(blocks) if i not in half])
        sharpe = [x[:, rows].mean(axis=1) / x[:, rows].std(axis=1, ddof=1) for rows in (inside, outside)]
        winner = sharpe[0].argmax()
        relative = (1 + (sharpe[1] < sharpe[1][winner]).sum()) / (len(x) + 1)
        logits.append(math.log(relative / (1 - relative)))
    return logits


@pytest.mark.parametrize(("count", "sessions", "blocks"), [(5, 80, 6), (12, 203, 8), (2, 64, 4)])
def test_pbo_is_that_of_the_loop_over_all_splits(count: int, sessions: int, blocks: int):
    x = generator(count, "pbo").standard_normal((count, sessions)) * 0.01
    found, logits = overfitting(x, blocks), slow_overfitting(x, blocks)
    assert found.probability == pytest.approx(np.mean(np.array(logits) <= 0))
    assert found.median_logit == pytest.approx(np.median(logits))
    assert (found.splits, found.trials) == (math.comb(blocks, blocks // 2), count)


def test_noise_is_overfitted_half_of_the_time_and_a_real_edge_never():
    rng = generator(4, "pbo")
    found = [overfitting(rng.standard_normal((20, 400)), 8).probability for _ in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)
    best = rng.standard_normal((20, 400))
    best[3] += 1.0
    assert overfitting(best).probability == 0.0
    assert overfitting(best).loss_probability == 0.0
    assert overfitting(best).splits == 12870


def test_pbo_does_not_change_with_the_scale_or_the_order_of_trials():
    x = generator(6, "pbo").standard_normal((7, 160)) * 0.01
    assert overfitting(3 * x, 8).probability == overfitting(x, 8).probability
    assert overfitting(x[::-1], 8).probability == overfitting(x, 8).probability


def test_trials_that_are_copies_share_the_middle_rank():
    one = generator(7, "pbo").standard_normal(64)
    copies = overfitting(np.tile(one, (4, 1)), 4)
    assert (copies.median_logit, copies.probability) == (0.0, 1.0)
    idle = np.vstack([np.zeros(64), np.full(64, 1e-4), one * 0.01])
    assert 0 <= overfitting(idle, 4).probability <= 1


@pytest.mark.parametrize(("shape", "blocks"), [((1, 64), 4), ((3, 64), 5), ((3, 64), 0), ((3, 7), 4)])
def test_what_cannot_be_split_is_refused(shape: tuple[int, int], blocks: int):
    with pytest.raises(DataError, match="CSCV needs"):
        overfitting(np.ones(shape), blocks)


def test_the_smallest_split_has_two_blocks_of_two_sessions():
    found = overfitting([[0.1, 0.2, -0.3, -0.1], [0.1, -0.1, 0.2, 0.3]], 2)
    assert (found.splits, found.probability, found.loss_probability) == (2, 1.0, 0.5)
    with pytest.raises(DataError, match=r"^returns must be finite"):
        overfitting([[0.1, math.nan, 0.1, 0.2]] * 2, 2)


def test_the_loss_probability_counts_losing_winners():
    rng = generator(9, "pbo")
    falling = rng.standard_normal((5, 320)) - 2.0
    assert overfitting(falling, 8).loss_probability == 1.0


def test_the_interquartile_mean_drops_a_quarter_at_each_end():
    found = seed_spread([100.0, 1.0, 2.0, -50.0, 3.0, 2.0, 4.0, -1.0])
    assert found == SeedSpread(8, pytest.approx(2.0), pytest.approx(0.75), -50.0, 100.0)
    assert seed_spread([0.0, 0.5]).share_positive == 0.5
    assert seed_spread([]) == SeedSpread(0, None, None, None, None)
    with pytest.raises(DataError, match="values must be finite"):
        seed_spread([1.0, math.nan])
