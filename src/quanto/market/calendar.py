"""Sessions of the exchange calendar, as `datetime64[D]` arrays and dates."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

import exchange_calendars
import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError

EXCHANGE = "XNYS"

# exchange_calendars' default window moves with today's date; fixed bounds keep results equal for ever.
FIRST = date(1985, 1, 1)
LAST = date(2035, 12, 31)

DateArray = npt.NDArray[np.datetime64]


def sessions_between(start: date, end: date) -> DateArray:
    """Return all sessions from `start` to `end`, both included; shape (n_sessions,), ascending.

    Raises
    ------
    DataError
        If a bound lies outside 1985-2035, where the calendar is fixed.
    """
    if start < FIRST or end > LAST:
        raise DataError(f"the calendar covers {FIRST} to {LAST}; found {start} to {end}")
    every = _all_sessions()
    low, high = np.searchsorted(every, np.array([start, end + timedelta(days=1)], dtype="datetime64[D]"))
    return every[low:high]


def next_session(day: date, count: int = 1) -> date:
    """Return the `count`-th session after `day` (which need not be a session); negative counts go back."""
    every = _all_sessions()
    at = np.datetime64(day, "D")
    position = np.searchsorted(every, at, side="right") - 1 + count if count > 0 else np.searchsorted(every, at) + count
    if not 0 <= position < len(every):
        raise DataError(f"{count} sessions from {day} lie outside the calendar ({FIRST} to {LAST})")
    return as_date(every[position])


def is_session(days: DateArray) -> npt.NDArray[np.bool_]:
    """Return for each day whether it is a session; shape as given."""
    return np.isin(days.astype("datetime64[D]"), _all_sessions())


def as_date(day: np.datetime64) -> date:
    """Return a NumPy day as a date."""
    value = day.astype("datetime64[D]").astype(object)
    if not isinstance(value, date):
        raise DataError(f"{day!r} is no day")
    return value


@lru_cache(maxsize=1)
def _all_sessions() -> DateArray:
    calendar = exchange_calendars.get_calendar(EXCHANGE, start=FIRST.isoformat(), end=LAST.isoformat())
    every: DateArray = calendar.sessions.to_numpy().astype("datetime64[D]")
    every.setflags(write=False)
    return every
