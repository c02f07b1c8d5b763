"""The daily summary of a paper account: one value, as JSON for machines and Markdown for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quanto.execution.book import Book
from quanto.execution.evidence import SessionRow
from quanto.execution.journal import Journal


def daily_summary(rows: Sequence[SessionRow], evidence: Mapping[str, object], book: Book, journal: Journal) -> dict[str, object]:
    """Return what the last session did: account, orders, limits, halts, and the head that seals the journal so far."""
    row = rows[-1]
    return {
        "session": row.session,
        "nav_at_decision_usd": row.nav_before,
        "cash_usd": book.cash,
        "positions_shares": dict(sorted(book.shares.items())),
        "peak_nav_usd": book.peak,
        "drawdown_at_decision": book.nav / book.peak - 1.0 if book.peak > 0 else None,
        "halted": book.halted,
        "reduce_only": book.reduce_only,
        "orders": [
            {
                "id": order.client_order_id,
                "symbol": order.symbol,
                "side": order.side,
                "quantity": order.quantity,
                "filled": order.filled,
                "average_price": order.notional / order.filled if order.filled > 0 else None,
                "status": str(order.status),
            }
            for order in book.orders.values()
        ],
        "evidence": {name: evidence[name] for name in _SHOWN},
        "journal": {"events": journal.count, "head": journal.head},
    }


_SHOWN = (
    "orders", "orders_submitted", "orders_filled", "orders_partially_filled", "orders_unfilled", "orders_rejected", "orders_denied",
    "fill_rate", "reject_rate", "denial_rate", "slippage_mean_bps", "slippage_p95_bps", "shortfall_bps", "fees_usd", "limits_hit",
)  # fmt: skip


def summary_markdown(summary: Mapping[str, object]) -> str:
    """Return a summary as Markdown."""
    orders, evidence = summary["orders"], summary["evidence"]
    positions, journal = summary["positions_shares"], summary["journal"]
    if not (isinstance(orders, list) and isinstance(evidence, Mapping) and isinstance(positions, Mapping) and isinstance(journal, Mapping)):
        raise TypeError("a summary is what daily_summary returns")
    state = f"**halted**: {summary['halted']}" if summary["halted"] else ("reduce only" if summary["reduce_only"] else "normal")
    lines = [
        f"# Paper session {summary['session']}",
        "",
        f"State: {state}",
        "",
        f"NAV at the decision: {summary['nav_at_decision_usd']:,.2f} USD · cash now: {summary['cash_usd']:,.2f} USD",
        "",
        "| order | side | quantity | filled | price | status |",
        "|---|---|---|---|---|---|",
        *(
            f"| {order['symbol']} | {order['side']} | {order['quantity']:g} | {order['filled']:g} | "
            f"{'' if order['average_price'] is None else format(order['average_price'], '.4f')} | {order['status']} |"
            for order in orders
        ),
        "",
        "| measure | value |",
        "|---|---|",
        *(f"| {name} | {'no evidence' if value is None else value} |" for name, value in evidence.items()),
        "",
        f"Positions: {', '.join(f'{shares:g} {symbol}' for symbol, shares in positions.items()) or 'none'}",
        "",
        f"Journal: {journal['events']} events, head `{journal['head']}`",
        "",
    ]
    return "\n".join(lines)
