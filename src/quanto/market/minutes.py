"""Minute bars: their tables, the regular session's hours, and daily bars derived from them.

A minute is named by its session and its start in minutes since midnight, New York wall time (570 is 09:30), never by a
timestamp: both changes of daylight saving leave a session's minutes where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import exchange_calendars
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.errors import DataError
from quanto.market.calendar import EXCHANGE, FIRST, LAST, DateArray
from quanto.market.schema import CANONICAL, PRICES, RAW

IntArray = npt.NDArray[np.int64]

# `equity_ohlcv` at interval=minute: data/raw/<vendor>/equity_minutes and data/canonical/equity_minutes, one file per
# session in folders year=YYYY, sorted by key.
MINUTES = "equity_minutes"
MINUTE_KEY = ("session", "symbol", "minute")
_MINUTE = pa.field("minute", pa.int16(), False)


def _with_minute(schema: pa.Schema, without: Sequence[str] = ()) -> pa.Schema:
    fields = [field for field in schema if field.name not in without]
    return pa.schema([*fields[:2], _MINUTE, *fields[2:]])


RAW_MINUTES = _with_minute(RAW["equity_ohlcv"], without=("adj_close",))  # extended hours included
CANONICAL_MINUTES = _with_minute(CANONICAL["equity_ohlcv"])  # the regular session only
DAILY = pa.schema([*list(CANONICAL["equity_ohlcv"])[:7], pa.field("vendor", pa.string(), False), pa.field("minutes", pa.int64(), False)])


def session_hours(sessions: DateArray) -> tuple[IntArray, IntArray]:
    """Return when the regular session opens and closes, in minutes since midnight; shapes as given.

    A half day closes early (780, 13:00). Both are 0 on a day that is no session: no minute lies inside.
    """
    every, opens, closes = _hours()
    at = np.clip(np.searchsorted(every, sessions), 0, len(every) - 1)
    known = every[at] == sessions
    return np.where(known, opens[at], 0), np.where(known, closes[at], 0)


def daily_bars(minutes: pa.Table) -> pa.Table:
    """Return one bar per session and symbol out of minute bars (canonical, or raw of one vendor), sorted by key (DAILY).

    Only minutes of the regular session count. Open is the first minute's, close the last one's, high and low the
    extremes, volume the sum; `minutes` says how many there were. A symbol without minutes has no bar.

    Raises
    ------
    DataError
        If a minute appears twice.
    """
    if "vendor" not in minutes.schema.names:
        minutes = minutes.append_column("vendor", pa.array([""] * len(minutes), pa.string()))
    days = minutes["session"].to_numpy().astype("datetime64[D]")
    opens, closes = session_hours(days)
    at = minutes["minute"].to_numpy().astype(np.int64)
    inside = (at >= opens) & (at < closes)
    table = minutes if inside.all() else minutes.filter(pa.array(inside))
    table = table.select([*MINUTE_KEY, *PRICES, "volume", "vendor"]).sort_by([(name, "ascending") for name in MINUTE_KEY])
    table = table.combine_chunks()
    if not len(table):
        return DAILY.empty_table()
    first, twice = _groups(table)
    if twice is not None:
        row = table.slice(twice, 1).to_pylist()[0]
        raise DataError(f"minute bars hold {row['symbol']} {row['session']} minute {row['minute']} twice; keys are unique by contract")
    last = np.append(first[1:], len(table)) - 1
    columns = {name: table[name].to_numpy() for name in (*PRICES, "volume")}
    values = {
        "session": table["session"].take(pa.array(first)),
        "symbol": table["symbol"].take(pa.array(first)).cast(pa.string()),
        "open": columns["open"][first],
        "high": np.maximum.reduceat(columns["high"], first),
        "low": np.minimum.reduceat(columns["low"], first),
        "close": columns["close"][last],
        "volume": np.add.reduceat(columns["volume"], first),
        "vendor": table["vendor"].take(pa.array(first)).cast(pa.string()),
        "minutes": last - first + 1,
    }
    return pa.table([_column(values[field.name], field.type) for field in DAILY], schema=DAILY)


def _groups(table: pa.Table) -> tuple[IntArray, int | None]:
    """Return where each (session, symbol) begins in a sorted table, and a row that repeats the key before it."""
    days = table["session"].cast(pa.int32()).to_numpy()
    symbols = pc.cast(table["symbol"], pa.string()).combine_chunks().dictionary_encode().indices.to_numpy()
    new = (days[1:] != days[:-1]) | (symbols[1:] != symbols[:-1])
    minute = table["minute"].to_numpy()
    twice = np.flatnonzero(~new & (minute[1:] == minute[:-1]))
    return np.flatnonzero(np.append(True, new)), int(twice[0]) + 1 if len(twice) else None


def _column(values: object, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks().cast(kind)
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


@lru_cache(maxsize=1)
def _hours() -> tuple[DateArray, IntArray, IntArray]:
    """Return all sessions, and the minutes since midnight in New York at which they open and close."""
    calendar = exchange_calendars.get_calendar(EXCHANGE, start=FIRST.isoformat(), end=LAST.isoformat())
    local = [pd.DatetimeIndex(column).tz_convert("America/New_York") for column in (calendar.opens, calendar.closes)]
    opens, closes = ((index.hour * 60 + index.minute).to_numpy().astype(np.int64) for index in local)
    return calendar.sessions.to_numpy().astype("datetime64[D]"), opens, closes
