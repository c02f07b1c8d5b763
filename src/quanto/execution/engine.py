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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from quanto.core.errors import ExecutionError
from quanto.env.simulation import Decide
from quanto.execution.book import Book, Entry
from quanto.execution.broker import Broker, BrokerAccount, Flow
from quanto.execution.clock import CLOSE, DECISION, OPEN, Clock, moment_of
from quanto.execution.desk import Desk, Terms, share_vector
from quanto.execution.feed import Feed
from quanto.execution.journal import Journal
from quanto.execution.limits import RiskPolicy
from quanto.execution.measures import TOLERANCE
from quanto.execution.recorder import Recorder
from quanto.execution.risk import Action, Breach, account_breaches, portfolio_breaches
from quanto.portfolio.constraints import constrain

FloatArray = npt.NDArray[np.float64]

# A difference in cash below this is rounding of doubles, not of a broker.
ROUNDING_USD = 1e-5


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
        self._terms = terms
        self._recorder = Recorder(journal, book, clock, killed)
        self._desk = Desk(feed, broker, terms, self._recorder, strategy.experiment, strategy.policy_age)
        self._columns = {symbol: index for index, symbol in enumerate(feed.symbols)}

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
            "limits": list(self._terms.limits),
            "rules": self._terms.rules.model_dump(mode="json"),
            "symbols": list(self._feed.symbols),
            **facts,
        }
        if self.book.header is None:
            self._recorder.emit({"kind": "start", "cash": cash, "shares": shares, **identity})
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
        recorder = self._recorder
        recorder.clock.reach(moment_of(session, DECISION))
        self.mark(t)
        if self.book.session != session.isoformat():
            self._decide(t)
        recorder.clock.reach(moment_of(session, OPEN))
        self._open(t, reconcile=True)
        if not recorder.stopped():
            self._desk.trade(t, "sell")
        if not recorder.stopped():
            self._quote(t)
        if not recorder.stopped():
            self._desk.trade(t, "buy")
        self._desk.wind_down(t)
        self._end(t, reconcile=True)

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
        self._recorder.clock.reach(moment_of(self._feed.day(t + 1), DECISION))
        self.mark(t)
        if self.book.session != session:
            self._recorder.emit({"kind": "missed", "session": session, "reason": reason})
        self._open(t, reconcile)
        self._end(t, reconcile)

    def mark(self, t: int) -> None:
        """Value the account at the close of session t; a loss beyond the policy reduces or halts."""
        book, session = self.book, self._feed.day(t).isoformat()
        if book.marked >= session:
            return
        close = self._feed.close[t].tolist()
        values = {symbol: shares * close[self._columns[symbol]] for symbol, shares in sorted(book.shares.items())}
        nav = book.cash + sum(values.values())
        previous, peak = (book.nav, max(book.limit_peak, nav)) if book.marked else (nav, nav)
        breaches = account_breaches(nav, previous, peak, self._terms.risk)
        self._recorder.emit_checked({"kind": "mark", "session": session, "nav": nav, "cash": book.cash, "values": values}, breaches)

    # The decision.

    def _decide(self, t: int) -> None:
        feed, book, strategy = self._feed, self.book, self._strategy
        close = feed.close[t]
        weights = share_vector(self._columns, book.shares) * close / book.nav
        drawdown = book.nav / book.peak - 1.0
        wanted = strategy.decide(t, weights, drawdown)
        day = slice(t, t + 1)
        targets = constrain(wanted[None, :], weights[None, :], feed.eligible[day], self._terms.limits, strategy.exposure_cap[day])
        self._recorder.emit(
            {
                "kind": "decision",
                "decided_on": feed.day(t).isoformat(),
                "session": feed.day(t + 1).isoformat(),
                "observation": observation_digest(strategy, t, weights, drawdown),
                "drawdown": drawdown,
                "cap": float(strategy.exposure_cap[t]),
                "targets": dict(zip(feed.symbols, targets[0].tolist(), strict=True)),
            }
        )

    # The open.

    def _open(self, t: int, reconcile: bool) -> None:
        book, session = self.book, self._feed.day(t + 1)
        self._broker.open_session(session)
        if book.opened is None:
            flows = [flow._asdict() for flow in self._broker.flows(session) if not book.knows_flow(flow.flow_id)]
            if reconcile:
                flows += self._rounding(session, sum(flow["cash"] for flow in flows))
            self._recorder.emit({"kind": "open", "session": session.isoformat(), "flows": flows})
        # With orders under way the account moves; then the reconciliation at the end of the session judges it.
        if reconcile and not book.orders:
            strangers = [order for order in self._broker.open_orders() if order.client_order_id not in book.orders]
            if strangers:
                names = ", ".join(f"{order.client_order_id} ({order.side} {order.quantity} {order.symbol})" for order in strangers)
                self._recorder.halt(f"the broker holds open orders that this journal does not know: {names}")
            self._reconcile(t)

    def _rounding(self, session: date, flows: float) -> list[Entry]:
        """Return the cent that a broker's own rounding moves, as a flow, so that it does not add up to a break."""
        difference = self._broker.account().cash - self.book.cash - flows
        if not ROUNDING_USD < abs(difference) <= self._terms.risk.cash_tolerance_usd:
            return []
        return [Flow(f"{session}-rounding", "rounding", cash=difference)._asdict()]

    def _reconcile(self, t: int) -> None:
        faults = account_faults(self._broker.account(), self.book, self._columns, self._reference(t), self._terms.risk)
        if faults:
            self._recorder.halt(f"broker and book do not agree: {'; '.join(faults)}")

    def _reference(self, t: int) -> FloatArray:
        """Return the last known closes, converted for the splits of the session traded; 0 where there never was one."""
        return np.asarray(self._feed.close[t] / self._feed.split[t + 1])

    def _quote(self, t: int) -> None:
        """Journal the prices that purchases are sized by, and the account's loss at them."""
        book = self.book
        if book.quote is not None:
            return
        known, reference = self._broker.prices(self._feed.day(t + 1)), self._reference(t)
        # A price that the broker cannot say is the last known one; one that it knows not to trade is none.
        prices = {
            symbol: known[symbol] if symbol in known else (float(reference[index]) if reference[index] > 0 else None)
            for symbol, index in self._columns.items()
        }
        nav = self._nav_before_trading(prices, reference)
        event: Entry = {"kind": "quote", "session": book.session, "prices": prices, "nav": nav}
        self._recorder.emit_checked(event, account_breaches(nav, book.nav, book.limit_peak, self._terms.risk))

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

    # The end.

    def _end(self, t: int, reconcile: bool) -> None:
        book, feed, risk = self.book, self._feed, self._terms.risk
        if reconcile:
            self._reconcile(t)
        shares = share_vector(self._columns, book.shares)
        values = np.where(shares != 0, shares * self._prices_now(t), 0.0)
        breaches = portfolio_breaches(values, book.cash, feed.adv_usd[t], feed.beta[t], feed.symbols, risk)
        if book.cash < -risk.cash_tolerance_usd - TOLERANCE * book.nav:
            breaches.append(Breach("cash", book.cash, 0.0, "USD after the session's fills", Action.HALT))
        self._recorder.clock.reach(moment_of(feed.day(t + 1), CLOSE))
        event: Entry = {"kind": "end", "session": feed.day(t + 1).isoformat(), "cash": book.cash}
        event["shares"] = dict(sorted(book.shares.items()))
        self._recorder.emit_checked(event, breaches)
        self._recorder.sync()

    def _prices_now(self, t: int) -> FloatArray:
        reference = self._reference(t)
        if self.book.quote is None:
            return reference
        quoted = self.book.quote["prices"]
        return np.array([reference[index] if quoted[symbol] is None else quoted[symbol] for symbol, index in self._columns.items()])


def account_faults(account: BrokerAccount, book: Book, columns: Mapping[str, int], reference: FloatArray, risk: RiskPolicy) -> list[str]:
    """Return a sentence for every break between broker and book: cash, positions, NAV, a blocked account.

    Parameters
    ----------
    reference
        Shape (n_symbols,): prices at which a break is valued, USD.
    """
    same = account.cash == book.cash and account.positions == book.shares and columns.keys() >= account.positions.keys()
    if same and not account.blocked and book.nav > 0:
        return []
    faults = [f"the account is blocked: {account.blocked}"] if account.blocked else []
    difference = account.cash - book.cash
    if not abs(difference) <= risk.cash_tolerance_usd:
        faults.append(f"cash is {account.cash:.2f} at the broker, {book.cash:.2f} in the book")
    value = difference
    for symbol in sorted({*account.positions, *book.shares}):
        found, expected = account.positions.get(symbol, 0.0), book.shares.get(symbol, 0.0)
        if symbol not in columns:
            faults.append(f"a position of {found} {symbol}, which is not in the universe")
            continue
        if not abs(found - expected) <= risk.position_tolerance_shares:
            faults.append(f"{found} {symbol} at the broker, {expected} in the book")
        value += (found - expected) * float(reference[columns[symbol]])
    if not abs(value) <= risk.nav_tolerance * book.nav:
        faults.append(f"NAV differs by {value:.2f} USD")
    return faults


def observation_digest(strategy: Strategy, t: int, weights: FloatArray, drawdown: float) -> str:
    """Return the SHA-256 of all that a policy sees after the close of session t: the market's part and the book's."""
    return hashlib.sha256(strategy.observation(t) + weights.tobytes() + np.float64(drawdown).tobytes()).hexdigest()


def observation_faults(events: Iterable[Entry], feed: Feed, strategy: Strategy) -> list[str]:
    """Return the sessions whose journalled observation is not what features and journal give now; empty: none differs.

    What the policy knew on a day is rebuilt from the features and the book that the events before the decision add up
    to, so a journal whose hashes hold can be asked what was known.
    """
    columns = {symbol: index for index, symbol in enumerate(feed.symbols)}
    rows = {day: row for row, day in enumerate(feed.sessions.astype(str).tolist())}
    book, faults = Book(), []
    for event in events:
        if event["kind"] == "decision":
            t = rows[event["decided_on"]]
            weights = share_vector(columns, book.shares) * feed.close[t] / book.nav
            if observation_digest(strategy, t, weights, book.nav / book.peak - 1.0) != event["observation"]:
                faults.append(str(event["session"]))
        book.apply(event)
    return faults


def read_book(journal: Journal) -> Book:
    """Return the sum of a journal's events."""
    book = Book()
    for event in journal.replay():
        book.apply(event)
    return book
