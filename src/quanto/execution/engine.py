"""The session engine: one object for shadow replay and paper trading.

One session, restartable after every event of the journal:

1. mark the account at the close of the deciding session; losses beyond the policy reduce or halt;
2. decide: observation -> targets -> constraints -> wanted shares, journalled before anything else happens;
3. open: take the account's flows (dividends, splits, interest), reconcile with the broker; a break halts;
4. sales: judge, journal, fsync, submit, collect fills, cancel what is left;
5. purchases: the same, sized by the cash that is really there and the prices that are really quoted;
6. end: reconcile again, check the account, fsync.

Every step looks at the book, which is the sum of the journal's events, and does what is not there yet. So a run that
was killed anywhere goes on where it stopped; the broker is asked for orders whose fate the journal does not know.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from quanto.core.errors import ExecutionError
from quanto.env.simulation import Decide
from quanto.execution.book import Book, Entry
from quanto.execution.broker import Broker, BrokerAccount, BrokerFill
from quanto.execution.clock import CLOSE, DECISION, OPEN, Clock, moment_of
from quanto.execution.compiler import OrderRules, Sizing, compile_purchases, compile_sales, wanted_shares
from quanto.execution.feed import Feed
from quanto.execution.journal import Journal
from quanto.execution.orders import Event, Order, Side, Status
from quanto.execution.risk import (
    Action,
    Breach,
    RiskPolicy,
    Snapshot,
    account_breaches,
    fill_breaches,
    judge,
    portfolio_breaches,
)
from quanto.portfolio.constraints import Limits, constrain
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
class Strategy:
    """What is traded: the decision of a policy, and what it knew.

    Attributes
    ----------
    experiment
        Identity of the experiment; part of every client order id.
    decide
        (t, weights, drawdown) -> wanted weights before constraints.
    observation
        t -> the bytes of the market part of what the policy sees after the close of t.
    exposure_cap, policy_age
        Shape (n_sessions,): the shield's cap, and sessions since the policy's training ended.
    """

    experiment: str
    decide: Decide
    observation: Callable[[int], bytes]
    exposure_cap: FloatArray
    policy_age: FloatArray


@dataclass(frozen=True)
class Terms:
    """The rules of the account: limits on targets, how orders are made, and the risk policy."""

    limits: Limits
    rules: OrderRules
    risk: RiskPolicy


class SessionEngine:
    """Runs sessions of one account at one broker, and writes every step to one journal."""

    def __init__(
        self,
        feed: Feed,
        strategy: Strategy,
        broker: Broker,
        journal: Journal,
        terms: Terms,
        clock: Clock,
        book: Book,
        killed: Callable[[], str] = lambda: "",
    ) -> None:
        """Continue from `book`, the sum of the journal's events so far (see `read_book`).

        `killed` is the kill switch: asked before every order, it returns why all trading must stop, or "".
        """
        self.book = book
        self._feed = feed
        self._strategy = strategy
        self._broker = broker
        self._journal = journal
        self._terms = terms
        self._clock = clock
        self._killed = killed
        self._t = 0
        self._columns = {symbol: index for index, symbol in enumerate(feed.symbols)}
        self._stamp: tuple[str, datetime | None] = ("", None)
        if book.last_at:
            clock.reach(datetime.fromisoformat(book.last_at))

    def start(self, cash: float, shares: dict[str, float], facts: Entry) -> None:
        """Write the first event of a new journal: the account it begins with, and what is traded under which terms.

        Raises
        ------
        ExecutionError
            If the journal belongs to another experiment or other terms.
        """
        identity = {
            "experiment": self._strategy.experiment,
            "risk": self._terms.risk.digest(),
            "symbols": list(self._feed.symbols),
            **facts,
        }
        if self.book.header is None:
            self._emit({"kind": "start", "cash": cash, "shares": shares, **identity})
            return
        header = self.book.header
        faults = [f"{name}: {header.get(name)!r} before, {value!r} now" for name, value in identity.items() if header.get(name) != value]
        if faults:
            raise ExecutionError(f"the journal was begun under other terms ({'; '.join(faults)}); start a new one (reset)")

    def run_session(self, t: int) -> None:
        """Decide after the close of session t and trade the session after it; steps that were done before are skipped."""
        session = self._feed.day(t + 1)
        if self.book.ended >= session.isoformat():
            return
        self._t = t
        self._clock.reach(moment_of(session, DECISION))
        self.mark(t)
        if self.book.session != session.isoformat():
            self._decide(t)
        self._clock.reach(moment_of(session, OPEN))
        self._open(t + 1, reconcile=True)
        if not self._stopped():
            self._trade(t, "sell")
        if not self._stopped():
            self._quote(t)
        if not self._stopped():
            self._trade(t, "buy")
        self._wind_down()
        self._end(t + 1, reconcile=True)

    def miss_session(self, t: int, reconcile: bool, reason: str) -> None:
        """Catch up session t+1 without trading it: marks and flows, no decision.

        Parameters
        ----------
        reconcile
            Whether the broker's account still stands at that session; False for one that lies in the past.
        """
        session = self._feed.day(t + 1).isoformat()
        if self.book.ended >= session:
            return
        self._t = t
        self._clock.reach(moment_of(self._feed.day(t + 1), DECISION))
        self.mark(t)
        if self.book.session != session:
            self._emit({"kind": "missed", "session": session, "reason": reason})
        self._open(t + 1, reconcile)
        self._end(t + 1, reconcile)

    def mark(self, t: int) -> None:
        """Value the account at the close of session t; a loss beyond the policy reduces or halts."""
        book, session = self.book, self._feed.day(t).isoformat()
        if book.marked >= session:
            return
        close = self._feed.close[t]
        values = {symbol: shares * float(close[self._columns[symbol]]) for symbol, shares in sorted(book.shares.items())}
        nav = book.cash + sum(values.values())
        previous, peak = (book.nav, max(book.peak, nav)) if book.marked else (nav, nav)
        breaches = account_breaches(nav, previous, peak, self._terms.risk)
        self._emit(
            {
                "kind": "mark",
                "session": session,
                "nav": nav,
                "cash": book.cash,
                "values": values,
                "breaches": [breach.record() for breach in breaches],
                "reduce_only": any(breach.action == Action.REDUCE_ONLY for breach in breaches),
            }
        )
        self._halt_on(breaches)

    def halt(self, reason: str) -> None:
        """Stop all trading until the halt is lifted by an audited command; the first reason stays."""
        if not self.book.halted:
            self._emit({"kind": "halt", "reason": reason})
            self._journal.sync()

    # The decision.

    def _decide(self, t: int) -> None:
        feed, book, strategy = self._feed, self.book, self._strategy
        close = feed.close[t]
        weights = self._vector(book.shares) * close / book.nav
        drawdown = book.nav / book.peak - 1.0
        wanted = strategy.decide(t, weights, drawdown)
        day = slice(t, t + 1)
        targets = constrain(wanted[None, :], weights[None, :], feed.eligible[day], self._terms.limits, strategy.exposure_cap[day])
        seen = hashlib.sha256(strategy.observation(t) + weights.tobytes() + np.float64(drawdown).tobytes()).hexdigest()
        self._emit(
            {
                "kind": "decision",
                "decided_on": feed.day(t).isoformat(),
                "session": feed.day(t + 1).isoformat(),
                "observation": seen,
                "drawdown": drawdown,
                "cap": float(strategy.exposure_cap[t]),
                "targets": dict(zip(feed.symbols, targets[0].tolist(), strict=True)),
            }
        )

    # The open.

    def _open(self, s: int, reconcile: bool) -> None:
        book, session = self.book, self._feed.day(s)
        self._broker.open_session(session)
        if book.opened is None:
            flows = [
                {"id": flow.flow_id, "kind": flow.kind, "symbol": flow.symbol, "cash": flow.cash, "shares": flow.shares}
                for flow in self._broker.flows(session)
            ]
            self._emit({"kind": "open", "session": session.isoformat(), "flows": flows})
        # With orders under way the account moves; then the reconciliation at the end of the session judges it.
        if reconcile and not book.orders:
            foreign = [order for order in self._broker.open_orders() if order.client_order_id not in book.orders]
            if foreign:
                names = ", ".join(f"{order.client_order_id} ({order.side} {order.quantity} {order.symbol})" for order in foreign)
                self.halt(f"the broker holds open orders that this journal does not know: {names}")
            self._reconcile(self._broker.account())

    def _reconcile(self, account: BrokerAccount) -> None:
        """Halt on a break between book and broker, in cash, a position, or NAV, or on a blocked account."""
        book, risk = self.book, self._terms.risk
        faults = [f"the account is blocked: {account.blocked}"] if account.blocked else []
        difference = account.cash - book.cash
        if not abs(difference) <= risk.cash_tolerance_usd:
            faults.append(f"cash is {account.cash:.2f} at the broker, {book.cash:.2f} in the book")
        value = difference
        for symbol in sorted({*account.positions, *book.shares}):
            found, expected = account.positions.get(symbol, 0.0), book.shares.get(symbol, 0.0)
            if symbol not in self._columns:
                faults.append(f"a position of {found} {symbol}, which is not in the universe")
            elif not abs(found - expected) <= risk.position_tolerance_shares:
                faults.append(f"{found} {symbol} at the broker, {expected} in the book")
            price = self._reference(symbol)
            value += (found - expected) * price if found != expected else 0.0
        if not abs(value) <= risk.nav_tolerance * book.nav:
            faults.append(f"NAV differs by {value:.2f} USD")
        if faults:
            self.halt(f"broker and book do not agree: {'; '.join(faults)}")

    def _reference(self, symbol: str) -> float:
        index, t = self._columns.get(symbol, -1), self._t
        return float(self._feed.close[t, index] / self._feed.split[t + 1, index]) if index >= 0 else math.nan

    def _quote(self, t: int) -> None:
        """Journal the prices that purchases are sized by, and the account's loss at them."""
        book, risk = self.book, self._terms.risk
        if book.quote is not None:
            return
        known = self._broker.prices(self._feed.day(t + 1))
        reference = self._feed.close[t] / self._feed.split[t + 1]
        # A price that the broker cannot say is the last known one; one that it knows not to trade is none.
        prices = {
            symbol: known[symbol] if symbol in known else (float(reference[index]) if reference[index] > 0 else None)
            for symbol, index in self._columns.items()
        }
        nav = self._nav_before_trading(prices, reference)
        breaches = account_breaches(nav, book.nav, book.peak, risk)
        self._emit(
            {
                "kind": "quote",
                "session": book.session,
                "prices": prices,
                "nav": nav,
                "breaches": [breach.record() for breach in breaches],
                "reduce_only": any(breach.action == Action.REDUCE_ONLY for breach in breaches),
            }
        )
        self._halt_on(breaches)

    def _nav_before_trading(self, prices: dict[str, float | None], reference: FloatArray) -> float:
        """Return the value at the quoted prices of what was held before this session's trades, USD."""
        book = self.book
        nav = book.cash
        shares = dict(book.shares)
        for order in book.orders.values():
            nav -= -order.sign * order.notional - order.fees
            shares[order.symbol] = shares.get(order.symbol, 0.0) - order.sign * order.filled
        for symbol, held in shares.items():
            price = prices[symbol]
            nav += held * (float(reference[self._columns[symbol]]) if price is None else price)
        return nav

    # Orders.

    def _trade(self, t: int, side: Side) -> None:
        """Judge and journal the orders of one side, make them durable, send them, and see them to their end."""
        book = self.book
        made = {order.client_order_id for order in book.orders.values() if order.side == side}
        compiled = self._compile(t, side) if not (made and self._all_made(side)) else []
        if compiled or made:
            snapshot = self._snapshot(t)
            for order in compiled:
                if order.client_order_id in made:
                    continue
                snapshot = self._judge(order, snapshot)
            self._journal.sync()
            self._send(side)
            self._collect(side)

    def _all_made(self, side: Side) -> bool:
        """Return whether orders of this side left: then all of them were made, and prices must not make others."""
        return any(order.side == side and order.status not in (Status.PENDING_SUBMIT, Status.DENIED) for order in self.book.orders.values())

    def _compile(self, t: int, side: Side) -> list[Order]:
        feed, book, terms = self._feed, self.book, self._terms
        if book.decision is None or book.decision["kind"] != "decision":
            raise ExecutionError(f"session {book.session} has no decision to trade")
        held = self._vector(self._held_before(side))
        targets = np.array([book.decision["targets"][symbol] for symbol in feed.symbols])
        wanted = wanted_shares(targets, book.nav, feed.close[t], feed.split[t + 1], held)
        reference = feed.close[t] / feed.split[t + 1]
        sizing = Sizing(
            self._strategy.experiment, feed.day(t + 1), feed.symbols, wanted, held, reference, book.nav, terms.risk.price_collar
        )
        if side == "sell":
            return compile_sales(sizing, terms.rules)
        assert book.quote is not None  # noqa: S101  # run_session quotes before it buys
        prices = np.array([math.nan if price is None else price for price in (book.quote["prices"][symbol] for symbol in feed.symbols)])
        spendable = self._spendable() - terms.limits.minimum_cash * book.quote["nav"]
        return compile_purchases(sizing, terms.rules, prices, spendable, float(feed.linear_cost[t + 1]), feed.impact[t + 1])

    def _held_before(self, side: Side) -> dict[str, float]:
        """Return the holdings from which orders of a side are compiled: before any of that side filled."""
        shares = dict(self.book.shares)
        for order in self.book.orders.values():
            if order.side == side and order.filled > 0:
                shares[order.symbol] = shares.get(order.symbol, 0.0) - order.sign * order.filled
        return shares

    def _spendable(self) -> float:
        """Return the cash that purchases may use, before any of them filled, USD."""
        book = self.book
        spent = sum(order.notional + order.fees for order in book.orders.values() if order.side == "buy")
        unsettled = 0.0 if self._terms.rules.unsettled_proceeds == "usable" else book.proceeds
        return book.cash + spent - unsettled

    def _snapshot(self, t: int) -> Snapshot:
        feed, book, terms = self._feed, self.book, self._terms
        reference = np.where(feed.close[t] > 0, feed.close[t] / feed.split[t + 1], np.nan)
        price, nav_now, reduce_only = reference, book.nav, book.reduce_only
        if book.quote is not None:
            price = np.array([math.nan if value is None else value for value in (book.quote["prices"][symbol] for symbol in feed.symbols)])
            nav_now = book.quote["nav"]
        open_side = {"buy": np.zeros(len(feed.symbols)), "sell": np.zeros(len(feed.symbols))}
        for order in book.open_orders():
            open_side[order.side][self._columns[order.symbol]] += order.remaining
        unsettled = 0.0 if terms.rules.unsettled_proceeds == "usable" else book.proceeds
        return Snapshot(
            symbols=self._columns,
            reference=reference,
            price=price,
            price_age=feed.price_age[t],
            adv_usd=feed.adv_usd[t],
            beta=feed.beta[t],
            shares=self._vector(book.shares),
            open_purchases=open_side["buy"],
            open_sales=open_side["sell"],
            cash=book.cash - unsettled,
            nav=book.nav,
            nav_now=nav_now,
            traded_usd=book.traded,
            cost_rate=float(feed.linear_cost[t + 1]) + terms.rules.worst_case_slippage_bps * BPS,
            impact=feed.impact[t + 1],
            orders_last_minute=self._passed_last_minute(),
            missing_share=float(feed.missing_share[t]),
            policy_age_sessions=float(self._strategy.policy_age[t]),
            reduce_only=reduce_only,
            halted=bool(book.halted),
        )

    def _judge(self, order: Order, snapshot: Snapshot) -> Snapshot:
        """Journal the verdict on one order; return the snapshot that counts it as open."""
        snapshot = self._pace(snapshot)
        verdict = judge(order, snapshot, self._terms.risk, self.book.orders.keys(), self._terms.rules.lot)
        self._emit(
            {
                "kind": "order",
                "id": order.client_order_id,
                "symbol": order.symbol,
                "side": order.side,
                "asked": order.quantity,
                "quantity": verdict.quantity,
                "limit": order.limit_price,
                "reference": order.reference_price if math.isfinite(order.reference_price) else None,
                "breaches": [breach.record() for breach in verdict.breaches],
            }
        )
        return snapshot if verdict.denied else snapshot.after(replace(order, quantity=verdict.quantity))

    def _pace(self, snapshot: Snapshot) -> Snapshot:
        """Wait where one order more would be too many for this minute; the check behind it stays."""
        if snapshot.orders_last_minute < self._terms.risk.max_orders_per_minute:
            return snapshot
        self._clock.sleep(60.0)
        return replace(snapshot, orders_last_minute=self._passed_last_minute())

    def _passed_last_minute(self) -> int:
        since = self._clock.now() - timedelta(seconds=60)
        return sum(moment > since for moment in self.book.passed_at)

    def _send(self, side: Side) -> None:
        for order in self.book.open_orders():
            if order.side == side and order.status == Status.PENDING_SUBMIT:
                if self._stopped():
                    return
                answer = self._broker.submit(order)
                event = Event.REJECT if answer.status == Status.REJECTED else Event.ACCEPT
                self._update(order, event, answer.broker_order_id, answer.message)

    def _stopped(self) -> bool:
        """Return whether nothing may trade; a kill switch that was thrown becomes a halt here."""
        reason = self._killed()
        if reason:
            self.halt(f"kill switch: {reason}")
        return bool(self.book.halted)

    def _wind_down(self) -> None:
        """See every order that is still open to its end: after a halt, a kill, or a restart into either."""
        for order in self.book.open_orders():
            if order.status == Status.PENDING_SUBMIT:
                found = self._broker.find(order.client_order_id)
                if found is None:
                    self._update(order, Event.CANCEL, message="never sent")
                else:
                    self._update(order, Event.ACCEPT, found.broker_order_id)
        for side in ("sell", "buy"):
            self._collect(side)

    def _collect(self, side: Side) -> None:
        """Take fills until the side's orders are final, then cancel what is left.

        Raises
        ------
        ExecutionError
            If an order is still open after its cancel was asked for and waited for: run the session again later.
        """
        for cancelling in (False, True):
            if cancelling:
                self._request_cancels(side)
            while self._take_news(side) and self._broker.wait():
                pass
        open_orders = [order.client_order_id for order in self.book.open_orders() if order.side == side]
        if open_orders:
            self._journal.sync()
            raise ExecutionError(f"orders are still open at the broker after their cancel: {', '.join(open_orders)}; run the session again")

    def _take_news(self, side: Side) -> bool:
        """Journal new fills and changes of status; return whether orders of the side are still open."""
        for execution in self._broker.fills(self._feed.day(self._t + 1)) if self._open_of(side) else ():
            if execution.fill_id not in self.book.fills:
                self._take_fill(execution)
        for order in self._open_of(side):
            found = self._broker.find(order.client_order_id)
            # An order ends only when the ledger shows every share that the broker says was filled.
            if found is not None and found.status in _EVENT_OF and found.filled <= order.filled * (1 + 1e-9) + 1e-12:
                self._update(order, _EVENT_OF[found.status], message=found.message)
        return bool(self._open_of(side))

    def _open_of(self, side: Side) -> list[Order]:
        return [order for order in self.book.open_orders() if order.side == side and order.status != Status.DONE_FOR_DAY]

    def _take_fill(self, execution: BrokerFill) -> None:
        order = self.book.order_named(execution.broker_order_id)
        if order is None:
            self.halt(
                f"the broker filled {execution.side} {execution.quantity} {execution.symbol}, an order that this journal does not know"
            )
            return
        self._emit(
            {
                "kind": "fill",
                "id": order.client_order_id,
                "fill_id": execution.fill_id,
                "quantity": execution.quantity,
                "price": execution.price,
                "fee": execution.fee,
            }
        )
        self._halt_on(fill_breaches(order.side, execution.price, order.reference_price, self._terms.risk, order.symbol))

    def _request_cancels(self, side: Side) -> None:
        for order in self._open_of(side):
            if order.status != Status.PENDING_CANCEL:
                self._update(order, Event.REQUEST_CANCEL)
            self._broker.cancel(order.broker_order_id)

    def _update(self, order: Order, event: Event, broker_id: str = "", message: str = "") -> None:
        entry: Entry = {"kind": "update", "id": order.client_order_id, "event": str(event)}
        if broker_id:
            entry["broker_id"] = broker_id
        if message:
            entry["message"] = message
        self._emit(entry)

    # The end.

    def _end(self, s: int, reconcile: bool) -> None:
        book, feed = self.book, self._feed
        if reconcile:
            self._reconcile(self._broker.account())
        shares = self._vector(book.shares)
        prices = self._prices_now(s)
        values = np.where(shares != 0, shares * prices, 0.0)
        t = s - 1
        breaches = portfolio_breaches(values, book.cash, feed.adv_usd[t], feed.beta[t], feed.symbols, self._terms.risk)
        self._clock.reach(moment_of(feed.day(s), CLOSE))
        self._emit(
            {
                "kind": "end",
                "session": feed.day(s).isoformat(),
                "cash": book.cash,
                "shares": dict(sorted(book.shares.items())),
                "breaches": [{**breach.record(), "symbol": breach.symbol} for breach in breaches],
            }
        )
        self._halt_on(breaches)
        if book.cash < -self._terms.risk.cash_tolerance_usd - 1e-9 * book.nav:
            self.halt(f"cash is {book.cash:.2f} USD after the session's fills")
        self._journal.sync()

    def _prices_now(self, s: int) -> FloatArray:
        reference = np.asarray(self._feed.close[s - 1] / self._feed.split[s])
        if self.book.quote is None:
            return reference
        quoted = self.book.quote["prices"]
        return np.array([reference[index] if quoted[symbol] is None else quoted[symbol] for symbol, index in self._columns.items()])

    def _halt_on(self, breaches: Iterable[Breach]) -> None:
        reasons = [str(breach) for breach in breaches if breach.action == Action.HALT]
        if reasons:
            self.halt("; ".join(reasons))

    # Small things.

    def _vector(self, shares: dict[str, float]) -> FloatArray:
        vector = np.zeros(len(self._columns))
        for symbol, held in shares.items():
            index = self._columns.get(symbol)
            if index is not None:
                vector[index] = held
        return vector

    def _emit(self, event: Entry) -> None:
        now = self._clock.now()
        if now is not self._stamp[1]:  # a replay's clock stands still for many events
            self._stamp = (now.isoformat(), now)
        event["at"] = self._stamp[0]
        self._journal.append(event)
        self.book.apply(event)


def read_book(journal: Journal) -> Book:
    """Return the sum of a journal's events."""
    book = Book()
    for event in journal.replay():
        book.apply(event)
    return book
