"""The broker port: what the session engine asks of a broker, and what a broker answers.

An adapter reports facts; the engine decides. `submit` never raises for a refusal (the answer's status says it) and is
safe to repeat with the same client order id: a broker knows an id at most once. Executions come from the ledger of
fills, each with an id of its own, never from an order's average price.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple, Protocol

from quanto.core.errors import ExecutionError
from quanto.execution.orders import Order, Side, Status


class BrokerError(ExecutionError):
    """The broker or the way to it failed; whether an order exists is not known until it was asked."""


class BrokerRefusedError(BrokerError):
    """The broker refuses the account or the request for good (credentials, blocked account); asking again is useless."""


class BrokerOrder(NamedTuple):
    """An order as the broker has it."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: float
    filled: float
    status: Status
    message: str = ""
    replaced_by: str = ""


class BrokerFill(NamedTuple):
    """One execution: shares, USD per share, fee in USD; `fill_id` is unique for ever."""

    fill_id: str
    broker_order_id: str
    symbol: str
    side: Side
    quantity: float
    price: float
    fee: float = 0.0


class Flow(NamedTuple):
    """A change of the account that no order caused: interest, dividend, split, payout, cash in lieu, fee.

    `cash` in USD and `shares` are what was added (negative: taken).
    """

    flow_id: str
    kind: str
    symbol: str = ""
    cash: float = 0.0
    shares: float = 0.0


class BrokerAccount(NamedTuple):
    """Cash in USD, shares by symbol (flat names left out), and why the account may not trade ("" if it may)."""

    cash: float
    positions: Mapping[str, float]
    blocked: str = ""


class Broker(Protocol):
    """One account at one broker."""

    @property
    def name(self) -> str: ...

    @property
    def real_time(self) -> bool:
        """Whether an order leaves this process: what was decided must then be durable before each batch of orders."""
        ...

    def open_session(self, session: date) -> None:
        """Be ready to trade the session: corporate actions of its open are in the account when this returns."""
        ...

    def account(self) -> BrokerAccount:
        """Return cash and positions now."""
        ...

    def flows(self, session: date) -> tuple[Flow, ...]:
        """Return what changed the account without an order since the session before."""
        ...

    def prices(self, session: date) -> Mapping[str, float | None]:
        """Return the price of each symbol now; None: it does not trade; left out: the broker cannot say."""
        ...

    def submit(self, order: Order) -> BrokerOrder:
        """Send an order, or find it where it was sent before; a refusal is an answer of status rejected.

        Raises
        ------
        BrokerError
            If it is not known whether the order exists, after asking for it.
        """
        ...

    def find(self, client_order_id: str) -> BrokerOrder | None:
        """Return the order of that name, None if the broker has none."""
        ...

    def cancel(self, broker_order_id: str) -> None:
        """Ask for a cancel; the order may still fill, so look at it afterwards."""
        ...

    def replace(self, broker_order_id: str, order: Order) -> BrokerOrder:
        """Ask for a replacement by `order` (its quantity, limit price and client order id); return the new order."""
        ...

    def open_orders(self) -> tuple[BrokerOrder, ...]:
        """Return every order of the account that can still fill, whoever sent it."""
        ...

    def fills(self, session: date) -> tuple[BrokerFill, ...]:
        """Return all executions of the session, oldest first."""
        ...

    def wait(self) -> bool:
        """Let time pass for open orders; return False once waiting longer is of no use."""
        ...
