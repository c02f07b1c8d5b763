import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.portfolio.metrics import cvar
from quanto.portfolio.significance import (
    CHUNK,
    AlphaTest,
    alpha_test,
    alpha_test_power,
    alpha_tests,
    cvar_tests,
    detectable_ratio,
    newey_west_lag,
    pseudo_alphas,
    sidak_level,
)

pytestmark = pytest.mark.filterwarnings("error")


def markets(n: int, sessions: int, seed: int = 1, noise: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """Return candidates with beta .6 and no alpha, and their baselines with a premium."""
    rng = generator(seed, "markets")
    baselines = 0.0004 + 0.01 * rng.standard_normal((n, sessions))
    return 0.6 * baselines + noise * rng.standard_normal((n, sessions)), baselines


@pytest.mark.parametrize("sessions", [30, 250, 1500])
@pytest.mark.parametrize("lag", [None, 0, 12])
def test_the_alpha_test_is_statsmodels_hac_regression(sessions: int, lag: int | None):
    y, x = markets(4, sessions)
    y[2] = 0.5 * np.concatenate([[0], y[2, :-1]]) + y[2]  # serial correlation
    found = alpha_tests(y, x, lag)
    lags = int(4 * (sessions / 100) ** (2 / 9)) if lag is None else lag
    for row in range(4):
        fit = sm.OLS(y[row], sm.add_constant(x[row])).fit(cov_type="HAC", cov_kwds={"maxlags": lags}, use_t=True)
        assert found.alpha[row] == pytest.approx(fit.params[0] * 252, rel=1e-10, abs=1e-14)
        assert found.beta[row] == pytest.approx(fit.params[1], rel=1e-10)
        assert found.standard_error[row] == pytest.approx(fit.bse[0] * 252, rel=1e-10)
        assert found.t_statistic[row] == pytest.approx(fit.tvalues[0], rel=1e-10)
        assert found.p_superior[row] + found.p_inferior[row] == pytest.approx(1, abs=1e-12)
        assert 2 * min(found.p_superior[row], found.p_inferior[row]) == pytest.approx(fit.pvalues[0], rel=1e-8)
        assert found.residual_volatility[row] == pytest.approx(math.sqrt(fit.mse_resid * 252), rel=1e-10)
    assert (found.sessions, found.lag) == (sessions, lags)


def test_many_rows_at_once_give_what_each_gives_alone():
    sessions = 1000
    y, x = markets(2 * CHUNK // sessions + 3, sessions)
    together = alpha_tests(y, x)
    for row in (0, CHUNK // sessions - 1, CHUNK // sessions, len(y) - 1):
        alone = alpha_tests(y[row : row + 1], x[row])
        assert together.t_statistic[row] == pytest.approx(alone.t_statistic[0], rel=1e-12)
        assert pseudo_alphas(y, x)[row] == pytest.approx(pseudo_alphas(y[row : row + 1], x[row])[0], rel=1e-12)
        assert cvar_tests(y, x).p_inferior[row] == pytest.approx(cvar_tests(y[row : row + 1], x[row]).p_inferior[0], rel=1e-9)


def test_one_baseline_serves_all_candidates():
    y, x = markets(5, 200)
    one, repeated = alpha_tests(y, x[0]), alpha_tests(y, np.tile(x[0], (5, 1)))
    np.testing.assert_array_equal(one.t_statistic, repeated.t_statistic)
    np.testing.assert_array_equal(one.t_statistic, alpha_tests(y, x[:1]).t_statistic)


@pytest.mark.parametrize("sessions", [250, 1000])
def test_noise_passes_the_alpha_test_at_its_nominal_rate(sessions: int):
    found = alpha_tests(*markets(2000, sessions, seed=sessions))
    assert 0.035 <= (found.p_superior < 0.05).mean() <= 0.065
    assert 0.035 <= (found.p_inferior < 0.05).mean() <= 0.065


def test_the_best_of_twenty_noise_trials_passes_at_the_sidak_level_as_often_as_one_trial():
    y, x = markets(20 * 2000, 500, seed=4)
    best = alpha_tests(y, x).p_superior.reshape(2000, 20).min(axis=1)
    assert 0.035 <= (best < sidak_level(0.05, 20)).mean() <= 0.065


def test_the_power_is_what_the_formula_says():
    rng = generator(8, "power")
    x = 0.01 * rng.standard_normal((2000, 500))
    y = x + 0.006 * (rng.standard_normal((2000, 500)) + 2 / math.sqrt(252))
    for trials in (1, 20):
        share = (alpha_tests(y, x).p_superior < sidak_level(0.05, trials)).mean()
        assert share == pytest.approx(alpha_test_power(2.0, 500, trials), abs=0.035)


@pytest.mark.parametrize(("sessions", "one", "twenty"), [(250, 2.5, 3.7), (500, 1.8, 2.6), (1000, 1.25, 1.8), (1500, 1.0, 1.5)])
def test_what_no_gate_can_see_is_as_the_statistics_page_says(sessions: int, one: float, twenty: float):
    assert detectable_ratio(sessions) == pytest.approx(one, abs=0.05)
    assert detectable_ratio(sessions, 20) == pytest.approx(twenty, abs=0.05)


@given(st.integers(10, 3000), st.integers(1, 100), st.floats(0.01, 0.2), st.floats(0.1, 0.95))
@settings(deadline=None, max_examples=60)
def test_power_at_the_detectable_ratio_is_the_asked_power(sessions: int, trials: int, level: float, power: float):
    assert alpha_test_power(detectable_ratio(sessions, trials, level, power), sessions, trials, level) == pytest.approx(power, abs=1e-9)
    assert detectable_ratio(sessions, trials + 1, level, power) > detectable_ratio(sessions, trials, level, power)


def test_the_sidak_level_of_independent_trials_adds_up_to_the_level():
    assert sidak_level(0.05, 1) == pytest.approx(0.05, rel=1e-12)
    assert 1 - (1 - sidak_level(0.05, 20)) ** 20 == pytest.approx(0.05, rel=1e-12)


def test_pseudo_alphas_follow_their_formula():
    y, x = markets(1, 120)
    (y, x) = y[0], x[0]
    beta = np.cov(y, x)[0, 1] / np.var(x, ddof=1)
    alpha = y.mean() - beta * x.mean()
    expected = alpha + (y - alpha - beta * x) * (1 - x.mean() * (x - x.mean()) / np.var(x))
    np.testing.assert_allclose(pseudo_alphas([y], x)[0], expected, rtol=1e-9, atol=1e-16)


def test_pseudo_alphas_have_the_mean_and_the_error_of_the_alphas():
    y, x = markets(3, 400)
    series, found = pseudo_alphas(y, x), alpha_tests(y, x, lag=0)
    np.testing.assert_allclose(series.mean(axis=1) * 252, found.alpha, rtol=1e-9)
    np.testing.assert_allclose(series.std(axis=1) / math.sqrt(400) * 252, found.standard_error, rtol=1e-9)


@given(st.floats(0.1, 3), st.floats(-1, 1), st.floats(0.2, 5))
@settings(deadline=None, max_examples=40)
def test_leverage_on_the_baseline_and_scale_never_change_the_verdict(scale: float, tilt: float, baseline_scale: float):
    y, x = markets(3, 150)
    one, other = alpha_tests(y, x), alpha_tests(scale * (y + tilt * x), baseline_scale * x)
    np.testing.assert_allclose(other.t_statistic, one.t_statistic, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(other.alpha, scale * one.alpha, rtol=1e-7, atol=1e-12)


@given(st.floats(0, 0.01))
@settings(deadline=None, max_examples=40)
def test_a_higher_return_each_session_is_never_less_superior(extra: float):
    y, x = markets(3, 150)
    assert (alpha_tests(y + extra, x).p_superior <= alpha_tests(y, x).p_superior + 1e-12).all()
    assert (alpha_tests(y + extra, x).p_inferior >= alpha_tests(y, x).p_inferior - 1e-12).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 2.5])
def test_a_mixture_of_the_baseline_and_cash_shows_neither_superiority_nor_inferiority(share: float):
    _, x = markets(1, 300)
    found = alpha_test(share * x[0], x[0])
    assert found.p_superior == pytest.approx(0.5, abs=0.01)
    assert found.p_inferior == pytest.approx(0.5, abs=0.01)
    assert (found.residual_volatility, found.information_ratio, found.information_ratio_upper) == (0.0, None, None)


@pytest.mark.parametrize("level", [0.0, 0.0001])
def test_against_cash_the_alpha_is_the_mean_difference(level: float):
    y, _ = markets(1, 300)
    found = alpha_test(y[0], np.full(300, level))
    lags = newey_west_lag(300)
    fit = sm.OLS(y[0] - level, np.ones(300)).fit(cov_type="HAC", cov_kwds={"maxlags": lags}, use_t=True)
    assert (found.beta, found.alpha) == (0.0, pytest.approx((y[0].mean() - level) * 252))
    assert found.t_statistic == pytest.approx(fit.tvalues[0], rel=1e-9)


def test_the_bounds_of_the_information_ratio_hold_95_percent_of_the_time():
    rng = generator(12, "bounds")
    x = 0.01 * rng.standard_normal((600, 250))
    y = 0.5 * x + 0.006 * (rng.standard_normal((600, 250)) + 0.5 / math.sqrt(252))
    found = [alpha_test(a, b) for a, b in zip(y, x, strict=True)]
    assert np.mean([test.information_ratio_lower <= 0.5 for test in found]) == pytest.approx(0.95, abs=0.03)
    assert np.mean([test.information_ratio_upper >= 0.5 for test in found]) == pytest.approx(0.95, abs=0.03)
    one, many = found[0], alpha_tests(y[:1], x[0])
    assert (one.sessions, one.lag, one.beta) == (many.sessions, many.lag, many.beta[0]) == (250, 4, one.beta)
    assert (one.alpha, one.standard_error, one.t_statistic) == (many.alpha[0], many.standard_error[0], many.t_statistic[0])
    assert one.information_ratio == pytest.approx(one.alpha / one.residual_volatility)
    reach = (one.information_ratio_upper - one.information_ratio) * one.residual_volatility / one.standard_error
    assert reach == pytest.approx(stats.t.isf(0.05, 248))


def test_below_three_sessions_there_is_no_test():
    assert alpha_test([0.1, 0.2], [0.0, 0.1]) == AlphaTest(sessions=2, lag=0)
    assert alpha_test([], []) == AlphaTest(sessions=0, lag=0)
    assert alpha_test([0.1, 0.2, 0.4], [0.0, 0.1, 0.1]).p_superior is not None
    with pytest.raises(DataError, match="at least 3 sessions; found 2"):
        alpha_tests([[0.1, 0.2]], [0.0, 0.1])
    with pytest.raises(DataError, match="at least 3 sessions"):
        detectable_ratio(2)


def test_lags_follow_the_rule():
    assert [newey_west_lag(sessions) for sessions in (1, 3, 100, 250, 500, 1500)] == [0, 1, 4, 4, 5, 7]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_refused_everywhere(bad: float):
    y, x = markets(2, 50)
    broken = y.copy()
    broken[1, 7] = bad
    for call in (alpha_tests, pseudo_alphas, cvar_tests):
        with pytest.raises(DataError, match=r"candidates must be finite; .* at \(1, 7\)"):
            call(broken, x)
        with pytest.raises(DataError, match="baselines must be finite"):
            call(y, broken)
    with pytest.raises(DataError, match=r"^baseline must be finite"):
        alpha_test(y[0], broken[1])
    with pytest.raises(DataError, match=r"^candidate must be finite"):
        alpha_test(broken[1], y[0])


def test_shapes_that_do_not_fit_are_refused():
    y, x = markets(3, 50)
    for baselines in (x[:2], x[:, :49], x[0, :49]):
        with pytest.raises(DataError, match="baselines must have shape"):
            alpha_tests(y, baselines)
    with pytest.raises(DataError, match="dimension"):
        alpha_tests(y[0], x[0])
    with pytest.raises(DataError, match="baselines must have shape"):
        alpha_test(y[0], x[0, :2])
    for level, trials in ((0.0, 1), (1.0, 1), (math.nan, 1), (0.05, 0)):
        with pytest.raises(DataError, match="level inside"):
            sidak_level(level, trials)


def test_the_tail_difference_is_near_that_of_the_metrics():
    y, x = markets(1, 2001)
    found = cvar_tests(y, x)
    assert found.difference[0] == pytest.approx(cvar(y[0]) - cvar(x[0]), rel=0.02)
    assert (found.sessions, found.tail_sessions) == (2001, 101)


def test_equal_tails_are_called_worse_at_the_nominal_rate():
    rng = generator(3, "tails")
    y, x = 0.01 * rng.standard_normal((2, 2000, 500))
    assert 0.03 <= (cvar_tests(y, x).p_inferior < 0.05).mean() <= 0.075


def test_a_fatter_tail_is_found():
    rng = generator(4, "tails")
    x = 0.01 * rng.standard_normal((200, 750))
    y = x + np.where(rng.random((200, 750)) < 0.03, -0.02, 0.0)
    assert (cvar_tests(y, x).p_inferior < 0.05).mean() > 0.9
    assert (cvar_tests(x, y).p_inferior < 0.05).mean() < 0.01


def test_a_copy_of_the_baseline_has_its_tail():
    _, x = markets(1, 300)
    found = cvar_tests(x, x)
    assert (found.difference[0], found.t_statistic[0], found.p_inferior[0]) == (0.0, 0.0, 0.5)
    assert cvar_tests(1.5 * x, x).p_inferior[0] < 1e-6


def test_the_tail_test_follows_its_formula():
    y, x = markets(1, 40)
    gap = np.zeros(40)
    for values, sign in ((y[0], 1), (x[0], -1)):
        at_risk = np.quantile(-values, 0.95)
        gap += sign * (at_risk + np.maximum(-values - at_risk, 0) / 0.05)
    fit = sm.OLS(gap, np.ones(40)).fit(cov_type="HAC", cov_kwds={"maxlags": newey_west_lag(40)}, use_t=True)
    found = cvar_tests(y, x)
    assert found.difference[0] == pytest.approx(gap.mean(), rel=1e-12)
    assert found.t_statistic[0] == pytest.approx(fit.tvalues[0], rel=1e-10)
    assert found.p_inferior[0] == pytest.approx(stats.t.sf(fit.tvalues[0], 39), rel=1e-10)
    assert found.tail_sessions == 2
    assert cvar_tests(y[:, :20], x[:, :20]).tail_sessions == 1


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_what_counts_as_rounding_goes_with_the_size_of_the_returns(scale: float):
    y, x = markets(2, 100)
    y, x = np.vstack([y, 0.5 * x[:1]]) * scale, np.vstack([x, x[:1]]) * scale
    found = alpha_tests(y, x)
    np.testing.assert_allclose(found.t_statistic[:2], alpha_tests(y[:2] / scale, x[:2] / scale).t_statistic, rtol=1e-7)
    assert abs(found.t_statistic[2]) < 0.01
    assert (found.residual_volatility > 0).tolist() == [True, True, False]
    np.testing.assert_allclose(cvar_tests(y, x).t_statistic, cvar_tests(y / scale, x / scale).t_statistic, rtol=1e-7)


def test_one_huge_market_does_not_make_rounding_of_the_others():
    y, x = markets(2, 100)
    y[1], x[1] = y[1] * 1e12, x[1] * 1e12
    alone = [alpha_test(y[row], x[row]).t_statistic for row in range(2)]
    np.testing.assert_allclose(alpha_tests(y, x).t_statistic, alone, rtol=1e-9)
    np.testing.assert_allclose(cvar_tests(y, x).t_statistic[0], cvar_tests(y[:1], x[:1]).t_statistic[0], rtol=1e-9)


def test_critical_values_are_students():
    assert detectable_ratio(3, power=0.5) == pytest.approx(stats.t.isf(0.05, 1) * math.sqrt(252 / 3))
    assert detectable_ratio(12, 4, 0.1, 0.5) == pytest.approx(stats.t.isf(1 - 0.9**0.25, 10) * math.sqrt(252 / 12))
    assert alpha_test_power(1.0, 252) == alpha_test_power(1.0, 252, trials=1, level=0.05) > alpha_test_power(1.0, 252, 2)
