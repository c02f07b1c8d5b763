import dataclasses
import math

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap, optimal_block_length

from quanto.core.digest import canonical_json
from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.portfolio.bootstrap import (
    DRAWS_AT_ONCE,
    Interval,
    block_length,
    bootstrap_intervals,
    episode_indices,
    intervals_as_rows,
    session_metrics,
    stationary_indices,
    volatility_ratio,
)
from quanto.portfolio.metrics import return_metrics
from quanto.portfolio.sharpe import sharpe_moments, sharpe_standard_error

pytestmark = pytest.mark.filterwarnings("error")


def market(sessions: int = 600, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = generator(seed, "bootstrap test")
    baseline = 0.0005 + 0.01 * rng.standard_normal(sessions)
    return 0.0001 + 0.7 * baseline + 0.004 * rng.standard_normal(sessions), baseline, np.full(sessions, 0.0001)


def rng(seed: int = 1) -> np.random.Generator:
    return generator(seed, "draws")


def test_draws_are_archs_stationary_bootstrap():
    sampler = StationaryBootstrap(7, np.arange(300), seed=rng())
    expected = [data[0][0] for data in sampler.bootstrap(20)]
    np.testing.assert_array_equal(stationary_indices(300, 7, 20, rng()), expected)


def test_blocks_have_the_asked_mean_length_and_wrap():
    draws = stationary_indices(500, 8.5, 400, rng())
    assert ((draws >= 0) & (draws < 500)).all()
    following = draws[:, 1:] == (draws[:, :-1] + 1) % 500
    assert 1 / (1 - following.mean()) == pytest.approx(8.5, rel=0.05)
    assert ((draws[:, 1:] == 0) & (draws[:, :-1] == 499)).any()
    assert np.bincount(draws.ravel(), minlength=500).std() / draws.shape[0] < 0.2


def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    np.testing.assert_array_equal(stationary_indices(50, 5, 9, rng(3)), stationary_indices(50, 5, 9, rng(3)))
    assert (stationary_indices(50, 5, 9, rng(3)) != stationary_indices(50, 5, 9, rng(4))).any()


@pytest.mark.parametrize(("sessions", "draws", "block"), [(0, 5, 5), (10, 0, 5), (10, 5, 0.5), (10, 5, math.nan)])
def test_a_bootstrap_of_nothing_is_refused(sessions: int, draws: int, block: float):
    with pytest.raises(DataError, match="a bootstrap needs"):
        stationary_indices(sessions, block, draws, rng())


def test_the_block_length_follows_its_rule():
    noise = rng().standard_normal(2500)
    slow = np.convolve(rng(2).standard_normal(2530), np.ones(31), "valid")
    estimate = float(optimal_block_length(slow)["stationary"].iloc[0])
    assert estimate > 50
    assert block_length(noise) == 5
    assert block_length(slow) == 50  # T/50 caps it
    assert block_length(slow[:250]) == 5
    assert block_length(noise[:100]) == 2
    assert block_length(noise[:20]) == 1
    assert block_length(noise, slow) == 50
    assert block_length(np.zeros(1000)) == 5
    middle = np.convolve(rng(5).standard_normal(2505), np.ones(6), "valid")
    estimate = float(optimal_block_length(middle)["stationary"].iloc[0])
    assert 5 < estimate < 50
    assert block_length(middle) == pytest.approx(estimate)


def test_the_block_length_of_nothing_and_of_nan_is_refused():
    with pytest.raises(DataError, match="series 1 is empty"):
        block_length([0.1], [])
    with pytest.raises(DataError, match="series 0 must be finite"):
        block_length([0.1, math.nan])


def test_one_draw_of_one_session_is_that_session():
    assert stationary_indices(1, 5, 1, rng()).tolist() == [[0]]
    assert episode_indices(np.array([False, True]), 5, 1, rng()).tolist() == [[1]]


@pytest.mark.parametrize("sessions", [2, 20, 21, 22, 41])
def test_the_tail_of_a_draw_is_that_of_the_metrics_at_every_length(sessions: int):
    r, _, rf = market(sessions)
    found = session_metrics(r[None], rf[None])
    for name in ("cvar", "sharpe", "annual_volatility"):
        assert found[name][0] == pytest.approx(getattr(return_metrics(r, rf), name), rel=1e-9), name


def test_what_is_constant_up_to_rounding_has_no_ratio_at_any_scale():
    shift = rng().standard_normal((2, 200)) * 0.1
    flat = session_metrics(shift + 0.001, shift)
    assert np.isnan(flat["sharpe"]).all()
    small = session_metrics(np.vstack([1e-9 * shift[:1], shift[1:]]), np.zeros((2, 200)))
    np.testing.assert_allclose(small["sharpe"], session_metrics(shift, np.zeros((2, 200)))["sharpe"])
    rising = session_metrics(np.full((1, 9), 0.01), np.zeros((1, 9)))
    assert [math.isnan(rising[name][0]) for name in ("sortino", "calmar", "sharpe")] == [True] * 3
    both = session_metrics(shift, np.zeros((2, 200)), np.zeros((2, 200)))
    assert np.isnan(both["beta"]).all()


def test_many_samples_at_once_have_the_metrics_of_each():
    r, b, rf = market()
    rf = rf + 0.00001 * rng(8).standard_normal(600)
    rows = stationary_indices(600, 5, 8, rng())
    together = session_metrics(r[rows], rf[rows], b[rows])
    for number, row in enumerate(rows):
        one, other = return_metrics(r[row], rf[row], b[row]), return_metrics(b[row], rf[row])
        for name in ("annual_return", "annual_log_growth", "annual_volatility", "sharpe", "sortino", "calmar", "max_drawdown", "cvar"):
            assert together[name][number] == pytest.approx(getattr(one, name), rel=1e-9), name
        for name in ("beta", "alpha", "information_ratio"):
            assert together[name][number] == pytest.approx(getattr(one, name), rel=1e-9), name
        for name in ("sharpe", "annual_return", "annual_log_growth", "annual_volatility", "max_drawdown", "cvar"):
            expected = getattr(one, name) - getattr(other, name)
            assert together[f"{name}_difference"][number] == pytest.approx(expected, rel=1e-8, abs=1e-12), name


def test_estimates_are_those_of_the_metrics_and_lie_inside():
    r, b, rf = market()
    found = bootstrap_intervals(r, rf, b, stationary_indices(600, 5, 500, rng()))
    exact = return_metrics(r, rf, b)
    for name in ("sharpe", "annual_return", "alpha", "beta", "annual_volatility"):
        assert found[name].estimate == pytest.approx(getattr(exact, name), rel=1e-10)
        assert found[name].low < found[name].estimate < found[name].high
        assert found[name].level == 0.95
    canonical_json(intervals_as_rows(found))
    assert intervals_as_rows(found)["beta"] == dataclasses.asdict(found["beta"])


def test_intervals_do_not_depend_on_how_many_draws_are_worked_on_at_once():
    r, b, rf = market(120)
    rows = stationary_indices(120, 3, 2 * DRAWS_AT_ONCE + 5, rng())
    found = bootstrap_intervals(r, rf, b, rows, level=0.8)
    draws = session_metrics(r[rows], rf[rows], b[rows])
    for name, interval in found.items():
        assert interval.low == pytest.approx(np.quantile(draws[name], 0.1), rel=1e-12)
        assert interval.high == pytest.approx(np.quantile(draws[name], 0.9), rel=1e-12)


def test_the_interval_of_a_sharpe_ratio_is_as_wide_as_theory_says():
    r, _, rf = market(1500)
    found = bootstrap_intervals(r, rf, None, stationary_indices(1500, 1, 2000, rng()))["sharpe"]
    error = sharpe_standard_error(sharpe_moments(r - rf)) * math.sqrt(252)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_intervals_of_a_difference_cover_the_truth_as_often_as_they_say():
    covered = []
    for seed in range(150):
        r, b, rf = market(250, seed)
        found = bootstrap_intervals(r, rf, b, stationary_indices(250, 5, 300, rng(seed)), level=0.9)["information_ratio"]
        true = (0.0001 + 0.7 * 0.0005 - 0.0005) / math.sqrt(0.3**2 * 0.01**2 + 0.004**2) * math.sqrt(252)
        covered.append(found.low <= true <= found.high)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.07)


def test_a_copy_of_the_baseline_differs_by_exactly_nothing():
    r, _, rf = market(200)
    found = bootstrap_intervals(r, rf, r, stationary_indices(200, 4, 50, rng()))
    for name in ("sharpe_difference", "annual_return_difference", "max_drawdown_difference"):
        assert found[name] == Interval(0.0, 0.0, 0.0, 0.95)
    assert found["information_ratio"] == Interval(None, None, None, 0.95)


def test_what_a_draw_cannot_define_has_no_interval():
    rising = np.full(60, 0.001) + 0.0001 * rng().random(60)
    found = bootstrap_intervals(rising, 0.0, None, stationary_indices(60, 1, 50, rng()))
    assert found["sortino"] == Interval(None, None, None, 0.95)
    assert found["calmar"].estimate is None
    once = np.concatenate([[-0.001], rising])
    found = bootstrap_intervals(once, 0.0, None, stationary_indices(61, 1, 200, rng()))
    assert found["sortino"].estimate is not None
    assert (found["sortino"].low, found["sortino"].high) == (None, None)


def test_ruin_in_a_draw_is_a_full_drawdown_and_no_growth():
    found = session_metrics(np.array([[0.1, -1.0, 0.3], [0.1, -0.1, 0.3]]), np.zeros((2, 3)))
    assert (found["max_drawdown"][0], found["annual_return"][0]) == (-1.0, -1.0)
    assert math.isnan(found["annual_log_growth"][0])
    assert found["max_drawdown"][1] == pytest.approx(-0.1)


def test_one_session_has_no_dispersion():
    found = session_metrics(np.array([[0.1]]), np.zeros((1, 1)))
    assert [math.isnan(found[name][0]) for name in ("sharpe", "annual_volatility")] == [True, True]


@pytest.mark.parametrize("where", ["returns", "risk_free", "baseline"])
def test_nan_and_other_lengths_are_refused(where: str):
    rows = stationary_indices(20, 5, 5, rng())
    arrays = {name: np.zeros(20) for name in ("returns", "risk_free", "baseline")}
    arrays[where][4] = math.nan
    with pytest.raises(DataError, match=f"{where} must be finite"):
        bootstrap_intervals(**arrays, indices=rows)
    arrays[where] = np.zeros(19)
    with pytest.raises(DataError, match="19"):
        bootstrap_intervals(**arrays, indices=rows)
    with pytest.raises(DataError, match="baseline must be simple returns"):
        bootstrap_intervals(np.zeros(20), 0.0, np.full(20, -2.0), rows)
    with pytest.raises(DataError, match=r"indices must have shape \(draws, 21\)"):
        bootstrap_intervals(np.zeros(21), 0.0, None, rows)


def test_blocks_never_leave_their_episode():
    mask = np.zeros(100, dtype=bool)
    mask[3:40] = mask[60:61] = mask[70:100] = True
    draws = episode_indices(mask, 6, 200, rng())
    assert draws.shape == (200, mask.sum())
    for columns, (start, stop) in zip(((0, 37), (37, 38), (38, 68)), ((3, 40), (60, 61), (70, 100)), strict=True):
        part = draws[:, columns[0] : columns[1]]
        assert ((part >= start) & (part < stop)).all()
    for masked, block, count in ((np.zeros(5, dtype=bool), 5, 5), (mask, 0.5, 5), (mask, 5, 0)):
        with pytest.raises(DataError, match="a mask with sessions"):
            episode_indices(masked, block, count, rng())


def test_blocks_within_one_episode_have_the_law_of_the_stationary_bootstrap():
    draws = episode_indices(np.ones(500, dtype=bool), 8.5, 400, rng())
    following = draws[:, 1:] == (draws[:, :-1] + 1) % 500
    assert 1 / (1 - following.mean()) == pytest.approx(8.5, rel=0.05)
    assert ((draws[:, 1:] == 0) & (draws[:, :-1] == 499)).any()
    means = rng(2).standard_normal(500)[draws].mean(axis=1)
    other = rng(2).standard_normal(500)[stationary_indices(500, 8.5, 400, rng(3))].mean(axis=1)
    assert means.std() == pytest.approx(other.std(), rel=0.12)
    assert np.bincount(draws.ravel(), minlength=500).std() / 400 < 0.2


def test_the_volatility_ratio_and_its_bound():
    y, x, _ = market(2000)
    mask = np.zeros(2000, dtype=bool)
    mask[100:300] = mask[700:760] = mask[1500:1900] = True
    found = volatility_ratio(y, x, mask, rng())
    assert found.estimate == pytest.approx(y[mask].std(ddof=1) / x[mask].std(ddof=1))
    assert found.estimate < found.high < found.estimate * 1.1
    assert (found.low, found.level) == (None, 0.9)
    again = rng()
    draws = episode_indices(mask, block_length(y[mask], x[mask]), 2000, again)
    assert found.high == pytest.approx(np.quantile(y[draws].std(axis=1) / x[draws].std(axis=1), 0.9), rel=1e-12)
    assert volatility_ratio(y, x, mask, rng(), level=0.99).high > found.high
    half = volatility_ratio(0.5 * x, x, mask, rng(), draws=100)
    assert (half.estimate, half.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_the_bound_of_the_volatility_ratio_covers_the_truth_as_often_as_it_says():
    covered = []
    for seed in range(150):
        noise = rng(seed).standard_normal((2, 400))
        mask = np.arange(400) % 100 < 60
        covered.append(volatility_ratio(noise[0], noise[1], mask, rng(seed + 1000), draws=200).high >= 1.0)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.08)


def test_a_volatility_ratio_without_dispersion_is_none():
    y, x, _ = market(50)
    none = Interval(None, None, None, 0.9)
    assert volatility_ratio(y, x, np.zeros(50, dtype=bool), rng()) == none
    assert volatility_ratio(y, x, np.arange(50) == 3, rng()) == none
    assert volatility_ratio(y, np.zeros(50), np.ones(50, dtype=bool), rng()) == none
    two = volatility_ratio(y, x, np.arange(50) < 2, rng())
    assert two.estimate == pytest.approx(abs(y[1] - y[0]) / abs(x[1] - x[0]))
    assert two.high is None  # a draw may hold one session twice
    single = volatility_ratio(y, x, np.arange(50) % 2 == 0, rng())
    assert single.high == pytest.approx(single.estimate)  # episodes of one session cannot be resampled
    with pytest.raises(DataError, match="candidate must be finite"):
        volatility_ratio(np.full(50, math.nan), x, np.ones(50, dtype=bool), rng())
    with pytest.raises(DataError, match="the mask must cover"):
        volatility_ratio(y, x, np.ones(49, dtype=bool), rng())
    with pytest.raises(DataError, match="baseline must cover"):
        volatility_ratio(y, x[:49], np.ones(50, dtype=bool), rng())
