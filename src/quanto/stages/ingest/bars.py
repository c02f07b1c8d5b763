"""Session bars out of minute bars: what the regular session traded."""

from __future__ import annotations

from functools import lru_cache

import exchange_calendars
import numpy as np
import numpy.typing as npt
import pandas as pd

from quanto.market.calendar import EXCHANGE, FIRST, LAST
from quanto.stages.ingest.rows import DateArray, FloatArray, IntArray


def regular_minutes(local: npt.NDArray[np.datetime64]) -> npt.NDArray[np.bool_]:
    """Return for each minute (its start, local wall time) whether it lies in the regular session, half days included."""
    days = local.astype("datetime64[D]")
    every, opens, closes = _hours()
    at = np.clip(np.searchsorted(every, days), 0, len(every) - 1)
    inside: npt.NDArray[np.bool_] = (every[at] == days) & (local >= opens[at]) & (local < closes[at])
    return inside


def session_bars(
    days: DateArray, prices: dict[str, FloatArray], volume: FloatArray
) -> tuple[IntArray, DateArray, dict[str, FloatArray], FloatArray]:
    """Return (first minute, session, prices, volume) per session from minutes in ascending order; shape (n_sessions,).

    Open is the first minute's, close the last one's, high and low the extremes, volume the sum.
    """
    first = np.flatnonzero(np.r_[True, days[1:] != days[:-1]]) if len(days) else np.empty(0, dtype=np.int64)
    if not len(days):
        return first, days, prices, volume
    last = np.r_[first[1:], len(days)] - 1
    out = {
        "open": prices["open"][first],
        "high": np.maximum.reduceat(prices["high"], first),
        "low": np.minimum.reduceat(prices["low"], first),
        "close": prices["close"][last],
    }
    return first, days[first], out, np.add.reduceat(volume, first)


@lru_cache(maxsize=1)
def _hours() -> tuple[DateArray, DateArray, DateArray]:
    """Return sessions, and the New York wall times at which they open and close."""
    calendar = exchange_calendars.get_calendar(EXCHANGE, start=FIRST.isoformat(), end=LAST.isoformat())
    opens, closes = (
        pd.DatetimeIndex(column).tz_convert("America/New_York").tz_localize(None) for column in (calendar.opens, calendar.closes)
    )
    return calendar.sessions.to_numpy().astype("datetime64[D]"), opens.to_numpy(), closes.to_numpy()
