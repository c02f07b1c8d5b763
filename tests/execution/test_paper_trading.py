"""Paper trading on the fake account: once per session, restartable, never past a break, equal to the replay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.alpaca_trading import KEY, NEW_YORK, SECRET, FakeAlpaca, TradingClock
from fakes.execution_worlds import World, terms
from fakes.server import Reply, status, wire

from quanto.core.errors import ExecutionError
from quanto.execution.account import kill_reason, lease, resume_halt, throw_kill_switch
from quanto.execution.book import unfold
from quanto.execution.brokers.alpaca import AlpacaBroker
from quanto.execution.brokers.alpaca_http import AlpacaConfig
from quanto.execution.engine import read_book
from quanto.execution.feed import Feed
from quanto.execution.journal import Journal, read_journal
from quanto.execution.paper import ExitCode, PaperConfig, PaperRun, run_paper_session
from quanto.execution.replay import Plan

DAYS = 6
FIRST = 3  # the first session traded


class Desk:
    """A paper account over the days of a small world."""

    def __init__(self, folder: Path, fake: FakeAlpaca, world: World, **settings: Any) -> None:
        self.folder, self.fake, self.world = folder, fake, world
        self.config = PaperConfig(broker=AlpacaConfig(base_url=fake.base_url, read_seconds=2.0, fill_deadline_seconds=20.0), **settings)
        self.risk: dict[str, Any] = {"cash_tolerance_usd": 0.01, "price_collar": 0.5}

    def feed(self, day: int) -> Feed:
        """Return what is known on the morning of a session: its own row holds no price."""
        feed, rows = self.world.feed, slice(0, day + 1)
        names = ("sessions", "close", "price_age", "adv_usd", "beta", "missing_share", "eligible", "split", "linear_cost", "impact")
        cut = {name: getattr(feed, name)[rows].copy() for name in names}
        for name in ("close", "price_age", "adv_usd", "beta"):
            cut[name][-1] = np.nan
        return replace(feed, **cut)

    def morning(self, day: int, at: time = time(8, 45)) -> date:
        session = self.world.feed.day(day)
        opens = self.world.tape.open[day]
        self.fake.quotes |= {symbol: Decimal(repr(float(opens[i]))) for i, symbol in enumerate(self.world.feed.symbols)}
        self.fake.clock.set(datetime.combine(session, at, NEW_YORK))
        return session

    def run(self, day: int, at: time = time(8, 45), data_day: int | None = None) -> PaperRun:
        self.morning(day, at)
        broker = AlpacaBroker(self.config.broker, self.fake.clock)
        conditions = replace(terms(rules=self.config.orders.model_dump(), **self.risk))
        feed = self.feed(day if data_day is None else data_day)
        return run_paper_session(self.folder, feed, self.world.strategy, broker, conditions, self.config, self.fake.clock)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in unfold(read_journal(self.folder / "journal.jsonl")) if event["kind"] == kind]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAlpaca]:
    monkeypatch.setenv("APCA_API_KEY_ID", KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    with FakeAlpaca(TradingClock(datetime(2001, 1, 2, 8, 45, tzinfo=NEW_YORK))) as server:
        assert isinstance(server, FakeAlpaca)
        server.holidays = {date(2001, 1, 15)}
        yield server


@pytest.fixture
def desk(fake: FakeAlpaca, tmp_path: Path) -> Desk:
    return Desk(tmp_path / "account", fake, World(4, sessions=12, symbols=3, quiet=True))


def test_days_of_paper_trading_have_the_positions_of_the_replay(desk: Desk) -> None:
    for day in range(FIRST, FIRST + DAYS):
        run = desk.run(day)
        assert run.code == ExitCode.OK, run.message
    conditions = terms(rules=desk.config.orders.model_dump())
    book, _ = desk.world.replay(Plan(FIRST, FIRST + DAYS, 100_000.0), conditions=conditions)
    assert set(desk.fake.positions) == set(book.shares)
    for symbol, shares in book.shares.items():
        assert float(desk.fake.positions[symbol]) == pytest.approx(shares, rel=0.01), (
            "paper sizes purchases of names it does not hold by the last close"
        )
    with Journal(desk.folder / "journal.jsonl") as journal:
        assert read_book(journal).cash == pytest.approx(float(desk.fake.cash), abs=0.01)
    assert len(desk.events("end")) == DAYS


def test_a_second_run_of_the_day_does_nothing(desk: Desk) -> None:
    desk.run(FIRST)
    before = (desk.folder / "journal.jsonl").read_bytes()
    run = desk.run(FIRST, at=time(9, 45))
    assert (run.code, run.session) == (ExitCode.OK, desk.world.feed.day(FIRST))
    assert (desk.folder / "journal.jsonl").read_bytes() == before


def test_a_day_without_a_session_is_no_work(desk: Desk, fake: FakeAlpaca) -> None:
    fake.clock.set(datetime(2001, 1, 6, 9, 0, tzinfo=NEW_YORK))
    broker = AlpacaBroker(desk.config.broker, fake.clock)
    run = run_paper_session(desk.folder, desk.feed(FIRST), desk.world.strategy, broker, terms(), desk.config, fake.clock)
    assert run.code == ExitCode.OK
    assert "no session" in run.message
    assert fake.calls == []


def test_data_that_do_not_reach_the_decision_stop_the_run_before_the_broker_is_asked(desk: Desk, fake: FakeAlpaca) -> None:
    run = desk.run(FIRST + 1, data_day=FIRST)
    assert run.code == ExitCode.STALE_DATA
    assert fake.calls == []
    assert not (desk.folder / "journal.jsonl").exists()


def test_missed_sessions_are_caught_up_without_trading(desk: Desk) -> None:
    desk.run(FIRST)
    held = dict(desk.fake.positions)
    assert desk.run(FIRST + 1, at=time(11, 0)).code == ExitCode.TOO_LATE
    desk.morning(FIRST + 2)
    assert desk.fake.positions == held
    assert desk.run(FIRST + 3).code == ExitCode.OK
    assert [event["session"] for event in desk.events("missed")] == [desk.world.feed.day(day).isoformat() for day in (FIRST + 1, FIRST + 2)]
    assert [event["session"] for event in desk.events("decision")] == [desk.world.feed.day(day).isoformat() for day in (FIRST, FIRST + 3)]
    assert len(desk.events("mark")) == 4


def test_a_session_that_was_begun_in_time_is_continued_late(desk: Desk, fake: FakeAlpaca) -> None:
    fake.fault(status(500), "/v2/orders", range(1, 400))
    with pytest.raises(ExecutionError):
        desk.run(FIRST)
    fake.faults.clear()
    assert desk.run(FIRST, at=time(12, 0)).code == ExitCode.OK


@pytest.mark.parametrize("stranger", ["order", "position", "symbol", "cash"])
def test_what_the_journal_does_not_know_halts_until_it_is_lifted(desk: Desk, fake: FakeAlpaca, stranger: str) -> None:
    desk.run(FIRST)
    desk.morning(FIRST + 1)
    if stranger == "order":
        broker = AlpacaBroker(desk.config.broker, fake.clock)
        from quanto.execution.orders import Order

        broker.submit(Order("by-hand", "S00", "buy", 1.0, 50.0, 0.01))
    elif stranger == "position":
        fake.positions["S00"] = fake.positions.get("S00", Decimal(0)) + 5
    elif stranger == "symbol":
        fake.positions["GME"] = Decimal(5)
    else:
        fake.cash -= Decimal("3.21")
    posted = fake.posts
    fake.quotes["GME"] = Decimal(20)
    assert desk.run(FIRST + 1).code == ExitCode.HALTED
    assert fake.posts == posted
    fake.positions.pop("GME", None)
    for order in fake.orders.values():
        order.fields["status"] = "canceled" if order.open else order.fields["status"]
    again = desk.run(FIRST + 2)
    assert again.code == ExitCode.HALTED, "a halt holds across restarts"
    assert fake.posts == posted
    account = AlpacaBroker(desk.config.broker, fake.clock).account()
    lifted = resume_halt(desk.folder, "looked at it", "risk officer", fake.clock, account)
    assert lifted
    (event,) = desk.events("resume")
    assert (event["reason"], event["operator"], event["lifted"]) == ("looked at it", "risk officer", lifted)
    assert desk.run(FIRST + 3).code == ExitCode.OK
    assert fake.posts > posted


def test_a_fee_in_the_ledger_is_no_break(desk: Desk, fake: FakeAlpaca) -> None:
    desk.run(FIRST)
    fake.pay("FEE", desk.world.feed.day(FIRST), "-3.21")
    assert desk.run(FIRST + 1).code == ExitCode.OK
    assert desk.run(FIRST + 2).code == ExitCode.OK
    assert [flow["kind"] for event in desk.events("open") for flow in event["flows"]] == ["fee"]


def test_a_cent_of_the_brokers_rounding_does_not_add_up_to_a_break(desk: Desk, fake: FakeAlpaca) -> None:
    for day in range(FIRST, FIRST + DAYS):
        assert desk.run(day).code == ExitCode.OK
        fake.cash += Decimal("0.009")
    assert [flow["kind"] for event in desk.events("open") for flow in event["flows"]] == ["rounding"] * (DAYS - 1)


def test_the_kill_switch_stops_before_any_order_and_holds(desk: Desk, fake: FakeAlpaca) -> None:
    throw_kill_switch(desk.folder, "storm")
    assert kill_reason(desk.folder) == "storm"
    run = desk.run(FIRST)
    assert (run.code, fake.posts) == (ExitCode.HALTED, 0)
    assert "storm" in run.message
    resume_halt(desk.folder, "storm is over", "risk officer", fake.clock)
    assert kill_reason(desk.folder) == ""
    assert desk.run(FIRST + 1).code == ExitCode.OK
    assert fake.posts > 0


def test_a_kill_switch_thrown_between_two_orders_stops_the_rest(desk: Desk, fake: FakeAlpaca) -> None:
    desk.world.wishes[:] = np.array([0.3, 0.3, 0.3])

    def throw(reply: Reply) -> Reply:
        throw_kill_switch(desk.folder, "now")
        return reply

    fake.fault(throw, "/v2/orders", [2])  # the first is the question for strangers
    assert desk.run(FIRST).code == ExitCode.HALTED
    assert fake.posts == 1
    assert {order["event"] for order in desk.events("update") if order.get("message") == "never sent"} == {"cancel"}
    assert not [order for order in fake.orders.values() if order.open]


def test_a_kill_switch_thrown_while_orders_wait_for_the_open_cancels_them(desk: Desk, fake: FakeAlpaca) -> None:
    def throw(reply: Reply) -> Reply:
        throw_kill_switch(desk.folder, "now")
        return reply

    fake.fault(throw, "/v2/clock", [3])
    assert desk.run(FIRST).code == ExitCode.HALTED
    assert fake.posts > 0
    assert {order.fields["status"] for order in fake.orders.values()} == {"canceled"}
    assert not fake.positions
    assert fake.clock.now().time() < time(9, 0)


def test_an_order_that_somebody_replaced_halts(desk: Desk, fake: FakeAlpaca) -> None:
    """The replacement is an order that the journal does not know."""
    desk.world.wishes[:] = np.array([0.3, 0.3, 0.3])

    def replace_one(reply: Reply) -> Reply:
        old = next(order for order in fake.orders.values() if order.open)
        old.fields |= {"status": "replaced", "replaced_by": "by-hand"}
        return reply

    fake.fault(replace_one, "/v2/clock", [2])
    run = desk.run(FIRST)
    assert run.code == ExitCode.HALTED
    assert "was replaced by by-hand" in run.message
    assert not [order for order in fake.orders.values() if order.open]
    assert desk.run(FIRST + 1).code == ExitCode.HALTED


def test_lifting_needs_a_halt_a_reason_and_a_name(desk: Desk, fake: FakeAlpaca) -> None:
    desk.run(FIRST)
    with pytest.raises(ExecutionError, match="nothing is halted"):
        resume_halt(desk.folder, "why", "who", fake.clock)
    with pytest.raises(ExecutionError, match="reason"):
        resume_halt(desk.folder, "  ", "who", fake.clock)
    with pytest.raises(ExecutionError, match="name"):
        resume_halt(desk.folder, "why", "", fake.clock)
    with pytest.raises(ExecutionError, match="reason"):
        throw_kill_switch(desk.folder, "")


def test_one_instance_holds_the_account(desk: Desk, fake: FakeAlpaca) -> None:
    with lease(desk.folder), pytest.raises(ExecutionError, match="one instance per account"):
        desk.run(FIRST)
    assert fake.posts == 0
    assert desk.run(FIRST).code == ExitCode.OK


def test_a_new_journal_does_not_swallow_positions_unless_told(desk: Desk, fake: FakeAlpaca) -> None:
    fake.positions["S00"] = Decimal(7)
    with pytest.raises(ExecutionError, match="adopt_positions"):
        desk.run(FIRST)
    desk.config = desk.config.model_copy(update={"adopt_positions": True})
    assert desk.run(FIRST).code == ExitCode.OK
    assert desk.events("start")[0]["shares"] == {"S00": 7.0}


def test_other_terms_need_a_new_journal(desk: Desk) -> None:
    desk.run(FIRST)
    desk.risk["price_collar"] = 0.4
    with pytest.raises(ExecutionError, match="other terms"):
        desk.run(FIRST + 1)


@pytest.mark.parametrize("nth", [*range(1, 14), 17, 21, 26])
def test_a_run_whose_connection_dies_anywhere_is_continued_without_a_second_order(desk: Desk, fake: FakeAlpaca, nth: int) -> None:
    desk.run(FIRST)
    desk.config = desk.config.model_copy(update={"broker": desk.config.broker.model_copy(update={"attempts": 1})})
    fake.fault(wire("reset"), "", [nth])
    try:
        assert desk.run(FIRST + 1).code == ExitCode.OK
    except ExecutionError:
        assert desk.run(FIRST + 1, at=time(9, 50)).code == ExitCode.OK
    names = [order.fields["client_order_id"] for order in fake.orders.values()]
    assert len(names) == len(set(names))
    fills = [event["fill_id"] for event in desk.events("fill")]
    assert len(fills) == len(set(fills)) == len(fake.ledger)
    with Journal(desk.folder / "journal.jsonl") as journal:
        book = read_book(journal)
    assert book.shares == pytest.approx({symbol: float(shares) for symbol, shares in fake.positions.items()}, abs=1e-6)


def test_partial_fills_and_a_lagging_ledger_end_in_the_same_positions(desk: Desk, fake: FakeAlpaca) -> None:
    fake.partials = {"S00": ["1.5", "2"], "S01": ["0.25"], "S02": ["3"]}
    fake.ledger_lag = 2
    for day in range(FIRST, FIRST + 3):
        assert desk.run(day).code == ExitCode.OK
    assert {event["fill_id"] for event in desk.events("fill")} == {row["id"] for row in fake.ledger}


def test_what_does_not_fill_is_canceled_and_the_cancel_may_lose(desk: Desk, fake: FakeAlpaca) -> None:
    fake.halted = {"S01"}
    assert desk.run(FIRST).code == ExitCode.OK
    ends = {event["event"] for event in desk.events("update")}
    assert {"request_cancel", "cancel"} <= ends
    fake.halted, fake.fill_on_cancel = {"S01"}, True
    assert desk.run(FIRST + 1).code == ExitCode.OK
    assert "S01" in fake.positions


def test_the_day_is_summed_up_for_machines_and_people_and_logged(desk: Desk) -> None:
    desk.run(FIRST)
    session = desk.world.feed.day(FIRST)
    summary = json.loads((desk.folder / f"summaries/{session}.json").read_text())
    assert summary["session"] == session.isoformat()
    assert summary["evidence"]["orders_submitted"] == len(summary["orders"]) > 0
    assert list(read_journal(desk.folder / "journal.jsonl", summary["journal"]["head"]))
    text = (desk.folder / f"summaries/{session}.md").read_text()
    assert f"# Paper session {session}" in text
    assert all(order["symbol"] in text for order in summary["orders"])
    log = [json.loads(line) for line in (desk.folder / "log.jsonl").read_text().splitlines()]
    assert log[-1]["event"] == "ok"
    assert SECRET not in (desk.folder / "log.jsonl").read_text() + (desk.folder / "journal.jsonl").read_text()
