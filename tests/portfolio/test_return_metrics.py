import dataclasses
import json
import math
from pathlib import Path

import empyrical
import numpy as np
import pytest
from arch.data import sp500
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quanto.core.digest import canonical_json
from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.portfolio.metrics import ReturnMetrics, cvar, return_metrics, sortino_ratio, value_at_risk
from quanto.portfolio.series import is_constant

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "published_statistics.json").read_text())
# An overflow or a division by zero that is not meant would be a defect.
pytestmark = pytest.mark.filterwarnings("error")
RATIOS = ("sharpe", "sortino", "calmar", "skew", "kurtosis", "information_ratio")
usual_returns = hnp.arrays(np.float64, st.integers(30, 120), elements=st.floats(-0.2, 0.2).map(lambda x: round(x, 6)))


def same(found: float | None, expected: float | None) -> bool:
    return found is expected if None in (found, expected) else found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def market(sessions: int = 500, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = generator(seed, "metrics test")
    baseline = 0.0004 + 0.01 * rng.standard_t(5, sessions)
    returns = 0.0001 + 0.7 * baseline + 0.004 * rng.standard_normal(sessions)
    return returns, baseline, 0.0001 + 0.00001 * rng.standard_normal(sessions)


def test_sortino_of_the_published_manager_is_4_417_a_period():
    case = GOLDEN["sortino"]
    assert sortino_ratio(np.array(case["returns"])) / math.sqrt(252) == pytest.approx(case["per_period"], abs=5e-4)


def test_sortino_with_a_target_and_kurtosis_are_those_printed_for_bacons_portfolio():
    case = GOLDEN["bacon"]
    r, target = np.array(case["returns"]), case["minimum_acceptable"]
    found = return_metrics(r, minimum_acceptable=target)
    assert found.sortino / math.sqrt(252) == pytest.approx((r.mean() - target) / case["downside_deviation"], rel=1e-6)
    assert found.kurtosis == pytest.approx(case["kurtosis"], abs=5e-3)


def test_the_sp500_of_2008_fell_as_published():
    case, prices = GOLDEN["sp500"], sp500.load()["Adj Close"]
    daily = prices.pct_change().dropna()
    assert return_metrics(daily["2008"].to_numpy()).total_return == pytest.approx(case["return_2008"], abs=5e-5)
    bear = return_metrics(daily["2007-01":"2009-12"].to_numpy())
    assert bear.max_drawdown == pytest.approx(case["drawdown"], abs=5e-4)
    peak_to_end = len(daily["2007-10-10":"2009-12"])
    assert (bear.max_drawdown_sessions, bear.max_drawdown_open) == (peak_to_end, True)
    for day, size in case["days"].items():
        assert daily[day] == pytest.approx(size, abs=5e-5)
    october = return_metrics(daily["2008-10"].to_numpy())
    assert october.worst_session == pytest.approx(-0.0903, abs=5e-5)
    assert october.best_session == pytest.approx(0.1158, abs=5e-5)


@pytest.mark.parametrize("seed", range(5))
def test_numbers_that_empyrical_defines_are_empyricals(seed: int):
    r, b, rf = market(seed=seed)
    found = return_metrics(r, rf, b)
    expected = {
        "total_return": empyrical.cum_returns_final(r),
        "annual_return": empyrical.annual_return(r),
        "annual_volatility": empyrical.annual_volatility(r),
        "sharpe": empyrical.sharpe_ratio(r - rf),
        "sortino": empyrical.sortino_ratio(r),
        "calmar": empyrical.calmar_ratio(r),
        "max_drawdown": empyrical.max_drawdown(r),
        "value_at_risk": -empyrical.value_at_risk(r),
        "cvar": -empyrical.conditional_value_at_risk(r),
        "beta": empyrical.beta(r - rf, b - rf),
        "information_ratio": empyrical.excess_sharpe(r, b) * math.sqrt(252),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-12, rel=1e-12), name


def test_each_number_follows_its_definition():
    r, b, rf = market(seed=9)
    found, excess, wealth = return_metrics(r, rf, b), r - rf, np.concatenate([[1], np.cumprod(1 + r)])
    active = r - b
    beta = np.cov(excess, b - rf)[0, 1] / np.var(b - rf, ddof=1)
    centred = excess - excess.mean()
    expected = {
        "sessions": 500,
        "annual_return": wealth[-1] ** (252 / 500) - 1,
        "annual_log_growth": math.log(wealth[-1]) * 252 / 500,
        "annual_volatility": r.std(ddof=1) * math.sqrt(252),
        "sharpe": excess.mean() / excess.std(ddof=1) * math.sqrt(252),
        "sharpe_per_session": excess.mean() / excess.std(ddof=1),
        "sortino": r.mean() * 252 / (math.sqrt((np.minimum(r, 0) ** 2).mean()) * math.sqrt(252)),
        "max_drawdown": (wealth / np.maximum.accumulate(wealth) - 1).min(),
        "value_at_risk": -np.quantile(r, 0.05),
        "cvar": -r[r <= np.quantile(r, 0.05)].mean(),
        "hit_rate": (r > 0).sum() / (r != 0).sum(),
        "skew": (centred**3).mean() / (centred**2).mean() ** 1.5,
        "kurtosis": (centred**4).mean() / (centred**2).mean() ** 2,
        "beta": beta,
        "alpha": (excess.mean() - beta * (b - rf).mean()) * 252,
        "information_ratio": active.mean() / active.std(ddof=1) * math.sqrt(252),
        "tracking_error": active.std(ddof=1) * math.sqrt(252),
        "best_session": max(r),
        "worst_session": min(r),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-10), name
    assert found.calmar == pytest.approx(found.annual_return / -found.max_drawdown)
    assert not found.ruined


def test_a_risk_free_number_stands_for_a_constant_series():
    r, b, _ = market()
    assert return_metrics(r, 0.0002, b) == return_metrics(r, np.full(500, 0.0002), b)


def test_no_session_gives_no_numbers():
    assert return_metrics([]) == ReturnMetrics(sessions=0)


def test_one_session_has_a_return_and_no_dispersion():
    found = return_metrics([0.01], 0.0, [0.02])
    assert (found.sessions, found.total_return) == (1, pytest.approx(0.01))
    assert [getattr(found, name) for name in ("annual_volatility", *RATIOS, "beta", "alpha", "tracking_error")] == [None] * 10
    assert (found.cvar, found.value_at_risk, found.hit_rate) == (-0.01, -0.01, 1.0)
    assert found.annual_log_growth == pytest.approx(252 * math.log(1.01))
    assert (found.longest_drawdown_sessions, found.max_drawdown_sessions, found.max_drawdown_open) == (0, 0, False)


def test_two_sessions_have_dispersion():
    found = return_metrics([0.01, 0.03], 0.0, [0.0, 0.01])
    assert found.annual_volatility == pytest.approx(math.sqrt(0.0002 * 252))
    assert found.sharpe_per_session == pytest.approx(0.02 / math.sqrt(0.0002))
    assert found.beta == pytest.approx(2.0)
    assert found.tracking_error == pytest.approx(math.sqrt(0.00005 * 252))


def test_a_fall_of_one_rounding_is_no_drawdown():
    r = [0.1, -0.1, 1 / 9, 0.1, -2e-16, 0.2]
    found = return_metrics(r[3:])
    assert found.max_drawdown < 0
    assert (found.calmar, found.max_drawdown_sessions, found.longest_drawdown_sessions) == (None, 0, 0)


@pytest.mark.parametrize(("values", "constant"), [([], True), ([0.3], True), ([0.3, 0.3 + 1e-13], True), ([0.3, 0.3001], False)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_constant_means_equal_up_to_rounding_at_any_scale(values: list[float], constant: bool, scale: float):
    assert is_constant(np.array(values) * scale) is constant


@pytest.mark.parametrize("level", [0.0, 0.001, -0.002])
def test_a_constant_series_has_no_dispersion_and_so_no_ratios(level: float):
    found = return_metrics(np.full(40, level), level / 3, np.full(40, 0.001))
    assert found.annual_volatility == 0.0
    assert [found.sharpe, found.skew, found.kurtosis, found.beta, found.alpha, found.information_ratio] == [None] * 6
    assert found.tracking_error == 0.0
    assert found.hit_rate == (None if level == 0 else float(level > 0))
    assert (found.calmar is None, found.sortino is None) == (level >= 0, level >= 0)


def test_an_excess_return_that_is_constant_up_to_rounding_has_no_sharpe_ratio():
    rf = generator(3, "rounding").standard_normal(300) * 0.1
    excess = (rf + 0.001) - rf
    assert 0 < np.ptp(excess) < 1e-15
    found = return_metrics(rf + 0.001, rf, rf + 0.002)
    assert [found.sharpe, found.skew, found.kurtosis, found.beta, found.alpha, found.information_ratio] == [None] * 6
    assert found.annual_volatility > 1


def test_ruin_loses_everything_for_ever():
    found = return_metrics([0.1, -1.0, 0.5, 0.2])
    assert (found.ruined, found.total_return, found.annual_return, found.max_drawdown, found.calmar) == (True, -1.0, -1.0, -1.0, -1.0)
    assert (found.max_drawdown_open, found.max_drawdown_sessions, found.annual_log_growth) == (True, 3, None)


def test_a_number_too_large_for_a_double_is_none():
    assert return_metrics([1e3, 1e3]).annual_return is None
    with pytest.raises(DataError, match="wealth overflowed at session 1"):
        return_metrics([1e200, 1e200, 0.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["returns", "risk_free", "baseline"])
def test_nan_and_infinity_are_refused_by_place(bad: float, where: str):
    arrays = {"returns": np.full(5, 0.01), "risk_free": np.zeros(5), "baseline": np.full(5, 0.02)}
    arrays[where][3] = bad
    with pytest.raises(DataError, match=rf"{where} must be finite; found 1 NaN or infinite value.*at 3"):
        return_metrics(**arrays)


def test_a_loss_of_more_than_all_is_refused():
    with pytest.raises(DataError, match=r"-1.5 at 1"):
        return_metrics([-1.0, -1.5])
    with pytest.raises(DataError, match=r"baseline must be simple returns.*-1.0001 at 1"):
        return_metrics([0.0, 0.1], baseline=[0.0, -1.0001])


def test_series_of_other_sessions_are_refused():
    with pytest.raises(DataError, match="baseline must cover the same 3 sessions as the returns; found 2"):
        return_metrics([0.0] * 3, baseline=[0.0] * 2)
    with pytest.raises(DataError, match="risk_free must cover the same 3 sessions"):
        return_metrics([0.0] * 3, risk_free=[0.0] * 4)
    with pytest.raises(DataError, match="1 dimension"):
        return_metrics([[0.0], [0.1]])


def test_ties_at_the_quantile_do_not_dilute_the_tail():
    r = np.array([-0.1] + [0.0] * 39)
    assert value_at_risk(r) == 0.0
    assert cvar(r) == pytest.approx(0.05)
    assert cvar(r, tail=0.01) == pytest.approx(0.1)


@given(usual_returns)
@settings(deadline=None, max_examples=40)
def test_every_number_is_json_and_within_its_bounds(r: np.ndarray):
    found = return_metrics(r, 0.0, r[::-1])
    canonical_json(dataclasses.asdict(found))
    assert -1 <= found.max_drawdown <= 0
    assert found.cvar >= found.value_at_risk - 1e-15
    assert found.annual_volatility >= 0
    assert found.longest_drawdown_sessions >= found.max_drawdown_sessions
    assert found.kurtosis is None or found.kurtosis >= 1 + found.skew**2 - 1e-9
    assert found.total_return == pytest.approx(np.prod(1 + r) - 1, abs=1e-12)


@given(usual_returns, st.floats(0.1, 4))
@settings(deadline=None, max_examples=40)
def test_ratios_do_not_change_with_the_scale_and_volatility_grows_with_it(r: np.ndarray, scale: float):
    one, other = return_metrics(r), return_metrics(r * scale)
    for name in ("sharpe", "sortino", "hit_rate", "skew", "kurtosis"):
        assert same(getattr(other, name), getattr(one, name)), name
    assert other.annual_volatility == pytest.approx(one.annual_volatility * scale, rel=1e-9)
    assert other.cvar == pytest.approx(one.cvar * scale, rel=1e-9, abs=1e-15)


@given(usual_returns, st.floats(-0.01, 0.01))
@settings(deadline=None, max_examples=40)
def test_a_shift_of_returns_and_of_cash_leaves_the_sharpe_ratio(r: np.ndarray, shift: float):
    assert same(return_metrics(r + shift, shift).sharpe, return_metrics(r).sharpe)


def test_the_order_of_sessions_moves_drawdown_alone():
    r, b, rf = market(100)
    order = generator(5, "order").permutation(100)
    one, other = return_metrics(r, rf, b), return_metrics(r[order], rf[order], b[order])
    for name in ("annual_return", "sharpe", "sortino", "cvar", "beta", "alpha", "hit_rate"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-10), name
    assert one.max_drawdown != other.max_drawdown
