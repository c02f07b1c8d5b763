"""The folder of one paper account: its journal, its lease, its kill switch, its log and its daily summaries."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from quanto.core.errors import ExecutionError
from quanto.core.store import write_bytes
from quanto.execution.book import Book
from quanto.execution.broker import BrokerAccount, Flow
from quanto.execution.clock import Clock
from quanto.execution.engine import read_book
from quanto.execution.journal import Journal, read_journal

JOURNAL = "journal.jsonl"
LOG = "log.jsonl"
_LEASE = "lease.lock"
_KILL = "KILL"

logger = logging.getLogger("quanto.execution.account")


@contextmanager
def lease(folder: Path) -> Iterator[None]:
    """Hold the account alone; the operating system gives the lease back when the process ends, however it ends.

    Raises
    ------
    ExecutionError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LEASE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ExecutionError(f"another process trades the account of {folder}; one instance per account") from None
    try:
        yield
    finally:
        lock.release()


def throw_kill_switch(folder: Path, reason: str) -> None:
    """Stop all trading of an account, now and after any restart, until `resume_halt`; works while an engine runs.

    Raises
    ------
    ExecutionError
        If no reason is given.
    """
    write_bytes(folder / _KILL, _reason(reason).encode())


def kill_reason(folder: Path) -> str:
    """Return why the kill switch was thrown, "" if it was not; a switch that cannot be read counts as thrown."""
    try:
        return (folder / _KILL).read_text(encoding="utf-8") or "thrown without a reason"
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        return f"the switch cannot be read ({type(error).__name__})"


def halt_reason(folder: Path) -> str:
    """Return why the account's journal is halted, "" if it is not or there is none; reads beside a running engine.

    Raises
    ------
    IntegrityError
        If a byte of the journal was changed.
    """
    path = folder / JOURNAL
    if not path.exists():
        return ""
    book = Book()
    for event in read_journal(path):
        book.apply(event)
    return book.halted or book.due


def resume_halt(
    folder: Path, reason: str, operator: str, clock: Clock, account: BrokerAccount | None = None, journal_name: str = JOURNAL
) -> str:
    """Lift a halt or a kill switch, audited in the journal, and return what was lifted.

    Drawdown is measured from here on: the highest close that the limits see becomes the last one.

    Parameters
    ----------
    operator
        Who lifts it; stands in the journal.
    account
        The broker's account to adopt: differences from the book are journalled as adjustments. None adopts nothing.

    Raises
    ------
    ExecutionError
        If nothing is halted, a reason or an operator is missing, or another process holds the account.
    """
    _reason(reason)
    if not operator.strip():
        raise ExecutionError("lifting a halt needs the name of who lifts it")
    with lease(folder), Journal(folder / journal_name) as journal:
        book = read_book(journal)
        lifted = "; ".join(text for text in (book.halted or book.due, kill_reason(folder)) if text)
        if not lifted:
            raise ExecutionError(f"nothing is halted in {folder}")
        flows = [] if account is None else [flow._asdict() for flow in adjustments(account, book.cash, book.shares, journal.count)]
        journal.append(
            {
                "kind": "resume",
                "at": clock.now().isoformat(),
                "reason": reason,
                "operator": operator,
                "lifted": lifted,
                "flows": flows,
            }
        )
        journal.sync()
        (folder / _KILL).unlink(missing_ok=True)
    return lifted


def adjustments(account: BrokerAccount, cash: float, shares: Mapping[str, float], count: int) -> list[Flow]:
    """Return the flows that lead from a book to the broker's account; `count` makes their ids unique in the journal."""
    flows = []
    if account.cash != cash:
        flows.append(Flow(f"adjustment-{count}-cash", "adjustment", cash=account.cash - cash))
    for symbol in sorted({*account.positions, *shares}):
        difference = account.positions.get(symbol, 0.0) - shares.get(symbol, 0.0)
        if difference != 0.0:
            flows.append(Flow(f"adjustment-{count}-{symbol}", "adjustment", symbol, shares=difference))
    return flows


def log_event(folder: Path, clock: Clock, level: int, event: str, **facts: object) -> None:
    """Write one line to the account's structured log, and the same to the process's log."""
    line = json.dumps({"at": clock.now().isoformat(), "level": logging.getLevelName(level), "event": event, **facts}, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    logger.log(level, "%s: %s", folder.name, line)


def _reason(reason: str) -> str:
    if not reason.strip():
        raise ExecutionError("a reason must be given; it stands in the journal")
    return reason
