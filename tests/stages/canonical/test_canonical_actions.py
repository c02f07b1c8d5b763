"""Corporate actions of several vendors become one table; nothing is applied twice, nothing is guessed."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.market.schema import RAW
from quanto.stages.canonical.actions import ActionsResult, reconcile_actions
from quanto.stages.canonical.config import DomainSources, Override
from tests.stages.canonical.vendor_tables import action_row

DAY = date(2010, 3, 10)


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([{**row, "payload_row": index} for index, row in enumerate(rows)], schema=RAW["corporate_actions"])


def settle(policy: str = "priority", overrides: tuple[Override, ...] = (), **tables: pa.Table) -> ActionsResult:
    sources = DomainSources(policy=policy, priority=("one", "two", "three"), overrides=overrides)  # type: ignore[arg-type]
    return reconcile_actions(tables, (), sources, (), 0.005, 5)


def rows(result: ActionsResult) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = result.table.to_pylist()
    return found


def test_the_same_event_of_two_vendors_is_one_event_of_the_first() -> None:
    result = settle(one=table(action_row("AAA", DAY, "split", 2.0)), two=table(action_row("AAA", DAY, "split", 2.0)))
    assert [(row["vendor"], row["vendors_seen"], row["method"], row["flags"]) for row in rows(result)] == [
        ("one", "one|two", "priority", "")
    ]
    assert result.superseded == {"one": 0, "two": 1}
    assert result.compared == 1
    assert not result.differences


def test_a_split_that_vendors_date_a_few_sessions_apart_is_not_applied_twice() -> None:
    result = settle(one=table(action_row("AAA", DAY, "split", 2.0)), two=table(action_row("AAA", date(2010, 3, 12), "split", 2.0)))
    (row,) = rows(result)
    assert row["ex_date"] == DAY
    assert row["flags"] == "date_shift"
    assert [(item["field"], item["class"]) for item in result.differences] == [("ex_date", "one_day_shift")]


def test_two_quarterly_dividends_of_one_amount_stay_two() -> None:
    later = date(2010, 6, 9)
    result = settle(one=table(action_row("AAA", DAY, "cash_dividend", 0.5)), two=table(action_row("AAA", later, "cash_dividend", 0.5)))
    assert [(row["ex_date"], row["method"], row["flags"]) for row in rows(result)] == [
        (DAY, "only", "unconfirmed"),
        (later, "fallback", "unconfirmed"),
    ]


def test_another_ratio_of_one_day_is_reported_and_the_first_vendor_stands() -> None:
    result = settle(one=table(action_row("AAA", DAY, "split", 2.0)), two=table(action_row("AAA", DAY, "split", 3.0)))
    (row,) = rows(result)
    assert row["ratio"] == 2.0
    assert row["flags"] == "disagreement"
    assert result.differences[0]["class"] == "split_basis"


def test_two_votes_outweigh_the_first_vendor() -> None:
    right = action_row("AAA", DAY, "cash_dividend", 0.55)
    result = settle("consensus", one=table(action_row("AAA", DAY, "cash_dividend", 5.5)), two=table(right), three=table(right))
    assert [(row["vendor"], row["cash_usd"], row["method"]) for row in rows(result)] == [("two", 0.55, "consensus")]


def test_an_override_changes_whom_to_believe_for_a_symbol() -> None:
    override = Override(symbols=("AAA",), start=None, end=None, priority=("two",))
    pair = {
        "one": table(*(action_row(symbol, DAY, "split", 2.0) for symbol in ("AAA", "BBB"))),
        "two": table(*(action_row(symbol, DAY, "split", 4.0) for symbol in ("AAA", "BBB"))),
    }
    assert {row["symbol"]: row["ratio"] for row in rows(settle(overrides=(override,), **pair))} == {"AAA": 4.0, "BBB": 2.0}


def test_two_payments_of_one_day_add_up_and_a_contradiction_does_not() -> None:
    regular = action_row("AAA", DAY, "cash_dividend", 0.5, vendor_id="x1")
    extra = action_row("AAA", DAY, "cash_dividend", 2.0, vendor_id="x2")
    result = settle(one=table(regular, extra))
    assert [row["cash_usd"] for row in rows(result)] == [2.5]
    assert result.superseded == {"one": 1}
    unnamed = settle(one=table({**regular, "vendor_id": None}, {**extra, "vendor_id": None}))
    assert rows(unnamed) == []
    assert unnamed.quarantined == {"one": 2}
    assert unnamed.blocked == {"AAA": DAY}


def test_a_later_version_of_an_event_replaces_it() -> None:
    later = action_row("AAA", DAY, "cash_dividend", 0.6, known_on=date(2010, 3, 12))
    result = settle(one=table(later, action_row("AAA", DAY, "cash_dividend", 0.5)))
    assert [row["cash_usd"] for row in rows(result)] == [0.6]
    assert result.superseded == {"one": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (action_row("AAA", DAY, "unknown", None), "unknown_kind"),
        (action_row("AAA", DAY, "split", None), "missing_ratio"),
        (action_row("AAA", DAY, "split", 0.0), "missing_ratio"),
        (action_row("AAA", DAY, "cash_dividend", None), "missing_cash"),
        (action_row("AAA", DAY, "cash_dividend", float("nan")), "missing_cash"),
        (action_row("AAA", DAY, "cash_dividend", 0.5, currency="CAD"), "foreign_currency"),
        (action_row("AAA", DAY, "spin_off", None, other_symbol="NEW"), "missing_cash"),
        (action_row("AAA", DAY, "stock_merger", 0.7), "missing_other_symbol"),
        (action_row("AAA", DAY, "reorganisation", None), "unknown_kind"),
    ],
)
def test_an_event_that_cannot_be_applied_blocks_its_symbol_unless_another_vendor_heals_it(row: dict[str, object], reason: str) -> None:
    result = settle(one=table(row))
    assert result.quarantine["reason"].to_pylist() == [reason]
    assert result.blocked == {"AAA": DAY}
    assert rows(result) == []
    good = action_row("AAA", DAY, "split", 2.0)
    healed = settle(one=table(row), two=table(good))
    assert healed.blocked == ({} if row["kind"] == "split" else {"AAA": DAY})


def test_events_that_end_a_symbol_pass_with_their_payment() -> None:
    ends = [
        action_row("AAA", DAY, "cash_merger", 31.5),
        action_row("BBB", DAY, "stock_merger", 0.7, other_symbol="ZZZ"),
        action_row("CCC", DAY, "delisting", None),
        action_row("DDD", DAY, "symbol_change", None, other_symbol="EEE"),
    ]
    result = settle(one=table(*ends))
    assert [(row["symbol"], row["kind"], row["cash_usd"], row["other_symbol"]) for row in rows(result)] == [
        ("AAA", "cash_merger", 31.5, None),
        ("BBB", "stock_merger", None, "ZZZ"),
        ("CCC", "delisting", None, None),
        ("DDD", "symbol_change", None, "EEE"),
    ]
    assert result.blocked == {}


action_rows = st.lists(
    st.builds(
        action_row,
        st.sampled_from(["AAA", "BBB"]),
        st.dates(date(2010, 1, 4), date(2010, 2, 12)),
        st.sampled_from(["split", "cash_dividend", "special_dividend", "unknown", "spin_off"]),
        st.sampled_from([0.5, 2.0, 3.0, None]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(action_rows, action_rows, st.randoms(use_true_random=False))
def test_action_rows_are_conserved_and_their_order_does_not_matter(
    one: list[dict[str, object]], two: list[dict[str, object]], random: Any
) -> None:
    result = settle(one=table(*one), two=table(*two))
    for vendor, given_rows in (("one", one), ("two", two)):
        assert result.selected[vendor] + result.superseded[vendor] + result.quarantined[vendor] == len(given_rows)
    first, second = table(*one), table(*two)
    orders = [list(range(len(one))), list(range(len(two)))]
    for order in orders:
        random.shuffle(order)
    other = settle(one=first.take(pa.array(orders[0], pa.int64())), two=second.take(pa.array(orders[1], pa.int64())))
    assert other.table.equals(result.table)
    assert other.blocked == result.blocked
    keys = [(row["symbol"], row["ex_date"], row["kind"], row["other_symbol"]) for row in rows(result)]
    assert len(set(keys)) == len(keys)
