"""Alpaca's trading API on loopback: orders, account, positions, clock and ledger, driven by a virtual clock and scripted quotes.

Faithful to the broker's public contract where an adapter can trip: numbers as strings, ids unique for ever, buying
power that falls at acceptance, quantities held by open orders, partial fills that show in the ledger, cancels that are
only requests, refusals with their status and code, answers that get lost before or after the order was taken.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from datetime import time as day_time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from fakes.server import Call, FakeServer, Reply, _Handler, json_reply

NEW_YORK = ZoneInfo("America/New_York")
FINAL = {"filled", "canceled", "expired", "rejected", "replaced"}
KEY, SECRET = "PKTESTKEY", "canary-secret-value"


class TradingClock:
    """One clock for the engine and the fake: sleeping moves both."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self.sleeps: list[float] = []
        self.fake: FakeAlpaca | None = None

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self._now += timedelta(seconds=max(0.0, seconds))
        if self.fake is not None:
            self.fake.tick()

    def reach(self, moment: datetime) -> None:
        """Nothing: time passes by sleeping."""

    def set(self, moment: datetime) -> None:
        self._now = moment
        if self.fake is not None:
            self.fake.tick()


@dataclass(frozen=True)
class TradingCall(Call):
    body: bytes = b""


@dataclass
class Held:
    """One order as the fake keeps it."""

    fields: dict[str, Any]
    filled: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    slices: list[Decimal] = field(default_factory=list)

    @property
    def quantity(self) -> Decimal:
        return Decimal(self.fields["qty"])

    @property
    def rest(self) -> Decimal:
        return self.quantity - self.filled

    @property
    def open(self) -> bool:
        return self.fields["status"] not in FINAL

    def view(self) -> dict[str, Any]:
        average = str(self.paid / self.filled) if self.filled else None
        return {**self.fields, "filled_qty": str(self.filled), "filled_avg_price": average}


class FakeAlpaca(FakeServer):
    """An account with quotes: `quotes` by symbol, `script` of partial fills by symbol, faults by the n-th order."""

    def __init__(self, clock: TradingClock, cash: str = "100000", quotes: dict[str, str] | None = None) -> None:
        super().__init__()
        fake = self

        class Handler(_TradingHandler):
            server_fake = fake

        self._server.RequestHandlerClass = Handler
        clock.fake = self
        self.clock = clock
        self.cash = Decimal(cash)
        self.quotes = {symbol: Decimal(price) for symbol, price in (quotes or {}).items()}
        self.positions: dict[str, Decimal] = {}
        self.orders: dict[str, Held] = {}
        self.ledger: list[dict[str, Any]] = []
        self.activities: list[dict[str, Any]] = []
        self.holidays: set[date] = set()
        self.partials: dict[str, list[str]] = {}  # symbol -> quantities of its first fills
        self.halted: set[str] = set()
        self.fill_on_cancel = False  # the race: the fill wins
        self.lost_before: set[int] = set()  # n-th POST of an order: answered 503, nothing taken
        self.blocked: dict[str, Any] = {}
        self.ledger_lag = 0  # reads of the ledger until new rows show
        self.largest_page = 500  # rows of a page, whatever was asked for
        self.posts = 0
        self._ids = itertools.count(1)
        self._lag = 0

    # Time.

    def is_open(self) -> bool:
        now = self.clock.now().astimezone(NEW_YORK)
        return self._session(now.date()) and day_time(9, 30) <= now.time() < day_time(16, 0)

    def _session(self, day: date) -> bool:
        return day.weekday() < 5 and day not in self.holidays

    def next_open(self) -> datetime:
        now = self.clock.now().astimezone(NEW_YORK)
        day = now.date()
        while not (self._session(day) and datetime.combine(day, day_time(9, 30), NEW_YORK) > now):
            day += timedelta(days=1)
        return datetime.combine(day, day_time(9, 30), NEW_YORK)

    def tick(self) -> None:
        """Let the market work on the open orders."""
        for order in list(self.orders.values()):
            if not order.open:
                continue
            if order.fields["status"] == "pending_cancel":
                if self.fill_on_cancel and self.is_open():
                    self._fill(order, order.rest)
                else:
                    order.fields["status"] = "canceled"
            elif self.is_open():
                order.fields["status"] = "new" if order.fields["status"] in ("accepted", "pending_new") else order.fields["status"]
                self._match(order)
            elif self.clock.now().astimezone(NEW_YORK).time() >= day_time(16, 0) and order.fields["time_in_force"] == "day":
                created = datetime.fromisoformat(order.fields["created_at"].replace("Z", "+00:00")).astimezone(NEW_YORK)
                if created.time() < day_time(16, 0):
                    order.fields["status"] = "expired"

    def _match(self, order: Held) -> None:
        symbol = order.fields["symbol"]
        price = self.quotes.get(symbol)
        if price is None or symbol in self.halted:
            return
        limit = order.fields["limit_price"]
        if limit is not None and ((price > Decimal(limit)) if order.fields["side"] == "buy" else (price < Decimal(limit))):
            return
        script = self.partials.get(symbol, [])
        quantity = min(Decimal(script.pop(0)), order.rest) if script else order.rest
        if quantity > 0:
            self._fill(order, quantity)

    def _fill(self, order: Held, quantity: Decimal) -> None:
        symbol, price = order.fields["symbol"], self.quotes[order.fields["symbol"]]
        sign = 1 if order.fields["side"] == "buy" else -1
        order.filled += quantity
        order.paid += quantity * price
        done = order.rest == 0
        if done:
            order.fields["status"] = "filled"
        elif order.fields["status"] != "pending_cancel":
            order.fields["status"] = "partially_filled"
        self.cash -= sign * quantity * price
        held = self.positions.get(symbol, Decimal(0)) + sign * quantity
        self.positions.pop(symbol, None) if held == 0 else self.positions.update({symbol: held})
        now = self.clock.now().astimezone(NEW_YORK)
        self.ledger.append(
            {
                "id": f"{now:%Y%m%d%H%M%S}000::{next(self._ids):08d}",
                "activity_type": "FILL",
                "type": "fill" if done else "partial_fill",
                "order_id": order.fields["id"],
                "symbol": symbol,
                "side": order.fields["side"],
                "qty": str(quantity),
                "price": str(price),
                "cum_qty": str(order.filled),
                "leaves_qty": str(order.rest),
                "order_status": order.fields["status"],
                "transaction_time": now.isoformat(),
            }
        )
        self._lag = self.ledger_lag

    def pay(self, kind: str, day: date, amount: str, symbol: str = "", quantity: str | None = None) -> None:
        """Let something other than a fill change the account."""
        self.cash += Decimal(amount)
        row = {"id": f"{day:%Y%m%d}000000000::{next(self._ids):08d}", "activity_type": kind, "date": day.isoformat(), "net_amount": amount}
        self.activities.append({**row, "symbol": symbol, "qty": quantity, "status": "executed"})

    # Wire.

    def answer(self, call: Call) -> Reply:
        if (call.headers.get("apca-api-key-id"), call.headers.get("apca-api-secret-key")) != (KEY, SECRET):
            return json_reply({"message": "forbidden."}, 403)
        path = call.path
        if path == "/v2/account":
            return json_reply(self._account())
        if path == "/v2/clock":
            stamp = self.clock.now().astimezone(NEW_YORK).isoformat()
            stamp = stamp if "." in stamp else stamp[:19] + ".123456789" + stamp[19:]
            return json_reply({"timestamp": stamp, "is_open": self.is_open(), "next_open": self.next_open().isoformat()})
        if path == "/v2/positions":
            return json_reply([self._position(symbol) for symbol in sorted(self.positions)])
        if path.startswith("/v2/account/activities"):
            return self._activities(call)
        if path.startswith("/v2/orders"):
            return self._orders(call)
        return json_reply({"code": 40410000, "message": "endpoint not found"}, 404)

    def _account(self) -> dict[str, Any]:
        long = sum((shares * self.quotes[symbol] for symbol, shares in self.positions.items()), Decimal(0))
        account = {
            "status": "ACTIVE",
            "currency": "USD",
            "cash": str(self.cash),
            "equity": str(self.cash + long),
            "buying_power": str(self.buying_power()),
            "multiplier": "1",
            "long_market_value": str(long),
            "trading_blocked": False,
            "account_blocked": False,
            "trade_suspended_by_user": False,
        }
        return {**account, **self.blocked}

    def buying_power(self) -> Decimal:
        reserved = Decimal(0)
        for order in self.orders.values():
            if order.open and order.fields["side"] == "buy":
                reserved += order.rest * Decimal(order.fields["limit_price"] or self.quotes[order.fields["symbol"]])
        return self.cash - reserved

    def _position(self, symbol: str) -> dict[str, Any]:
        shares, price = self.positions[symbol], self.quotes[symbol]
        return {
            "symbol": symbol,
            "qty": str(abs(shares)),
            "side": "long" if shares > 0 else "short",
            "qty_available": str(shares - self._held_for_orders(symbol)),
            "current_price": str(price),
            "market_value": str(shares * price),
            "asset_class": "us_equity",
        }

    def _held_for_orders(self, symbol: str) -> Decimal:
        sales = (order for order in self.orders.values() if order.open and order.fields["side"] == "sell")
        return sum((order.rest for order in sales if order.fields["symbol"] == symbol), Decimal(0))

    def _activities(self, call: Call) -> Reply:
        if self._lag > 0:
            self._lag -= 1
            return json_reply([])
        rows = self.ledger if call.path.endswith("/FILL") else [*self.ledger, *self.activities]
        wanted = call.params.get("date")
        rows = [row for row in rows if wanted is None or row.get("date", row.get("transaction_time", ""))[:10] == wanted]
        rows.sort(key=lambda row: row["id"], reverse=call.params.get("direction") != "asc")
        token = call.params.get("page_token")
        if token:
            rows = rows[next((index for index, row in enumerate(rows) if row["id"] == token), len(rows)) + 1 :]
        return json_reply(rows[: min(int(call.params.get("page_size", "100")), self.largest_page)])

    def _orders(self, call: Call) -> Reply:
        rest = call.path.removeprefix("/v2/orders")
        if call.method == "POST":
            assert isinstance(call, TradingCall)
            return self._post(json.loads(call.body))
        if rest == ":by_client_order_id":
            name = call.params["client_order_id"]
            found = next((order for order in self.orders.values() if order.fields["client_order_id"] == name), None)
            return json_reply(found.view()) if found else json_reply({"code": 40410000, "message": f"order not found for {name}"}, 404)
        if not rest:
            return self._list(call)
        order = self.orders.get(rest.removeprefix("/"))
        if order is None:
            return json_reply({"code": 40410000, "message": f"order not found for {rest}"}, 404)
        if call.method == "DELETE":
            return self._cancel(order)
        if call.method == "PATCH":
            assert isinstance(call, TradingCall)
            return self._patch(order, json.loads(call.body))
        return json_reply(order.view())

    def _list(self, call: Call) -> Reply:
        kind, limit = call.params.get("status", "open"), int(call.params.get("limit", "50"))
        rows = [order for order in self.orders.values() if kind == "all" or order.open == (kind == "open")]
        after = call.params.get("after_order_id")
        if after:
            rows = rows[next(index for index, order in enumerate(rows) if order.fields["id"] == after) + 1 :]
        return json_reply([order.view() for order in rows[: min(limit, self.largest_page)]])

    def _post(self, body: dict[str, Any]) -> Reply:
        self.posts += 1
        if self.posts in self.lost_before:
            return Reply(b"<html>bad gateway</html>", 503, {}, "text/html")
        refusal = self._refuse(body)
        if refusal:
            return json_reply(refusal[1], refusal[0])
        now = self.clock.now().isoformat()
        fields = {
            "id": f"o-{next(self._ids):06d}",
            "client_order_id": body["client_order_id"],
            "created_at": now,
            "submitted_at": now,
            "symbol": body["symbol"],
            "asset_class": "us_equity",
            "notional": None,
            "qty": str(body["qty"]),
            "type": body["type"],
            "order_type": body["type"],
            "side": body["side"],
            "time_in_force": body["time_in_force"],
            "limit_price": body.get("limit_price"),
            "status": "pending_new" if self.is_open() else "accepted",
            "replaced_by": None,
            "replaces": None,
            "legs": None,
            "source": None,
        }
        order = self.orders[fields["id"]] = Held(fields)
        return json_reply(order.view())

    def _refuse(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        quantity = Decimal(str(body["qty"]))
        symbol, side, limit = body["symbol"], body["side"], body.get("limit_price")
        if any(order.fields["client_order_id"] == body["client_order_id"] for order in self.orders.values()):
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        if symbol not in self.quotes:
            return 422, {"code": 42210000, "message": f'asset "{symbol}" is not tradable'}
        if quantity <= 0 or -quantity.as_tuple().exponent > 9:
            return 422, {"code": 40010001, "message": "qty must be > 0 with at most 9 decimals"}
        if quantity != quantity.to_integral_value() and (body["type"], body["time_in_force"]) != ("market", "day"):
            return 422, {"code": 40010001, "message": "fractional orders must be DAY market orders"}
        if (body["type"] == "limit") != (limit is not None):
            return 422, {"code": 40010001, "message": "limit orders require limit_price"}
        if limit is not None and (Decimal(limit) * 100) % 1 and Decimal(limit) >= 1:
            message = f"invalid limit_price {limit}. sub-penny increment does not fulfill minimum pricing criteria"
            return 422, {"code": 42210000, "message": message}
        now = self.clock.now().astimezone(NEW_YORK).time()
        if body["time_in_force"] == "opg" and day_time(9, 28) <= now < day_time(19, 0):
            return 422, {"code": 42210000, "message": "opg orders are accepted from 19:00 to 09:28"}
        opposite = [o for o in self.orders.values() if o.open and o.fields["symbol"] == symbol and o.fields["side"] != side]
        if opposite:
            existing = {"existing_order_id": opposite[0].fields["id"], "reject_reason": "opposite side market/stop order exists"}
            return 403, {"code": 40310000, "message": "potential wash trade detected. use complex orders", **existing}
        if side == "sell":
            available = self.positions.get(symbol, Decimal(0)) - self._held_for_orders(symbol)
            if quantity > available:
                message = f"insufficient qty available for order (requested: {quantity}, available: {available})"
                return 403, {"code": 40310000, "message": message, "available": str(available), "symbol": symbol}
        elif quantity * Decimal(limit or self.quotes[symbol]) > self.buying_power():
            power = str(self.buying_power())
            return 403, {"code": 40310000, "message": "insufficient buying power", "buying_power": power}
        return None

    def _cancel(self, order: Held) -> Reply:
        if not order.open:
            return json_reply({"code": 42210000, "message": f'order is already in "{order.fields["status"]}" state'}, 422)
        order.fields["status"] = "pending_cancel"
        return Reply(b"", 204)

    def _patch(self, order: Held, body: dict[str, Any]) -> Reply:
        if order.fields["status"] not in ("new", "partially_filled"):
            return json_reply({"code": 42210000, "message": f"cannot replace order in {order.fields['status']} state"}, 422)
        fields = {**order.fields, **{name: body[name] for name in ("qty", "limit_price", "client_order_id") if name in body}}
        fields |= {"id": f"o-{next(self._ids):06d}", "replaces": order.fields["id"], "status": "accepted"}
        order.fields |= {"status": "replaced", "replaced_by": fields["id"]}
        new = self.orders[fields["id"]] = Held(fields)
        return json_reply(new.view())


class _TradingHandler(_Handler):
    """The handler of the fakes, for requests with bodies and two verbs more."""

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        from urllib.parse import parse_qsl, urlsplit

        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = TradingCall(self.command, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers, self.path, 0.0, body)
        self._send(self.server_fake.reply_to(call))
