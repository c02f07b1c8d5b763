"""The book: what the events of a journal add up to. Nothing else decides where the engine stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, TypeAlias

from quanto.core.errors import ExecutionError
from quanto.execution.orders import FINAL, Event, Order, Status, advance, fill, next_status

# An event as it stands in the journal: JSON values by name.
Entry: TypeAlias = dict[str, Any]

_EVENTS = {event.value: event for event in Event}

# What remains of a position below this fraction of the traded quantity is rounding.
SHARE_DUST = 1e-9


class Book:
    """Account, orders and progress of one journal; `apply` is the only way to change it.

    Attributes
    ----------
    cash, shares
        USD and shares by symbol, now.
    close_cash, close_shares
        The same after the last session that ended: what a simulated broker restarts from.
    nav, previous_nav, peak, limit_peak
        USD: of the last mark, the mark before it, the highest mark, and the highest mark since a halt was lifted (what
        the drawdown limits see).
    marked, session, ended
        ISO dates: last session marked, session in progress or last begun, last session ended; "" for none.
    decision, opened, quote
        The events of the session in progress; None until they happened.
    orders
        Orders of the session in progress by client order id, in the order they were made.
    halted, due
        Why nothing may trade, and why a halt must be journalled next; "" if there is no reason.
    """

    def __init__(self) -> None:
        self.header: Entry | None = None
        self.cash = 0.0
        self.shares: dict[str, float] = {}
        self.close_cash = 0.0
        self.close_shares: dict[str, float] = {}
        self.nav = 0.0
        self.previous_nav = 0.0
        self.peak = 0.0
        self.limit_peak = 0.0
        self.marked = ""
        self.session = ""
        self.ended = ""
        self.decision: Entry | None = None
        self.opened: Entry | None = None
        self.quote: Entry | None = None
        self.orders: dict[str, Order] = {}
        self.names: dict[str, str] = {}
        self.fills: set[str] = set()
        self.flows: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self.proceeds = 0.0
        self.traded = 0.0
        self.passed_at: list[datetime] = []
        self.reduce_only = False
        self.halted = ""
        self.due = ""
        self.last_at = ""

    def apply(self, event: Entry) -> None:
        """Move on by one event.

        Raises
        ------
        ExecutionError
            If the kind is unknown, or the event does not fit the state (an order takes no such event).
        """
        try:
            handler = _HANDLERS[event["kind"]]
        except KeyError:
            raise ExecutionError(f"the journal holds an event of kind {event.get('kind')!r}, which this version does not know") from None
        handler(self, event)
        halting = [_sentence(breach) for breach in event.get("breaches", ()) if breach["action"] == "halt"]
        if halting and not self.halted:
            self.due = "; ".join(halting)
        self.last_at = event.get("at", self.last_at)

    def order_named(self, broker_order_id: str) -> Order | None:
        """Return the session's order that the broker knows by this id."""
        return self.orders.get(self.names.get(broker_order_id, ""))

    def knows_flow(self, flow_id: str) -> bool:
        """Return whether a change of the account was journalled before."""
        return any(flow_id in known for known in self.flows)

    def open_orders(self) -> list[Order]:
        """Return the orders that are not final, in the order they were made."""
        return [order for order in self.orders.values() if order.status not in FINAL]


def unfold(events: Iterable[Entry]) -> Iterator[Entry]:
    """Yield a journal's events with every order, change of an order and fill as an event of its own.

    The rows of `orders`, `updates` and `fills` become events of kind `order`, `update` and `fill`; others stay.
    """
    for event in events:
        if "rows" in event:
            kind = str(event["kind"]).removesuffix("s")
            yield from ({**row, "kind": kind, "at": event["at"]} for row in event["rows"])
        else:
            yield event


def _start(book: Book, event: Entry) -> None:
    book.header = event
    book.cash = book.close_cash = event["cash"]
    book.shares = dict(event["shares"])
    book.close_shares = dict(event["shares"])


def _mark(book: Book, event: Entry) -> None:
    book.previous_nav = book.nav if book.marked else event["nav"]
    book.nav = event["nav"]
    book.peak = max(book.peak, book.nav)
    book.limit_peak = max(book.limit_peak, book.nav)
    book.marked = event["session"]
    book.reduce_only = event.get("reduce_only", False)


def _begin(book: Book, event: Entry) -> None:
    book.session = event["session"]
    book.decision = event
    book.opened = book.quote = None
    book.orders, book.names, book.fills, book.passed_at = {}, {}, set(), []
    book.proceeds = book.traded = 0.0


def _open(book: Book, event: Entry) -> None:
    book.opened = event
    # A broker's ledger is read from the session before on: two sessions of ids tell what is new.
    book.flows = (book.flows[1], frozenset(flow["flow_id"] for flow in event["flows"]))
    _take_flows(book, event)


def _take_flows(book: Book, event: Entry) -> None:
    for flow in event["flows"]:
        book.cash += flow["cash"]
        if flow["shares"]:
            _move(book, flow["symbol"], flow["shares"])


def _quote(book: Book, event: Entry) -> None:
    book.quote = event
    book.reduce_only = book.reduce_only or event.get("reduce_only", False)


def _orders(book: Book, event: Entry) -> None:
    at = datetime.fromisoformat(event["at"])
    for row in event["rows"]:
        _order(book, row, at)


def _order(book: Book, event: Entry, at: datetime) -> None:
    passed = event["quantity"] > 0
    order = Order(
        event["id"],
        event["symbol"],
        event["side"],
        event["quantity"] if passed else event["asked"],
        event["reference"] if event["reference"] is not None else float("nan"),
        event["limit"],
        next_status(Status.NEW, Event.SUBMIT if passed else Event.DENY),
    )
    book.orders[order.client_order_id] = order
    if passed:
        book.traded += order.quantity * order.reference_price
        book.passed_at.append(at)


def _updates(book: Book, event: Entry) -> None:
    for row in event["rows"]:
        _update(book, row)


def _update(book: Book, event: Entry) -> None:
    broker_id = event.get("broker_id", "")
    book.orders[event["id"]] = advance(book.orders[event["id"]], _EVENTS[event["event"]], broker_id)
    if broker_id:
        book.names[broker_id] = event["id"]


def _fills(book: Book, event: Entry) -> None:
    for row in event["rows"]:
        _fill(book, row)


def _fill(book: Book, event: Entry) -> None:
    order = fill(book.orders[event["id"]], event["quantity"], event["price"], event["fee"])
    book.orders[event["id"]] = order
    book.fills.add(event["fill_id"])
    value = event["quantity"] * event["price"]
    book.cash -= order.sign * value + event["fee"]
    if order.side == "sell":
        book.proceeds += value - event["fee"]
    _move(book, order.symbol, order.sign * event["quantity"])


def _end(book: Book, event: Entry) -> None:
    book.ended = event["session"]
    book.close_cash = book.cash
    book.close_shares = dict(book.shares)


def _halt(book: Book, event: Entry) -> None:
    book.halted, book.due = event["reason"], ""


def _resume(book: Book, event: Entry) -> None:
    book.halted = book.due = ""
    book.limit_peak = book.nav
    _take_flows(book, event)
    if book.ended == book.session:
        book.close_cash, book.close_shares = book.cash, dict(book.shares)


def _sentence(breach: Entry) -> str:
    found = "unknown" if breach["found"] is None else f"{breach['found']:.6g}"
    return f"{breach['symbol']} {breach['check']} {found}, limit {breach['limit']:.6g} {breach['unit']}".strip()


def _move(book: Book, symbol: str, shares: float) -> None:
    held = book.shares.get(symbol, 0.0) + shares
    if held == 0.0 or abs(held) < SHARE_DUST * abs(shares):
        book.shares.pop(symbol, None)
    else:
        book.shares[symbol] = held


_HANDLERS: dict[str, Callable[[Book, Entry], None]] = {
    "start": _start,
    "mark": _mark,
    "decision": _begin,
    "missed": _begin,
    "open": _open,
    "quote": _quote,
    "orders": _orders,
    "updates": _updates,
    "fills": _fills,
    "end": _end,
    "halt": _halt,
    "resume": _resume,
}
