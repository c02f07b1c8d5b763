"""From a vendor's stamps to session dates, each by the vendor's own rule, across both changes of daylight saving."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from quanto.market.calendar import FIRST, LAST, next_session
from quanto.stages.ingest.rows import DateArray, IntArray, Records

NEW_YORK = "America/New_York"
Unit = Literal["s", "ms", "us", "ns"]

_NANOSECONDS: dict[Unit, int] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def local_stamps(stamps: IntArray, unit: Unit, zone: str = NEW_YORK) -> npt.NDArray[np.datetime64]:
    """Return integer stamps since 1970 UTC as local wall time, `datetime64[ns]`; shape as given.

    Stamps outside 1985-2035 (another unit than declared, mostly) become NaT.
    """
    if len(stamps) > 1 and (stamps == stamps[0]).all():  # a day file has one stamp
        return np.repeat(_local_stamp(int(stamps[0]), unit, zone), len(stamps))
    low, high = (int(datetime(day.year, 1, 1, tzinfo=ZoneInfo("UTC")).timestamp()) for day in (FIRST, date(LAST.year + 1, 1, 1)))
    per_second = 10**9 // _NANOSECONDS[unit]
    inside = (stamps >= low * per_second) & (stamps < high * per_second)
    nanoseconds = np.where(inside, stamps, 0) * _NANOSECONDS[unit]
    index = pd.DatetimeIndex(nanoseconds.astype("datetime64[ns]")).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    out: npt.NDArray[np.datetime64] = index.to_numpy().astype("datetime64[ns]")
    out[~inside] = np.datetime64("NaT")
    return out


@lru_cache(maxsize=1 << 14)
def _local_stamp(stamp: int, unit: Unit, zone: str) -> np.datetime64:
    found: np.datetime64 = local_stamps(np.array([stamp], dtype=np.int64), unit, zone)[0]
    return found


def session_dates(records: Records, name: str, unit: Unit, zone: str = NEW_YORK) -> DateArray:
    """Return the local day of an integer stamp field; a stamp outside the declared unit's range is a fault (NaT)."""
    stamps = records.integers(name)
    local = local_stamps(stamps, unit, zone)
    records.fault_where(np.isnat(local), lambda index: f"{name} is no time in {unit} between 1985 and 2035 ({stamps[index]})")
    return local.astype("datetime64[D]")


def rfc3339_day(text: str, zone: str | None) -> date:
    """Return the day of an RFC 3339 stamp in a zone; with `zone` None the day as written.

    Raises
    ------
    ValueError
        If the text is no such stamp, or names no offset where one is needed.
    """
    if zone is None:
        return date.fromisoformat(text[:10])
    head, dot, tail = text.partition(".")
    if dot:
        # Up to nine fractional digits are legal; Python's parser takes six.
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}"
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.astimezone(ZoneInfo(zone)).date()


def provisional(days: DateArray, as_of: date, final_after_days: int) -> npt.NDArray[np.bool_]:
    """Return for each session whether it was not yet final on `as_of`.

    A session is final `final_after_days` calendar days later: 1 where the vendor's word is "next morning", 2 where a
    file may still be replaced during the next day (`as_of` is a date: it does not say at what hour was asked).
    """
    return days > np.datetime64(as_of - timedelta(days=final_after_days))


def session_before(days: DateArray) -> DateArray:
    """Return for each day the last session before it; NaT stays."""
    out = days.copy()
    for day in np.unique(days[~np.isnat(days)]).tolist():
        out[days == np.datetime64(day)] = np.datetime64(next_session(day, -1))
    return out


def session_after(days: DateArray) -> DateArray:
    """Return for each day the first session after it; NaT stays."""
    out = days.copy()
    for day in np.unique(days[~np.isnat(days)]).tolist():
        out[days == np.datetime64(day)] = np.datetime64(next_session(day, 1))
    return out
