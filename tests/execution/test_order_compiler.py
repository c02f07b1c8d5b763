"""From targets to orders: sizes, lots, minimums, and purchases that cash in hand can always pay."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import numpy as np
import pytest
from fakes.execution_worlds import FREE_ORDERS
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.execution.compiler import OrderRules, Sizing, compile_purchases, compile_sales, funded_share, limit_price, wanted_shares

NAMES = ("A", "B", "C")


def rules(**changes: Any) -> OrderRules:
    return OrderRules(**{**FREE_ORDERS, **changes})


def sizing(wanted: list[float], held: list[float], reference: tuple[float, ...] = (10.0, 20.0, 50.0), collar: float = 0.1) -> Sizing:
    return Sizing("e", date(2026, 1, 6), NAMES, np.array(wanted), np.array(held), np.array(reference), 1e5, collar)


def test_wanted_shares_are_fixed_at_the_close_and_converted_for_splits() -> None:
    close, split, held = np.array([10.0, 20.0, 0.0]), np.array([2.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])
    wanted = wanted_shares(np.array([0.5, 0.2, 0.1]), 1000.0, close, split, held)
    np.testing.assert_array_equal(wanted, [100.0, 10.0, 3.0])


def test_sales_and_purchases_lead_from_held_to_wanted() -> None:
    plan = sizing([5.0, 0.0, 7.5], [8.0, 3.0, 2.0])
    sales = compile_sales(plan, rules())
    purchases = compile_purchases(plan, rules(), np.array([10.0, 20.0, 50.0]), 1e6, 0.0, np.zeros(3))
    assert [(order.symbol, order.side, order.quantity) for order in sales] == [("A", "sell", 3.0), ("B", "sell", 3.0)]
    assert [(order.symbol, order.side, order.quantity) for order in purchases] == [("C", "buy", 5.5)]


def test_whole_shares_are_rounded_towards_zero_in_lots_and_exits_are_complete() -> None:
    plan = sizing([19.9, 0.0, 9.99], [25.0, 3.5, 0.0])
    whole = rules(fractional=False, lot_shares=10)
    assert [(order.symbol, order.quantity) for order in compile_sales(plan, whole)] == [("A", 15.0), ("B", 3.5)]
    assert compile_purchases(plan, whole, np.array([10.0, 20.0, 50.0]), 1e6, 0.0, np.zeros(3)) == []


def test_small_orders_are_left_out_but_never_an_exit() -> None:
    plan = sizing([9.0, 0.0, 1.0], [10.0, 0.1, 0.5])
    careful = rules(minimum_notional_usd=30.0)
    assert [(order.symbol, order.quantity) for order in compile_sales(plan, careful)] == [("B", 0.1)]
    assert compile_purchases(plan, careful, np.array([10.0, 20.0, 50.0]), 1e6, 0.0, np.zeros(3)) == []


def test_rounding_noise_makes_no_orders() -> None:
    plan = sizing([10.0 - 1e-13, 5.0 + 1e-13, 0.0], [10.0, 5.0, 0.0])
    assert compile_sales(plan, rules()) == []
    assert compile_purchases(plan, rules(), np.array([10.0, 20.0, 50.0]), 1e6, 0.0, np.zeros(3)) == []


def test_purchases_count_no_proceeds_that_have_not_arrived() -> None:
    plan = sizing([0.0, 100.0, 0.0], [1000.0, 0.0, 0.0])
    assert compile_purchases(plan, rules(), np.array([10.0, 20.0, 50.0]), 0.0, 0.0, np.zeros(3)) == []
    (order,) = compile_purchases(plan, rules(), np.array([10.0, 20.0, 50.0]), 500.0, 0.0, np.zeros(3))
    assert order.quantity == 25.0


def test_a_name_that_does_not_trade_takes_no_cash_from_the_others() -> None:
    plan = sizing([10.0, 10.0, 0.0], [0.0, 0.0, 0.0])
    first, second = compile_purchases(plan, rules(), np.array([10.0, math.nan, 50.0]), 50.0, 0.0, np.zeros(3))
    assert (first.symbol, first.quantity) == ("A", 5.0)
    assert (second.symbol, second.quantity) == ("B", 10.0)  # made, so that its denial is journalled


amounts = st.lists(st.floats(0.0, 5000.0), min_size=3, max_size=3)


@given(
    amounts,
    st.floats(-100.0, 60_000.0),
    st.floats(0.0, 0.01),
    st.floats(0.0, 1e-4),
    st.floats(0.0, 50.0),
    st.sampled_from([{"fractional": True}, {"fractional": False, "lot_shares": 1}, {"fractional": False, "lot_shares": 7}]),
)
@settings(deadline=None, max_examples=150)
def test_cash_is_never_overdrawn_even_at_the_worst_slippage(
    wanted: list[float], spendable: float, linear: float, impact: float, worst: float, kind: dict[str, Any]
) -> None:
    price = np.array([10.0, 20.0, 50.0])
    conditions = rules(worst_case_slippage_bps=worst, **kind)
    orders = compile_purchases(sizing(wanted, [0.0, 0.0, 0.0]), conditions, price, spendable, linear, np.full(3, impact))
    paid = 0.0
    for order in orders:
        value = order.quantity * price[NAMES.index(order.symbol)] * (1 + worst * 1e-4)
        paid += value * (1 + linear + impact * math.sqrt(value))
        assert order.quantity <= wanted[NAMES.index(order.symbol)] + 1e-9
        if not conditions.fractional:
            assert order.quantity % conditions.lot_shares == 0
    assert paid <= max(spendable, 0.0) * (1 + 1e-12) + 1e-9


def test_all_is_bought_where_cash_suffices_exactly() -> None:
    value = np.array([100.0, 200.0])
    exact = float((value * (1 + 0.001 + 1e-4 * np.sqrt(value))).sum())
    assert funded_share(value, exact, 0.001, np.full(2, 1e-4)) == 1.0
    assert funded_share(value, exact / 2, 0.001, np.full(2, 1e-4)) == pytest.approx(0.5)
    assert funded_share(value, -1.0, 0.001, np.full(2, 1e-4)) == 0.0


@pytest.mark.parametrize(
    ("reference", "side", "collar", "expected"),
    [(50.0, "buy", 0.1, 55.0), (50.0, "sell", 0.1, 45.0), (33.333, "buy", 0.1, 36.66), (33.333, "sell", 0.1, 30.0), (0.5, "buy", 0.1, 0.55),
     (0.12345, "buy", 0.1, 0.1357), (0.12345, "sell", 0.1, 0.1112), (50.0, "sell", 1.0, None), (math.nan, "buy", 0.1, None)],
)  # fmt: skip
def test_the_limit_price_is_the_collar_rounded_inwards(reference: float, side: Any, collar: float, expected: float | None) -> None:
    found = limit_price(reference, side, collar)
    assert found == expected
    if found is not None:
        assert abs(found / reference - 1) <= collar + 1e-12


def test_names_of_orders_do_not_depend_on_how_often_they_are_compiled() -> None:
    plan = sizing([5.0, 0.0, 7.5], [8.0, 3.0, 2.0])
    assert compile_sales(plan, rules()) == compile_sales(plan, rules())
    assert len({order.client_order_id for order in compile_sales(plan, rules())}) == 2
