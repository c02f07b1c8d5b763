"""Versions of rows: what was known on any day is what the newest answer until that day said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.market.calendar import as_date, sessions_between
from quanto.market.point_in_time import as_of
from quanto.market.schema import KEYS, RAW
from quanto.stages.ingest.history import Answer, History, with_history
from quanto.stages.ingest.validate import validate

DAYS = [as_date(day) for day in sessions_between(date(2024, 1, 2), date(2024, 1, 9))]
END = DAYS[-1]
ANSWERED = [END + timedelta(days=count) for count in (10, 20, 30)]
BAR = {"open": 10.0, "high": 20.0, "low": 5.0, "volume": 100.0, "adj_close": None, "basis": "raw", "volume_basis": "raw"}
State = Mapping[tuple[date, str], float]


def bars(state: State, payload: str, **changes: Any) -> pa.Table:
    rows = [
        {**BAR, "session": day, "symbol": symbol, "close": close, "basis_as_of": None, "known_on": day, "provisional": False}
        | {"payload": payload, "payload_row": number, **changes}
        for number, ((day, symbol), close) in enumerate(sorted(state.items()))
    ]
    return pa.Table.from_pylist(rows, schema=RAW["equity_ohlcv"])


def answer(day: date, table: pa.Table, symbols: Sequence[str] = ("AAA", "BBB"), end: date = END) -> Answer:
    return Answer(day, table, tuple(symbols), DAYS[0], end)


def history(*states: State) -> History:
    days = ANSWERED[: len(states)]
    return with_history(
        "equity_ohlcv", [answer(day, bars(state, f"p{number}")) for number, (day, state) in enumerate(zip(days, states, strict=True))]
    )


def closes(found: History, day: date) -> dict[tuple[date, str], float]:
    known = as_of(pa.concat_tables([*found.earlier, found.table]), day, KEYS["equity_ohlcv"]).to_pylist()
    return {(row["session"], row["symbol"]): row["close"] for row in known}


STATES = st.lists(
    st.dictionaries(st.tuples(st.sampled_from(DAYS), st.sampled_from(["AAA", "BBB"])), st.sampled_from([11.0, 12.0, 13.0])),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=150)
@given(states=STATES, data=st.data())
def test_as_known_on_any_day_is_what_the_newest_answer_until_then_said(states: list[State], data: st.DataObject) -> None:
    found = history(*states)
    day = data.draw(st.sampled_from([ANSWERED[0], *(day - timedelta(days=1) for day in ANSWERED[1:]), *ANSWERED, date(2030, 1, 1)]))
    newest = [state for given_on, state in zip(ANSWERED, states, strict=False) if given_on <= day][-1]
    at = [given_on for given_on, _ in zip(ANSWERED, states, strict=False) if given_on <= day]
    # A row that a later answer withdrew is no row of today, and so has no history: all others are exactly what was said.
    stayed = {key for key in states[-1] if all(key in state for state in states[len(at) - 1 :])}
    known = closes(found, day)
    assert {key: close for key, close in known.items() if key in stayed} == {key: newest[key] for key in stayed}
    assert known.items() <= newest.items()


@settings(deadline=None, max_examples=60)
@given(states=STATES, seed=st.randoms(use_true_random=False))
def test_the_order_of_an_answers_rows_does_not_change_any_row(states: list[State], seed: Any) -> None:
    def shuffled(table: pa.Table) -> pa.Table:
        return table.take(pa.array(seed.sample(range(len(table)), len(table)), pa.int64()))

    tables = [bars(state, f"p{number}") for number, state in enumerate(states)]
    days = ANSWERED[: len(states)]
    straight = with_history("equity_ohlcv", [answer(day, table) for day, table in zip(days, tables, strict=True)])
    mixed = with_history("equity_ohlcv", [answer(day, shuffled(table)) for day, table in zip(days, tables, strict=True)])
    order = [(name, "ascending") for name in ("session", "symbol")]
    assert mixed.table.sort_by(order).equals(straight.table.sort_by(order))
    assert [table.sort_by(order) for table in mixed.earlier] == [table.sort_by(order) for table in straight.earlier]


@settings(deadline=None, max_examples=60)
@given(states=STATES)
def test_the_newest_rows_stay_as_they_are_but_for_the_day_they_were_known(states: list[State]) -> None:
    found = history(*states)
    newest = bars(states[-1], f"p{len(states) - 1}")
    assert found.table.drop(["known_on"]).equals(newest.drop(["known_on"]))
    assert all(known >= rule for known, rule in zip(found.table["known_on"].to_pylist(), newest["known_on"].to_pylist(), strict=True))


def test_one_answer_or_equal_answers_leave_every_row_as_the_vendors_rule_says() -> None:
    state = {(day, "AAA"): 11.0 for day in DAYS}
    for states in ([state], [state, state, state]):
        found = history(*states)
        assert found.earlier == ()
        assert found.table["known_on"].to_pylist() == DAYS
        assert found.notes == ()


def test_a_value_that_went_and_came_back_has_three_versions() -> None:
    key = (DAYS[0], "AAA")
    found = history({key: 11.0}, {key: 12.0}, {key: 11.0})
    versions = [row for table in (*found.earlier, found.table) for row in table.to_pylist()]
    assert [(row["close"], row["known_on"], row["payload"]) for row in versions] == [
        (11.0, DAYS[0], "p0"),
        (12.0, ANSWERED[1], "p1"),
        (11.0, ANSWERED[2], "p2"),
    ]


@pytest.mark.parametrize("changes", [{"basis": "split"}, {"volume_basis": "split"}, {"basis": "total"}])
def test_rows_on_an_adjusted_basis_are_left_as_they_are(changes: dict[str, str]) -> None:
    key = (DAYS[0], "AAA")
    for first, second in ((changes, changes), ({}, changes), (changes, {})):
        tables = [bars({key: 11.0}, "p0", **first), bars({key: 12.0}, "p1", **second)]
        found = with_history("equity_ohlcv", [answer(day, table) for day, table in zip(ANSWERED[:2], tables, strict=True)])
        assert found.earlier == ()
        assert found.table.equals(tables[1])


def test_an_adjusted_close_that_moved_with_a_dividend_restates_nothing() -> None:
    key = (DAYS[0], "AAA")
    tables = [bars({key: 11.0}, "p0", adj_close=11.0), bars({key: 11.0}, "p1", adj_close=10.9)]
    found = with_history("equity_ohlcv", [answer(day, table) for day, table in zip(ANSWERED[:2], tables, strict=True)])
    assert (found.earlier, found.table["known_on"].to_pylist()) == ((), [DAYS[0]])


def test_a_provisional_row_is_replaced_without_a_version() -> None:
    key = (DAYS[0], "AAA")
    tables = [bars({key: 11.0}, "p0", provisional=True), bars({key: 12.0}, "p1")]
    found = with_history("equity_ohlcv", [answer(day, table) for day, table in zip(ANSWERED[:2], tables, strict=True)])
    assert (found.earlier, found.table["known_on"].to_pylist()) == ((), [DAYS[0]])


def test_a_range_that_grew_and_a_symbol_that_is_new_are_not_late() -> None:
    first = answer(ANSWERED[0], bars({(day, "AAA"): 11.0 for day in DAYS[:3]}, "p0"), ("AAA",), DAYS[2])
    grown = {(day, symbol): 11.0 for day in DAYS for symbol in ("AAA", "BBB")}
    found = with_history("equity_ohlcv", [first, answer(ANSWERED[1], bars(grown, "p1"))])
    assert found.table["known_on"].to_pylist() == found.table["session"].to_pylist()


def test_a_row_that_a_narrower_answer_was_not_asked_for_is_remembered() -> None:
    key = (DAYS[-1], "AAA")
    answers = [
        answer(ANSWERED[0], bars({key: 11.0}, "p0")),
        answer(ANSWERED[1], bars({(DAYS[0], "AAA"): 11.0}, "p1"), end=DAYS[0]),
        answer(ANSWERED[2], bars({key: 12.0}, "p2")),
    ]
    found = with_history("equity_ohlcv", answers)
    assert [(row["close"], row["known_on"]) for row in found.earlier[0].to_pylist()] == [(11.0, key[0])]
    assert found.table["known_on"].to_pylist() == [ANSWERED[2]]


def test_a_faulty_newest_row_is_not_stood_in_for_by_an_earlier_version() -> None:
    key = (DAYS[0], "AAA")
    found = history({key: 11.0}, {key: -1.0})
    assert found.earlier == ()


def test_a_withdrawn_row_is_counted_and_takes_its_versions_with_it() -> None:
    key = (DAYS[0], "AAA")
    found = history({key: 11.0}, {key: 12.0}, {})
    assert (len(found.table), found.earlier) == (0, ())
    assert found.notes == ("1 rows of earlier answers were withdrawn by later ones",)


def dividends(payload: str, *amounts: float, declared: date = DAYS[0], ex_date: date = DAYS[2]) -> pa.Table:
    rows = [
        {"symbol": "AAA", "ex_date": ex_date, "kind": "cash_dividend", "ratio": None, "cash_usd": amount, "currency": "USD"}
        | {"other_symbol": None, "vendor_id": f"d{number}", "known_on": declared, "payload": payload, "payload_row": number}
        for number, amount in enumerate(amounts)
    ]
    return pa.Table.from_pylist(rows, schema=RAW["corporate_actions"])


def test_a_corrected_dividend_is_known_from_the_day_of_the_correction() -> None:
    answers = [answer(ANSWERED[0], dividends("p0", 0.5)), answer(ANSWERED[1], dividends("p1", 0.25))]
    found = with_history("corporate_actions", answers)
    assert [(row["cash_usd"], row["known_on"]) for row in (found.earlier[0].to_pylist() + found.table.to_pylist())] == [
        (0.5, DAYS[0]),
        (0.25, ANSWERED[1]),
    ]


def test_a_new_name_of_the_same_payment_restates_nothing() -> None:
    first, renamed = dividends("p0", 0.5), dividends("p1", 0.5).to_pylist()
    renamed[0]["vendor_id"] = "another"
    table = pa.Table.from_pylist(renamed, schema=RAW["corporate_actions"])
    found = with_history("corporate_actions", [answer(ANSWERED[0], first), answer(ANSWERED[1], table)])
    assert (found.earlier, found.table.equals(table)) == ((), True)


def test_rows_that_contradict_each_other_are_not_stood_in_for_by_an_earlier_version() -> None:
    answers = [answer(ANSWERED[0], dividends("p0", 0.5)), answer(ANSWERED[1], dividends("p1", 0.25, 0.25))]
    found = with_history("corporate_actions", answers)
    assert found.earlier == ()
    assert len(validate("corporate_actions", "one", found.table).quarantine) == 2


def test_what_was_corrected_before_anyone_knew_it_has_no_version() -> None:
    late = ANSWERED[2]
    answers = [answer(ANSWERED[0], dividends("p0", 0.5, declared=late)), answer(ANSWERED[1], dividends("p1", 0.25, declared=late))]
    found = with_history("corporate_actions", answers)
    assert (found.earlier, found.table["known_on"].to_pylist()) == ((), [late])
