"""Paper trading: one session per run, on a real account in real time, with the engine that shadow replay uses.

A run looks at the calendar and the journal: a day without a session, a session that was traded already or begun too
late is no work; sessions that nobody ran are caught up without trading; a session that was begun is continued. Data
that do not reach the deciding session stop the run before it asks the broker for anything.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, time
from enum import IntEnum
from pathlib import Path

import numpy as np
from pydantic import Field

from quanto.core.config import Section
from quanto.core.errors import ExecutionError
from quanto.core.store import write_bytes, write_json
from quanto.execution.account import JOURNAL, kill_reason, lease, log_event
from quanto.execution.broker import Broker
from quanto.execution.brokers.alpaca_http import AlpacaConfig
from quanto.execution.clock import NEW_YORK, Clock
from quanto.execution.compiler import OrderRules
from quanto.execution.desk import Terms
from quanto.execution.engine import SessionEngine, Strategy, read_book
from quanto.execution.evidence import session_rows, summarise
from quanto.execution.feed import Feed
from quanto.execution.journal import Journal
from quanto.execution.summary import daily_summary, summary_markdown
from quanto.market.calendar import is_session


class ExitCode(IntEnum):
    """What a run tells the scheduler; everything but OK is an alert."""

    OK = 0
    ERROR = 1
    HALTED = 3
    STALE_DATA = 4
    TOO_LATE = 5


class PaperConfig(Section):
    """The account, the way to it, and how orders are made there."""

    account: str = Field(default="paper", pattern=r"^[A-Za-z0-9._-]+$", description="folder of the account below the data root")
    broker: AlpacaConfig = AlpacaConfig()
    begin_before: time = Field(default=time(10, 30), description="New York time after which no session is begun")
    adopt_positions: bool = Field(default=False, description="whether a new journal may begin with what the account holds")
    orders: OrderRules = OrderRules(
        fractional=True,
        lot_shares=1,
        minimum_notional_usd=1.0,
        worst_case_slippage_bps=50.0,
        unsettled_proceeds="usable",
        collar_orders=True,
    )


@dataclass(frozen=True)
class PaperRun:
    """What one run did: the exit code, one sentence, and the session traded (None if none was)."""

    code: ExitCode
    message: str
    session: date | None = None


def run_paper_session(
    folder: Path, feed: Feed, strategy: Strategy, broker: Broker, terms: Terms, config: PaperConfig, clock: Clock
) -> PaperRun:
    """Trade the session of today on the account of `folder`, once.

    Parameters
    ----------
    feed
        Ends with the session to trade: its row holds what is announced (splits, costs), the row before it the last close.

    Raises
    ------
    ExecutionError
        If another process holds the account, the journal was begun under other terms, or the account holds positions
        that a new journal may not adopt.
    """
    with lease(folder):
        try:
            run = _run(folder, feed, strategy, broker, terms, config, clock)
        except Exception as error:
            log_event(folder, clock, logging.ERROR, "error", kind=type(error).__name__, text=str(error))
            raise
        log_event(folder, clock, logging.INFO if run.code == ExitCode.OK else logging.ERROR, run.code.name.lower(), text=run.message)
        return run


def _run(folder: Path, feed: Feed, strategy: Strategy, broker: Broker, terms: Terms, config: PaperConfig, clock: Clock) -> PaperRun:
    now = clock.now().astimezone(NEW_YORK)
    today = now.date()
    if not is_session(np.array([today], dtype="datetime64[D]"))[0]:
        return PaperRun(ExitCode.OK, f"{today} is no session of the exchange")
    if feed.day(-1) != today:
        return PaperRun(ExitCode.STALE_DATA, f"the data reach the decision for {feed.day(-1)}, not for {today}; run the pipeline")
    with Journal(folder / JOURNAL) as journal:
        book = read_book(journal)
        if book.ended >= today.isoformat():
            return PaperRun(ExitCode.OK, f"the session {today} was traded already", today)
        if book.session != today.isoformat() and now.time() >= config.begin_before:
            return PaperRun(ExitCode.TOO_LATE, f"{today} is not begun after {config.begin_before}; the next run catches it up")
        if journal.repaired_bytes:
            log_event(folder, clock, logging.WARNING, "repaired", bytes=journal.repaired_bytes)
        engine = SessionEngine(feed, strategy, broker, journal, terms, clock, book, lambda: kill_reason(folder))
        _start(engine, broker, config)
        last = len(feed.sessions) - 1
        for t in range(_first_missed(feed, book.ended or book.session), last - 1):
            engine.miss_session(t, reconcile=False, reason="no run on this session")
            log_event(folder, clock, logging.WARNING, "missed", session=feed.day(t + 1).isoformat())
        engine.run_session(last - 1)
        _summarise(folder, journal, feed, today)
        if book.halted:
            return PaperRun(ExitCode.HALTED, f"halted: {book.halted}", today)
        return PaperRun(ExitCode.OK, f"traded {today}", today)


def _start(engine: SessionEngine, broker: Broker, config: PaperConfig) -> None:
    """Write the header of a new journal from what the account holds; an old one is checked to be the same trade."""
    cash, shares = 0.0, {}
    if engine.book.header is None:
        account = broker.account()
        if account.positions and not config.adopt_positions:
            names = ", ".join(sorted(account.positions))
            raise ExecutionError(f"the account holds {names}; close the positions, or let a new journal begin with them (adopt_positions)")
        cash, shares = account.cash, dict(account.positions)
    engine.start(cash, shares, {"broker": broker.name, "account": config.account})


def _first_missed(feed: Feed, done: str) -> int:
    """Return the deciding session of the first session after `done`; the last one where nothing was done yet."""
    if not done:
        return len(feed.sessions) - 2
    return int(np.searchsorted(feed.sessions, np.datetime64(done, "D"), side="right")) - 1


def _summarise(folder: Path, journal: Journal, feed: Feed, session: date) -> None:
    rows = session_rows(journal.replay(), feed)
    summary = daily_summary(rows, summarise(rows[-1:]), read_book(journal), journal)
    write_json(folder / "summaries" / f"{session}.json", summary)
    write_bytes(folder / "summaries" / f"{session}.md", summary_markdown(summary).encode())
