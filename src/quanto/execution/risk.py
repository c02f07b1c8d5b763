"""The risk checks: pure functions that return every breach. Unknown, missing and NaN are breaches.

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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quanto.core.registry import Registry
from quanto.execution.limits import RiskPolicy
from quanto.execution.measures import TOLERANCE, Case, Snapshot, bought, gap_loss, measure, ratio, total
from quanto.execution.orders import Order, Side

FloatArray = npt.NDArray[np.float64]


class Action(StrEnum):
    """What a breach leads to, mildest first."""

    CLIP = "clip"
    DENY = "deny"
    REDUCE_ONLY = "reduce_only"
    HALT = "halt"


class Breach(NamedTuple):
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
            "symbol": self.symbol,
        }


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
    Check("order_volume_share", "fraction of ADV", Action.CLIP, False, lambda c: c.volume_share, lambda p: p.max_order_volume_share),
    # A reduction is spared these.
    Check("reduce_only", "flag", Action.DENY, True, lambda c: float(c.snapshot.reduce_only), _nothing),
    Check("turnover", "fraction of NAV, one-way", Action.CLIP, True, lambda c: c.turnover, lambda p: p.max_turnover),
    Check("gross_exposure", "fraction of NAV", Action.CLIP, True, lambda c: c.gross, lambda p: p.max_gross_exposure),
    Check("net_exposure", "fraction of NAV", Action.CLIP, True, lambda c: c.net, lambda p: p.max_net_exposure),
    Check("leverage", "assets over NAV", Action.CLIP, True, lambda c: c.leverage, lambda p: p.max_leverage),
    Check("name_weight", "fraction of NAV", Action.CLIP, True, lambda c: c.name_weight, lambda p: p.max_name_weight),
    Check("positions", "names", Action.DENY, True, lambda c: c.positions, lambda p: float(p.max_positions)),
    Check("cash", "fraction of NAV", Action.CLIP, True, lambda c: c.cash, lambda p: p.minimum_cash, at_least=True),
    Check("beta", "market exposure, fraction of NAV", Action.CLIP, True, lambda c: c.beta, lambda p: p.max_beta),
    Check("gap_loss", "fraction of NAV", Action.CLIP, True, lambda c: c.gap_loss, lambda p: p.max_gap_loss),
    Check("days_to_exit", "sessions", Action.CLIP, True, lambda c: c.days_to_exit, lambda p: p.max_days_to_exit),
)


_ROWS = tuple(CHECKS.values())


class Verdict(NamedTuple):
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


def order_breaches(
    order: Order, snapshot: Snapshot, policy: RiskPolicy, known_ids: Collection[str] = (), slack: float = TOLERANCE
) -> list[Breach]:
    """Return every limit that an order, or the portfolio it would leave, breaks; an empty list means it may pass.

    Parameters
    ----------
    known_ids
        Client order ids that were used before: the same order is never sent twice.
    slack
        Rounding that a measure may have: a fraction of the limit (of 1 for smaller limits).
    """
    case = measure(order, snapshot, policy, order.client_order_id in known_ids)
    found: list[Breach] = []
    for check in _ROWS:
        if check.spares_reductions and case.reduces:
            continue
        value, limit = check.found(case), check.limit(policy)
        # Written so that NaN is a breach.
        if not (value >= limit - slack if check.at_least else value <= limit + slack * max(1.0, limit)):
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
        # What is cut is cut to the limit itself: rounding is for what was sized to it.
        return not order_breaches(order._replace(quantity=quantity), snapshot, policy, known_ids, slack=0.0)

    low, high = 0.0, order.quantity
    for _ in range(60):  # each measure grows with the quantity, so the border can be halved down to
        middle = 0.5 * (low + high)
        low, high = (middle, high) if middle > 0.0 and passes(middle) else (low, middle)
    quantity = math.floor(low / lot_shares) * lot_shares if lot_shares else low
    return Verdict(quantity if quantity > 0.0 and passes(quantity) else 0.0, tuple(breaches))


def all_pass(orders: Sequence[Order], snapshot: Snapshot, policy: RiskPolicy, known_ids: Collection[str] = ()) -> bool:
    """Return True where it is sure that every order of one side passes whole, each judged with those before it open.

    The quick look at a whole batch. False decides nothing: then `judge` looks at one order after the other.
    """
    if not orders or len({order.symbol for order in orders}) < len(orders):
        return False
    known = (
        snapshot.missing_share <= policy.max_missing_share
        and snapshot.policy_age_sessions <= policy.max_policy_age_sessions
        and snapshot.orders_last_minute + len(orders) <= policy.max_orders_per_minute
        and not snapshot.halted
    )
    side = orders[0].side
    if not known or any(order.side != side or order.client_order_id in known_ids for order in orders):
        return False
    return all(_order_passes(order, snapshot, policy) for order in orders) and (side == "sell" or _purchases_pass(orders, snapshot, policy))


def _order_passes(order: Order, snapshot: Snapshot, policy: RiskPolicy) -> bool:
    """Return whether an order by itself keeps every limit that is never spared; written so that NaN does not."""
    row = snapshot.symbols.get(order.symbol, -1)
    if row < 0 or order.symbol in policy.restricted:
        return False
    quantity, reference, adv = order.quantity, snapshot.reference[row], snapshot.adv_usd[row]
    notional = quantity * reference
    return (
        quantity > 0.0
        and notional <= policy.max_order_notional_usd
        and adv > 0.0
        and notional <= policy.max_order_volume_share * adv
        and abs(snapshot.price[row] - reference) <= policy.price_collar * reference
        and snapshot.price_age[row] <= policy.max_price_age_sessions
        and (order.side == "buy" or quantity <= snapshot.shares[row] - snapshot.open_sales[row] + TOLERANCE)
    )


def _purchases_pass(orders: Sequence[Order], snapshot: Snapshot, policy: RiskPolicy) -> bool:
    """Return whether the portfolios that purchases lead to keep every limit; those that only grow are looked at once."""
    before = snapshot.totals if snapshot.totals is not None else total(snapshot)
    nav, now = snapshot.nav, snapshot.nav_now
    if snapshot.reduce_only or not (min(snapshot.shares) >= 0.0 and nav > 0 and now > 0):
        return False
    after, traded = before, snapshot.traded_usd
    for order in orders:
        row, quantity = snapshot.symbols[order.symbol], order.quantity
        value = (snapshot.shares[row] + snapshot.open_purchases[row] + quantity) * snapshot.reference[row]
        after = bought(snapshot, after, row, quantity)
        traded += quantity * snapshot.reference[row]
        if not (
            value <= (policy.max_name_weight + TOLERANCE) * nav
            and value <= policy.max_days_to_exit * policy.exit_volume_share * snapshot.adv_usd[row]
            # A beta below zero can hide what the order before it added.
            and abs(after.beta) <= (policy.max_beta + TOLERANCE) * nav
        ):
            return False
    return (
        0.5 * traded <= (policy.max_turnover + TOLERANCE) * nav
        # Without short positions gross is net, and the net limit is never above the gross one.
        and after.gross <= (policy.max_net_exposure + TOLERANCE) * nav
        and before.long_now + max(snapshot.cash - before.spent, 0.0) <= (policy.max_leverage + TOLERANCE) * now
        and after.positions <= policy.max_positions
        and snapshot.cash - after.spent >= (policy.minimum_cash - TOLERANCE) * now
        and gap_loss(after.market_gap, after.largest, policy) <= (policy.max_gap_loss + TOLERANCE) * nav
    )


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
    swings = np.where(held, weights * beta, 0.0)
    largest = float(np.abs(weights).max(initial=0.0))
    days = np.where(held, np.abs(values) / np.where(adv_usd > 0, adv_usd * policy.exit_volume_share, np.nan), 0.0)
    rows = [
        ("gross_exposure", float(np.abs(weights).sum()), policy.max_gross_exposure, "fraction of NAV"),
        ("net_exposure", abs(float(weights.sum())), policy.max_net_exposure, "fraction of NAV"),
        ("leverage", ratio(float(values[values > 0].sum()) + max(cash, 0.0), nav), policy.max_leverage, "assets over NAV"),
        ("positions", float(held.sum()), float(policy.max_positions), "names"),
        ("beta", abs(float(swings.sum())), policy.max_beta, "market exposure, fraction of NAV"),
        ("gap_loss", gap_loss(float(np.abs(swings).sum()), largest, policy), policy.max_gap_loss, "fraction of NAV"),
    ]
    found = [Breach(name, value, limit, unit, Action.CLIP) for name, value, limit, unit in rows if not keeps(value, limit)]
    if not keeps(ratio(cash, nav), policy.minimum_cash, at_least=True):
        found.append(Breach("cash", ratio(cash, nav), policy.minimum_cash, "fraction of NAV", Action.CLIP))
    # Written so that NaN is a breach.
    heavy = np.flatnonzero(~(np.abs(weights) <= policy.max_name_weight + TOLERANCE * max(1.0, policy.max_name_weight)))
    slow = np.flatnonzero(~(days <= policy.max_days_to_exit + TOLERANCE * max(1.0, policy.max_days_to_exit)))
    short = np.flatnonzero(values < -TOLERANCE * max(nav, 1.0))
    found += [Breach("name_weight", float(weights[i]), policy.max_name_weight, "fraction of NAV", Action.CLIP, symbols[i]) for i in heavy]
    found += [Breach("days_to_exit", float(days[i]), policy.max_days_to_exit, "sessions", Action.CLIP, symbols[i]) for i in slow]
    found += [Breach("sign_flip", float(-values[i]), 0.0, "USD short", Action.HALT, symbols[i]) for i in short]
    return found


def fill_breaches(side: Side, price: float, reference: float, policy: RiskPolicy, symbol: str = "") -> list[Breach]:
    """Return the breach of a fill outside the price collar: the broker did what the order forbade, so it halts.

    A fill better than the reference is none, however far away.
    """
    worse = ratio(price - reference, reference) * (1.0 if side == "buy" else -1.0)
    if keeps(worse, policy.price_collar):
        return []
    return [Breach("price_collar", worse, policy.price_collar, "fraction of the last known price", Action.HALT, symbol)]


def keeps(found: float, limit: float, at_least: bool = False) -> bool:
    """Return whether a measure keeps a limit, up to rounding; NaN never does."""
    slack = TOLERANCE * max(1.0, abs(limit))
    return found >= limit - slack if at_least else found <= limit + slack
