"""Waiting: the clock, the rate limiter of one account, and what an answer tells us to wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Protocol

import numpy as np


class Clock(Protocol):
    """Time as the transport sees it; tests give one that does not really wait."""

    def now(self) -> float:
        """Return seconds since 1970, from our own clock: a vendor's clock may be wrong."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class RateLimiter:
    """Lets at most `requests` through in any window of `window_seconds`, for all threads of one account.

    The window slides: the n-th request waits until the (n - requests)-th is a whole window old, so no window of the
    vendor's, wherever it begins, sees more. It is a little longer than the vendor's, because requests do not all
    travel equally fast.
    """

    def __init__(self, requests: int, window_seconds: float, clock: Clock) -> None:
        self._window = window_seconds * 1.01 + 0.05
        self._clock = clock
        self._granted: deque[float] = deque(maxlen=requests)
        self._closed_until = float("-inf")
        self._lock = Lock()

    def acquire(self) -> float:
        """Wait for the next slot and return the seconds waited."""
        with self._lock:
            now = self._clock.monotonic()
            at = max(now, self._closed_until)
            if self._granted and len(self._granted) == self._granted.maxlen:
                at = max(at, self._granted[0] + self._window)
            if self._granted:
                at = max(at, self._granted[-1])
            self._granted.append(at)
        if at > now:
            self._clock.sleep(at - now)
        # While this thread slept, another may have been told to wait longer.
        while (more := self._closed_until - self._clock.monotonic()) > 0:
            self._clock.sleep(more)
        return self._clock.monotonic() - now

    def close_for(self, seconds: float) -> None:
        """Let nobody through for some seconds: one thread was told that the account has to wait."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock.monotonic() + seconds)


_LIMITERS: dict[tuple[str, str, int, float], RateLimiter] = {}
_LIMITERS_LOCK = Lock()


def shared_limiter(origin: str, account: str, requests: int, window_seconds: float, clock: Clock) -> RateLimiter:
    """Return the limiter that all clients of one account at one origin share within this process.

    `account` is a digest of the key, never the key.
    """
    key = (origin, account, requests, window_seconds)
    with _LIMITERS_LOCK:
        if key not in _LIMITERS:
            _LIMITERS[key] = RateLimiter(requests, window_seconds, clock)
        return _LIMITERS[key]


def told_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait, or None: `Retry-After` in both forms, else `X-RateLimit-Reset`.

    A date is read against the answer's own `Date`, so a skewed vendor clock does not stretch the wait.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    retry_after = lower.get("retry-after", "")
    if retry_after:
        seconds = _seconds(retry_after)
        if seconds is not None:
            return max(0.0, seconds)
        moment = _http_date(retry_after)
        if moment is not None:
            return max(0.0, moment - (_http_date(lower.get("date", "")) or now))
    reset = _seconds(lower.get("x-ratelimit-reset", ""))
    return None if reset is None else max(0.0, reset - now)


def backoff(attempt: int, base_seconds: float, cap_seconds: float, rng: np.random.Generator) -> float:
    """Return the wait before attempt `attempt` + 1 (from 1): exponential, capped, with a jitter of -50 % to 0."""
    full = min(cap_seconds, base_seconds * 2.0 ** min(attempt - 1, 30))
    return float(full * (1.0 - 0.5 * rng.random()))


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
