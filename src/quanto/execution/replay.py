"""Shadow replay: the session engine on past sessions with the simulated broker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from quanto.core.errors import DataError
from quanto.execution.book import Book
from quanto.execution.brokers.sim import SimBroker, SimConfig, SimMarket
from quanto.execution.clock import SessionClock
from quanto.execution.desk import Terms
from quanto.execution.engine import SessionEngine, Strategy, read_book
from quanto.execution.feed import Feed
from quanto.execution.journal import Journal
from quanto.execution.orders import Status


@dataclass(frozen=True)
class Plan:
    """Which sessions are replayed, and from which account.

    Attributes
    ----------
    start, stop
        Sessions start..stop-1 of the feed are traded; the first decision is that of start-1.
    cash
        USD at the close of start-1.
    late
        Sessions whose data came too late to decide: they are caught up without trading.
    """

    start: int
    stop: int
    cash: float
    late: frozenset[int] = frozenset()


def replay(
    feed: Feed,
    market: SimMarket,
    strategy: Strategy,
    terms: Terms,
    sim: SimConfig,
    seed: int,
    plan: Plan,
    journal: Journal,
    on_session: Callable[[int], None] = lambda _: None,
) -> Book:
    """Run (or resume) the plan's sessions into the journal; return the book at the last close.

    A journal that holds a part of the same replay is continued: the final bytes are those of an uninterrupted run.

    Raises
    ------
    DataError
        If the window needs a session before it or leaves the feed.
    ExecutionError
        If the journal was begun under other terms.
    """
    if not 1 <= plan.start < plan.stop <= len(feed.sessions):
        found = f"{plan.start}..{plan.stop} of {len(feed.sessions)}"
        raise DataError(f"a replay needs a session before it and must end inside the feed; found {found}")
    book = read_book(journal)
    broker = restore(market, sim, seed, book, plan.cash)
    engine = SessionEngine(feed, strategy, broker, journal, terms, SessionClock(), book)
    first, last = feed.day(plan.start), feed.day(plan.stop - 1)
    facts = {"first": first.isoformat(), "last": last.isoformat(), "sim": sim.model_dump(mode="json"), "seed": seed, "nav": plan.cash}
    facts["late"] = [feed.day(row).isoformat() for row in sorted(plan.late)]
    engine.start(plan.cash, {}, facts)
    for t in range(plan.start - 1, plan.stop - 1):
        if t + 1 in plan.late:
            engine.miss_session(t, reconcile=True, reason="the data of the deciding session came too late")
        else:
            engine.run_session(t)
        on_session(t)
    engine.mark(plan.stop - 1)
    journal.sync()
    return book


def restore(market: SimMarket, sim: SimConfig, seed: int, book: Book, cash: float) -> SimBroker:
    """Return a simulated broker in the state in which the journal's engine left it.

    It begins at the last close of the book and takes the orders of the session in progress again: it is a pure
    function of them, so it answers what it answered before.
    """
    begun = book.header is not None
    broker = SimBroker(market, sim, seed, book.close_cash if begun else cash, book.close_shares)
    if book.opened is not None and book.ended != book.session:
        broker.open_session(_date(book.session))
        for order in book.orders.values():
            if order.status not in (Status.DENIED, Status.PENDING_SUBMIT):
                answer = broker.submit(order)
                if order.status in (Status.CANCELED, Status.PENDING_CANCEL):
                    broker.cancel(answer.broker_order_id)
    return broker


def _date(text: str) -> date:
    return date.fromisoformat(text)
