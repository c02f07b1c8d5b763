"""The simulated broker: fills at the session's open, held equal to the step kernel by tests.

Without options it does what `env.kernel` does to a book: interest, dividends, splits and payouts at the open, then
fills at the opening price for the costs of the tape. The options add what a real open does: slippage, whole shares
with cash in lieu of fractions, fills limited by volume, rejections (seeded by the order's own name, so a resumed
session rejects the same orders), and a fee.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pydantic import Field

from quanto.core.config import Section
from quanto.core.errors import ExecutionError
from quanto.core.rng import generator
from quanto.env.tape import Tape
from quanto.execution.broker import BrokerAccount, BrokerFill, BrokerOrder, Flow
from quanto.execution.orders import Order, Status
from quanto.market.calendar import DateArray, as_date
from quanto.portfolio.costs import BPS

FloatArray = npt.NDArray[np.float64]

# Purchases are sized to the last cent of cash; the sum of doubles may be this fraction of NAV beyond it.
CASH_SLACK = 1e-9


class SimConfig(Section):
    """What the simulated open adds to the step kernel; all zero and null: nothing."""

    slippage_bps: float = Field(ge=0, description="added to the price of a purchase, taken from that of a sale")
    fee_bps: float = Field(ge=0, description="of the traded value, on top of the costs that evaluation charges too")
    volume_share: float | None = Field(gt=0, le=1, description="largest fill as a share of the session's volume; null: no limit")
    reject_rate: float = Field(ge=0, le=1, description="share of orders that the broker rejects, drawn by seed and order name")
    whole_shares: bool = Field(description="fractions that a split leaves are paid in cash at the opening price")


@dataclass(frozen=True)
class SimMarket:
    """The market that the simulated broker trades in: the tape and the volume in shares, on the same sessions."""

    tape: Tape
    sessions: DateArray
    symbols: tuple[str, ...]
    volume: FloatArray

    @cached_property
    def eventful(self) -> list[bool]:
        """Whether a session has a dividend, a split or a payout of any symbol."""
        tape = self.tape
        happens = (tape.dividend != 0) | (tape.split != 1.0) | ~np.isnan(tape.payout)
        return [bool(row) for row in happens.any(axis=1)]


class SimBroker:
    """One simulated account on a tape; a pure function of its start, the orders it got and the seed."""

    name = "sim"
    real_time = False

    def __init__(self, market: SimMarket, config: SimConfig, seed: int, cash: float, positions: Mapping[str, float]) -> None:
        """Open an account that holds `cash` USD and `positions` shares at the close before the first session asked for."""
        self._market = market
        self._config = config
        self._seed = seed
        self._columns = {symbol: index for index, symbol in enumerate(market.symbols)}
        self._rows = {as_date(day): row for row, day in enumerate(market.sessions)}
        self._cash = cash
        self._shares = {symbol: shares for symbol, shares in positions.items() if shares != 0.0}
        self._row = -1
        self._opens: list[float] = []
        self._fillable: list[bool] = []
        self._impact: list[float] = []
        self._linear_cost = 0.0
        self._orders: dict[str, BrokerOrder] = {}
        self._fills: list[BrokerFill] = []
        self._flows: list[Flow] = []

    def open_session(self, session: date) -> None:
        """Apply the corporate actions and the interest of the session's open.

        Raises
        ------
        ExecutionError
            If the session is not on the tape, or lies before one that was opened.
        """
        row = self._rows.get(session, -1)
        if row < 1 or row < self._row:
            raise ExecutionError(f"the simulated market has no open on {session} after the sessions that were traded")
        if row == self._row:
            return
        self._row = row
        self._orders, self._fills, self._flows = {}, [], []
        tape = self._market.tape
        self._opens, self._fillable, self._impact = tape.open[row].tolist(), tape.fillable[row].tolist(), tape.impact[row].tolist()
        self._linear_cost = float(tape.linear_cost[row])
        self._apply_actions(row, session)

    def account(self) -> BrokerAccount:
        return BrokerAccount(self._cash, dict(self._shares))

    def flows(self, session: date) -> tuple[Flow, ...]:  # noqa: ARG002  # it stands at one session
        return tuple(self._flows)

    def prices(self, session: date) -> Mapping[str, float | None]:  # noqa: ARG002  # it stands at one session
        return {symbol: self._opens[index] if self._fillable[index] else None for symbol, index in self._columns.items()}

    def submit(self, order: Order) -> BrokerOrder:
        known = self._orders.get(order.client_order_id)
        if known is not None:
            return known
        name = order.client_order_id
        accepted = BrokerOrder(f"sim-{name}", name, order.symbol, order.side, order.quantity, 0.0, Status.ACCEPTED)
        reason = self._reject_reason(order)
        answer = accepted._replace(status=Status.REJECTED, message=reason) if reason else self._match(order, accepted)
        self._orders[name] = answer
        # The answer to a submission never says that it filled: that is learned by asking.
        return answer if answer.status == Status.REJECTED else accepted

    def find(self, client_order_id: str) -> BrokerOrder | None:
        return self._orders.get(client_order_id)

    def cancel(self, broker_order_id: str) -> None:
        order = self._named(broker_order_id)
        if order.status in (Status.ACCEPTED, Status.PARTIALLY_FILLED):
            self._orders[order.client_order_id] = order._replace(status=Status.CANCELED)

    def replace(self, broker_order_id: str, order: Order) -> BrokerOrder:
        old = self._named(broker_order_id)
        if old.status not in (Status.ACCEPTED, Status.PARTIALLY_FILLED):
            raise ExecutionError(f"order {old.client_order_id} is {old.status} and cannot be replaced")
        new = self.submit(order)
        if new.status != Status.REJECTED:
            self._orders[old.client_order_id] = old._replace(status=Status.REPLACED, replaced_by=new.broker_order_id)
        return new

    def open_orders(self) -> tuple[BrokerOrder, ...]:
        return tuple(order for order in self._orders.values() if order.status in (Status.ACCEPTED, Status.PARTIALLY_FILLED))

    def fills(self, session: date) -> tuple[BrokerFill, ...]:  # noqa: ARG002  # it stands at one session
        return tuple(self._fills)

    def wait(self) -> bool:
        """Return False: what the open did not fill stays unfilled."""
        return False

    def _named(self, broker_order_id: str) -> BrokerOrder:
        order = self._orders.get(broker_order_id.removeprefix("sim-"))
        if order is None:
            raise ExecutionError(f"the simulated broker has no order {broker_order_id} in this session")
        return order

    def _apply_actions(self, row: int, session: date) -> None:
        tape = self._market.tape
        flows = [Flow(f"{session}-interest", "interest", cash=self._cash * float(tape.cash_rate[row]))]
        for symbol, held in self._shares.items() if self._market.eventful[row] else ():
            index = self._columns[symbol]
            dividend, split, payout = (float(table[row, index]) for table in (tape.dividend, tape.split, tape.payout))
            if dividend:
                flows.append(Flow(f"{session}-{symbol}-dividend", "dividend", symbol, cash=held * dividend))
            after = held * split
            if split != 1.0:
                flows.append(Flow(f"{session}-{symbol}-split", "split", symbol, shares=after - held))
                whole = math.floor(after + CASH_SLACK)
                if self._config.whole_shares and after - whole > CASH_SLACK:
                    cash = (after - whole) * self._opens[index]
                    flows.append(Flow(f"{session}-{symbol}-in-lieu", "cash_in_lieu", symbol, cash=cash, shares=whole - after))
                    after = float(whole)
            if not math.isnan(payout):
                flows.append(Flow(f"{session}-{symbol}-payout", "payout", symbol, cash=after * payout, shares=-after))
        self._flows = flows
        for flow in flows:
            self._cash += flow.cash
            if flow.shares:
                self._shares[flow.symbol] += flow.shares
        self._shares = {symbol: shares for symbol, shares in self._shares.items() if shares != 0.0}

    def _reject_reason(self, order: Order) -> str:
        if order.symbol not in self._columns:
            return f"{order.symbol} is not traded here"
        if self._config.whole_shares and order.side == "buy" and order.quantity != math.floor(order.quantity):
            return "fractional quantities are not accepted"
        if order.side == "sell" and order.quantity > self._shares.get(order.symbol, 0.0) * (1 + CASH_SLACK):
            return "insufficient quantity; the account is not allowed to short"
        rate = self._config.reject_rate
        if rate > 0 and generator(self._seed, "reject", order.client_order_id).random() < rate:
            return "rejected by the simulated exchange"
        return ""

    def _match(self, order: Order, accepted: BrokerOrder) -> BrokerOrder:
        """Fill what the open fills, and return the order as it stands then."""
        index, sign = self._columns[order.symbol], order.sign
        if not self._fillable[index]:
            return accepted
        price = self._opens[index] * (1.0 + sign * self._config.slippage_bps * BPS)
        limit = order.limit_price
        if limit is not None and (price - limit) * sign > 0:
            return accepted
        quantity = self._volume_limit(order.quantity, index)
        if quantity <= 0.0:
            return accepted
        value = quantity * price
        rate = self._linear_cost + self._impact[index] * math.sqrt(value) + self._config.fee_bps * BPS
        fee = value * rate
        if order.side == "buy" and value + fee > self._cash + CASH_SLACK * (value + abs(self._cash)):
            return accepted._replace(status=Status.REJECTED, message=f"insufficient buying power: {value + fee:.2f} of {self._cash:.2f}")
        held = self._shares.get(order.symbol, 0.0) + sign * quantity
        if held == 0.0 or abs(held) < CASH_SLACK * quantity:
            self._shares.pop(order.symbol, None)
        else:
            self._shares[order.symbol] = held
        self._cash -= sign * value + fee
        self._fills.append(
            BrokerFill(f"{order.client_order_id}.1", accepted.broker_order_id, order.symbol, order.side, quantity, price, fee)
        )
        status = Status.FILLED if quantity == order.quantity else Status.PARTIALLY_FILLED
        return BrokerOrder(*accepted[:5], quantity, status)

    def _volume_limit(self, quantity: float, index: int) -> float:
        share = self._config.volume_share
        if share is None:
            return quantity
        most = float(np.nan_to_num(self._market.volume[self._row, index])) * share
        if self._config.whole_shares:
            most = float(math.floor(most))
        return min(quantity, most)
