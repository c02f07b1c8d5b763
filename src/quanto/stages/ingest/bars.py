"""Session bars out of minute bars: what the regular session traded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quanto.market.minutes import session_hours
from quanto.stages.ingest.rows import DateArray, FloatArray, IntArray


def regular_minutes(local: npt.NDArray[np.datetime64]) -> npt.NDArray[np.bool_]:
    """Return for each minute (its start, local wall time) whether it lies in the regular session, half days included."""
    opens, closes = session_hours(local.astype("datetime64[D]"))
    at = minutes_of_day(local)
    inside: npt.NDArray[np.bool_] = (at >= opens) & (at < closes)
    return inside


def minutes_of_day(local: npt.NDArray[np.datetime64]) -> IntArray:
    """Return the minutes since midnight of local wall times; shape as given, a large negative number for NaT."""
    out: IntArray = (local - local.astype("datetime64[D]")).astype("timedelta64[m]").astype(np.int64)
    return out


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
