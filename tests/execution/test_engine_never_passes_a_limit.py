"""A stateful hunt: orders, partial fills, rejects, gaps, splits, restarts and a lying broker find no path past a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from fakes.execution_worlds import World, sim_config, terms
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from quanto.core.errors import ExecutionError
from quanto.execution.book import Book, Entry, unfold
from quanto.execution.broker import BrokerAccount, BrokerError, BrokerFill, BrokerOrder, Flow
from quanto.execution.brokers.sim import SimBroker
from quanto.execution.clock import SessionClock
from quanto.execution.engine import SessionEngine, read_book
from quanto.execution.journal import Journal
from quanto.execution.orders import Order, Status
from quanto.execution.replay import restore

SESSIONS = 30
LIMITS: dict[str, Any] = {
    "max_gross_exposure": 0.8,
    "max_net_exposure": 0.8,
    "max_leverage": 1.0,
    "max_name_weight": 0.3,
    "max_positions": 3,
    "minimum_cash": 0.05,
    "max_beta": 0.9,
    "max_gap_loss": 0.2,
    "max_days_to_exit": 0.6,
    "max_order_notional_usd": 200_000.0,
    "max_order_volume_share": 0.05,
    "max_turnover": 0.35,
    "max_orders_per_minute": 3,
    "price_collar": 0.05,
    "restricted": ("S01",),
    "max_price_age_sessions": 0,
    "max_missing_share": 0.5,
    "max_policy_age_sessions": 28,
    "reduce_only_daily_loss": 0.03,
    "halt_daily_loss": 0.5,
    "reduce_only_drawdown": 0.05,
    "halt_drawdown": 0.6,
}


class Wrapped:
    """The simulated broker, which can be made to fail or lie."""

    name = "sim"
    real_time = True

    def __init__(self, inner: SimBroker) -> None:
        self.inner = inner
        self.fail_next = 0
        self.lie = ""

    def _maybe_fail(self) -> None:
        if self.fail_next > 0:
            self.fail_next -= 1
            if self.fail_next == 0:
                raise BrokerError("the connection died")

    def open_session(self, session: date) -> None:
        self.inner.open_session(session)

    def account(self) -> BrokerAccount:
        self._maybe_fail()
        account = self.inner.account()
        if self.lie == "cash":
            return account._replace(cash=account.cash + 100.0)
        if self.lie == "position":
            return account._replace(positions={**account.positions, "S00": account.positions.get("S00", 0.0) + 5.0})
        return account._replace(blocked="trading_blocked") if self.lie == "blocked" else account

    def flows(self, session: date) -> tuple[Flow, ...]:
        return self.inner.flows(session)

    def prices(self, session: date) -> Mapping[str, float | None]:
        self._maybe_fail()
        return self.inner.prices(session)

    def submit(self, order: Order) -> BrokerOrder:
        answer = self.inner.submit(order)
        self._maybe_fail()  # accepted, and the answer lost
        return answer

    def find(self, client_order_id: str) -> BrokerOrder | None:
        self._maybe_fail()
        return self.inner.find(client_order_id)

    def cancel(self, broker_order_id: str) -> None:
        self.inner.cancel(broker_order_id)

    def replace(self, broker_order_id: str, order: Order) -> BrokerOrder:
        return self.inner.replace(broker_order_id, order)

    def open_orders(self) -> tuple[BrokerOrder, ...]:
        stranger = BrokerOrder("x", "not-ours", "S00", "buy", 1.0, 0.0, Status.ACCEPTED)
        return (*self.inner.open_orders(), stranger) if self.lie == "order" else self.inner.open_orders()

    def fills(self, session: date) -> tuple[BrokerFill, ...]:
        fills = self.inner.fills(session)
        if self.lie == "duplicate" and fills:
            return (*fills, fills[0])
        if self.lie == "fill":
            return (*fills, BrokerFill("ghost", "nobody", "S00", "buy", 1.0, 50.0))
        return fills

    def wait(self) -> bool:
        return False


class Hunt(RuleBasedStateMachine):
    """One account, session after session, with whatever can go wrong; the invariants look at the journal alone."""

    @initialize(seed=st.integers(0, 10_000), whole=st.booleans())
    def begin(self, seed: int, whole: bool) -> None:
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.jsonl"
        self.world = World(seed, sessions=SESSIONS, symbols=4, linear=5e-4)
        rules = {"fractional": not whole, "worst_case_slippage_bps": 20.0, "unsettled_proceeds": "not_usable" if seed % 2 else "usable"}
        self.terms = terms(rules=rules, **LIMITS)
        self.sim = sim_config(slippage_bps=20.0, volume_share=0.3, reject_rate=0.1, whole_shares=whole)
        self.t = 0
        self.lie = ""
        self.fail_next = 0
        self.seen = 0
        self.book = Book()
        self.connect()

    def connect(self) -> None:
        self.journal = Journal(self.path)
        book = read_book(self.journal)
        self.broker = Wrapped(restore(self.world.market, self.sim, 3, book, 1e6))
        self.engine = SessionEngine(self.world.feed, self.world.strategy, self.broker, self.journal, self.terms, SessionClock(), book)
        self.engine.start(1e6, {}, {})

    @rule(wish=st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4), gap=st.floats(0.9, 1.1))
    @precondition(lambda self: self.t < SESSIONS - 1)
    def trade(self, wish: list[float], gap: float) -> None:
        """Want something, let the open gap, and run the session, through any failure of the broker."""
        self.world.wishes[self.t] = np.array(wish) / max(1.0, sum(wish))
        self.world.tape.open[self.t + 1] *= gap
        self.broker.lie, self.broker.fail_next = self.lie, self.fail_next
        for _ in range(6):
            try:
                self.engine.run_session(self.t)
                break
            except ExecutionError:
                self.restart()
                self.broker.lie = self.lie
        else:
            pytest.fail("the session never ended")
        self.t += 1
        self.lie, self.fail_next = "", 0

    @rule(after=st.integers(1, 12))
    def connection_dies(self, after: int) -> None:
        """The n-th question of the next session finds no broker."""
        self.fail_next = after

    @rule(lie=st.sampled_from(["cash", "position", "blocked", "order", "fill", "duplicate"]))
    def broker_lies(self, lie: str) -> None:
        self.lie = lie

    @rule()
    @precondition(lambda self: bool(self.engine.book.halted))
    def officer_resumes(self) -> None:
        """An audited command lifts the halt."""
        event = {"kind": "resume", "at": self.engine.book.last_at, "reason": "r", "operator": "o", "lifted": "h", "flows": []}
        self.journal.append(event)
        self.restart()

    @rule()
    def restart(self) -> None:
        """The process dies and starts again from the journal."""
        self.journal.close()
        self.connect()

    @invariant()
    def no_limit_is_passed(self) -> None:
        if not hasattr(self, "journal"):
            return
        self.journal.sync()
        events = list(Journal(self.path).replay())
        for event in events[self.seen :]:
            # Row by row: each order is looked at with those before it open.
            for row in event.get("rows", [event]):
                single = event if row is event else {**row, "kind": str(event["kind"]).removesuffix("s"), "at": event["at"]}
                self.check(single)
                self.book.apply(event if row is event else {**event, "rows": [row]})
        self.seen = len(events)

    def check(self, event: Entry) -> None:
        book = self.book
        if event["kind"] == "order":
            assert event["id"] not in book.orders, "an order was made twice"
            if event["quantity"] > 0:
                self.check_passed(event)
        elif event["kind"] == "fill":
            order = book.orders[event["id"]]
            assert event["fill_id"] not in book.fills
            assert order.filled + event["quantity"] <= order.quantity * (1 + 1e-9)
            worse = (event["price"] / order.reference_price - 1) * order.sign
            assert worse <= LIMITS["price_collar"] + 1e-9
        elif event["kind"] == "end":
            assert event["cash"] >= -1e-6, "cash is overdrawn"
            assert all(shares > -1e-9 for shares in event["shares"].values()), "a position is short"

    def check_passed(self, event: Entry) -> None:
        """Recompute, apart from the engine's code, what the order and the portfolio after it are."""
        book, t = self.book, int(np.searchsorted(self.world.feed.sessions, np.datetime64(self.book.session, "D"))) - 1
        assert not book.halted
        assert event["symbol"] not in LIMITS["restricted"]
        assert t <= LIMITS["max_policy_age_sessions"]
        columns = {symbol: index for index, symbol in enumerate(self.world.feed.symbols)}
        price = self.world.feed.close[t] / self.world.feed.split[t + 1]
        index = columns[event["symbol"]]
        value = event["quantity"] * price[index]
        assert self.world.feed.price_age[t, index] == 0
        assert value <= LIMITS["max_order_notional_usd"] * (1 + 1e-9)
        assert value <= LIMITS["max_order_volume_share"] * self.world.feed.adv_usd[t, index] * (1 + 1e-6)
        recent = [moment for moment in book.passed_at if (datetime.fromisoformat(event["at"]) - moment).total_seconds() < 60]
        assert len(recent) < LIMITS["max_orders_per_minute"]
        if event["side"] == "sell":
            assert event["quantity"] <= book.shares.get(event["symbol"], 0.0) * (1 + 1e-9)
            return
        assert not book.reduce_only
        exposed = Counter(book.shares)
        spent, traded = 0.0, value
        for order in book.orders.values():
            if order.status == Status.DENIED:
                continue
            traded += order.quantity * order.reference_price
            if order.side == "buy" and not order.final:
                exposed[order.symbol] += order.remaining
                spent += order.remaining * book.quote["prices"][order.symbol]  # type: ignore[index]  # purchases follow a quote
        exposed[event["symbol"]] += event["quantity"]
        now = book.quote["prices"][event["symbol"]]  # type: ignore[index]  # as above
        assert abs(now / price[index] - 1) <= LIMITS["price_collar"] + 1e-9
        values = {symbol: shares * price[columns[symbol]] / book.nav for symbol, shares in exposed.items()}
        beta = {symbol: self.world.feed.beta[t, columns[symbol]] for symbol in values}
        assert sum(values.values()) <= 0.8 + 1e-6
        assert values[event["symbol"]] <= 0.3 + 1e-6
        assert sum(weight != 0 for weight in values.values()) <= 3
        assert abs(sum(weight * beta[symbol] for symbol, weight in values.items())) <= 0.9 + 1e-6
        assert 0.5 * traded / book.nav <= 0.35 + 1e-6
        gap = 0.1 * sum(abs(weight * beta[symbol]) for symbol, weight in values.items()) + 0.3 * max(values.values())
        assert gap <= 0.2 + 1e-6
        cash = book.cash - (spent + event["quantity"] * now) * (1 + 20e-4) * (1 + 5e-4)
        assert cash >= 0.05 * book.quote["nav"] - 1e-3  # type: ignore[index]  # as above

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.folder.cleanup()


Hunt.TestCase.settings = settings(
    deadline=None, max_examples=10, stateful_step_count=14, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
test_no_path_leads_past_a_limit = Hunt.TestCase


@pytest.mark.acceptance
class TestTheLongHunt(Hunt.TestCase):  # type: ignore[misc,name-defined]  # Hypothesis builds the class
    settings = settings(deadline=None, max_examples=400, stateful_step_count=40, suppress_health_check=list(HealthCheck))


def test_the_hunt_meets_purchases_sales_denials_cuts_and_halts() -> None:
    world = World(1, sessions=SESSIONS, symbols=4, linear=5e-4)
    conditions = terms(rules={"worst_case_slippage_bps": 20.0}, **LIMITS)
    broker = SimBroker(world.market, rough_sim(), 3, 1e6, {})
    journal = Journal(None)
    engine = SessionEngine(world.feed, world.strategy, broker, journal, conditions, SessionClock(), Book())
    engine.start(1e6, {}, {})
    for t in range(SESSIONS - 1):
        engine.run_session(t)
    orders = [event for event in unfold(journal.replay()) if event["kind"] == "order"]
    assert {event["side"] for event in orders} == {"buy", "sell"}
    assert any(event["quantity"] == 0 for event in orders)
    assert any(0 < event["quantity"] < event.get("asked", 0) for event in orders)
    hit = {breach["check"] for event in orders for breach in event.get("breaches", ())}
    assert {"restricted", "name_weight", "turnover", "price_collar", "price_age"} <= hit


def rough_sim() -> Any:
    return sim_config(slippage_bps=20.0, volume_share=0.3, reject_rate=0.1)
