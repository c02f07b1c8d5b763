"""The risk checks: each limit binds exactly where it says, unknown is a breach, reductions pass what should not hold them."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
from fakes.risk_policies import WIDE, wide_policy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from quanto.execution.limits import RiskPolicy
from quanto.execution.measures import Snapshot, bought, measure, ratio, total
from quanto.execution.orders import Order, Side
from quanto.execution.risk import (
    CHECKS,
    Action,
    Verdict,
    account_breaches,
    all_pass,
    fill_breaches,
    judge,
    keeps,
    order_breaches,
    portfolio_breaches,
)

# The mutation score runs this file hundreds of times.
EXAMPLES = int(os.environ.get("QUANTO_EXAMPLES", "150"))

SYMBOLS = {"A": 0, "B": 1, "C": 2}
BASE: dict[str, Any] = {
    "symbols": SYMBOLS,
    "reference": [10.0, 20.0, 50.0],
    "price": [10.0, 20.0, 50.0],
    "price_age": [0.0, 0.0, 0.0],
    "adv_usd": [1e6, 2e6, 5e6],
    "beta": [1.0, 0.5, 2.0],
    "shares": [100.0, 0.0, 0.0],
    "open_purchases": [0.0, 0.0, 0.0],
    "open_sales": [0.0, 0.0, 0.0],
    "cash": 9000.0,
    "nav": 10_000.0,
    "nav_now": 10_000.0,
    "traded_usd": 0.0,
    "slippage": 0.0,
    "linear_cost": 0.0,
    "impact": [0.0, 0.0, 0.0],
    "orders_last_minute": 0,
    "missing_share": 0.0,
    "policy_age_sessions": 10.0,
}


def snapshot(**changes: Any) -> Snapshot:
    return Snapshot(**{**BASE, **changes})


def order(symbol: str = "B", side: Side = "buy", quantity: float = 100.0, name: str = "o1") -> Order:
    return Order(name, symbol, side, quantity, 20.0)


def broken(one: Order, known: Snapshot, policy: RiskPolicy, ids: tuple[str, ...] = ()) -> set[str]:
    return {breach.check for breach in order_breaches(one, known, policy, ids)}


def test_wide_limits_pass_an_ordinary_order() -> None:
    assert order_breaches(order(), snapshot(), wide_policy()) == []
    assert judge(order(), snapshot(), wide_policy()).quantity == 100.0


# A purchase of 100 B at 20 beside 100 A at 10, NAV 10,000: what each measure is, by hand.
MEASURED = {
    "max_gross_exposure": ("gross_exposure", 0.3),
    "max_net_exposure": ("net_exposure", 0.3),
    "max_name_weight": ("name_weight", 0.2),
    "max_positions": ("positions", 2),
    "max_beta": ("beta", 0.1 * 1.0 + 0.2 * 0.5),
    "max_gap_loss": ("gap_loss", 0.1 * (0.1 * 1.0 + 0.2 * 0.5) + 0.3 * 0.2),
    "max_days_to_exit": ("days_to_exit", 2000.0 / (0.1 * 2e6)),
    "max_order_notional_usd": ("order_notional", 2000.0),
    "max_order_volume_share": ("order_volume_share", 2000.0 / 2e6),
    "max_turnover": ("turnover", 0.1),
}


def tight(limit: str, value: float) -> RiskPolicy:
    """Return a policy in which one limit is this, and those that may not be above it follow."""
    changes: dict[str, Any] = {limit: value}
    if limit == "max_gross_exposure":
        changes |= {"max_net_exposure": value, "max_name_weight": value}
    return wide_policy(**changes)


@pytest.mark.parametrize("limit", sorted(MEASURED))
def test_a_limit_passes_what_is_at_it_and_no_more(limit: str) -> None:
    check, value = MEASURED[limit]
    assert check not in broken(order(), snapshot(), tight(limit, value))
    less = value - 1 if limit == "max_positions" else value * 0.999
    (found,) = [breach for breach in order_breaches(order(), snapshot(), tight(limit, less)) if breach.check == check]
    assert found.found == pytest.approx(value, rel=1e-12)
    assert found.limit == less
    assert found.unit
    assert found.symbol == "B"


def test_leverage_is_assets_over_nav() -> None:
    borrowing = snapshot(cash=1000.0, nav=2000.0, nav_now=2000.0)
    policy = wide_policy(max_leverage=1.0, minimum_cash=0.0)
    assert "leverage" not in broken(order(quantity=50.0), borrowing, policy)
    (found,) = [breach for breach in order_breaches(order(quantity=60.0), borrowing, policy) if breach.check == "leverage"]
    assert found.found == pytest.approx((1000.0 + 1200.0) / 2000.0)


def test_cash_after_costs_slippage_and_impact_stays_at_the_floor() -> None:
    known = snapshot(cash=5000.0, slippage=0.01, linear_cost=0.002, impact=[0.0, 1e-4, 0.0])
    worst = 2000.0 * 1.01
    left = 5000.0 - worst * (1 + 0.002 + 1e-4 * math.sqrt(worst))
    assert "cash" not in broken(order(), known, wide_policy(minimum_cash=left / 10_000))
    more = wide_policy(minimum_cash=left / 10_000 + 1e-6)
    (found,) = [breach for breach in order_breaches(order(), known, more) if breach.check == "cash"]
    assert found.found == pytest.approx(left / 10_000)


def test_open_purchases_count_as_exposure_and_open_sales_do_not_relieve_it() -> None:
    known = snapshot(open_purchases=[0.0, 50.0, 10.0], open_sales=[100.0, 0.0, 0.0], traded_usd=2500.0)
    case = measure(order(), known, wide_policy())
    assert case.gross == pytest.approx((1000 + 150 * 20 + 500) / 10_000)
    assert case.name_weight == pytest.approx(0.3)
    assert case.positions == 3
    assert case.turnover == pytest.approx(0.5 * 4500 / 10_000)
    assert case.cash == pytest.approx((9000 - 150 * 20 - 500) / 10_000)


def test_the_rate_counts_the_order_itself() -> None:
    assert broken(order(), snapshot(orders_last_minute=4), wide_policy(max_orders_per_minute=5)) == set()
    assert broken(order(), snapshot(orders_last_minute=5), wide_policy(max_orders_per_minute=5)) == {"orders_per_minute"}


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_the_collar_is_measured_from_the_last_known_price_on_both_sides(factor: float) -> None:
    known = snapshot(price=[10.0, 20.0 * factor, 50.0])
    assert "price_collar" not in broken(order(), known, wide_policy(price_collar=0.2000001))
    assert "price_collar" in broken(order(), known, wide_policy(price_collar=0.1999))


def test_stale_incomplete_and_old_knowledge_is_refused() -> None:
    policy = wide_policy(max_price_age_sessions=1, max_missing_share=0.25, max_policy_age_sessions=10)
    assert broken(order(), snapshot(price_age=[9.0, 1.0, 9.0], missing_share=0.25), policy) == set()
    assert broken(order(), snapshot(price_age=[0.0, 2.0, 0.0]), policy) == {"price_age"}
    assert broken(order(), snapshot(missing_share=0.26), policy) == {"missing_share"}
    assert broken(order(), snapshot(policy_age_sessions=11.0), policy) == {"policy_age"}


def test_restricted_duplicate_halted_reduce_only_and_unknown_names_are_refused() -> None:
    assert broken(order(), snapshot(), wide_policy(restricted=("B",))) == {"restricted"}
    assert broken(order("A"), snapshot(), wide_policy(restricted=("B",))) == set()
    assert broken(order(), snapshot(), wide_policy(), ("o0", "o1")) == {"duplicate"}
    assert broken(order(), snapshot(halted=True), wide_policy()) == {"halted"}
    assert broken(order(), snapshot(reduce_only=True), wide_policy()) == {"reduce_only"}
    assert "unknown_symbol" in broken(order("NOPE"), snapshot(), wide_policy())


UNKNOWN = [
    ("reference", [10.0, math.nan, 50.0]),
    ("price", [10.0, math.nan, 50.0]),
    ("price_age", [0.0, math.nan, 0.0]),
    ("adv_usd", [1e6, math.nan, 5e6]),
    ("adv_usd", [1e6, 0.0, 5e6]),
    ("beta", [1.0, math.nan, 2.0]),
    ("beta", [math.nan, 0.5, 2.0]),
    ("reference", [math.nan, 20.0, 50.0]),
    ("nav", math.nan),
    ("nav", 0.0),
    ("nav", -1.0),
    ("nav_now", math.nan),
    ("cash", math.nan),
    ("traded_usd", math.nan),
    ("slippage", math.nan),
    ("linear_cost", math.nan),
    ("impact", [0.0, math.nan, 0.0]),
    ("missing_share", math.nan),
    ("policy_age_sessions", math.nan),
    ("orders_last_minute", math.nan),
]


@pytest.mark.parametrize(("field", "value"), UNKNOWN, ids=[f"{name}-{index}" for index, (name, _) in enumerate(UNKNOWN)])
def test_what_is_unknown_denies_even_under_wide_limits(field: str, value: Any) -> None:
    verdict = judge(order(), snapshot(**{field: value}), wide_policy())
    assert verdict.denied
    assert any(math.isnan(breach.found) for breach in verdict.breaches) or field == "nav"


@pytest.mark.parametrize("quantity", [0.0, -5.0, math.nan, math.inf, -math.inf])
def test_a_quantity_that_is_no_number_breaks_everything_that_can_be_measured(quantity: float) -> None:
    found = order_breaches(order(quantity=quantity), snapshot(), wide_policy())
    assert {"sign_flip", "price_collar", "gross_exposure", "cash", "beta", "order_notional"} <= {breach.check for breach in found}
    assert judge(order(quantity=quantity), snapshot(), wide_policy()).denied


def test_a_held_name_that_does_not_trade_keeps_its_last_price_and_can_be_bought_no_more() -> None:
    known = snapshot(price=[math.nan, 20.0, 50.0])
    assert judge(order("B"), known, wide_policy()).quantity == 100.0
    assert measure(order("B"), known, wide_policy()).leverage == pytest.approx((1000 + 2000 + 7000) / 10_000)
    assert "price_collar" in broken(order("A"), known, wide_policy())


# Reductions.

SPARED = {
    "reduce_only", "turnover", "gross_exposure", "net_exposure", "leverage", "name_weight", "positions", "cash", "beta", "gap_loss",
    "days_to_exit",
}  # fmt: skip


def test_the_spared_checks_are_exposure_turnover_and_loss_and_no_others() -> None:
    assert {check.name for check in CHECKS.values() if check.spares_reductions} == SPARED


def suffocating(**changes: Any) -> RiskPolicy:
    exposure = ("max_net_exposure", "max_name_weight", "max_gross_exposure", "max_beta", "max_gap_loss", "max_days_to_exit")
    tiny = dict.fromkeys((*exposure, "max_turnover"), 1e-09)
    return wide_policy(**{**tiny, "max_positions": 1, "max_leverage": 1.0, "minimum_cash": 0.99, **changes})


def test_a_reduction_passes_where_every_exposure_limit_is_broken() -> None:
    known = snapshot(shares=[100.0, 300.0, 50.0], reduce_only=True, cash=-5000.0)
    assert judge(order("B", "sell", 300.0), known, suffocating()).quantity == 300.0
    assert judge(order("B", "buy", 1.0), known, suffocating()).denied


@pytest.mark.parametrize(
    ("changes", "policy", "check"),
    [
        ({"halted": True}, {}, "halted"),
        ({"orders_last_minute": 5}, {"max_orders_per_minute": 5}, "orders_per_minute"),
        ({"price": [10.0, 10.0, 50.0]}, {"price_collar": 0.2}, "price_collar"),
        ({"price_age": [0.0, 3.0, 0.0]}, {"max_price_age_sessions": 2}, "price_age"),
        ({"missing_share": 0.9}, {"max_missing_share": 0.2}, "missing_share"),
        ({"policy_age_sessions": 11.0}, {"max_policy_age_sessions": 10}, "policy_age"),
        ({}, {"restricted": ("B",)}, "restricted"),
    ],
)
def test_a_reduction_is_never_spared(changes: dict[str, Any], policy: dict[str, Any], check: str) -> None:
    known = snapshot(shares=[100.0, 300.0, 50.0], **changes)
    assert broken(order("B", "sell", 300.0), known, wide_policy(**policy)) == {check}
    assert judge(order("B", "sell", 300.0), known, wide_policy(**policy)).denied


def test_a_reduction_is_cut_to_the_size_that_an_order_may_have() -> None:
    known = snapshot(shares=[100.0, 300.0, 50.0])
    assert judge(order("B", "sell", 300.0), known, wide_policy(max_order_notional_usd=2000.0)).quantity == pytest.approx(100.0, rel=1e-6)
    assert judge(order("B", "sell", 300.0), known, wide_policy(max_order_volume_share=0.001)).quantity == pytest.approx(100.0, rel=1e-6)


def test_a_repeated_reduction_is_refused() -> None:
    assert broken(order("A", "sell", 10.0), snapshot(), wide_policy(), ("o1",)) == {"duplicate"}


@given(st.floats(0.0, 200.0), st.floats(0.0, 100.0), st.floats(1e-6, 300.0))
@settings(deadline=None, max_examples=EXAMPLES)
def test_a_sale_never_flips_a_sign(held: float, already: float, quantity: float) -> None:
    known = snapshot(shares=[held, 0.0, 0.0], open_sales=[already, 0.0, 0.0])
    verdict = judge(order("A", "sell", quantity), known, wide_policy())
    slack = 1e-9 * max(1.0, abs(held - already))
    assert verdict.quantity <= max(0.0, held - already) + slack
    if quantity <= held - already:
        assert verdict.quantity == quantity
    elif quantity > held - already + 2 * slack:
        assert verdict.denied


# Clipping.


def test_an_order_is_cut_to_the_largest_quantity_that_breaks_no_limit() -> None:
    policy = wide_policy(max_name_weight=0.15)
    verdict = judge(order(), snapshot(), policy)
    assert verdict.clipped
    assert verdict.quantity == pytest.approx(75.0, rel=1e-6)
    assert [breach.check for breach in verdict.breaches] == ["name_weight"]
    assert order_breaches(order(quantity=verdict.quantity), snapshot(), policy) == []
    assert order_breaches(order(quantity=verdict.quantity * 1.0001), snapshot(), policy) != []


def test_a_cut_order_is_a_whole_number_of_lots() -> None:
    assert judge(order(), snapshot(), wide_policy(max_name_weight=0.155), lot_shares=1.0).quantity == 77.0
    assert judge(order(), snapshot(), wide_policy(max_name_weight=0.155), lot_shares=10.0).quantity == 70.0
    assert judge(order(quantity=9.0), snapshot(), wide_policy(max_name_weight=0.01, max_net_exposure=1.0), lot_shares=10.0).denied


def test_one_breach_that_denies_denies_although_another_could_be_cut() -> None:
    verdict = judge(order(), snapshot(), wide_policy(max_name_weight=0.15, restricted=("B",)))
    assert verdict.denied
    assert {breach.check for breach in verdict.breaches} == {"name_weight", "restricted"}
    assert not verdict.clipped


def test_all_breaches_are_returned_with_found_limit_and_unit() -> None:
    found = order_breaches(order(), snapshot(halted=True), suffocating(restricted=("B",), max_order_notional_usd=1.0))
    assert {"halted", "restricted", "order_notional", "turnover", "gross_exposure", "name_weight", "gap_loss"} <= {b.check for b in found}
    for breach in found:
        assert breach.unit in str(breach)
        assert set(breach.record()) == {"check", "found", "limit", "unit", "action", "symbol"}
    assert str(order_breaches(order(), snapshot(nav=math.nan), wide_policy())[0]).count("unknown") == 1


numbers = st.floats(0.05, 3.0)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Order, Snapshot, dict[str, Any], str]:
    shares = draw(st.lists(st.floats(0.0, 200.0), min_size=3, max_size=3))
    opened = draw(st.lists(st.floats(0.0, 50.0), min_size=3, max_size=3))
    price = [value * draw(st.floats(0.8, 1.25)) for value in BASE["reference"]]
    known = snapshot(
        shares=shares,
        open_purchases=opened,
        price=price,
        beta=draw(st.lists(st.floats(-0.5, 2.5), min_size=3, max_size=3)),
        cash=draw(st.floats(0.0, 20_000.0)),
        slippage=draw(st.floats(0.0, 0.02)),
        linear_cost=draw(st.floats(0.0, 0.01)),
        impact=[draw(st.floats(0.0, 1e-4))] * 3,
        traded_usd=draw(st.floats(0.0, 5000.0)),
        reduce_only=draw(st.booleans()),
    )
    limits: dict[str, Any] = {
        "max_gross_exposure": 3.0,
        "max_net_exposure": draw(numbers),
        "max_leverage": draw(st.floats(1.0, 2.0)),
        "max_name_weight": draw(numbers),
        "max_positions": draw(st.integers(1, 3)),
        "minimum_cash": draw(st.floats(0.0, 0.5)),
        "max_beta": draw(numbers),
        "max_gap_loss": draw(numbers),
        "max_days_to_exit": draw(st.floats(0.001, 0.1)),
        "max_order_notional_usd": draw(st.floats(10.0, 10_000.0)),
        "max_order_volume_share": draw(st.floats(1e-5, 1e-2)),
        "max_turnover": draw(numbers),
        "price_collar": draw(st.floats(0.01, 0.5)),
    }
    one = order(draw(st.sampled_from("ABC")), draw(st.sampled_from(["buy", "sell"])), draw(st.floats(0.01, 500.0)))
    return one, known, limits, draw(st.sampled_from(sorted(set(limits) - {"max_positions", "max_gross_exposure"})))


@given(cases(), st.floats(0.1, 1.0))
@settings(deadline=None, max_examples=EXAMPLES)
def test_a_tighter_limit_never_approves_more(case: tuple[Order, Snapshot, dict[str, Any], str], factor: float) -> None:
    one, known, limits, which = case
    loose = judge(one, known, wide_policy(**limits))
    value = limits[which]
    changed = {"minimum_cash": min(0.99, value + (1 - factor)), "max_leverage": max(1.0, value * factor)}.get(which, value * factor)
    strict = judge(one, known, wide_policy(**{**limits, which: changed}))
    assert strict.quantity <= loose.quantity * (1 + 1e-9)


@given(cases())
@settings(deadline=None, max_examples=EXAMPLES)
def test_what_passes_breaks_nothing_and_what_is_cut_is_never_more_than_asked(case: tuple[Order, Snapshot, dict[str, Any], str]) -> None:
    one, known, limits, _ = case
    policy = wide_policy(**limits)
    verdict = judge(one, known, policy)
    assert 0.0 <= verdict.quantity <= one.quantity
    if not verdict.denied:
        assert order_breaches(one._replace(quantity=verdict.quantity), known, policy) == []


@given(cases())
@settings(deadline=None, max_examples=EXAMPLES)
def test_totals_kept_order_by_order_are_the_totals_of_the_whole(case: tuple[Order, Snapshot, dict[str, Any], str]) -> None:
    one, known, _, _ = case
    summed = known.summed()
    assert measure(one, summed, wide_policy()) == measure(one, known, wide_policy())._replace(snapshot=summed)
    passed = summed.after(one)
    assert passed.totals is not None
    np.testing.assert_allclose(passed.totals, total(passed), rtol=1e-9, atol=1e-9)
    if one.side == "buy":
        assert bought(known, total(known), SYMBOLS[one.symbol], one.quantity) == passed.totals
        assert passed.open_purchases[SYMBOLS[one.symbol]] == known.open_purchases[SYMBOLS[one.symbol]] + one.quantity
    else:
        assert passed.open_sales[SYMBOLS[one.symbol]] == one.quantity
    assert passed.orders_last_minute == 1
    assert passed.traded_usd == pytest.approx(known.traded_usd + one.quantity * known.reference[SYMBOLS[one.symbol]])


@given(cases(), st.lists(st.tuples(st.sampled_from("ABC"), st.floats(0.01, 120.0)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=2 * EXAMPLES)
def test_orders_measured_at_once_pass_only_if_each_passes_after_those_before_it(
    case: tuple[Order, Snapshot, dict[str, Any], str], wanted: list[tuple[str, float]]
) -> None:
    one, known, limits, _ = case
    policy = wide_policy(**limits)
    orders = [order(symbol, one.side, quantity, f"o{index}") for index, (symbol, quantity) in enumerate(wanted)]
    if all_pass(orders, known.summed(), policy):
        current = known.summed()
        for each in orders:
            assert judge(each, current, policy).quantity == each.quantity
            current = current.after(each)


@pytest.mark.parametrize("limit", sorted(MEASURED))
def test_at_a_limit_a_batch_passes_at_once_and_beyond_it_never(limit: str) -> None:
    _, value = MEASURED[limit]
    assert all_pass([order()], snapshot(), tight(limit, value))
    assert not all_pass([order()], snapshot(), tight(limit, value - 1 if limit == "max_positions" else value * 0.999))


def test_what_a_batch_knows_and_costs_is_held_against_each_limit() -> None:
    policy = wide_policy(
        max_price_age_sessions=1, max_missing_share=0.25, max_policy_age_sessions=10, max_orders_per_minute=3, price_collar=0.2,
        minimum_cash=0.7, max_leverage=1.0,
    )  # fmt: skip
    edge: dict[str, Any] = {
        "price_age": [0.0, 1.0, 0.0], "missing_share": 0.25, "policy_age_sessions": 10.0, "orders_last_minute": 2,
        "price": [10.0, 20.0 * 1.2, 50.0], "cash": 9_400.0, "shares": [60.0, 0.0, 0.0],
    }  # fmt: skip
    assert all_pass([order()], snapshot(**edge), policy)
    beyond: list[dict[str, Any]] = [
        {"price_age": [0.0, 2.0, 0.0]}, {"missing_share": 0.26}, {"policy_age_sessions": 11.0}, {"orders_last_minute": 3},
        {"price": [10.0, 20.0 * 1.2001, 50.0]}, {"price": [10.0, 20.0 * 0.7999, 50.0]}, {"cash": 9_399.0}, {"halted": True},
        {"reduce_only": True}, {"slippage": 1e-4}, {"linear_cost": 1e-4}, {"impact": [0.0, 1e-6, 0.0]}, {"cash": 9_600.0},
    ]  # fmt: skip
    for change in beyond:
        assert not all_pass([order()], snapshot(**{**edge, **change}), policy), change
    assert not all_pass([order()], snapshot(**edge), policy, ("o1",))
    assert not all_pass([order()], snapshot(**edge), policy.model_copy(update={"restricted": ("B",)}))
    assert not all_pass([order("NOPE")], snapshot(**edge), policy)
    assert not all_pass([order()], snapshot(**{**edge, "shares": [60.0, 0.0, -1.0]}), policy)


def test_a_batch_counts_the_orders_before_each_order() -> None:
    orders = [order("B", "buy", 100.0, "o1"), order("C", "buy", 40.0, "o2")]
    assert all_pass(orders, snapshot(), wide_policy(max_gross_exposure=0.5, max_net_exposure=0.5, max_name_weight=0.5))
    assert not all_pass(orders, snapshot(), wide_policy(max_gross_exposure=0.499, max_net_exposure=0.499, max_name_weight=0.4))
    assert all_pass(orders, snapshot(), wide_policy(max_turnover=0.2, max_orders_per_minute=2, max_positions=3, minimum_cash=0.5))
    for limits in ({"max_turnover": 0.199}, {"max_orders_per_minute": 1}, {"max_positions": 2}, {"minimum_cash": 0.501}):
        assert not all_pass(orders, snapshot(), wide_policy(**limits))
    # The exposure to the market on the way may be larger than at its end.
    hedged = snapshot(beta=[1.0, 2.0, -2.0])
    assert not all_pass(orders, hedged, wide_policy(max_beta=0.4))
    assert all_pass(orders, hedged, wide_policy(max_beta=0.5))


def test_a_batch_counts_what_is_held_and_open_of_its_own_names() -> None:
    known = snapshot(shares=[0.0, 20.0, 0.0], open_purchases=[0.0, 30.0, 0.0])
    assert all_pass([order()], known, wide_policy(max_name_weight=0.3, max_days_to_exit=3000.0 / 2e5))
    assert not all_pass([order()], known, wide_policy(max_name_weight=0.299))
    assert not all_pass([order()], known, wide_policy(max_days_to_exit=2990.0 / 2e5))


def test_a_verdict_says_what_became_of_the_order_and_a_record_what_was_found() -> None:
    passed, cut = judge(order(), snapshot(), wide_policy()), judge(order(), snapshot(), wide_policy(max_name_weight=0.15))
    assert (passed.denied, passed.clipped) == (False, False)
    assert (cut.denied, cut.clipped) == (False, True)
    assert cut.breaches[0].record() == {
        "check": "name_weight", "found": cut.breaches[0].found, "limit": 0.15, "unit": "fraction of NAV", "action": "clip", "symbol": "B",
    }  # fmt: skip
    unknown = order_breaches(order(), snapshot(price_age=[0.0, math.nan, 0.0]), wide_policy())
    assert unknown[0].record()["found"] is None


def test_a_batch_of_sales_passes_at_once_up_to_what_is_held() -> None:
    known = snapshot(shares=[100.0, 50.0, 0.0], open_sales=[10.0, 0.0, 0.0], reduce_only=True)
    assert all_pass([order("A", "sell", 90.0, "o1"), order("B", "sell", 50.0, "o2")], known, suffocating())
    assert not all_pass([order("A", "sell", 90.1)], known, wide_policy())
    assert not all_pass([order("A", "sell", -1.0)], known, wide_policy())
    assert not all_pass([order("A", "sell", 0.0)], known, wide_policy())
    assert not all_pass([order("A", "sell", 90.0)], known, wide_policy(max_order_notional_usd=899.0))
    assert not all_pass([order("A", "sell", 90.0)], known._replace(halted=True), wide_policy())


def test_an_ordinary_batch_passes_at_once() -> None:
    orders = [order("A", "buy", 10.0, "o1"), order("B", "buy", 20.0, "o2"), order("C", "buy", 5.0, "o3")]
    assert all_pass(orders, snapshot(), wide_policy())
    assert all_pass([order("A", "sell", 100.0)], snapshot(reduce_only=True), wide_policy())
    assert not all_pass([], snapshot(), wide_policy())
    assert not all_pass([*orders, order("A", "buy", 1.0, "o4")], snapshot(), wide_policy())
    assert not all_pass([order("A", "buy", 1.0, "o1"), order("B", "sell", 1.0, "o2")], snapshot(shares=[9.0, 9.0, 9.0]), wide_policy())


@pytest.mark.parametrize(("field", "value"), UNKNOWN, ids=[f"{name}-{index}" for index, (name, _) in enumerate(UNKNOWN)])
def test_a_batch_with_something_unknown_does_not_pass_at_once(field: str, value: Any) -> None:
    assert not all_pass([order()], snapshot(**{field: value}), wide_policy())


# The account.


def test_losses_reduce_first_and_halt_later() -> None:
    policy = wide_policy(reduce_only_daily_loss=0.05, halt_daily_loss=0.10, reduce_only_drawdown=0.2, halt_drawdown=0.3)
    assert account_breaches(95.0, 100.0, 100.0, policy) == []
    assert [breach.action for breach in account_breaches(94.9, 100.0, 100.0, policy)] == [Action.REDUCE_ONLY]
    found = account_breaches(89.9, 100.0, 100.0, policy)
    assert [(breach.check, breach.action) for breach in found] == [("daily_loss", Action.REDUCE_ONLY), ("daily_loss", Action.HALT)]
    assert [(b.check, b.action) for b in account_breaches(79.0, 79.0, 100.0, policy)] == [("drawdown", Action.REDUCE_ONLY)]
    assert [(b.check, b.action) for b in account_breaches(69.0, 69.0, 100.0, policy)] == [
        ("drawdown", Action.REDUCE_ONLY),
        ("drawdown", Action.HALT),
    ]
    assert account_breaches(120.0, 100.0, 100.0, policy) == []
    assert account_breaches(69.0, 100.0, 100.0, policy)[0].found == pytest.approx(0.31)


@pytest.mark.parametrize("values", [(math.nan, 100.0, 100.0), (100.0, math.nan, 100.0), (100.0, 100.0, 0.0), (100.0, 0.0, 100.0)])
def test_an_unknown_nav_halts(values: tuple[float, float, float]) -> None:
    assert Action.HALT in {breach.action for breach in account_breaches(*values, wide_policy())}


def test_a_portfolio_is_measured_as_an_order_is() -> None:
    values, adv, beta = np.array([1000.0, 2000.0, 0.0]), np.array([1e6, 2e6, np.nan]), np.array([1.0, 0.5, np.nan])
    names = ("A", "B", "C")
    assert portfolio_breaches(values, 7000.0, adv, beta, names, wide_policy()) == []
    for limit, (check, value) in MEASURED.items():
        if limit in ("max_order_notional_usd", "max_order_volume_share", "max_turnover"):
            continue
        less = value - 1 if limit == "max_positions" else value * 0.999
        found = {breach.check: breach.found for breach in portfolio_breaches(values, 7000.0, adv, beta, names, tight(limit, less))}
        assert found[check] == pytest.approx(value), limit
        assert check not in {b.check for b in portfolio_breaches(values, 7000.0, adv, beta, names, tight(limit, value))}


def test_a_portfolio_that_borrows_shorts_or_lacks_cash_says_so() -> None:
    adv, beta, names = np.full(2, 1e6), np.ones(2), ("A", "B")
    found = {b.check: b for b in portfolio_breaches(np.array([1500.0, 0.0]), -500.0, adv, beta, names, wide_policy(max_leverage=1.2))}
    assert found["leverage"].found == pytest.approx(1.5)
    assert found["cash"].found == pytest.approx(-0.5)
    short = [b for b in portfolio_breaches(np.array([500.0, -100.0]), 600.0, adv, beta, names, wide_policy()) if b.check == "sign_flip"]
    assert [(b.symbol, b.found, b.action) for b in short] == [("B", 100.0, Action.HALT)]


@pytest.mark.parametrize("where", ["values", "cash", "adv", "beta"])
def test_an_unknown_part_of_a_held_portfolio_is_a_breach(where: str) -> None:
    parts = {"values": np.array([500.0, 100.0]), "adv": np.full(2, 1e6), "beta": np.ones(2)}
    cash = math.nan if where == "cash" else 400.0
    if where != "cash":
        parts[where][1] = math.nan
    found = portfolio_breaches(parts["values"], cash, parts["adv"], parts["beta"], ("A", "B"), wide_policy())
    assert any(math.isnan(breach.found) for breach in found)


def test_targets_are_judged_as_a_portfolio_of_nav_one() -> None:
    weights = np.array([0.5, 0.3])
    found = portfolio_breaches(weights, 0.2, np.full(2, 10.0), np.ones(2), ("A", "B"), wide_policy(max_name_weight=0.4))
    assert [(breach.check, breach.symbol) for breach in found] == [("name_weight", "A")]


@pytest.mark.parametrize(
    ("side", "price", "halts"),
    [("buy", 11.0, False), ("buy", 11.01, True), ("buy", 5.0, False), ("sell", 9.0, False), ("sell", 8.99, True), ("sell", 20.0, False),
     ("buy", math.nan, True)],
)  # fmt: skip
def test_a_fill_beyond_the_collar_halts_and_a_better_one_does_not(side: Any, price: float, halts: bool) -> None:
    found = fill_breaches(side, price, 10.0, wide_policy(price_collar=0.1), "A")
    assert [breach.action for breach in found] == ([Action.HALT] if halts else [])


def test_a_fill_without_a_known_reference_halts() -> None:
    assert fill_breaches("buy", 10.0, math.nan, wide_policy())[0].action == Action.HALT
    assert fill_breaches("buy", 10.0, 0.0, wide_policy())[0].action == Action.HALT


# The policy.


@pytest.mark.parametrize("name", sorted(WIDE))
def test_every_limit_must_be_given(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        RiskPolicy(**{key: value for key, value in WIDE.items() if key != name})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_name_weight": 2e6}, "max_name_weight"),
        ({"max_net_exposure": 2e6}, "max_net_exposure"),
        ({"reduce_only_daily_loss": 0.2, "halt_daily_loss": 0.1}, "reduce_only_daily_loss"),
        ({"reduce_only_drawdown": 0.2, "halt_drawdown": 0.1}, "reduce_only_drawdown"),
        ({"restricted": ("A", "A")}, "restricted"),
        ({"price_collar": math.nan}, "price_collar"),
        ({"max_leverage": 0.5}, "max_leverage"),
        ({"max_positions": 1.5}, "max_positions"),
        ({"max_positions": None}, "max_positions"),
        ({"max_orders": 5}, "max_orders"),
        ({"minimum_cash": 1.0}, "minimum_cash"),
    ],
)
def test_a_policy_that_cannot_be_enforced_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        wide_policy(**changes)


POSITIVE = (
    "max_gross_exposure", "max_net_exposure", "max_name_weight", "max_beta", "max_gap_loss", "max_days_to_exit", "max_order_notional_usd",
    "max_order_volume_share", "max_turnover", "price_collar", "exit_volume_share",
    "reduce_only_daily_loss", "halt_daily_loss", "reduce_only_drawdown", "halt_drawdown",
)  # fmt: skip
FROM_ZERO = (
    "minimum_cash", "gap_market_shock", "gap_name_shock", "max_price_age_sessions", "max_missing_share",
    "position_tolerance_shares", "cash_tolerance_usd", "nav_tolerance",
)  # fmt: skip
UP_TO_ONE = (
    "exit_volume_share", "gap_market_shock", "gap_name_shock", "max_missing_share", "reduce_only_daily_loss", "halt_daily_loss",
    "reduce_only_drawdown", "halt_drawdown",
)  # fmt: skip


def alone(name: str, value: Any) -> RiskPolicy:
    """Return a policy with one limit changed and none in contradiction to it."""
    friends = {
        "max_gross_exposure": ("max_net_exposure", "max_name_weight"),
        "halt_daily_loss": ("reduce_only_daily_loss",),
        "halt_drawdown": ("reduce_only_drawdown",),
    }
    return wide_policy(**{name: value}, **dict.fromkeys(friends.get(name, ()), value))


@pytest.mark.parametrize("name", POSITIVE)
def test_a_limit_of_zero_is_refused_and_a_small_one_is_not(name: str) -> None:
    alone(name, 0.001)
    for value in (0.0, -0.5):
        with pytest.raises(ValidationError, match=name):
            alone(name, value)


@pytest.mark.parametrize("name", FROM_ZERO)
def test_zero_is_allowed_where_it_means_something_and_less_is_not(name: str) -> None:
    whole = name.endswith("_sessions")
    alone(name, 0 if whole else 0.0)
    with pytest.raises(ValidationError, match=name):
        alone(name, -1 if whole else -0.001)


@pytest.mark.parametrize("name", UP_TO_ONE)
def test_a_fraction_may_be_one_and_no_more(name: str) -> None:
    alone(name, 1.0)
    with pytest.raises(ValidationError, match=name):
        alone(name, 1.001)


@pytest.mark.parametrize(
    ("name", "least"), [("max_positions", 1), ("max_orders_per_minute", 1), ("max_policy_age_sessions", 1), ("beta_sessions", 20)]
)
def test_counts_have_their_least_value(name: str, least: int) -> None:
    alone(name, least)
    with pytest.raises(ValidationError, match=name):
        alone(name, least - 1)


@pytest.mark.parametrize("name", ["minimum_cash", "nav_tolerance"])
def test_the_whole_account_is_no_floor_and_no_tolerance(name: str) -> None:
    alone(name, 0.999)
    with pytest.raises(ValidationError, match=name):
        alone(name, 1.0)


def test_leverage_of_one_is_allowed_and_less_is_not() -> None:
    alone("max_leverage", 1.0)
    with pytest.raises(ValidationError, match="max_leverage"):
        alone("max_leverage", 0.999)


# Edges of the measures.


def test_rounding_is_forgiven_and_more_is_not() -> None:
    for limit, scale in ((0.2, 1.0), (5.0, 5.0)):
        known = snapshot(nav=10_000.0 / (limit / 0.2), nav_now=10_000.0 / (limit / 0.2))
        weight = measure(order(), known, wide_policy()).name_weight
        assert "name_weight" not in broken(order(), known, wide_policy(max_name_weight=weight - 0.9e-9 * scale))
        assert "name_weight" in broken(order(), known, wide_policy(max_name_weight=weight - 1.1e-9 * scale))
    cash = measure(order(), snapshot(), wide_policy()).cash
    assert "cash" not in broken(order(), snapshot(), wide_policy(minimum_cash=cash + 0.9e-9))
    assert "cash" in broken(order(), snapshot(), wide_policy(minimum_cash=cash + 1.1e-9))
    assert account_breaches(100.0 - 0.9e-7, 100.0, 100.0, wide_policy(reduce_only_daily_loss=1e-12)) == []
    assert account_breaches(100.0 - 1.1e-7, 100.0, 100.0, wide_policy(reduce_only_daily_loss=1e-12)) != []


def test_a_name_that_is_neither_held_nor_bought_may_be_unknown() -> None:
    nan = math.nan
    known = snapshot(reference=[10.0, 20.0, nan], price=[10.0, 20.0, nan], beta=[1.0, 0.5, nan], adv_usd=[1e6, 2e6, nan])
    assert judge(order(), known, wide_policy()).quantity == 100.0
    assert measure(order(), known, wide_policy()) == measure(order(), snapshot(), wide_policy())._replace(snapshot=known)


@pytest.mark.parametrize("quantity", [1.0, 2.0])
@pytest.mark.parametrize("already", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("held", [0.0, 1.0, -1.0, -2.0, -3.0])
def test_single_shares_and_short_positions_are_counted_like_any_other(held: float, already: float, quantity: float) -> None:
    known = snapshot(shares=[100.0, held, 0.0], open_purchases=[0.0, already, 0.0], impact=[1e-4] * 3, slippage=0.01, linear_cost=0.002)
    value = (held + already + quantity) * 20.0
    case = measure(order(quantity=quantity), known, wide_policy())
    assert case.gross == pytest.approx((1000 + abs(value)) / 10_000)
    assert case.net == pytest.approx((1000 + value) / 10_000)
    assert case.beta == pytest.approx((1000 + 0.5 * value) / 10_000)
    assert case.name_weight == pytest.approx(abs(value) / 10_000)
    assert case.days_to_exit == pytest.approx(abs(value) / 2e5)
    assert case.positions == 1 + (value != 0)
    assert case.gap_loss == pytest.approx(0.1 * (1000 + 0.5 * abs(value)) / 10_000 + 0.3 * 0.1)
    worst = (already + quantity) * 20.0 * 1.01
    assert case.cash == pytest.approx((9000 - worst * (1 + 0.002 + 1e-4 * math.sqrt(worst))) / 10_000)
    assert case.leverage == pytest.approx((1000 + max(value, 0.0) + case.cash * 10_000) / 10_000)


def test_an_empty_account_has_no_exposure() -> None:
    empty = snapshot(shares=[0.0, 0.0, 0.0])
    assert total(empty) == (0.0,) * 8


@pytest.mark.parametrize("held", [0.5, 100.0])
def test_a_sale_of_all_that_is_held_reduces_up_to_rounding(held: float) -> None:
    known, slack = snapshot(shares=[held, 0.0, 0.0]), 1e-9 * max(1.0, held)
    case = measure(order("A", "sell", held + 0.9 * slack), known, wide_policy())
    assert case.reduces
    assert case.short_shares == 0.0
    case = measure(order("A", "sell", held + 1.2 * slack), known, wide_policy())
    assert not case.reduces
    assert case.short_shares == pytest.approx(1.2 * slack, rel=1e-3)
    assert measure(order("B", "buy", 1.0), known, wide_policy()).short_shares == 0.0


def test_a_volume_of_zero_is_an_unknown_volume() -> None:
    for volume in (0.0, -1.0):
        found = portfolio_breaches(np.array([500.0]), 500.0, np.full(1, volume), np.ones(1), ("A",), wide_policy())
        assert [(breach.check, math.isnan(breach.found)) for breach in found] == [("days_to_exit", True)]


@pytest.mark.parametrize(
    ("found", "limit", "at_least", "kept"),
    [
        (5.0 + 4e-9, 5.0, False, True), (5.0 + 6e-9, 5.0, False, False), (0.1 + 0.9e-9, 0.1, False, True),
        (0.1 + 1.1e-9, 0.1, False, False),
        (0.5, 1.0, True, False), (0.1 - 0.9e-9, 0.1, True, True), (0.1 - 1.1e-9, 0.1, True, False), (5.0 - 4e-9, 5.0, True, True),
        (5.0 - 6e-9, 5.0, True, False), (0.0, 0.5, False, True), (math.nan, 1.0, False, False), (math.nan, 0.0, True, False),
    ],
)  # fmt: skip
def test_keeping_a_limit_forgives_rounding_alone(found: float, limit: float, at_least: bool, kept: bool) -> None:
    assert keeps(found, limit, at_least) is kept


def test_verdicts_and_cases_are_what_they_are_made_of() -> None:
    (breach,) = order_breaches(order(), snapshot(), wide_policy(max_name_weight=0.15))
    assert (Verdict(0.5, (breach,)).denied, Verdict(0.5, (breach,)).clipped) == (False, True)
    assert (Verdict(0.0, (breach,)).denied, Verdict(0.0, (breach,)).clipped) == (True, False)
    assert measure(order(), snapshot(), wide_policy()).duplicate is False
    with pytest.raises(AttributeError):
        CHECKS["halted"].name = "another"  # type: ignore[misc]  # it is frozen


def test_a_portfolio_is_forgiven_rounding_alone() -> None:
    adv, beta = np.full(1, 1000.0), np.ones(1)

    def found(value: float, **limits: Any) -> set[str]:
        return {breach.check for breach in portfolio_breaches(np.array([value]), 1000.0 - value, adv, beta, ("A",), wide_policy(**limits))}

    days = 500.0 / 100.0
    assert found(500.0 * (1 + 0.8e-9), max_days_to_exit=days) == set()
    assert found(500.0 * (1 + 1.2e-9), max_days_to_exit=days) == {"days_to_exit"}
    assert found(500.0 + 0.8e-6, max_name_weight=0.5) == set()
    assert found(500.0 + 1.2e-6, max_name_weight=0.5) == {"name_weight"}
    assert "sign_flip" not in found(-0.8e-6)
    assert "sign_flip" in found(-1.2e-6)
    borrowed = portfolio_breaches(np.array([1.0]), -0.5, adv, beta, ("A",), wide_policy(max_leverage=1.5))
    assert {breach.check: breach.found for breach in borrowed}["leverage"] == 2.0


def test_small_numbers_are_numbers() -> None:
    tiny = snapshot(
        reference=[0.1, 0.2, 0.5], price=[0.1, 0.2, 0.5], adv_usd=[0.5] * 3, shares=[1.0, 0.0, 0.0], cash=0.4, nav=0.5, nav_now=0.5
    )
    assert all_pass([order(quantity=0.5)], tiny, wide_policy())
    assert judge(order(quantity=0.5), tiny, wide_policy()).quantity == 0.5
    assert portfolio_breaches(np.array([0.2]), 0.3, np.full(1, 0.5), np.ones(1), ("A",), wide_policy()) == []
    one = portfolio_breaches(np.array([1.0]), 3.0, np.full(1, 1e6), np.full(1, math.nan), ("A",), wide_policy())
    assert {breach.check for breach in one} == {"beta", "gap_loss"}
    assert ratio(1.0, 0.5) == 2.0


def test_short_positions_count_as_positions_of_a_portfolio() -> None:
    values = np.array([500.0, -100.0])
    found = portfolio_breaches(values, 600.0, np.full(2, 1e6), np.array([1.0, math.nan]), ("A", "B"), wide_policy(max_positions=1))
    assert {"positions", "beta", "gap_loss", "sign_flip"} == {breach.check for breach in found}


def test_the_portfolio_before_a_batch_is_held_against_leverage() -> None:
    known = snapshot(open_purchases=[0.0, 0.0, 20.0], cash=9_000.0, linear_cost=0.001)
    assets = 1000.0 + 1000.0 + (9_000.0 - 1_001.0)
    assert all_pass([order()], known, wide_policy(max_leverage=1.0))
    assert not all_pass([order()], known._replace(nav_now=assets - 1.0), wide_policy(max_leverage=1.0))
    assert all_pass([order()], known._replace(nav_now=assets), wide_policy(max_leverage=1.0))


def test_a_batch_of_both_sides_is_none() -> None:
    known = snapshot(shares=[50.0, 50.0, 0.0])
    assert not all_pass([order("A", "sell", 1.0, "o1"), order("B", "buy", 1.0, "o2")], known, wide_policy())
    assert not all_pass([order("A", "buy", 1.0, "o1"), order("B", "sell", 1.0, "o2")], known, wide_policy())


def test_a_bankrupt_portfolio_breaks_what_is_measured_by_nav() -> None:
    found = {b.check for b in portfolio_breaches(np.array([100.0]), -100.0, np.full(1, 1e6), np.ones(1), ("A",), wide_policy())}
    assert {"gross_exposure", "net_exposure", "leverage", "beta", "gap_loss", "cash", "name_weight"} <= found


def test_all_contradictions_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as error:
        wide_policy(max_name_weight=2e6, max_net_exposure=2e6, reduce_only_drawdown=0.5, halt_drawdown=0.4)
    assert all(word in str(error.value) for word in ("max_name_weight", "max_net_exposure", "reduce_only_drawdown"))


def test_limits_at_each_other_are_allowed() -> None:
    wide_policy(max_name_weight=0.5, max_net_exposure=0.5, max_gross_exposure=0.5, reduce_only_drawdown=0.4, halt_drawdown=0.4)
    wide_policy(reduce_only_daily_loss=0.1, halt_daily_loss=0.1)


def test_the_digest_names_the_policy() -> None:
    assert wide_policy().digest() == wide_policy().digest()
    assert wide_policy(max_beta=2.0).digest() != wide_policy(max_beta=3.0).digest()


def test_every_limit_of_the_policy_is_read_by_a_check_or_by_the_engine() -> None:
    """Each limit set to its tightest must change the verdict of some order, account, portfolio or fill."""
    from pathlib import Path

    text = "".join(path.read_text() for path in Path("src/quanto/execution").rglob("*.py") if path.name != "limits.py")
    text += Path("src/quanto/stages/shadow/shadowing.py").read_text()
    unused = [name for name in RiskPolicy.model_fields if f".{name}" not in text]
    assert unused == []


def test_an_order_is_cut_to_a_fraction_of_a_share_where_no_lots_are_asked_for() -> None:
    verdict = judge(order(quantity=100.0), snapshot(), wide_policy(max_order_notional_usd=10.0))
    assert verdict.quantity == pytest.approx(0.5, rel=1e-9)
    assert verdict.clipped
    assert judge(order(quantity=100.0), snapshot(), wide_policy(max_order_notional_usd=10.0), lot_shares=1.0).denied


@pytest.mark.parametrize("by", [0.0, -2.0, math.nan])
def test_a_share_of_what_is_no_size_is_unknown(by: float) -> None:
    assert math.isnan(ratio(1.0, by))


@pytest.mark.parametrize(("value", "cash"), [(10.0, -20.0), (10.0, -10.0)])
def test_a_portfolio_without_value_is_unknown_in_every_share_of_it(value: float, cash: float) -> None:
    found = portfolio_breaches(np.array([value]), cash, np.array([1e6]), np.ones(1), ("A",), wide_policy())
    measured = {breach.check: breach.found for breach in found}
    assert {"gross_exposure", "net_exposure", "leverage", "beta", "gap_loss", "cash", "name_weight"} <= set(measured)
    assert all(math.isnan(value) for value in measured.values())


def test_assets_of_a_portfolio_are_its_long_positions_and_its_cash() -> None:
    values = np.array([79.5, 0.5, -30.0])  # NAV 100 with the cash of 50
    found = {
        breach.check: breach
        for breach in portfolio_breaches(values, 50.0, np.full(3, 1e6), np.ones(3), ("A", "B", "C"), wide_policy(max_leverage=1.25))
    }
    assert found["leverage"].found == pytest.approx(1.3, rel=1e-12)
    assert found["sign_flip"].limit == 0.0
    assert found["sign_flip"].found == 30.0


def test_a_large_limit_is_forgiven_rounding_in_its_own_size() -> None:
    limits: dict[str, Any] = {"max_gross_exposure": 2000.0, "max_net_exposure": 2000.0, "max_name_weight": 1000.0}

    def found(weight: float) -> set[str]:
        values, adv = np.array([weight]), np.array([1e12])
        return {breach.check for breach in portfolio_breaches(values, 1.0 - weight, adv, np.zeros(1), ("A",), wide_policy(**limits))}

    assert "name_weight" not in found(1000.0 * (1 + 0.8e-9))
    assert "name_weight" in found(1000.0 * (1 + 1.2e-9))


def test_nothing_held_is_no_exposure_at_all() -> None:
    totals = total(snapshot(shares=[0.0, 0.0, 0.0]))
    assert tuple(totals) == (0.0,) * 8
    policy = wide_policy(max_gap_loss=1e-6)
    assert portfolio_breaches(np.zeros(2), 100.0, np.full(2, np.nan), np.full(2, np.nan), ("A", "B"), policy) == []


def test_a_batch_passes_beside_holdings_in_every_name() -> None:
    known = snapshot(shares=[100.0, 10.0, 2.0], cash=8_700.0)
    assert all_pass([order()], known, wide_policy())
    assert all_pass([order(quantity=0.001)], snapshot(nav=0.5, nav_now=0.5, shares=[0.01, 0.01, 0.001], cash=0.3), wide_policy())


def test_a_thin_name_still_takes_its_days_to_leave() -> None:
    policy = wide_policy(max_days_to_exit=1.0)
    found = portfolio_breaches(np.array([0.06]), 1.0, np.array([0.5]), np.ones(1), ("A",), policy)
    assert [(breach.check, breach.found) for breach in found] == [("days_to_exit", pytest.approx(1.2))]
