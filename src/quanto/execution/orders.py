"""Orders: frozen values whose life is one table from (status, event) to status."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from quanto.core.digest import digest_value
from quanto.core.errors import ExecutionError

Side: TypeAlias = Literal["buy", "sell"]

# Quantities are sums of doubles: a remainder below this fraction of the order is nothing left to fill.
QUANTITY_TOLERANCE = 1e-9
# Characters of a symbol that an order's name spells out.
MAX_SYMBOL = 24


class Status(StrEnum):
    """Where an order stands."""

    NEW = "new"
    PENDING_SUBMIT = "pending_submit"
    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    PENDING_CANCEL = "pending_cancel"
    CANCELED = "canceled"
    PENDING_REPLACE = "pending_replace"
    REPLACED = "replaced"
    REJECTED = "rejected"
    DENIED = "denied"
    EXPIRED = "expired"
    DONE_FOR_DAY = "done_for_day"


class Event(StrEnum):
    """What can happen to an order."""

    DENY = "deny"
    SUBMIT = "submit"
    ACCEPT = "accept"
    REJECT = "reject"
    PARTIAL_FILL = "partial_fill"
    FILL = "fill"
    REQUEST_CANCEL = "request_cancel"
    CANCEL = "cancel"
    REFUSE_CANCEL = "refuse_cancel"
    REQUEST_REPLACE = "request_replace"
    REPLACE = "replace"
    REFUSE_REPLACE = "refuse_replace"
    EXPIRE = "expire"
    END_DAY = "end_day"


# One row per status: what it takes and where that leads. An empty row is a final status.
TRANSITIONS: dict[Status, dict[Event, Status]] = {
    Status.NEW: {Event.SUBMIT: Status.PENDING_SUBMIT, Event.DENY: Status.DENIED},
    Status.PENDING_SUBMIT: {
        Event.ACCEPT: Status.ACCEPTED,
        Event.REJECT: Status.REJECTED,
        # The fill can be known before the answer to the submission: its connection was cut after the broker accepted.
        Event.PARTIAL_FILL: Status.PARTIALLY_FILLED,
        Event.FILL: Status.FILLED,
        Event.CANCEL: Status.CANCELED,
        Event.EXPIRE: Status.EXPIRED,
        Event.END_DAY: Status.DONE_FOR_DAY,
    },
    Status.ACCEPTED: {
        Event.PARTIAL_FILL: Status.PARTIALLY_FILLED,
        Event.FILL: Status.FILLED,
        # The exchange can reject what the broker accepted.
        Event.REJECT: Status.REJECTED,
        Event.REQUEST_CANCEL: Status.PENDING_CANCEL,
        Event.REQUEST_REPLACE: Status.PENDING_REPLACE,
        # Somebody replaced it at the broker; the desk halts.
        Event.REPLACE: Status.REPLACED,
        # The broker may cancel by itself.
        Event.CANCEL: Status.CANCELED,
        Event.EXPIRE: Status.EXPIRED,
        Event.END_DAY: Status.DONE_FOR_DAY,
    },
    Status.PARTIALLY_FILLED: {
        Event.PARTIAL_FILL: Status.PARTIALLY_FILLED,
        Event.FILL: Status.FILLED,
        Event.REQUEST_CANCEL: Status.PENDING_CANCEL,
        Event.REQUEST_REPLACE: Status.PENDING_REPLACE,
        Event.REPLACE: Status.REPLACED,
        Event.CANCEL: Status.CANCELED,
        Event.EXPIRE: Status.EXPIRED,
        Event.END_DAY: Status.DONE_FOR_DAY,
    },
    Status.PENDING_CANCEL: {
        # The race between a cancel and a fill: either may win.
        Event.PARTIAL_FILL: Status.PENDING_CANCEL,
        Event.FILL: Status.FILLED,
        Event.CANCEL: Status.CANCELED,
        Event.REFUSE_CANCEL: Status.ACCEPTED,
        # The exchange refuses the order itself before the cancel reaches it.
        Event.REJECT: Status.REJECTED,
        Event.REPLACE: Status.REPLACED,
        Event.EXPIRE: Status.EXPIRED,
        Event.END_DAY: Status.DONE_FOR_DAY,
    },
    Status.PENDING_REPLACE: {
        Event.PARTIAL_FILL: Status.PENDING_REPLACE,
        Event.FILL: Status.FILLED,
        Event.REPLACE: Status.REPLACED,
        Event.REFUSE_REPLACE: Status.ACCEPTED,
        Event.REJECT: Status.REJECTED,
        Event.CANCEL: Status.CANCELED,
        Event.EXPIRE: Status.EXPIRED,
        Event.END_DAY: Status.DONE_FOR_DAY,
    },
    # Not final: a good-till-canceled order comes back tomorrow.
    Status.DONE_FOR_DAY: {
        Event.ACCEPT: Status.ACCEPTED,
        Event.PARTIAL_FILL: Status.PARTIALLY_FILLED,
        Event.FILL: Status.FILLED,
        Event.REQUEST_CANCEL: Status.PENDING_CANCEL,
        Event.REQUEST_REPLACE: Status.PENDING_REPLACE,
        Event.CANCEL: Status.CANCELED,
        Event.EXPIRE: Status.EXPIRED,
    },
    Status.FILLED: {},
    Status.CANCELED: {},
    Status.REPLACED: {},
    Status.REJECTED: {},
    Status.DENIED: {},
    Status.EXPIRED: {},
}

FINAL: frozenset[Status] = frozenset(status for status, row in TRANSITIONS.items() if not row)


class Order(NamedTuple):
    """One order as it stands; every event makes a new value.

    Attributes
    ----------
    quantity, filled
        Shares, positive, in the share basis of the session it trades on.
    limit_price
        USD per share; the price collar of the risk policy. None for a market order.
    reference_price
        USD per share: the last known price when the order was made, converted for the splits of its session.
    notional
        USD: the sum of fill price times fill quantity.
    """

    client_order_id: str
    symbol: str
    side: Side
    quantity: float
    reference_price: float
    limit_price: float | None = None
    status: Status = Status.NEW
    filled: float = 0.0
    notional: float = 0.0
    fees: float = 0.0
    broker_order_id: str = ""
    replaced_by: str = ""

    @property
    def sign(self) -> float:
        """Return +1 for a purchase and -1 for a sale."""
        return 1.0 if self.side == "buy" else -1.0

    @property
    def remaining(self) -> float:
        """Return the shares that can still fill: 0 once the status is final."""
        return 0.0 if self.status in FINAL else max(0.0, self.quantity - self.filled)

    @property
    def final(self) -> bool:
        """Return whether nothing can happen to the order any more."""
        return self.status in FINAL


def next_status(status: Status, event: Event) -> Status:
    """Return the status after an event.

    Raises
    ------
    ExecutionError
        If the status does not take the event; says what it takes.
    """
    row = TRANSITIONS[status]
    try:
        return row[event]
    except KeyError:
        takes = ", ".join(sorted(row)) or "nothing: the status is final"
        raise ExecutionError(f"an order that is {status} does not take {event}; it takes {takes}") from None


def advance(order: Order, event: Event, broker_order_id: str = "") -> Order:
    """Return the order after an event that moves no shares; a broker's name for it is kept if one is given.

    Raises
    ------
    ExecutionError
        If the status does not take the event, or the event is a fill (`fill` applies those).
    """
    if event in (Event.FILL, Event.PARTIAL_FILL):
        raise ExecutionError(f"order {order.client_order_id}: a fill needs quantity and price; use fill()")
    try:
        status = next_status(order.status, event)
    except ExecutionError as error:
        raise ExecutionError(f"order {order.client_order_id}: {error}") from None
    if event in (Event.REFUSE_CANCEL, Event.REFUSE_REPLACE) and order.filled > 0:
        status = Status.PARTIALLY_FILLED  # it goes back to where it stood
    return Order(*order[:6], status, *order[7:10], broker_order_id or order.broker_order_id, order.replaced_by)


def fill(order: Order, quantity: float, price: float, fee: float = 0.0) -> Order:
    """Return the order after an execution of `quantity` shares at `price` (USD per share) for `fee` (USD).

    Raises
    ------
    ExecutionError
        If quantity or price is not positive and finite, more is filled than was ordered, or the status takes no fill.
    """
    total = order.filled + quantity
    slack = QUANTITY_TOLERANCE * max(1.0, order.quantity)
    if not (0.0 < quantity < float("inf") and 0.0 < price < float("inf") and abs(fee) < float("inf")):
        raise ExecutionError(
            f"order {order.client_order_id}: a fill needs a positive quantity and price; found {quantity} at {price}, fee {fee}"
        )
    if total > order.quantity + slack:
        raise ExecutionError(f"order {order.client_order_id}: {total} shares filled of {order.quantity}; the broker filled too much")
    event = Event.FILL if total >= order.quantity - slack else Event.PARTIAL_FILL
    try:
        status = next_status(order.status, event)
    except ExecutionError as error:
        raise ExecutionError(f"order {order.client_order_id}: {error}") from None
    return Order(*order[:6], status, total, order.notional + quantity * price, order.fees + fee, *order[10:])


def client_order_id(experiment: str, session: date, symbol: str, side: Side, sequence: int) -> str:
    """Return the name of an order, a pure function of its arguments, at most 128 characters.

    The same decision asked twice gives the same name, so a broker that refuses a repeated name makes a repeated
    submission harmless.

    >>> client_order_id("e", date(2026, 1, 6), "ZZZ", "buy", 1)
    'q-20260106-ZZZ-buy-1-9f3ab8d14b8d'
    """
    return f"q-{_day(session)}-{_name(symbol)}-{side}-{sequence}-{_digest(experiment)}"


@lru_cache(maxsize=64)
def _day(session: date) -> str:
    return f"{session:%Y%m%d}"


@lru_cache(maxsize=64)
def _digest(experiment: str) -> str:
    return digest_value(experiment)[:12]


@lru_cache(maxsize=100_000)
def _name(symbol: str) -> str:
    """Return a symbol as it may stand in an order's name: odd or long ones by their digest."""
    return symbol if len(symbol) <= MAX_SYMBOL and symbol.isascii() and symbol.replace(".", "").isalnum() else digest_value(symbol)[:24]
