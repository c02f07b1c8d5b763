"""What the risk checks look at: what is known when an order is judged, and the portfolio that the order would leave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from quanto.execution.limits import RiskPolicy
from quanto.execution.orders import Order

# Sums and quotients of doubles; a difference below this fraction is rounding.
TOLERANCE = 1e-9


class Snapshot(NamedTuple):
    """What is known when orders of a session are judged; sequences have one value per symbol, NaN where unknown.

    Attributes
    ----------
    symbols
        Symbol to index.
    reference
        USD: last known close, converted for the splits of the session traded. Exposure is measured at it.
    price
        USD: the price now: the reference before the open, the opening price after it.
    price_age
        Sessions since the last bar at the decision; 0 is a bar in the deciding session.
    adv_usd, beta
        Average daily traded value, and beta to the market.
    shares, open_purchases, open_sales
        Held, and still open in orders; shares, not negative.
    cash
        USD in hand and spendable: proceeds of open sales are no part of it.
    nav, nav_now
        USD: at the close of the decision (exposure), and at `price` (cash floor).
    traded_usd
        Value of this session's orders that were passed, at the reference.
    slippage, linear_cost, impact
        What a purchase may take on top: a worst-case fraction of its price, a fraction of its value for costs, and an
        impact that grows with the root of its value (see `env.tape.Tape`).
    orders_last_minute
        Orders passed within the last 60 seconds.
    missing_share
        Share of the universe without a bar in the deciding session.
    """

    symbols: Mapping[str, int]
    reference: Sequence[float]
    price: Sequence[float]
    price_age: Sequence[float]
    adv_usd: Sequence[float]
    beta: Sequence[float]
    shares: Sequence[float]
    open_purchases: Sequence[float]
    open_sales: Sequence[float]
    cash: float
    nav: float
    nav_now: float
    traded_usd: float
    slippage: float
    linear_cost: float
    impact: Sequence[float]
    orders_last_minute: int
    missing_share: float
    policy_age_sessions: float
    reduce_only: bool = False
    halted: bool = False
    totals: Totals | None = None

    def summed(self) -> Snapshot:
        """Return the snapshot with its totals, so that each order of many is measured by what it adds to them."""
        return self._replace(totals=total(self))

    def after(self, order: Order) -> Snapshot:
        """Return the snapshot in which `order` is open: counted as exposure, as turnover and against the rate."""
        index = self.symbols[order.symbol]
        passed = self._replace(
            traded_usd=self.traded_usd + order.quantity * self.reference[index], orders_last_minute=self.orders_last_minute + 1
        )
        if order.side == "sell":
            return passed._replace(open_sales=_added(self.open_sales, index, order.quantity))
        totals = None if self.totals is None else bought(self, self.totals, index, order.quantity)
        return passed._replace(open_purchases=_added(self.open_purchases, index, order.quantity), totals=totals)


class Totals(NamedTuple):
    """Sums over the portfolio with open purchases counted in full, USD; `positions` counts names.

    `market_gap` is the sum of absolute value times beta, `long_now` the long value at the price now, `spent` what open
    purchases take from cash at worst. NaN where a value, price or beta of a name that is held or bought is unknown.
    """

    gross: float
    net: float
    beta: float
    market_gap: float
    largest: float
    positions: float
    long_now: float
    spent: float


def total(snapshot: Snapshot) -> Totals:
    """Return the totals of a snapshot."""
    shares, purchases, price, reference, beta, impact = (
        np.asarray(values, dtype=np.float64)
        for values in (snapshot.shares, snapshot.open_purchases, snapshot.price, snapshot.reference, snapshot.beta, snapshot.impact)
    )
    # A name that is neither held nor bought needs no price and no beta.
    exposed = shares + purchases
    values = np.where(exposed != 0, exposed * reference, 0.0)
    # What is held keeps its last price while it does not trade; what is bought needs one now.
    held_now = np.where(shares != 0, shares * np.where(np.isnan(price), reference, price), 0.0)
    swings = np.where(exposed != 0, values * beta, 0.0)
    value = np.where(purchases != 0, purchases * price, 0.0)
    worst = value * (1.0 + snapshot.slippage)
    return Totals(
        gross=float(np.abs(values).sum()),
        net=float(values.sum()),
        beta=float(swings.sum()),
        market_gap=float(np.abs(swings).sum()),
        largest=float(np.abs(values).max(initial=0.0)),
        positions=float(np.count_nonzero(exposed)),
        long_now=float(np.maximum(held_now + value, 0.0).sum()),
        spent=float((worst * (1.0 + snapshot.linear_cost + impact * np.sqrt(np.abs(worst)))).sum()),
    )


def bought(snapshot: Snapshot, totals: Totals, index: int, quantity: float) -> Totals:
    """Return the totals once a purchase of `quantity` shares is open, from those before it."""
    already = snapshot.open_purchases[index]
    exposed = snapshot.shares[index] + already
    reference, price, beta = snapshot.reference[index], snapshot.price[index], snapshot.beta[index]
    before = exposed * reference if exposed != 0 else 0.0
    after = (exposed + quantity) * reference if exposed + quantity != 0 else 0.0
    swing_before, swing_after = before * beta if before != 0 else 0.0, after * beta if after != 0 else 0.0
    value_now = snapshot.shares[index] * (reference if math.isnan(price) else price) + (already * price if already != 0 else 0.0)
    spent_before = _spend(snapshot, index, already) if already != 0 else 0.0
    return Totals(
        gross=totals.gross + abs(after) - abs(before),
        net=totals.net + after - before,
        beta=totals.beta + swing_after - swing_before,
        market_gap=totals.market_gap + abs(swing_after) - abs(swing_before),
        # NaN first: an unknown value must not lose against a known one.
        largest=after if math.isnan(after) else max(totals.largest, abs(after)),
        positions=totals.positions + (exposed + quantity != 0) - (exposed != 0),
        long_now=totals.long_now + max(value_now + quantity * price, 0.0) - max(value_now, 0.0),
        spent=totals.spent + _spend(snapshot, index, already + quantity) - spent_before,
    )


def _spend(snapshot: Snapshot, index: int, quantity: float) -> float:
    """Return what purchases of a name take from cash at worst, USD."""
    value = quantity * snapshot.price[index] * (1.0 + snapshot.slippage)
    return value * (1.0 + snapshot.linear_cost + snapshot.impact[index] * math.sqrt(abs(value)))


def _added(values: Sequence[float], index: int, quantity: float) -> list[float]:
    out = list(values)
    out[index] += quantity
    return out


class Case(NamedTuple):
    """An order and the portfolio it would leave, measured; everything a check may look at.

    Exposures, cash, turnover and the gap loss are fractions of NAV; `reduces` is a sale of shares that are held.
    """

    policy: RiskPolicy
    snapshot: Snapshot
    symbol: str
    known: bool
    reduces: bool
    duplicate: bool
    short_shares: float
    notional: float
    volume_share: float
    collar: float
    price_age: float
    turnover: float
    gross: float
    net: float
    leverage: float
    name_weight: float
    days_to_exit: float
    positions: float
    cash: float
    beta: float
    gap_loss: float


def measure(order: Order, snapshot: Snapshot, policy: RiskPolicy, duplicate: bool = False) -> Case:
    """Return the order and the portfolio it would leave, measured; what is unknown is NaN, which every check refuses."""
    index = snapshot.symbols.get(order.symbol, -1)
    if index < 0 or not 0.0 < order.quantity < math.inf:
        return _unknown(order, snapshot, policy, duplicate, known=index >= 0)
    quantity, reference, price = order.quantity, snapshot.reference[index], snapshot.price[index]
    held = snapshot.shares[index] - snapshot.open_sales[index]
    base = snapshot.totals if snapshot.totals is not None else total(snapshot)
    if order.side == "sell":
        short, after, purchases = max(0.0, quantity - held), base, snapshot.open_purchases[index]
    else:
        short, after, purchases = 0.0, bought(snapshot, base, index, quantity), snapshot.open_purchases[index] + quantity
    reduces = order.side == "sell" and short <= TOLERANCE * max(1.0, abs(held))
    nav = snapshot.nav if snapshot.nav > 0 else math.nan
    adv, notional, cash = snapshot.adv_usd[index], quantity * reference, snapshot.cash - after.spent
    exposed = snapshot.shares[index] + purchases
    name_value = abs(exposed * reference) if exposed != 0 else 0.0
    return Case(
        policy=policy,
        snapshot=snapshot,
        symbol=order.symbol,
        known=True,
        reduces=reduces,
        duplicate=duplicate,
        short_shares=0.0 if reduces else short,
        notional=notional,
        volume_share=ratio(notional, adv),
        collar=abs(ratio(price - reference, reference)),
        price_age=snapshot.price_age[index],
        turnover=0.5 * (snapshot.traded_usd + notional) / nav,
        gross=after.gross / nav,
        net=abs(after.net) / nav,
        leverage=ratio(after.long_now + max(cash, 0.0), snapshot.nav_now),
        name_weight=name_value / nav,
        days_to_exit=ratio(name_value, adv * policy.exit_volume_share),
        positions=after.positions,
        cash=ratio(cash, snapshot.nav_now),
        beta=abs(after.beta) / nav,
        gap_loss=gap_loss(after.market_gap / nav, after.largest / nav, policy),
    )


def gap_loss(market_gap: float, largest: float, policy: RiskPolicy) -> float:
    """Return the loss when the market gaps by its shock times each beta, and the largest position by its own on top.

    Arguments and result are fractions of NAV.
    """
    return policy.gap_market_shock * market_gap + policy.gap_name_shock * largest


def _unknown(order: Order, snapshot: Snapshot, policy: RiskPolicy, duplicate: bool, known: bool) -> Case:
    """Return the case of an order of which nothing can be measured: every measure is NaN."""
    nan = math.nan
    return Case(
        policy, snapshot, order.symbol, known, False, duplicate, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan, nan
    )


def ratio(value: float, by: float) -> float:
    """Return value / by, NaN where the divisor is not positive: an unknown size is a breach, not a zero."""
    return value / by if by > 0.0 else math.nan
