"""The life of an order: every (status, event) pair moves as the table says or is refused."""

from __future__ import annotations

import math
from datetime import date
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import ExecutionError
from quanto.execution.orders import FINAL, TRANSITIONS, Event, Order, Status, advance, client_order_id, fill, next_status

MOVES = [event for event in Event if event not in (Event.FILL, Event.PARTIAL_FILL)]


def order(status: Status = Status.ACCEPTED, quantity: float = 10.0, filled: float = 0.0) -> Order:
    return Order("o1", "ZZZ", "buy", quantity, 50.0, None, status, filled, filled * 50.0)


@pytest.mark.parametrize(("status", "event"), list(product(Status, Event)))
def test_every_pair_moves_as_the_table_says_or_says_what_it_takes(status: Status, event: Event) -> None:
    row = TRANSITIONS[status]
    if event in row:
        assert next_status(status, event) == row[event]
        return
    with pytest.raises(ExecutionError) as error:
        next_status(status, event)
    assert ("the status is final" in str(error.value)) == (status in FINAL)
    assert all(taken in str(error.value) for taken in row)


def test_the_final_statuses_are_these() -> None:
    assert {Status.FILLED, Status.CANCELED, Status.REPLACED, Status.REJECTED, Status.DENIED, Status.EXPIRED} == FINAL
    assert Status.DONE_FOR_DAY not in FINAL


def test_every_status_is_reached_from_new() -> None:
    reached, frontier = {Status.NEW}, [Status.NEW]
    while frontier:
        for after in TRANSITIONS[frontier.pop()].values():
            if after not in reached:
                reached.add(after)
                frontier.append(after)
    assert reached == set(Status)


def test_nothing_is_sent_after_it_was_denied_and_nothing_fills_before_it_was_sent() -> None:
    assert set(TRANSITIONS[Status.NEW]) == {Event.SUBMIT, Event.DENY}
    with pytest.raises(ExecutionError, match="final"):
        advance(advance(order(Status.NEW), Event.DENY), Event.SUBMIT)


@pytest.mark.parametrize("status", [Status.PENDING_CANCEL, Status.PENDING_REPLACE])
@pytest.mark.parametrize(("filled", "after"), [(0.0, Status.ACCEPTED), (4.0, Status.PARTIALLY_FILLED)])
def test_a_refused_cancel_or_replace_leaves_the_order_where_it_stood(status: Status, filled: float, after: Status) -> None:
    event = Event.REFUSE_CANCEL if status == Status.PENDING_CANCEL else Event.REFUSE_REPLACE
    assert advance(order(status, filled=filled), event).status == after


def test_a_fill_beats_a_cancel() -> None:
    waiting = advance(order(), Event.REQUEST_CANCEL)
    part = fill(waiting, 4.0, 50.0)
    assert part.status == Status.PENDING_CANCEL
    assert fill(part, 6.0, 51.0).status == Status.FILLED
    assert advance(part, Event.CANCEL).filled == 4.0


@pytest.mark.parametrize(
    ("quantity", "price", "fee"),
    [(0.0, 1.0, 0.0), (-1.0, 1.0, 0.0), (math.nan, 1.0, 0.0), (math.inf, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, math.nan, 0.0),
     (1.0, math.inf, 0.0), (1.0, 1.0, math.nan)],
)  # fmt: skip
def test_a_fill_that_is_no_number_is_refused(quantity: float, price: float, fee: float) -> None:
    with pytest.raises(ExecutionError, match="positive quantity and price"):
        fill(order(), quantity, price, fee)


def test_more_than_was_ordered_never_fills() -> None:
    with pytest.raises(ExecutionError, match="too much"):
        fill(order(filled=6.0), 4.001, 50.0)


def test_a_fill_must_come_as_a_fill() -> None:
    for event in (Event.FILL, Event.PARTIAL_FILL):
        with pytest.raises(ExecutionError, match="use fill"):
            advance(order(), event)


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=12), st.floats(1.0, 500.0))
@settings(deadline=None, max_examples=60)
def test_fills_add_up(parts: list[float], price: float) -> None:
    current = order(quantity=sum(parts))
    for part in parts:
        assert current.remaining > 0
        current = fill(current, part, price, 0.1)
    assert current.status == Status.FILLED
    assert current.remaining == 0.0
    assert current.filled == pytest.approx(sum(parts), rel=1e-12)
    assert current.notional == pytest.approx(sum(parts) * price, rel=1e-12)
    assert current.fees == pytest.approx(0.1 * len(parts), rel=1e-12)


@given(
    st.tuples(st.text(max_size=80), st.dates(), st.text(min_size=1, max_size=40), st.sampled_from(["buy", "sell"]), st.integers(1, 99)),
    st.tuples(st.text(max_size=80), st.dates(), st.text(min_size=1, max_size=40), st.sampled_from(["buy", "sell"]), st.integers(1, 99)),
)
@settings(deadline=None, max_examples=200)
def test_the_name_of_an_order_is_its_decision(one: tuple, other: tuple) -> None:  # type: ignore[type-arg]  # five fields of a strategy
    assert client_order_id(*one) == client_order_id(*one)
    assert (client_order_id(*one) == client_order_id(*other)) == (one == other)
    assert len(client_order_id(*one)) <= 128
    assert client_order_id(*one).isascii()


def test_a_name_can_be_read() -> None:
    name = client_order_id("experiment", date(2026, 1, 6), "BRK.B", "sell", 2)
    assert name.startswith("q-20260106-BRK.B-sell-2-")
