"""The order desk: judges, journals, sends and follows the orders of a session, each step only if it was not done before."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quanto.core.errors import ExecutionError
from quanto.execution.book import Entry
from quanto.execution.broker import Broker, BrokerFill
from quanto.execution.compiler import OrderRules, Sizing, compile_purchases, compile_sales, wanted_shares
from quanto.execution.feed import Feed
from quanto.execution.limits import RiskPolicy
from quanto.execution.measures import Snapshot
from quanto.execution.orders import QUANTITY_TOLERANCE, Event, Order, Side, Status
from quanto.execution.recorder import Recorder
from quanto.execution.risk import Breach, Verdict, all_pass, fill_breaches, judge
from quanto.portfolio.constraints import Limits
from quanto.portfolio.costs import BPS

FloatArray = npt.NDArray[np.float64]

# What a broker says of an order, as the event that leads there.
_EVENT_OF: dict[Status, Event] = {
    Status.CANCELED: Event.CANCEL,
    Status.EXPIRED: Event.EXPIRE,
    Status.REJECTED: Event.REJECT,
    Status.REPLACED: Event.REPLACE,
    Status.DONE_FOR_DAY: Event.END_DAY,
}


@dataclass(frozen=True)
class Terms:
    """The rules of the account: limits on targets, how orders are made, and the risk policy."""

    limits: Limits
    rules: OrderRules
    risk: RiskPolicy


class _Morning(NamedTuple):
    """What a snapshot takes from the feed, one value per symbol."""

    t: int
    reference: list[float]
    price_age: list[float]
    adv_usd: list[float]
    beta: list[float]
    impact: list[float]


SIDES: tuple[Side, Side] = ("sell", "buy")


class Desk:
    """Trades one side of a session at a time."""

    def __init__(self, feed: Feed, broker: Broker, terms: Terms, recorder: Recorder, experiment: str, policy_age: FloatArray) -> None:
        self._feed = feed
        self._broker = broker
        self._terms = terms
        self._recorder = recorder
        self._experiment = experiment
        self._policy_age = policy_age
        self._columns = {symbol: index for index, symbol in enumerate(feed.symbols)}
        self._known: _Morning | None = None

    def trade(self, t: int, side: Side) -> None:
        """Judge and journal the orders of one side, make them durable, send them, and see them to their end."""
        book = self._recorder.book
        made = {order.client_order_id for order in book.orders.values() if order.side == side}
        compiled = [] if self._all_made(side) else self._compile(t, side)
        if compiled or made:
            self._judge_all([order for order in compiled if order.client_order_id not in made], t)
            # A simulated broker takes the session's orders from the journal again; a real one has seen them leave.
            if self._broker.real_time or not self._sent_before(side):
                self._recorder.sync()
            self._send(side)
            if not self._recorder.book.halted:  # a halt leaves what was not sent to `wind_down`
                self._collect(t, side)

    def _sent_before(self, side: Side) -> bool:
        """Return whether the session's sales went before this side, and with them a sync."""
        return side == "buy" and any(order.side == "sell" for order in self._recorder.book.orders.values())

    def _all_made(self, side: Side) -> bool:
        """Return whether every order of this side was made: one has left, or the session has gone on to purchases."""
        book = self._recorder.book
        if side == "sell" and book.quote is not None:
            return True
        return any(order.side == side and order.status not in (Status.PENDING_SUBMIT, Status.DENIED) for order in book.orders.values())

    def _compile(self, t: int, side: Side) -> list[Order]:
        feed, book, terms = self._feed, self._recorder.book, self._terms
        if book.decision is None or book.decision["kind"] != "decision":
            raise ExecutionError(f"session {book.session} has no decision to trade")
        held = share_vector(self._columns, self._held_before(side))
        targets = np.array([book.decision["targets"][symbol] for symbol in feed.symbols])
        wanted = wanted_shares(targets, book.nav, feed.close[t], feed.split[t + 1], held)
        reference = feed.close[t] / feed.split[t + 1]
        sizing = Sizing(self._experiment, feed.day(t + 1), feed.symbols, wanted, held, reference, book.nav, terms.risk.price_collar)
        if side == "sell":
            return compile_sales(sizing, terms.rules)
        assert book.quote is not None  # noqa: S101  # run_session quotes before it buys
        prices = np.array([math.nan if price is None else price for price in (book.quote["prices"][symbol] for symbol in feed.symbols)])
        spendable = self._spendable() - terms.limits.minimum_cash * book.quote["nav"]
        return compile_purchases(sizing, terms.rules, prices, spendable, float(feed.linear_cost[t + 1]), feed.impact[t + 1])

    def _held_before(self, side: Side) -> dict[str, float]:
        """Return the holdings from which orders of a side are compiled: before any of that side filled."""
        shares = dict(self._recorder.book.shares)
        for order in self._recorder.book.orders.values():
            if order.side == side and order.filled > 0:
                shares[order.symbol] = shares.get(order.symbol, 0.0) - order.sign * order.filled
        return shares

    def _spendable(self) -> float:
        """Return the cash that purchases may use, before any of them filled, USD."""
        book = self._recorder.book
        spent = sum(order.notional + order.fees for order in book.orders.values() if order.side == "buy")
        unsettled = 0.0 if self._terms.rules.unsettled_proceeds == "usable" else book.proceeds
        return book.cash + spent - unsettled

    def _snapshot(self, t: int) -> Snapshot:
        feed, book, terms, known = self._feed, self._recorder.book, self._terms, self._morning(t)
        price, nav_now = known.reference, book.nav
        if book.quote is not None:
            price = [math.nan if value is None else value for value in (book.quote["prices"][symbol] for symbol in feed.symbols)]
            nav_now = book.quote["nav"]
        open_side = {"buy": [0.0] * len(feed.symbols), "sell": [0.0] * len(feed.symbols)}
        for order in book.open_orders():
            open_side[order.side][self._columns[order.symbol]] += order.remaining
        unsettled = 0.0 if terms.rules.unsettled_proceeds == "usable" else book.proceeds
        return Snapshot(
            symbols=self._columns,
            reference=known.reference,
            price=price,
            price_age=known.price_age,
            adv_usd=known.adv_usd,
            beta=known.beta,
            shares=share_vector(self._columns, book.shares).tolist(),
            open_purchases=open_side["buy"],
            open_sales=open_side["sell"],
            cash=book.cash - unsettled,
            nav=book.nav,
            nav_now=nav_now,
            traded_usd=book.traded,
            slippage=terms.rules.worst_case_slippage_bps * BPS,
            linear_cost=float(feed.linear_cost[t + 1]),
            impact=known.impact,
            orders_last_minute=self._passed_last_minute(),
            missing_share=float(feed.missing_share[t]),
            policy_age_sessions=float(self._policy_age[t]),
            reduce_only=book.reduce_only,
            halted=bool(book.halted),
        ).summed()

    def _morning(self, t: int) -> _Morning:
        """Return what is known of each symbol when session t+1 is traded: the same for both sides."""
        if self._known is None or self._known.t != t:
            feed, close = self._feed, self._feed.close[t]
            reference = np.where(close > 0, close / feed.split[t + 1], np.nan)
            rows = (feed.price_age[t], feed.adv_usd[t], feed.beta[t], feed.impact[t + 1])
            self._known = _Morning(t, reference.tolist(), *(row.tolist() for row in rows))
        return self._known

    def _judge_all(self, orders: list[Order], t: int) -> None:
        """Journal the verdict on every order, each judged with those before it open."""
        if not orders:
            return
        recorder, risk, lot = self._recorder, self._terms.risk, self._terms.rules.lot
        snapshot = self._snapshot(t)
        if all_pass(orders, snapshot, risk, recorder.book.orders.keys()):
            recorder.emit({"kind": "orders", "rows": [_row(order, Verdict(order.quantity, ())) for order in orders]})
            return
        rows: list[Entry] = []
        for order in orders:
            if snapshot.orders_last_minute >= risk.max_orders_per_minute:
                # One order more would be too many for this minute: wait. The check behind it stays.
                if rows:
                    recorder.emit({"kind": "orders", "rows": rows})
                    rows = []
                recorder.clock.sleep(60.0)
                snapshot = snapshot._replace(orders_last_minute=self._passed_last_minute())
            verdict = judge(order, snapshot, risk, recorder.book.orders.keys(), lot)
            rows.append(_row(order, verdict))
            snapshot = snapshot if verdict.denied else snapshot.after(order._replace(quantity=verdict.quantity))
        recorder.emit({"kind": "orders", "rows": rows})

    def _passed_last_minute(self) -> int:
        passed = self._recorder.book.passed_at
        return len(passed) - bisect_right(passed, self._recorder.clock.now() - timedelta(seconds=60))

    def _send(self, side: Side) -> None:
        """Send what was not sent; what the broker said is journalled even where its next answer never comes."""
        rows: list[Entry] = []
        try:
            for order in self._recorder.book.open_orders():
                if order.side == side and order.status == Status.PENDING_SUBMIT:
                    if self._recorder.stopped():
                        return
                    answer = self._broker.submit(order)
                    event = Event.REJECT if answer.status == Status.REJECTED else Event.ACCEPT
                    rows.append(_news(order, event, answer.broker_order_id, answer.message))
        finally:
            self._update(rows)

    def wind_down(self, t: int) -> None:
        """See every order that is still open to its end: after a halt, a kill, or a restart into either."""
        rows: list[Entry] = []
        for order in self._recorder.book.open_orders():
            if order.status == Status.PENDING_SUBMIT:
                found = self._broker.find(order.client_order_id)
                if found is None:
                    rows.append(_news(order, Event.CANCEL, message="never sent"))
                else:
                    rows.append(_news(order, Event.ACCEPT, found.broker_order_id))
        self._update(rows)
        for side in SIDES:
            self._collect(t, side)

    def _collect(self, t: int, side: Side) -> None:
        """Take fills until the side's orders are final, then cancel what is left.

        Raises
        ------
        ExecutionError
            If an order is still open after its cancel was asked for and waited for: run the session again later.
        """
        for cancelling in (False, True):
            if not self._open_of(side):
                return
            if cancelling:
                self._request_cancels(side)
            # Once nothing may trade, what is open is cancelled at once; the cancel itself is waited for.
            while self._take_news(t, side) and (cancelling or not self._recorder.stopped()) and self._broker.wait():
                pass
        still = [order.client_order_id for order in self._recorder.book.open_orders() if order.side == side]
        if still:
            self._recorder.sync()
            raise ExecutionError(f"orders are still open at the broker after their cancel: {', '.join(still)}; run the session again")

    def _take_news(self, t: int, side: Side) -> bool:
        """Journal new fills and changes of status; return whether orders of the side are still open."""
        if not self._open_of(side):
            return False
        known = self._recorder.book.fills
        self._take_fills([row for row in self._broker.fills(self._feed.day(t + 1)) if row.fill_id not in known])
        rows: list[Entry] = []
        strange = ""
        for order in self._open_of(side):
            found = self._broker.find(order.client_order_id)
            # An order ends only when the ledger shows every share that the broker says was filled.
            if found is None or found.status not in _EVENT_OF or found.filled > order.filled * (1 + 1e-9) + 1e-12:
                continue
            if found.status == Status.REPLACED and order.status != Status.PENDING_REPLACE:
                strange = f"{order.client_order_id} was replaced by {found.replaced_by or 'another order'}, and not by this engine"
            rows.append(_news(order, _EVENT_OF[found.status], message=found.message))
        if strange:  # first, so that a kill between the two loses no halt
            self._recorder.halt(strange)
        self._update(rows)
        return bool(self._open_of(side))

    def _open_of(self, side: Side) -> list[Order]:
        return [order for order in self._recorder.book.open_orders() if order.side == side and order.status != Status.DONE_FOR_DAY]

    def _take_fills(self, executions: list[BrokerFill]) -> None:
        """Journal executions; one that no order of ours allows halts, and the reconciliation shows what it did."""
        rows: list[Entry] = []
        breaches: list[Breach] = []
        taken: dict[str, float] = {}
        fault = ""
        for execution in executions:
            order = self._recorder.book.order_named(execution.broker_order_id)
            if order is None or (fault := _fill_fault(order, execution, taken.get(order.client_order_id, 0.0))):
                what = f"{execution.side} {execution.quantity} {execution.symbol} at {execution.price} ({execution.fill_id})"
                fault = f"the broker filled {what}, {fault or 'which no order of this journal asked for'}"
                break
            taken[order.client_order_id] = taken.get(order.client_order_id, 0.0) + execution.quantity
            rows.append(
                {
                    "id": order.client_order_id,
                    "fill_id": execution.fill_id,
                    "quantity": execution.quantity,
                    "price": execution.price,
                    "fee": execution.fee,
                }
            )
            breaches += fill_breaches(order.side, execution.price, order.reference_price, self._terms.risk, order.symbol)
        if rows:
            self._recorder.emit_checked({"kind": "fills", "rows": rows}, breaches)
        if fault:
            self._recorder.halt(fault)

    def _request_cancels(self, side: Side) -> None:
        orders = self._open_of(side)
        self._update([_news(order, Event.REQUEST_CANCEL) for order in orders if order.status != Status.PENDING_CANCEL])
        for order in orders:
            self._broker.cancel(order.broker_order_id)

    def _update(self, rows: list[Entry]) -> None:
        if rows:
            self._recorder.emit({"kind": "updates", "rows": rows})


def _row(order: Order, verdict: Verdict) -> Entry:
    row: Entry = {
        "id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side,
        "quantity": verdict.quantity,
        "limit": order.limit_price,
        "reference": order.reference_price if math.isfinite(order.reference_price) else None,
    }
    if verdict.breaches:
        row |= {"asked": order.quantity, "breaches": [breach.record() for breach in verdict.breaches]}
    return row


def _news(order: Order, event: Event, broker_id: str = "", message: str = "") -> Entry:
    row: Entry = {"id": order.client_order_id, "event": event.value}
    if broker_id:
        row["broker_id"] = broker_id
    if message:
        row["message"] = message
    return row


def _fill_fault(order: Order, execution: BrokerFill, taken: float) -> str:
    """Return what is wrong with an execution of an order of which `taken` shares filled beside, "" if nothing is."""
    if order.final:
        return f"but {order.client_order_id} is {order.status}"
    if (order.symbol, order.side) != (execution.symbol, execution.side):
        return f"but {order.client_order_id} is to {order.side} {order.symbol}"
    if order.filled + taken + execution.quantity > order.quantity + QUANTITY_TOLERANCE * max(1.0, order.quantity):
        return f"more than the {order.quantity} that {order.client_order_id} asked for"
    return ""


def share_vector(columns: Mapping[str, int], shares: Mapping[str, float]) -> FloatArray:
    """Return holdings by symbol as an array over the columns; symbols without a column are left out."""
    vector = np.zeros(len(columns))
    for symbol, held in shares.items():
        index = columns.get(symbol)
        if index is not None:
            vector[index] = held
    return vector
