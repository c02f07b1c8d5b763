"""Writing events: into the journal and into the book at once, with the time, and the halts that they lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from quanto.execution.book import Book, Entry
from quanto.execution.clock import Clock
from quanto.execution.journal import Journal
from quanto.execution.risk import Action, Breach


class Recorder:
    """The one writer of a journal, and the book that follows it."""

    def __init__(self, journal: Journal, book: Book, clock: Clock, killed: Callable[[], str]) -> None:
        """Continue a journal whose events add up to `book`; `killed` says why all trading must stop, or "" (kill switch)."""
        self.book = book
        self.clock = clock
        self._journal = journal
        self._killed = killed
        self._stamp: tuple[str, datetime | None] = ("", None)
        if book.last_at:
            clock.reach(datetime.fromisoformat(book.last_at))

    def emit(self, event: Entry) -> None:
        """Append an event, and move the book on by it."""
        now = self.clock.now()
        if now is not self._stamp[1]:  # a replay's clock stands still for many events
            self._stamp = (now.isoformat(), now)
        event["at"] = self._stamp[0]
        self._journal.append(event)
        self.book.apply(event)

    def emit_checked(self, event: Entry, breaches: Iterable[Breach]) -> None:
        """Append an event with the breaches found in it; one that halts is followed by the halt."""
        found = list(breaches)
        event["breaches"] = [breach.record() for breach in found]
        if any(breach.action == Action.REDUCE_ONLY for breach in found):
            event["reduce_only"] = True
        self.emit(event)
        self.stopped()

    def halt(self, reason: str) -> None:
        """Stop all trading until the halt is lifted by an audited command; the first reason stays."""
        if not self.book.halted:
            self.emit({"kind": "halt", "reason": reason})
            self.sync()

    def stopped(self) -> bool:
        """Return whether nothing may trade; a halt that is due (a breach, the kill switch) is journalled here."""
        if self.book.due:
            self.halt(self.book.due)
        reason = self._killed()
        if reason:
            self.halt(f"kill switch: {reason}")
        return bool(self.book.halted)

    def sync(self) -> None:
        """Make everything that was written durable."""
        self._journal.sync()
