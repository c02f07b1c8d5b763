"""Alpaca's paper account behind the broker port.

What the contract makes of a submission: 2xx is accepted (never assumed filled); 403 with a code and 422 are the broker's
refusal of the order; "client_order_id must be unique" means that it was accepted before; a timeout, a reset, a 5xx or
a 429 say nothing, so the order is asked for by its name, and sent again under the same name only if there is none.
Executions come from the ledger of FILL activities, never from an order's average price.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from typing import Any

from quanto.execution.broker import BrokerAccount, BrokerError, BrokerFill, BrokerOrder, Flow
from quanto.execution.brokers.alpaca_http import AlpacaConfig, AlpacaHttp, Answer
from quanto.execution.clock import NEW_YORK, Clock
from quanto.execution.orders import Order, Side, Status
from quanto.market.calendar import next_session

# Alpaca's statuses (VENDORS 3.4) by ours; an open order that has filled in part is partially filled, whatever it is called.
STATUSES: dict[str, Status] = {
    "new": Status.ACCEPTED,
    "accepted": Status.ACCEPTED,
    "pending_new": Status.ACCEPTED,
    "accepted_for_bidding": Status.ACCEPTED,
    "held": Status.ACCEPTED,
    "stopped": Status.ACCEPTED,
    "suspended": Status.ACCEPTED,
    "calculated": Status.ACCEPTED,
    "pending_review": Status.ACCEPTED,
    "partially_filled": Status.PARTIALLY_FILLED,
    "pending_cancel": Status.PENDING_CANCEL,
    "pending_replace": Status.PENDING_REPLACE,
    "done_for_day": Status.DONE_FOR_DAY,
    "filled": Status.FILLED,
    "canceled": Status.CANCELED,
    "expired": Status.EXPIRED,
    "rejected": Status.REJECTED,
    "replaced": Status.REPLACED,
}
# Activities that change shares; in all others (dividends among them) `qty` says what they were paid on.
SHARE_ACTIVITIES = frozenset({"SPLIT", "SSP", "SSO", "SPIN", "REORG", "MA", "NC", "JNLS", "OPASN", "OPEXP", "OPXRC", "ACATS"})
# Activities by the names of the journal; others keep their own, in lower case.
KINDS = {"DIV": "dividend", "INT": "interest", "FEE": "fee", "SPLIT": "split", "SSP": "split"}
QUANTITY_STEP = Decimal("0.000000001")
PAGE = 100
ORDERS_PAGE = 500
LONGEST_SLEEP_SECONDS = 60.0
# A short sale is a sale.
_SIDES: dict[str, Side] = {"buy": "buy", "sell": "sell", "sell_short": "sell"}
# Orders for the opening auction are taken until 09:28 New York.
AUCTION_CUT_OFF = (9, 28)


class AlpacaBroker:
    """One paper account at Alpaca."""

    name = "alpaca"
    real_time = True

    def __init__(self, config: AlpacaConfig, clock: Clock) -> None:
        """Connect to the account whose keys the configured environment variables hold.

        Raises
        ------
        ConfigError
            If a variable is not set, or the host is not the paper host or loopback.
        """
        self._config = config
        self._clock = clock
        self._http = AlpacaHttp(config, clock)
        self._waiting_since: datetime | None = None
        self._session: date | None = None

    def open_session(self, session: date) -> None:
        """Remember the session: a real account moves by itself; what changed it comes from `flows`."""
        self._session = session

    def account(self) -> BrokerAccount:
        value = _mapping(self._http.get("/v2/account"), "account")
        reasons = [f"status {value.get('status')}"] if value.get("status") != "ACTIVE" else []
        reasons += [flag for flag in ("trading_blocked", "account_blocked") if value.get(flag) is not False]
        reasons += ["trade_suspended_by_user"] if value.get("trade_suspended_by_user") is True else []
        if value.get("currency", "USD") != "USD":
            reasons.append(f"currency {value.get('currency')}")
        positions: dict[str, float] = {}
        for row in _rows(self._http.get("/v2/positions"), "positions"):
            shares = number(row.get("qty"), "position qty")
            if row.get("side") == "short":  # some answers give shorts a sign, others only the side
                shares = -abs(shares)
            if shares != 0.0:
                positions[_text(row, "symbol")] = shares
        return BrokerAccount(number(value.get("cash"), "account cash"), positions, ", ".join(reasons))

    def flows(self, session: date) -> tuple[Flow, ...]:
        """Return the activities other than fills, from the session before up to this one; whoever asks drops known ids."""
        flows: dict[str, Flow] = {}
        day = next_session(session, -1)
        while day <= session:
            for row in self._activities("/v2/account/activities", {"date": day.isoformat()}):
                kind = _text(row, "activity_type")
                if kind == "FILL" or row.get("status") == "canceled":
                    continue
                shares = number(row.get("qty") or "0", "activity qty") if kind in SHARE_ACTIVITIES else 0.0
                cash = number(row.get("net_amount") or "0", "activity net_amount")
                flows[_text(row, "id")] = Flow(_text(row, "id"), KINDS.get(kind, kind.lower()), str(row.get("symbol") or ""), cash, shares)
            day += timedelta(days=1)
        return tuple(flows.values())

    def prices(self, session: date) -> Mapping[str, float | None]:  # noqa: ARG002  # the price now is of this session
        """Return the current price of what is held; of other names the trading API says nothing."""
        rows = _rows(self._http.get("/v2/positions"), "positions")
        return {_text(row, "symbol"): number(row["current_price"], "current_price") for row in rows if row.get("current_price") is not None}

    def submit(self, order: Order) -> BrokerOrder:
        self._waiting_since = None
        body = self._body(order)
        if body is None:
            return _refusal(order, f"{order.quantity} shares are less than the smallest quantity, {QUANTITY_STEP}")
        for _ in range(self._config.attempts):
            answer = self._http.send_once("POST", "/v2/orders", body)
            if answer is not None:
                if answer.status < 300:
                    return _same(order, _order(_mapping(answer, "order")))
                if not _says_known(answer):
                    return _refusal(order, answer.describe())
            found = self.find(order.client_order_id)
            if found is not None:
                return _same(order, found)
        raise BrokerError(f"order {order.client_order_id}: still unknown at the broker after {self._config.attempts} attempts")

    def find(self, client_order_id: str) -> BrokerOrder | None:
        answer = self._http.get("/v2/orders:by_client_order_id", {"client_order_id": client_order_id}, missing=True)
        return None if answer.status == 404 else _order(_mapping(answer, "order"))

    def cancel(self, broker_order_id: str) -> None:
        """Ask for a cancel. 422 says that the order can no longer be canceled: looking at it tells why."""
        self._waiting_since = None
        if not broker_order_id:  # the path of no order is that of all orders
            raise BrokerError("a cancel needs the broker's id of the order; it is not known yet")
        answer = self._http.delete(f"/v2/orders/{broker_order_id}")
        if answer.status == 404:
            raise BrokerError(f"cancel of {broker_order_id}: {answer.describe()}")

    def replace(self, broker_order_id: str, order: Order) -> BrokerOrder:
        """Ask for a replacement; the answer is a new order, and promises nothing: the old one may fill first."""
        body = self._body(order)
        if body is None:
            return _refusal(order, f"{order.quantity} shares are less than the smallest quantity, {QUANTITY_STEP}")
        fields = ("qty", "limit_price", "client_order_id")
        changes: dict[str, str | bool] = {str(name): body[name] for name in fields if name in body}
        answer = self._http.send_once("PATCH", f"/v2/orders/{broker_order_id}", changes)
        if answer is not None and answer.status < 300:
            return _order(_mapping(answer, "order"))
        if answer is not None and not _says_known(answer):
            return _refusal(order, answer.describe())
        found = self.find(order.client_order_id)
        if found is None:
            raise BrokerError(f"replacement of {broker_order_id}: it is not known whether the broker has it; look before asking again")
        return found

    def open_orders(self) -> tuple[BrokerOrder, ...]:
        orders: dict[str, BrokerOrder] = {}
        params = {"status": "open", "limit": str(ORDERS_PAGE), "direction": "asc"}
        while True:
            rows = _rows(self._http.get("/v2/orders", params), "orders")
            found = [_order(row) for row in rows]
            fresh = [order for order in found if order.broker_order_id not in orders]
            orders |= {order.broker_order_id: order for order in fresh}
            # A server may give less than was asked for: only a page without news is the last one.
            if not fresh:
                if len(rows) >= ORDERS_PAGE:
                    raise BrokerError(f"the list of open orders gives the same page again after {params.get('after_order_id')}")
                return tuple(orders.values())
            params = {**params, "after_order_id": found[-1].broker_order_id}

    def fills(self, session: date) -> tuple[BrokerFill, ...]:
        rows = self._activities("/v2/account/activities/FILL", {"date": session.isoformat()})
        return tuple(
            BrokerFill(
                fill_id=_text(row, "id"),
                broker_order_id=_text(row, "order_id"),
                symbol=_text(row, "symbol"),
                side=_side(row),
                quantity=number(row.get("qty"), "fill qty"),
                price=number(row.get("price"), "fill price"),
            )
            for row in rows
        )

    def wait(self) -> bool:
        """Sleep until the broker may have news: towards the open if the market is closed, else one poll interval."""
        clock = _mapping(self._http.get("/v2/clock"), "clock")
        if clock.get("is_open") is not True:
            opens = _moment(clock, "next_open")
            if opens.astimezone(NEW_YORK).date() != self._session:
                return False  # the session is over; what is open now is for its end to settle
            seconds = (opens - _moment(clock, "timestamp")).total_seconds()
            # Not in one sleep: the kill switch is looked at between two waits.
            self._clock.sleep(min(max(0.0, seconds) + self._config.poll_seconds, LONGEST_SLEEP_SECONDS))
            self._waiting_since = None
            return True
        now = self._clock.now()
        if self._waiting_since is None:
            self._waiting_since = now
        if (now - self._waiting_since).total_seconds() >= self._config.fill_deadline_seconds:
            return False
        self._clock.sleep(self._config.poll_seconds)
        return True

    def _body(self, order: Order) -> dict[str, str | bool] | None:
        """Return the request of an order; None where nothing is left of its quantity."""
        quantity = Decimal(repr(order.quantity)).quantize(QUANTITY_STEP, ROUND_DOWN)
        if quantity <= 0:
            return None
        whole = quantity == quantity.to_integral_value()
        body: dict[str, str | bool] = {
            "symbol": order.symbol,
            "qty": format(quantity.normalize(), "f"),
            "side": order.side,
            "type": "market",
            "time_in_force": "day",
            "client_order_id": order.client_order_id,
        }
        if not whole:
            return body  # fractions trade as market orders of the day only, and not in the auction
        if order.limit_price is not None:
            body |= {"type": "limit", "limit_price": format(Decimal(repr(order.limit_price)).normalize(), "f")}
        if self._config.opening_auction and self._before_auction():
            body["time_in_force"] = "opg"
        return body

    def _before_auction(self) -> bool:
        now = self._clock.now().astimezone(NEW_YORK)
        return (now.hour, now.minute) < AUCTION_CUT_OFF

    def _activities(self, path: str, params: dict[str, str]) -> list[dict[str, Any]]:
        """Return all pages of a ledger, oldest first; a row seen twice must be the same row.

        Raises
        ------
        BrokerError
            If two rows share an id and differ, or the pages do not move on.
        """
        seen: dict[str, dict[str, Any]] = {}
        params = {**params, "direction": "asc", "page_size": str(PAGE)}
        while True:
            rows = _rows(self._http.get(path, params), "activities")
            fresh = 0
            for row in rows:
                name = _text(row, "id")
                if name in seen and seen[name] != row:
                    raise BrokerError(f"the ledger has two different rows of id {name}")
                fresh += name not in seen
                seen[name] = row
            # A server may give less than was asked for: only a page without news is the last one.
            if not fresh and len(rows) < PAGE:
                return list(seen.values())
            if not fresh:
                raise BrokerError(f"the ledger gives the same page again after {params.get('page_token')}")
            params["page_token"] = _text(rows[-1], "id")


def number(value: object, what: str) -> float:
    """Return a number of the wire: a JSON number or a decimal string; nothing else, and nothing infinite.

    Raises
    ------
    BrokerError
        If it is anything else; says what it was.
    """
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            found = float(Decimal(str(value).strip()))
        except InvalidOperation:
            found = math.nan
        if math.isfinite(found):
            return found
    raise BrokerError(f"the broker gave {what} as {value!r}, which is no number")


def _order(value: Mapping[str, Any]) -> BrokerOrder:
    filled, name = number(value.get("filled_qty") or "0", "filled_qty"), _text(value, "status")
    status = STATUSES.get(name)
    if status is None:
        raise BrokerError(f"order {value.get('client_order_id')} has the status {name!r}, which this version does not know")
    if status == Status.ACCEPTED and filled > 0:
        status = Status.PARTIALLY_FILLED
    quantity = value.get("qty")
    return BrokerOrder(
        broker_order_id=_text(value, "id"),
        client_order_id=_text(value, "client_order_id"),
        symbol=_text(value, "symbol"),
        side=_side(value),
        # An order by notional has no quantity; it is none of ours.
        quantity=filled if quantity is None else number(quantity, "qty"),
        filled=filled,
        status=status,
        replaced_by=str(value.get("replaced_by") or ""),
    )


def _same(order: Order, found: BrokerOrder) -> BrokerOrder:
    """Return the order found under our order's name, if it is our order.

    Raises
    ------
    BrokerError
        If the name belongs to another order.
    """
    if (found.symbol, found.side) != (order.symbol, order.side) or abs(found.quantity - order.quantity) > 2 * float(QUANTITY_STEP):
        what = f"{found.side} {found.quantity} {found.symbol}, not {order.side} {order.quantity} {order.symbol}"
        raise BrokerError(f"the broker has {order.client_order_id} as {what}; the account is used by somebody else")
    return found


def _refusal(order: Order, message: str) -> BrokerOrder:
    side: Side = order.side
    return BrokerOrder("", order.client_order_id, order.symbol, side, order.quantity, 0.0, Status.REJECTED, message)


def _says_known(answer: Answer) -> bool:
    """Return whether a refusal means that the name was used before: the order exists."""
    text = answer.message.lower().replace("_", " ")
    return answer.status == 422 and "client order id" in text and ("unique" in text or "exist" in text or "duplicate" in text)


def _mapping(answer: Answer, what: str) -> dict[str, Any]:
    if not isinstance(answer.value, dict):
        raise BrokerError(f"the broker gave {what} as {type(answer.value).__name__}; expected an object [X-Request-ID {answer.request_id}]")
    return answer.value


def _rows(answer: Answer, what: str) -> list[dict[str, Any]]:
    if not isinstance(answer.value, list) or not all(isinstance(row, dict) for row in answer.value):
        raise BrokerError(f"the broker gave {what} as {type(answer.value).__name__}; expected a list of objects")
    return answer.value


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise BrokerError(f"the broker gave {name} as {value!r}; expected text")
    return value


def _side(row: Mapping[str, Any]) -> Side:
    """Return the side of an order or execution; raises BrokerError for one that is neither."""
    name = _text(row, "side")
    side = _SIDES.get(name)
    if side is None:
        raise BrokerError(f"the broker gave side as {name!r}; expected one of {', '.join(_SIDES)}")
    return side


def _moment(row: Mapping[str, Any], name: str) -> datetime:
    """Return an RFC 3339 stamp; raises BrokerError for one that is none, or has no offset."""
    text = _text(row, name)
    try:
        moment = datetime.fromisoformat(_plain_fraction(text))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BrokerError(f"the broker gave {name} as {text!r}; expected a time with its offset")
    return moment


def _plain_fraction(stamp: str) -> str:
    """Return an RFC 3339 stamp with at most six fractional digits, as datetime reads them; nanoseconds are cut."""
    head, dot, tail = stamp.partition(".")
    if not dot:
        return stamp
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    return f"{head}.{digits[:6].ljust(6, '0')}{tail[len(digits) :]}"
