import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.portfolio.activity import ActivityMetrics, activity_metrics, concentration
from quanto.portfolio.attribution import Attribution, Flows, Legs, attribute

SYMBOLS = ("A", "B", "C")
LEGS = ("overnight", "intraday", "dividend", "cost", "cash")


def test_activity_of_a_hand_made_book():
    weights = np.array([[0.5, 0.5], [0.3, 0.1], [0.0, 0.0], [0.2, -0.2]])
    found = activity_metrics(weights, [0.5, 0.1, 0.2, 0.2], [[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [1.0, -1.0]])
    assert (found.sessions, found.gross_mean, found.gross_max) == (4, pytest.approx(0.45), 1.0)
    assert (found.net_mean, found.net_max) == (pytest.approx(0.35), 1.0)
    assert found.gross_p95 == pytest.approx(np.quantile([1, 0.4, 0, 0.4], 0.95))
    assert found.net_p95 == pytest.approx(np.quantile([1, 0.4, 0, 0], 0.95))
    assert (found.turnover_mean, found.turnover_max, found.turnover_annual) == (pytest.approx(0.25), 0.5, pytest.approx(63))
    assert found.turnover_p95 == pytest.approx(np.quantile([0.5, 0.1, 0.2, 0.2], 0.95))
    assert found.holding_period_sessions == pytest.approx(0.45 / 0.25)
    assert found.herfindahl == pytest.approx((0.5 + (0.75**2 + 0.25**2) + 0.5) / 3)
    assert found.effective_names == pytest.approx((2 + 1 / (0.75**2 + 0.25**2) + 2) / 3)
    assert (found.trades, found.sessions_traded) == (5, 3)


def test_a_book_replaced_every_twenty_sessions_is_held_for_twenty():
    weights = np.ones((400, 1))
    assert activity_metrics(weights, np.where(np.arange(400) % 20 == 0, 1.0, 0.0)).holding_period_sessions == pytest.approx(20)


def test_an_idle_book_has_no_holding_period_and_no_concentration():
    found = activity_metrics(np.zeros((10, 3)), np.zeros(10), np.zeros((10, 3)))
    assert (found.holding_period_sessions, found.herfindahl, found.effective_names) == (None, None, None)
    assert (found.gross_mean, found.turnover_annual, found.trades, found.sessions_traded) == (0.0, 0.0, 0, 0)


def test_no_session_gives_no_activity():
    assert activity_metrics(np.zeros((0, 3)), []) == ActivityMetrics(sessions=0)
    assert activity_metrics(np.ones((2, 3)), [0.1, 0.1]).trades is None


@pytest.mark.parametrize("names", [1, 4, 30])
def test_equal_weights_have_as_many_effective_names_as_names(names: int):
    index, effective = concentration(np.full((5, names), 0.7 / names))
    assert (index, effective) == (pytest.approx(1 / names), pytest.approx(names))


def test_activity_refuses_what_cannot_be():
    with pytest.raises(DataError, match=r"weights must be finite.*\(1, 0\)"):
        activity_metrics([[0.1], [math.nan]], [0.1, 0.1])
    with pytest.raises(DataError, match=r"turnover must not be negative; found -0.1 at 1"):
        activity_metrics([[0.1], [0.2]], [0.1, -0.1])
    with pytest.raises(DataError, match="turnover must cover"):
        activity_metrics([[0.1], [0.2]], [0.1])
    with pytest.raises(DataError, match="traded must have the shape"):
        activity_metrics([[0.1], [0.2]], [0.1, 0.1], [[1.0, 2.0]])
    with pytest.raises(DataError, match="traded must be finite"):
        activity_metrics([[0.1], [0.2]], [0.1, 0.1], [[1.0], [math.inf]])


def book(sessions: int = 300, seed: int = 1) -> tuple[np.ndarray, float, np.ndarray, Flows]:
    """Return dates over two years, the NAV before, the NAV and the flows of a made-up book."""
    rng = generator(seed, "book")
    tables = rng.standard_normal((3, sessions, 3)) * 1e4
    traded = rng.standard_normal((sessions, 3)) * 1e5 * (rng.random((sessions, 3)) < 0.5)
    cost = np.abs(traded).sum(axis=1) * 5e-4
    interest = rng.random(sessions) * 30
    flows = Flows(tables[0], tables[1], np.abs(tables[2]) / 100, traded, cost, interest)
    moved = (flows.overnight + flows.intraday + flows.dividend).sum(axis=1) - cost + interest
    return np.datetime64("2010-06-01") + np.arange(sessions), 5e6, 5e6 + np.cumsum(moved), flows


def legs_sum(*parts: Legs) -> Legs:
    return Legs(*[math.fsum(getattr(part, leg) for part in parts) for leg in LEGS])


def assert_equal_legs(one: Legs, other: Legs) -> None:
    for leg in LEGS:
        assert getattr(one, leg) == pytest.approx(getattr(other, leg), rel=1e-9, abs=1e-6), leg


@given(st.integers(1, 400), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_symbols_years_and_legs_each_sum_to_the_change_of_nav(sessions: int, seed: int):
    days, before, nav, flows = book(sessions, seed)
    found = attribute(days, SYMBOLS, before, nav, flows)
    change = nav[-1] - before
    assert found.total.total == pytest.approx(change, rel=1e-9, abs=1e-4)
    assert_equal_legs(legs_sum(*[year.legs for year in found.years.values()]), found.total)
    assert_equal_legs(dataclasses.replace(legs_sum(*found.symbols.values()), cash=found.total.cash), found.total)
    assert math.prod(1 + year.period_return for year in found.years.values()) == pytest.approx(nav[-1] / before, rel=1e-12)
    for year in found.years.values():
        assert year.legs.total / year.nav_before == pytest.approx(year.period_return, rel=1e-6, abs=1e-9)


def test_a_hand_made_book_is_split_by_symbol_year_and_leg():
    flows = Flows(
        overnight=np.array([[10.0, 0.0], [5.0, -2.0]]),
        intraday=np.array([[1.0, 2.0], [3.0, 4.0]]),
        dividend=np.array([[0.0, 0.5], [0.0, 0.0]]),
        traded=np.array([[300.0, -100.0], [0.0, 0.0]]),
        cost=np.array([4.0, 0.0]),
        interest=np.array([0.25, 0.75]),
    )
    nav = np.array([1009.75, 1020.5])
    found = attribute(["2010-12-31", "2011-01-03"], ("A", "B"), 1000.0, nav, flows)
    assert found.total == Legs(overnight=13.0, intraday=10.0, dividend=0.5, cost=-4.0, cash=1.0)
    assert found.symbols == {"A": Legs(15.0, 4.0, 0.0, -3.0, 0.0), "B": Legs(-2.0, 6.0, 0.5, -1.0, 0.0)}
    assert list(found.years) == [2010, 2011]
    assert found.years[2010].legs == Legs(10.0, 3.0, 0.5, -4.0, 0.25)
    assert (found.years[2011].nav_before, found.years[2011].period_return) == (1009.75, pytest.approx(10.75 / 1009.75))
    assert (found.nav_before, found.nav_after) == (1000.0, 1020.5)


def test_a_small_book_is_split_as_a_large_one():
    days, before, nav, flows = book(30)
    small = Flows(*[getattr(flows, field.name) * 1e-6 for field in dataclasses.fields(Flows)])
    one, other = attribute(days, SYMBOLS, before, nav, flows), attribute(days, SYMBOLS, before * 1e-6, nav * 1e-6, small)
    for symbol in SYMBOLS:
        assert other.symbols[symbol].cost == pytest.approx(one.symbols[symbol].cost * 1e-6)
    with pytest.raises(DataError, match="a cost must belong to a fill"):
        attribute(days, SYMBOLS, before * 1e-6, nav * 1e-6, dataclasses.replace(small, traded=np.zeros((30, 3))))


def test_an_empty_window_changes_nothing():
    empty, none = np.zeros((0, 3)), np.zeros(0)
    found = attribute([], SYMBOLS, 100.0, [], Flows(empty, empty, empty, empty, none, none))
    zero = Legs(0.0, 0.0, 0.0, 0.0, 0.0)
    assert found == Attribution(100.0, 100.0, zero, dict.fromkeys(SYMBOLS, zero), {})


def test_a_hole_in_the_accounting_is_named_by_its_session():
    days, before, nav, flows = book(20)
    broken = nav.copy()
    broken[7:] += 1.0
    with pytest.raises(DataError, match=rf"on 2010-06-08 they give .*, NAV changed {broken[7] - broken[6]}"):
        attribute(days, SYMBOLS, before, broken, flows)


def test_flows_that_cannot_be_are_refused():
    days, before, nav, flows = book(20)
    missing = flows.intraday.copy()
    missing[3, 1] = math.nan
    with pytest.raises(DataError, match=r"intraday must be finite.*\(3, 1\)"):
        attribute(days, SYMBOLS, before, nav, dataclasses.replace(flows, intraday=missing))
    with pytest.raises(DataError, match="costs must be 0 or above"):
        attribute(days, SYMBOLS, before, nav, dataclasses.replace(flows, cost=-flows.cost))
    with pytest.raises(DataError, match=r"must have shape \(20, 2\)"):
        attribute(days, SYMBOLS[:2], before, nav, flows)
    with pytest.raises(DataError, match="interest must cover"):
        attribute(days, SYMBOLS, before, nav, dataclasses.replace(flows, interest=flows.interest[:5]))
    with pytest.raises(DataError, match="nav must be finite"):
        attribute(days, SYMBOLS, before, np.full(20, math.nan), flows)
    with pytest.raises(DataError, match=r"^cost must cover"):
        attribute(days, SYMBOLS, before, nav, dataclasses.replace(flows, cost=flows.cost[:5]))
    idle = dataclasses.replace(flows, traded=np.zeros((20, 3)))
    with pytest.raises(DataError, match="a cost must belong to a fill; 2010-06-01"):
        attribute(days, SYMBOLS, before, nav, idle)
