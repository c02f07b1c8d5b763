"""What a journal proves: one row per session, and the figures that promotion may rest on, in all and per regime.

Everything is rebuilt from the journal's events (and the closing prices of the feed, for what did not trade). A rate
of nothing is None: no order submitted is no evidence, not 100 % filled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quanto.execution.book import Book, Entry
from quanto.execution.feed import Feed
from quanto.execution.orders import Order, Status
from quanto.portfolio.costs import BPS

SESSIONS_PER_YEAR = 252


@dataclass
class SessionRow:
    """One session of a journal. USD, fractions of NAV, or counts of orders.

    Attributes
    ----------
    nav, cash, gross
        At the close. `nav_before` at the close before.
    bought, sold, fees
        Values of the fills at their prices, and what they cost.
    slippage_bps
        One value per fill: how much worse its price was than the opening price, weighted later by `slippage_usd`.
    shortfall_usd
        Implementation shortfall (Perold 1988): fills against the price of the decision, with fees, and what did not
        fill against the close.
    decided_usd
        Value of the orders asked for, at the price of the decision.
    """

    session: str
    nav_before: float
    nav: float = 0.0
    cash: float = 0.0
    gross: float = 0.0
    drawdown: float = 0.0
    missed: bool = False
    halted: bool = False
    orders: int = 0
    denied: int = 0
    submitted: int = 0
    rejected: int = 0
    filled: int = 0
    partial: int = 0
    unfilled: int = 0
    submitted_usd: float = 0.0
    filled_usd: float = 0.0
    bought: float = 0.0
    sold: float = 0.0
    fees: float = 0.0
    dividends: float = 0.0
    interest: float = 0.0
    cash_in_lieu: float = 0.0
    other_flows: float = 0.0
    slippage_usd: float = 0.0
    shortfall_usd: float = 0.0
    decided_usd: float = 0.0
    slippage_bps: list[float] = field(default_factory=list)
    limits: Counter[str] = field(default_factory=Counter)

    @property
    def turnover(self) -> float:
        """One-way, as a fraction of NAV at the close before."""
        return 0.5 * (self.bought + self.sold) / self.nav_before


def session_rows(events: Iterable[Entry], feed: Feed) -> list[SessionRow]:
    """Return one row per session that ended, from the events of a journal in order."""
    book = Book()
    rows: list[SessionRow] = []
    closes = {str(day): row for row, day in enumerate(feed.sessions)}
    columns = {symbol: index for index, symbol in enumerate(feed.symbols)}
    limits: Counter[str] = Counter()
    for event in events:
        book.apply(event)
        for part in (event, *event.get("rows", ())):
            for breach in part.get("breaches", ()):
                limits[breach["check"]] += 1
        if event["kind"] == "end":
            close = feed.close[closes[event["session"]]]
            row = _row(book, {symbol: float(close[index]) for symbol, index in columns.items()})
            row.limits, limits = limits, Counter()
            rows.append(row)
        elif event["kind"] == "mark" and rows and rows[-1].session == event["session"]:
            row = rows[-1]
            row.nav, row.cash = event["nav"], event["cash"]
            row.gross = sum(abs(value) for value in event["values"].values()) / row.nav
            row.drawdown = row.nav / book.peak - 1.0
            row.limits += limits
            row.halted = bool(book.halted)
            limits = Counter()
    return rows


def _row(book: Book, close: Mapping[str, float]) -> SessionRow:
    row = SessionRow(session=book.session, nav_before=book.nav, halted=bool(book.halted))
    row.missed = book.decision is not None and book.decision["kind"] == "missed"
    quoted = book.quote["prices"] if book.quote is not None else {}
    for flow in book.opened["flows"] if book.opened is not None else ():
        if flow["kind"] == "interest":
            row.interest += flow["cash"]
        elif flow["kind"] == "cash_in_lieu":
            row.cash_in_lieu += flow["cash"]
        elif flow["kind"] == "dividend":
            row.dividends += flow["cash"]
        else:
            row.other_flows += flow["cash"]
    for order in book.orders.values():
        _count(row, order)
        arrival = quoted.get(order.symbol) or order.reference_price
        reference = order.reference_price
        if not (arrival > 0 and reference > 0):
            continue
        if order.filled > 0:
            slipped = order.sign * (order.notional - order.filled * arrival)
            row.slippage_usd += slipped
            row.slippage_bps.append(slipped / (order.filled * arrival) / BPS)
        rest = 0.0 if order.status == Status.DENIED else order.quantity - order.filled
        row.shortfall_usd += order.sign * (order.notional - order.filled * reference) + order.fees
        # In paper trading the close of the session is not known yet; a replay of the journal adds it.
        if rest > 0 and close[order.symbol] > 0:
            row.shortfall_usd += order.sign * rest * (close[order.symbol] - reference)
        row.decided_usd += order.quantity * reference
    return row


def _count(row: SessionRow, order: Order) -> None:
    row.orders += 1
    if order.status == Status.DENIED:
        row.denied += 1
        return
    row.submitted += 1
    row.submitted_usd += order.quantity * order.reference_price
    row.filled_usd += order.filled * order.reference_price
    row.fees += order.fees
    if order.side == "buy":
        row.bought += order.notional
    else:
        row.sold += order.notional
    if order.status == Status.REJECTED:
        row.rejected += 1
    elif order.status == Status.FILLED:
        row.filled += 1
    elif order.filled > 0:
        row.partial += 1
    else:
        row.unfilled += 1


def summarise(rows: Sequence[SessionRow]) -> dict[str, object]:
    """Return the evidence of some sessions: counts, rates, costs of execution, exposure, limits hit.

    Rates are None where nothing was submitted or filled. Slippage and shortfall in basis points; drawdown at or below
    0, measured on the whole replay.
    """
    submitted, total = sum(row.submitted for row in rows), sum(row.orders for row in rows)
    slippage = np.array([value for row in rows for value in row.slippage_bps])
    filled_usd, decided = sum(row.filled_usd for row in rows), sum(row.decided_usd for row in rows)
    submitted_usd = sum(row.submitted_usd for row in rows)
    gross = np.array([row.gross for row in rows])
    turnover = np.array([row.turnover for row in rows])
    limits: Counter[str] = sum((row.limits for row in rows), Counter())
    shortfall = sum(row.shortfall_usd for row in rows)
    return {
        "sessions": len(rows),
        "sessions_missed": sum(row.missed for row in rows),
        "sessions_halted": sum(row.halted for row in rows),
        "orders": total,
        "orders_submitted": submitted,
        "orders_filled": sum(row.filled for row in rows),
        "orders_partially_filled": sum(row.partial for row in rows),
        "orders_unfilled": sum(row.unfilled for row in rows),
        "orders_rejected": sum(row.rejected for row in rows),
        "orders_denied": sum(row.denied for row in rows),
        "fill_rate": _rate(filled_usd, submitted_usd),
        "reject_rate": _rate(sum(row.rejected for row in rows), submitted),
        "denial_rate": _rate(sum(row.denied for row in rows), total),
        "slippage_mean_bps": _rate(sum(row.slippage_usd for row in rows) / BPS, filled_usd),
        "slippage_p95_bps": float(np.quantile(slippage, 0.95)) if len(slippage) else None,
        "shortfall_usd": shortfall,
        "shortfall_bps": _rate(shortfall / BPS, decided),
        "fees_usd": sum(row.fees for row in rows),
        "dividends_usd": sum(row.dividends for row in rows),
        "interest_usd": sum(row.interest for row in rows),
        "cash_in_lieu_usd": sum(row.cash_in_lieu for row in rows),
        "other_flows_usd": sum(row.other_flows for row in rows),
        "turnover_per_year": float(turnover.mean() * SESSIONS_PER_YEAR) if len(rows) else None,
        "exposure_mean": float(gross.mean()) if len(rows) else None,
        "exposure_p95": float(np.quantile(gross, 0.95)) if len(rows) else None,
        "exposure_max": float(gross.max()) if len(rows) else None,
        "worst_session_return": min(row.nav / row.nav_before - 1.0 for row in rows) if rows else None,
        "max_drawdown": min(row.drawdown for row in rows) if rows else None,
        "limits_hit": dict(sorted(limits.items())),
    }


def _rate(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
