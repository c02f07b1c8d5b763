"""The risk policy: typed limits, and pure checks that return every breach. Unknown, missing and NaN are breaches.

How an order passes: `judge` measures the order and the portfolio that it would leave (open purchases counted in full,
open sales not at all) against every row of `CHECKS`. Without a breach it passes; where only limits of action `clip`
are broken, the largest quantity that breaks none passes; anything else is denied. `account_breaches` measures the
account itself: beyond a `reduce_only` limit only reductions pass, beyond a `halt` limit nothing passes until
`quanto risk resume --reason` is journalled.

A reduction (a sale of shares that are held) is spared the limits on exposure, turnover, loss and drawdown: nobody
should be kept in a position by them. It is never spared the collar, the size of an order, the restricted list, the
checks of data, duplicates, rate or halts, and it never flips a sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.digest import digest_value
from quanto.core.registry import Registry
from quanto.execution.orders import Order, Side

FloatArray = npt.NDArray[np.float64]

# Measures are sums and quotients of doubles; a breach is more than this fraction of the limit (of 1 for small limits).
TOLERANCE = 1e-9


class Action(StrEnum):
    """What a breach leads to, mildest first."""

    CLIP = "clip"
    DENY = "deny"
    REDUCE_ONLY = "reduce_only"
    HALT = "halt"


class RiskPolicy(Section):
    """Every limit of the account; each is enforced by a check, and a contradiction among them is refused at load."""

    # The portfolio that an order would leave, at the prices of the decision.
    max_gross_exposure: float = Field(gt=0, description="sum of absolute position values, fraction of NAV")
    max_net_exposure: float = Field(gt=0, description="absolute sum of signed position values, fraction of NAV")
    max_leverage: float = Field(ge=1, description="assets (long positions and cash) over NAV; 1 forbids borrowing")
    max_name_weight: float = Field(gt=0, description="fraction of NAV")
    max_positions: int = Field(ge=1)
    minimum_cash: float = Field(ge=0, lt=1, description="fraction of NAV, after costs and the worst-case slippage")
    max_beta: float = Field(gt=0, description="absolute sum of weight times beta")
    gap_market_shock: float = Field(ge=0, le=1, description="overnight fall of the market in the gap scenario")
    gap_name_shock: float = Field(ge=0, le=1, description="fall of the largest position by itself, on top")
    max_gap_loss: float = Field(gt=0, description="loss in the gap scenario, fraction of NAV")
    exit_volume_share: float = Field(gt=0, le=1, description="share of the average daily volume that an exit may take")
    max_days_to_exit: float = Field(gt=0, description="sessions to leave a position at that share")
    # Each order.
    max_order_notional_usd: float = Field(gt=0)
    max_order_volume_share: float = Field(gt=0, description="order value over average daily traded value")
    max_turnover: float = Field(gt=0, description="one-way per session, fraction of NAV")
    max_orders_per_minute: int = Field(ge=1)
    price_collar: float = Field(gt=0, description="distance from the last known price, fraction")
    restricted: tuple[str, ...] = Field(description="symbols in which no order is allowed")
    # What the decision knew.
    max_price_age_sessions: int = Field(ge=0, description="sessions since the last bar at the decision")
    max_missing_share: float = Field(ge=0, le=1, description="share of the universe without a bar in the deciding session")
    max_policy_age_sessions: int = Field(ge=1, description="sessions since the policy's training ended")
    beta_sessions: int = Field(ge=20, description="sessions of returns that a beta is estimated from")
    # The account.
    reduce_only_daily_loss: float = Field(gt=0, le=1)
    halt_daily_loss: float = Field(gt=0, le=1)
    reduce_only_drawdown: float = Field(gt=0, le=1)
    halt_drawdown: float = Field(gt=0, le=1)
    # Reconciliation with the broker; beyond these the engine halts.
    position_tolerance_shares: float = Field(ge=0)
    cash_tolerance_usd: float = Field(ge=0)
    nav_tolerance: float = Field(ge=0, lt=1, description="fraction of NAV")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults: list[str] = []
        if self.max_name_weight > self.max_gross_exposure:
            faults.append(f"max_name_weight {self.max_name_weight} could never bind: max_gross_exposure is {self.max_gross_exposure}")
        if self.max_net_exposure > self.max_gross_exposure:
            faults.append(f"max_net_exposure {self.max_net_exposure} could never bind: max_gross_exposure is {self.max_gross_exposure}")
        if self.reduce_only_daily_loss > self.halt_daily_loss:
            faults.append(f"reduce_only_daily_loss {self.reduce_only_daily_loss} is above halt_daily_loss {self.halt_daily_loss}")
        if self.reduce_only_drawdown > self.halt_drawdown:
            faults.append(f"reduce_only_drawdown {self.reduce_only_drawdown} is above halt_drawdown {self.halt_drawdown}")
        if len(set(self.restricted)) != len(self.restricted):
            faults.append(f"restricted names a symbol twice: {list(self.restricted)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def digest(self) -> str:
        """Return the digest of all limits; the promotion statement carries it."""
        return digest_value(self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Breach:
    """One limit that is broken: what was found, what the limit is, in which unit; `found` may be NaN (unknown)."""

    check: str
    found: float
    limit: float
    unit: str
    action: Action
    symbol: str = ""

    def __str__(self) -> str:
        found = "unknown" if math.isnan(self.found) else f"{self.found:.6g}"
        return f"{self.symbol + ': ' if self.symbol else ''}{self.check} {found}, limit {self.limit:.6g} {self.unit} -> {self.action}"

    def record(self) -> dict[str, object]:
        """Return the breach for the journal; an unknown or infinite value becomes None."""
        return {
            "check": self.check,
            "found": self.found if math.isfinite(self.found) else None,
            "limit": self.limit,
            "unit": self.unit,
            "action": str(self.action),
        }


@dataclass(frozen=True)
class Snapshot:
    """What is known when orders of a session are judged; arrays have shape (n_symbols,), NaN where unknown.

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
    cost_rate, impact
        What a purchase may take on top: a fraction for costs and the worst-case slippage, and an impact of shape
        (n_symbols,) that grows with the root of its value (see `env.tape.Tape`).
    orders_last_minute
        Orders passed within the last 60 seconds.
    missing_share
        Share of the universe without a bar in the deciding session.
    """

    symbols: Mapping[str, int]
    reference: FloatArray
    price: FloatArray
    price_age: FloatArray
    adv_usd: FloatArray
    beta: FloatArray
    shares: FloatArray
    open_purchases: FloatArray
    open_sales: FloatArray
    cash: float
    nav: float
    nav_now: float
    traded_usd: float
    cost_rate: float
    impact: FloatArray
    orders_last_minute: int
    missing_share: float
    policy_age_sessions: float
    reduce_only: bool = False
    halted: bool = False

    def after(self, order: Order) -> Snapshot:
        """Return the snapshot in which `order` is open: counted as exposure, as turnover and against the rate."""
        index = self.symbols[order.symbol]
        opened = (self.open_purchases if order.side == "buy" else self.open_sales).copy()
        opened[index] += order.quantity
        name = "open_purchases" if order.side == "buy" else "open_sales"
        traded = self.traded_usd + order.quantity * float(self.reference[index])
        return replace(self, **{name: opened}, traded_usd=traded, orders_last_minute=self.orders_last_minute + 1)  # type: ignore[arg-type]  # one name of two


@dataclass(frozen=True, slots=True)
class Case:
    """An order and the portfolio it would leave, measured; everything a check may look at."""

    policy: RiskPolicy
    symbol: str
    known: bool
    quantity: float
    reduces: bool
    duplicate: bool
    short_shares: float
    notional: float
    adv: float
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
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table of checks.

    Attributes
    ----------
    spares_reductions
        Whether a sale of held shares may pass although the limit is broken.
    found, limit
        What is measured, and against what.
    at_least
        Whether the limit is a floor instead of a ceiling.
    """

    name: str
    unit: str
    action: Action
    spares_reductions: bool
    found: Callable[[Case], float]
    limit: Callable[[RiskPolicy], float]
    at_least: bool = False


def _nothing(_policy: RiskPolicy) -> float:
    """Return the limit of a flag: it may not stand."""
    return 0.0


CHECKS: Registry[Check] = Registry(
    "risk check",
    # Never spared.
    Check("halted", "flag", Action.DENY, False, lambda c: float(c.snapshot.halted), _nothing),
    Check("unknown_symbol", "flag", Action.DENY, False, lambda c: float(not c.known), _nothing),
    Check("duplicate", "flag", Action.DENY, False, lambda c: float(c.duplicate), _nothing),
    Check("sign_flip", "shares short", Action.DENY, False, lambda c: c.short_shares, _nothing),
    Check(
        "orders_per_minute",
        "orders",
        Action.DENY,
        False,
        lambda c: c.snapshot.orders_last_minute + 1,
        lambda p: float(p.max_orders_per_minute),
    ),
    Check("price_collar", "fraction of the last known price", Action.DENY, False, lambda c: c.collar, lambda p: p.price_collar),
    Check("price_age", "sessions", Action.DENY, False, lambda c: c.price_age, lambda p: float(p.max_price_age_sessions)),
    Check(
        "missing_share",
        "fraction of the universe",
        Action.DENY,
        False,
        lambda c: c.snapshot.missing_share,
        lambda p: p.max_missing_share,
    ),
    Check("restricted", "flag", Action.DENY, False, lambda c: float(c.symbol in c.policy.restricted), _nothing),
    Check(
        "policy_age",
        "sessions",
        Action.DENY,
        False,
        lambda c: c.snapshot.policy_age_sessions,
        lambda p: float(p.max_policy_age_sessions),
    ),
    Check("order_notional", "USD", Action.CLIP, False, lambda c: c.notional, lambda p: p.max_order_notional_usd),
    Check(
        "order_volume_share", "fraction of ADV", Action.CLIP, False, lambda c: ratio(c.notional, c.adv), lambda p: p.max_order_volume_share
    ),
    # A reduction is spared these.
    Check("reduce_only", "flag", Action.DENY, True, lambda c: float(c.snapshot.reduce_only), _nothing),
    Check("turnover", "fraction of NAV, one-way", Action.CLIP, True, lambda c: c.turnover, lambda p: p.max_turnover),
    Check("gross_exposure", "fraction of NAV", Action.CLIP, True, lambda c: c.gross, lambda p: p.max_gross_exposure),
    Check("net_exposure", "fraction of NAV", Action.CLIP, True, lambda c: abs(c.net), lambda p: p.max_net_exposure),
    Check("leverage", "assets over NAV", Action.CLIP, True, lambda c: c.leverage, lambda p: p.max_leverage),
    Check("name_weight", "fraction of NAV", Action.CLIP, True, lambda c: c.name_weight, lambda p: p.max_name_weight),
    Check("positions", "names", Action.DENY, True, lambda c: c.positions, lambda p: float(p.max_positions)),
    Check("cash", "fraction of NAV", Action.CLIP, True, lambda c: c.cash, lambda p: p.minimum_cash, at_least=True),
    Check("beta", "market exposure, fraction of NAV", Action.CLIP, True, lambda c: abs(c.beta), lambda p: p.max_beta),
    Check("gap_loss", "fraction of NAV", Action.CLIP, True, lambda c: c.gap_loss, lambda p: p.max_gap_loss),
    Check("days_to_exit", "sessions", Action.CLIP, True, lambda c: c.days_to_exit, lambda p: p.max_days_to_exit),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an order: the quantity that passes (0: denied), and every breach of what was asked."""

    quantity: float
    breaches: tuple[Breach, ...]

    @property
    def denied(self) -> bool:
        """Return whether nothing passes."""
        return self.quantity <= 0.0

    @property
    def clipped(self) -> bool:
        """Return whether less passes than was asked."""
        return self.quantity > 0.0 and bool(self.breaches)


def order_breaches(order: Order, snapshot: Snapshot, policy: RiskPolicy, known_ids: Collection[str] = ()) -> list[Breach]:
    """Return every limit that an order, or the portfolio it would leave, breaks; an empty list means it may pass.

    Parameters
    ----------
    known_ids
        Client order ids that were used before: the same order is never sent twice.
    """
    case = measure(order, snapshot, policy, order.client_order_id in known_ids)
    found: list[Breach] = []
    for check in CHECKS.values():
        if check.spares_reductions and case.reduces:
            continue
        value, limit = check.found(case), check.limit(policy)
        if not keeps(value, limit, check.at_least):
            found.append(Breach(check.name, value, limit, check.unit, check.action, order.symbol))
    return found


def judge(order: Order, snapshot: Snapshot, policy: RiskPolicy, known_ids: Collection[str] = (), lot_shares: float = 0.0) -> Verdict:
    """Return what passes of an order: all of it, the largest quantity that breaks no limit, or nothing.

    Parameters
    ----------
    lot_shares
        Quantities that pass are multiples of this; 0 allows fractions.
    """
    breaches = order_breaches(order, snapshot, policy, known_ids)
    if not breaches:
        return Verdict(order.quantity, ())
    if any(breach.action != Action.CLIP for breach in breaches):
        return Verdict(0.0, tuple(breaches))

    def passes(quantity: float) -> bool:
        return not order_breaches(replace(order, quantity=quantity), snapshot, policy, known_ids)

    low, high = 0.0, order.quantity
    for _ in range(60):  # each measure grows with the quantity, so the border can be halved down to
        middle = 0.5 * (low + high)
        low, high = (middle, high) if middle > 0.0 and passes(middle) else (low, middle)
    quantity = math.floor(low / lot_shares) * lot_shares if lot_shares else low
    return Verdict(quantity if quantity > 0.0 and passes(quantity) else 0.0, tuple(breaches))


def account_breaches(nav: float, previous_nav: float, peak_nav: float, policy: RiskPolicy) -> list[Breach]:
    """Return the limits on daily loss and drawdown that the account breaks, mildest action first; NaN breaks all.

    Parameters
    ----------
    nav, previous_nav, peak_nav
        USD: now, at the close before this session, and at the highest close.
    """
    loss = ratio(previous_nav - nav, previous_nav)
    fall = ratio(peak_nav - nav, peak_nav)
    rows = (
        ("daily_loss", loss, policy.reduce_only_daily_loss, Action.REDUCE_ONLY),
        ("drawdown", fall, policy.reduce_only_drawdown, Action.REDUCE_ONLY),
        ("daily_loss", loss, policy.halt_daily_loss, Action.HALT),
        ("drawdown", fall, policy.halt_drawdown, Action.HALT),
    )
    return [Breach(name, found, limit, "fraction of NAV", action) for name, found, limit, action in rows if not keeps(found, limit)]


def portfolio_breaches(
    values: FloatArray, cash: float, adv_usd: FloatArray, beta: FloatArray, symbols: tuple[str, ...], policy: RiskPolicy
) -> list[Breach]:
    """Return every limit that a portfolio itself breaks: after fills, and for target weights (pass weights, NAV 1).

    Parameters
    ----------
    values, adv_usd, beta
        Shape (n_symbols,): signed position values, average daily traded value (in the unit of `values`), betas.
    cash
        In the unit of `values`; NAV is the sum of both.
    """
    nav = float(values.sum()) + cash
    weights = values / nav if nav > 0 else np.full(len(values), np.nan)
    held = values != 0
    days = np.where(held, np.abs(values) / np.where(adv_usd > 0, adv_usd * policy.exit_volume_share, np.nan), 0.0)
    rows = [
        ("gross_exposure", float(np.abs(weights).sum()), policy.max_gross_exposure, "fraction of NAV"),
        ("net_exposure", abs(float(weights.sum())), policy.max_net_exposure, "fraction of NAV"),
        ("leverage", ratio(float(values[values > 0].sum()) + max(cash, 0.0), nav), policy.max_leverage, "assets over NAV"),
        ("positions", float(held.sum()), float(policy.max_positions), "names"),
        ("beta", abs(_weighted(weights, beta)), policy.max_beta, "market exposure, fraction of NAV"),
        ("gap_loss", _gap_loss(weights, beta, policy), policy.max_gap_loss, "fraction of NAV"),
    ]
    found = [Breach(name, value, limit, unit, Action.CLIP) for name, value, limit, unit in rows if not keeps(value, limit)]
    if not keeps(ratio(cash, nav), policy.minimum_cash, at_least=True):
        found.append(Breach("cash", ratio(cash, nav), policy.minimum_cash, "fraction of NAV", Action.CLIP))
    for index, symbol in enumerate(symbols):
        name_rows = (("name_weight", weights[index], policy.max_name_weight), ("days_to_exit", days[index], policy.max_days_to_exit))
        for (name, value, limit), unit in zip(name_rows, ("fraction of NAV", "sessions"), strict=True):
            if not keeps(abs(float(value)), limit):
                found.append(Breach(name, float(value), limit, unit, Action.CLIP, symbol))
        if values[index] < -TOLERANCE * max(nav, 1.0):
            found.append(Breach("sign_flip", float(-values[index]), 0.0, "USD short", Action.HALT, symbol))
    return found


def fill_breaches(side: Side, price: float, reference: float, policy: RiskPolicy, symbol: str = "") -> list[Breach]:
    """Return the breach of a fill outside the price collar: the broker did what the order forbade, so it halts.

    A fill better than the reference is none, however far away.
    """
    worse = ratio(price - reference, reference) * (1.0 if side == "buy" else -1.0)
    if keeps(worse, policy.price_collar):
        return []
    return [Breach("price_collar", worse, policy.price_collar, "fraction of the last known price", Action.HALT, symbol)]


def measure(order: Order, snapshot: Snapshot, policy: RiskPolicy, duplicate: bool = False) -> Case:
    """Return the order and the portfolio it would leave, measured; what is unknown is NaN, which every check refuses."""
    index = snapshot.symbols.get(order.symbol, -1)
    known = index >= 0
    valid = known and 0.0 < order.quantity < math.inf
    quantity = order.quantity if valid else math.nan
    reference, price = (float(snapshot.reference[index]), float(snapshot.price[index])) if known else (math.nan, math.nan)
    held = float(snapshot.shares[index] - snapshot.open_sales[index]) if known else math.nan
    selling = order.side == "sell"
    short = max(0.0, quantity - held) if selling and valid else (0.0 if valid else math.nan)
    notional = quantity * reference
    purchases = snapshot.open_purchases
    if known and not selling:
        purchases = purchases.copy()
        purchases[index] += quantity
    # A name that is neither held nor bought needs no price.
    exposed = snapshot.shares + purchases
    values = np.where(exposed != 0, exposed * snapshot.reference, 0.0)
    nav = snapshot.nav if snapshot.nav > 0 else math.nan
    weights = values / nav
    adv = float(snapshot.adv_usd[index]) if known else math.nan
    bought = np.where(purchases != 0, purchases * snapshot.price, 0.0)
    spent = bought * (1.0 + snapshot.cost_rate + snapshot.impact * np.sqrt(np.abs(bought)))
    cash = snapshot.cash - float(spent.sum())
    now = np.where(exposed != 0, exposed * snapshot.price, 0.0)
    name_value = abs(float(values[index])) if known else math.nan
    return Case(
        policy=policy,
        symbol=order.symbol,
        known=known,
        quantity=quantity,
        reduces=selling and short <= _slack(held),
        duplicate=duplicate,
        short_shares=0.0 if selling and short <= _slack(held) else short,
        notional=notional,
        adv=adv,
        collar=abs(ratio(price - reference, reference)),
        price_age=float(snapshot.price_age[index]) if known else math.nan,
        turnover=0.5 * (snapshot.traded_usd + notional) / nav,
        gross=float(np.abs(weights).sum()),
        net=float(weights.sum()),
        leverage=ratio(float(now[now > 0].sum()) + max(cash, 0.0), snapshot.nav_now),
        name_weight=name_value / nav,
        days_to_exit=ratio(name_value, adv * policy.exit_volume_share),
        positions=float(np.count_nonzero(values)),
        cash=ratio(cash, snapshot.nav_now),
        beta=_weighted(weights, snapshot.beta),
        gap_loss=_gap_loss(weights, snapshot.beta, policy),
        snapshot=snapshot,
    )


def keeps(found: float, limit: float, at_least: bool = False) -> bool:
    """Return whether a measure keeps a limit, up to rounding; NaN never does."""
    slack = TOLERANCE * max(1.0, abs(limit))
    return found >= limit - slack if at_least else found <= limit + slack


def ratio(value: float, by: float) -> float:
    """Return value / by, NaN where the divisor is not positive: an unknown size is a breach, not a zero."""
    return value / by if by > 0.0 else math.nan


def _slack(held: float) -> float:
    return TOLERANCE * max(1.0, abs(held))


def _weighted(weights: FloatArray, beta: FloatArray) -> float:
    return float(np.where(weights != 0, weights * beta, 0.0).sum())


def _gap_loss(weights: FloatArray, beta: FloatArray, policy: RiskPolicy) -> float:
    """Return the loss when the market gaps by its shock times each beta, and the largest position by its own on top."""
    market = np.where(weights != 0, np.abs(weights * beta), 0.0).sum()
    largest = np.abs(weights).max(initial=0.0)
    return float(policy.gap_market_shock * market + policy.gap_name_shock * largest)
