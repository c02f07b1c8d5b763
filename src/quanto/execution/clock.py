"""The engine's time: the wall clock in paper trading, session times in a replay."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta
from datetime import time as day_time
from typing import Protocol
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")

# Decision and open of a session, New York time (the design's rule: decide before the open, trade at the open).
DECISION = day_time(8, 30)
OPEN = day_time(9, 30)
CLOSE = day_time(16, 0)


class Clock(Protocol):
    """What the engine asks about time."""

    def now(self) -> datetime:
        """Return the time now, in New York."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def reach(self, moment: datetime) -> None:
        """Say that the engine has reached a moment of a session; a wall clock does not care."""
        ...


class SessionClock:
    """The clock of a replay: it stands at the moment the engine has reached, and sleeping moves it."""

    def __init__(self) -> None:
        self._now = datetime.combine(date(1985, 1, 1), DECISION, NEW_YORK)

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    def reach(self, moment: datetime) -> None:
        # Never backwards: what the engine slept through within a session stays passed.
        if moment > self._now:
            self._now = moment


class WallClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(NEW_YORK)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def reach(self, moment: datetime) -> None:
        """Do nothing: time passes by itself."""


def moment_of(session: date, at: day_time) -> datetime:
    """Return a time of day of a session, in New York."""
    return datetime.combine(session, at, NEW_YORK)
