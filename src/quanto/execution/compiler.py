"""From target weights to orders: sales first, then purchases that cash in hand can pay.

Quantities are fixed at the decision (`wanted_shares`). Sales need no cash. Purchases are compiled once the sales are
done: they never count on proceeds that have not arrived, and are cut pro rata so that cash, after costs and the
worst-case slippage, stays at or above the floor. Proceeds settle the session after the sale (T+1); whether they may
pay for purchases before that is a rule of the account.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from quanto.core.config import Section
from quanto.execution.orders import Order, Side, client_order_id
from quanto.portfolio.costs import BPS

FloatArray = npt.NDArray[np.float64]

# Sums and quotients of doubles leave differences of this fraction of NAV where nothing is wanted.
DUST = 1e-12
CENTS_FROM_USD = 1.0


class OrderRules(Section):
    """How quantities become orders."""

    fractional: bool = Field(description="fractions of a share can be traded")
    lot_shares: int = Field(ge=1, description="whole-share orders are multiples of this; full exits sell what is held")
    minimum_notional_usd: float = Field(ge=0, description="smaller orders are left out; a full exit is always made")
    worst_case_slippage_bps: float = Field(ge=0, description="purchases must be payable at a price worse by this")
    unsettled_proceeds: Literal["usable", "not_usable"] = Field(description="whether today's sales may pay for today's purchases")
    collar_orders: bool = Field(description="send limit orders at the price collar; false sends market orders, checked before and after")

    @property
    def lot(self) -> float:
        """Return the step of quantities in shares; 0 where fractions can be traded."""
        return 0.0 if self.fractional else float(self.lot_shares)


@dataclass(frozen=True)
class Sizing:
    """What orders are made from; arrays of shape (n_symbols,) in the share basis of the session traded.

    Attributes
    ----------
    wanted, held
        Shares after and before trading. `wanted` of a name without a price is what is held.
    reference
        USD: last known close, converted for splits; NaN or 0 where unknown.
    """

    experiment: str
    session: date
    symbols: tuple[str, ...]
    wanted: FloatArray
    held: FloatArray
    reference: FloatArray
    nav: float
    collar: float


def wanted_shares(targets: FloatArray, nav: float, close: FloatArray, split: FloatArray, held: FloatArray) -> FloatArray:
    """Return the shares that target weights mean, fixed at the decision and converted for splits; shape (n_symbols,).

    Parameters
    ----------
    held
        Shares after the splits; kept where a name has no price.
    """
    priced = close > 0
    return np.where(priced, targets * nav / np.where(priced, close, 1.0) * split, held)


def compile_sales(sizing: Sizing, rules: OrderRules) -> list[Order]:
    """Return the sales that lead from `held` towards `wanted`, in symbol order; never more than is held."""
    orders: list[Order] = []
    for index, (symbol, wanted, held) in enumerate(zip(sizing.symbols, sizing.wanted.tolist(), sizing.held.tolist(), strict=True)):
        keep = _rounded(wanted, rules)
        quantity = held - keep
        exit_ = wanted <= 0.0 < held
        if held > 0.0 and quantity > 0.0 and (exit_ or _worth(quantity, index, sizing, rules)):
            orders.append(_order(sizing, rules, index, symbol, "sell", quantity))
    return orders


def compile_purchases(
    sizing: Sizing, rules: OrderRules, price: FloatArray, spendable: float, linear_cost: float, impact: FloatArray
) -> list[Order]:
    """Return the purchases that lead from `held` towards `wanted`, cut pro rata to what `spendable` pays for.

    Parameters
    ----------
    price
        Shape (n_symbols,): USD now; NaN where a name does not trade. Its purchase is still made, and takes no cash:
        the risk checks deny it, so that it stands in the journal.
    spendable
        USD that may be spent: settled or usable cash above the floor.
    linear_cost, impact
        As in `env.tape.Tape`: fractions of traded value; impact of shape (n_symbols,).
    """
    short = np.array([_rounded(wanted, rules) for wanted in sizing.wanted.tolist()]) - sizing.held
    worst = np.nan_to_num(price) * (1.0 + rules.worst_case_slippage_bps * BPS)
    share = funded_share(np.where((short > 0) & (price > 0), short * worst, 0.0), spendable, linear_cost, impact)
    orders: list[Order] = []
    for index, (symbol, quantity) in enumerate(zip(sizing.symbols, short.tolist(), strict=True)):
        if quantity <= 0.0:
            continue
        affordable = quantity if share == 1.0 or not price[index] > 0 else _rounded(quantity * share, rules)
        if affordable > 0.0 and _worth(affordable, index, sizing, rules):
            orders.append(_order(sizing, rules, index, symbol, "buy", affordable))
    return orders


def funded_share(value: FloatArray, spendable: float, linear_cost: float, impact: FloatArray) -> float:
    """Return the share of purchases worth `value` (USD, shape (n_symbols,)) that `spendable` USD pay with their costs.

    The step kernel's rule: impact grows with the root of the value, so the cost of a smaller purchase is at most
    proportional and the share never overspends.
    """
    spend = float((value * (1.0 + linear_cost + impact * np.sqrt(value))).sum())
    available = max(0.0, spendable)
    return 1.0 if spend <= available else available / spend


def _rounded(shares: float, rules: OrderRules) -> float:
    """Return a quantity rounded towards zero to what can be traded."""
    return shares if rules.fractional else math.floor(shares / rules.lot_shares * (1 + DUST)) * float(rules.lot_shares)


def _worth(quantity: float, index: int, sizing: Sizing, rules: OrderRules) -> bool:
    """Return whether an order is more than rounding noise and not below the minimum; without a price it is (and is denied)."""
    value = quantity * float(sizing.reference[index])
    return not value < max(rules.minimum_notional_usd, DUST * sizing.nav)


def _order(sizing: Sizing, rules: OrderRules, index: int, symbol: str, side: Side, quantity: float) -> Order:
    reference = float(sizing.reference[index])
    name = client_order_id(sizing.experiment, sizing.session, symbol, side, 1)
    return Order(name, symbol, side, quantity, reference, limit_price(reference, side, sizing.collar) if rules.collar_orders else None)


def limit_price(reference: float, side: Side, collar: float) -> float | None:
    """Return the worst price that the collar allows, rounded inwards to the tick (a cent; 1/10,000 below one dollar).

    None where the reference is unknown or the collar of a sale reaches zero: there is no such limit order, and the
    check of the price before submission stands alone.
    """
    price = reference * (1.0 + collar) if side == "buy" else reference * (1.0 - collar)
    if not price > 0.0:
        return None
    tick = 0.01 if price >= CENTS_FROM_USD else 0.0001
    steps = price / tick
    whole = math.floor(steps + 1e-9) if side == "buy" else math.ceil(steps - 1e-9)
    return round(whole * tick, 4) or None
