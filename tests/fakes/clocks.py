"""Clocks that do not wait."""

from __future__ import annotations

import threading
import time


class VirtualClock:
    """Time that passes when somebody sleeps; every sleep is written down."""

    def __init__(self, start: float = 1_767_700_000.0) -> None:
        self._time = start
        self.sleeps: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._time

    def monotonic(self) -> float:
        return self._time

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.sleeps.append(seconds)
            self._time += max(0.0, seconds)


class FastClock(VirtualClock):
    """Real time, plus what was slept without waiting: deadlines of slow answers hold, back-off costs nothing."""

    def now(self) -> float:
        return time.time() + self._slept()

    def monotonic(self) -> float:
        return time.monotonic() + self._slept()

    def _slept(self) -> float:
        return sum(self.sleeps)
