"""Reading tables as they were known: versions of rows, index series, and the rate that cash earns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.errors import DataError, MissingDataError
from quanto.market.calendar import DateArray, as_date, sessions_between
from quanto.market.schema import KEYS

FloatArray = npt.NDArray[np.float64]

CASH_SERIES = "TBILL_1M"

# data/canonical/membership: who belonged to a universe when. The universe `listed` is derived from bars and actions.
MEMBERSHIP = pa.schema(
    [
        pa.field("universe", pa.string(), False),
        pa.field("symbol", pa.string(), False),
        pa.field("start", pa.date32(), False),
        pa.field("end", pa.date32()),  # last session as a member; null: still one
        pa.field("source", pa.string(), False),
    ]
)

# data/canonical/identity: which ticker an entity had when.
IDENTITY = pa.schema(
    [
        pa.field("entity", pa.string(), False),
        pa.field("symbol", pa.string(), False),
        pa.field("start", pa.date32()),  # null: from the beginning
        pa.field("end", pa.date32()),  # null: to this day
        pa.field("source", pa.string(), False),
    ]
)
SESSIONS_PER_YEAR = 252

# A month without a bill is bridged by the month before; after a quarter the rate is unknown rather than old.
_OLDEST_RATE = np.timedelta64(100, "D")


def known_by(table: pa.Table, day: date) -> pa.Table:
    """Return the rows with `known_on` at or before `day`, in their order."""
    return table.filter(pc.less_equal(table["known_on"], pa.scalar(day, pa.date32())))


def as_of(table: pa.Table, day: date, key: Sequence[str]) -> pa.Table:
    """Return what was known on the evening of `day`: per key the version with the latest `known_on` until then.

    `table` may hold several versions of a row (the current ones and those that a restatement replaced); rows that were
    not yet known are absent. The result is sorted by `key`. Of two versions of one day the later row of the table wins.
    """
    known = known_by(table, day)
    order = pc.sort_indices(
        known.append_column("_row", pa.array(np.arange(len(known)))),
        sort_keys=[(name, "ascending") for name in (*key, "known_on", "_row")],
    )
    ordered = known.take(order).combine_chunks()
    return ordered.filter(pa.array(_last_of_key(ordered, key)))


def as_known(domain: str, current: pa.Table, restated: pa.Table, day: date) -> pa.Table:
    """Return a canonical domain as it was known on the evening of `day`, sorted by its key.

    `current` is data/canonical/<domain>, `restated` data/canonical/restated/<domain>.parquet: the versions that later
    ones replaced. Columns about other vendors (disagreement, vendors seen) are those of today's comparison.
    """
    return as_of(pa.concat_tables([restated, current]), day, KEYS[domain])


def members(table: pa.Table, universe: str, sessions: DateArray, symbols: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return who belonged to a universe on each session; shape (n_sessions, n_symbols).

    Raises
    ------
    MissingDataError
        If the table has no such universe; names the ones it has.
    """
    rows = table.filter(pc.equal(table["universe"], universe))
    if not len(rows):
        known = ", ".join(sorted(set(table["universe"].to_pylist()))) or "none"
        raise MissingDataError(f"no membership of universe {universe!r} is recorded; known: {known}")
    order = {name: column for column, name in enumerate(symbols)}
    inside = np.zeros((len(sessions), len(symbols)), dtype=np.bool_)
    for symbol, start, end in zip(*(rows[name].to_pylist() for name in ("symbol", "start", "end")), strict=True):
        if symbol in order:
            span = sessions >= np.datetime64(start, "D")
            inside[:, order[symbol]] |= span if end is None else span & (sessions <= np.datetime64(end, "D"))
    return inside


def index_series(table: pa.Table, series: str, sessions: DateArray, known_on: date | None = None) -> FloatArray:
    """Return one series of the canonical `index_level` table on the given sessions.

    Shape (n_sessions,), in the unit of the table. NaN where there is no value, or where `known_on` is given and the
    value was not known on that evening.

    Raises
    ------
    DataError
        If the series has two values for one session.
    """
    rows = _series_rows(table, series)
    if known_on is not None:
        rows = known_by(rows, known_on)
    days = _days(rows, "session")
    if len(np.unique(days)) != len(days):
        raise DataError(f"index_level holds two values of {series} for one session; its key is unique by contract")
    out = np.full(len(sessions), np.nan)
    if len(days):
        order = np.argsort(days)
        position = np.minimum(np.searchsorted(days[order], sessions), len(days) - 1)
        hit = days[order][position] == sessions
        out[hit] = rows["value"].to_numpy()[order][position[hit]]
    return out


def cash_rate(sessions: DateArray, table: pa.Table, series: str = CASH_SERIES) -> FloatArray:
    """Return the rate that cash earns over each session, as a fraction; shape (n_sessions,).

    A session earns the latest value that lies before its own month and was known before the session: of a monthly
    series the previous month's. A value in `fraction_per_month` is spread geometrically over all exchange sessions of
    the month that earns it: (1 + v) ** (1 / sessions of the month) - 1; a `fraction` per year over 252 sessions. NaN
    where no value of the last 100 days was known.

    Raises
    ------
    MissingDataError
        If the series is absent.
    DataError
        If its unit is no rate.
    """
    rows = _series_rows(table, series)
    if not len(rows):
        raise MissingDataError(f"index_level has no series {series}, which cash earns; ingest it, or configure a vendor that has it")
    rows = rows.sort_by("session").combine_chunks()
    values, days, known = rows["value"].to_numpy(), _days(rows, "session"), _days(rows, "known_on")
    annual = _is_annual(rows, series)
    months = sessions.astype("datetime64[M]")
    position = np.searchsorted(days, months.astype("datetime64[D]")) - 1
    # A value of the previous month that was published late leaves its place to the one before.
    while (late := (position >= 0) & (known[np.maximum(position, 0)] >= sessions)).any():
        position[late] -= 1
    found = position >= 0
    at = np.maximum(position, 0)
    found &= sessions - days[at] <= _OLDEST_RATE
    periods = np.where(annual[at], SESSIONS_PER_YEAR, sessions_in_month(sessions))
    rate = np.power(1.0 + values[at], 1.0 / periods) - 1.0
    return np.where(found, rate, np.nan)


def sessions_in_month(sessions: DateArray) -> npt.NDArray[np.int64]:
    """Return for each session the number of exchange sessions in its calendar month; shape as given."""
    if not len(sessions):
        return np.empty(0, dtype=np.int64)
    months = sessions.astype("datetime64[M]")
    first, last = as_date(months.min()), as_date((months.max() + 1).astype("datetime64[D]") - 1)
    every = sessions_between(first, last).astype("datetime64[M]").astype(np.int64)
    origin = int(every[0])
    return np.bincount(every - origin)[months.astype(np.int64) - origin]


def _series_rows(table: pa.Table, series: str) -> pa.Table:
    rows = table.filter(pc.equal(table["series"], series))
    return rows.filter(pc.is_finite(rows["value"])) if len(rows) else rows


def _is_annual(rows: pa.Table, series: str) -> npt.NDArray[np.bool_]:
    units = np.array(rows["unit"].to_pylist(), dtype=object)
    wrong = sorted({unit for unit in units.tolist() if unit not in ("fraction", "fraction_per_month")})
    if wrong:
        raise DataError(f"{series} is given in {', '.join(wrong)}; a rate is a fraction per year or a fraction_per_month")
    return np.asarray(units == "fraction", dtype=np.bool_)


def _days(table: pa.Table, column: str) -> DateArray:
    days: DateArray = table[column].to_numpy().astype("datetime64[D]")
    return days


def _last_of_key(ordered: pa.Table, key: Sequence[str]) -> npt.NDArray[np.bool_]:
    last = np.ones(len(ordered), dtype=np.bool_)
    if len(ordered) > 1:
        same = np.ones(len(ordered) - 1, dtype=np.bool_)
        for name in key:
            # Codes make nulls equal to nulls, which a comparison of values would not.
            codes = pc.fill_null(ordered[name].combine_chunks().dictionary_encode(null_encoding="encode").indices, -1)
            values = codes.to_numpy(zero_copy_only=False)
            same &= values[1:] == values[:-1]
        last[:-1] = ~same
    return last
