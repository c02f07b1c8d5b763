"""Validation of typed vendor records: every row is kept, merged with an equal one, or quarantined with its reason.

Pure and vectorised: masks over Arrow columns, no loop over rows except those that are quarantined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.digest import canonical_json
from quanto.core.errors import DataError
from quanto.market.calendar import is_session
from quanto.market.schema import ACTION_KINDS, BASES, KEYS, PRICES, QUARANTINE, RAW
from quanto.stages.ingest.vendor import Rejected

Mask = npt.NDArray[np.bool_]

LINEAGE = ("payload", "payload_row")

# Adjusted prices are rounded after the adjustment, so a close may lie outside its range by the last digit.
RANGE_TOLERANCE = 1e-6

# Series that are no daily index: kept under a calendar day that need not be a session.
CALENDAR_UNITS = ("fraction_per_month",)


@dataclass(frozen=True)
class Checked:
    """Rows sorted by key, each key once; what was quarantined (QUARANTINE); how many equal duplicates were merged."""

    table: pa.Table
    quarantine: pa.Table
    merged: int


def validate(domain: str, vendor: str, table: pa.Table, rejected: Sequence[Rejected] = ()) -> Checked:
    """Return the sound rows of one vendor and domain, and everything else with its reason.

    NaN and null are missing values; a bar without one of its prices is quarantined. Conservation: rows given + records
    rejected by the adapter = rows kept + quarantined + merged.

    Raises
    ------
    DataError
        If the table does not have the domain's schema or names an unknown basis: a fault of the adapter.
    """
    _check_schema(domain, vendor, table)
    distinct = _strictly_ascending(domain, table)
    table = table if distinct else sorted_by_key(domain, table)
    faults = FAULTS[domain](table)
    names = [*faults, "conflicting_duplicate"]
    reason = _first_reason(len(table), faults)  # 0: none, else a position in names, from 1
    merged = np.zeros(len(table), dtype=bool)
    if not distinct:
        conflicting, merged = _duplicates(domain, table, reason == 0)
        reason[conflicting] = len(names)
    bad = reason > 0
    rows = table.filter(pa.array(bad)) if bad.any() else table.slice(0, 0)
    quarantined = _from_rows(domain, vendor, rows, [names[index - 1] for index in reason[bad].tolist()])
    kept = table.filter(pa.array(~bad & ~merged)) if bad.any() or merged.any() else table
    return Checked(kept, quarantine([*quarantined, *rejected_rows(domain, vendor, rejected)]), int(merged.sum()))


def quarantine(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Return quarantined rows as a table, in an order that no order of files or shards can change."""
    ordered = sorted(rows, key=lambda row: (str(row["key"]), str(row["payload"]), str(row["payload_row"]).zfill(20), str(row["reason"])))
    return pa.Table.from_pylist(list(ordered), schema=QUARANTINE)


def rejected_rows(domain: str, vendor: str, rejected: Sequence[Rejected]) -> list[dict[str, object]]:
    """Return the records that an adapter could not turn into rows, as quarantined rows."""
    return [
        {
            "domain": domain,
            "vendor": vendor,
            "key": item.key,
            "reason": item.reason,
            "row": row_json(item.row),
            "payload": item.payload,
            "payload_row": item.payload_row,
        }
        for item in rejected
    ]


def sorted_by_key(domain: str, table: pa.Table) -> pa.Table:
    """Return the rows by key, then by payload and row: an order that no order of files or shards can change."""
    return table.sort_by([(name, "ascending") for name in (*KEYS[domain], *LINEAGE)])


def _strictly_ascending(domain: str, table: pa.Table) -> bool:
    """Return whether a table of (session, symbol) is sorted already, without a key twice; others are just sorted."""
    if KEYS[domain] != ("session", "symbol") or len(table) == 0:
        return False
    codes = table["symbol"].combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(codes.dictionary.to_pylist(), dtype=object)))
    key = table["session"].to_numpy().astype("datetime64[D]").astype(np.int64) * len(rank) + rank[codes.indices.to_numpy()]
    return bool((np.diff(key) > 0).all())


def _bar_faults(table: pa.Table) -> dict[str, Mask]:
    price = {name: _numbers(table, name) for name in PRICES}
    volume = _numbers(table, "volume")
    every = np.stack(list(price.values()))
    slack = RANGE_TOLERANCE * np.abs(price["high"])
    outside = [(price[name] > price["high"] + slack) | (price[name] < price["low"] - slack) for name in ("open", "close")]
    return {
        "not_a_session": ~_on_sessions(table),
        "missing_price": (~np.isfinite(every)).max(axis=0),
        "missing_volume": ~np.isfinite(volume),
        "not_positive_price": (every <= 0).max(axis=0),
        "negative_volume": volume < 0,
        "high_below_low": price["high"] < price["low"] - slack,
        "outside_high_low": outside[0] | outside[1],
    }


def _action_faults(table: pa.Table) -> dict[str, Mask]:
    kind = np.array(table["kind"].to_pylist(), dtype=object)
    ratio, cash = _numbers(table, "ratio"), _numbers(table, "cash_usd")
    currency = np.array([value or "USD" for value in table["currency"].to_pylist()], dtype=object)
    pays = np.isin(kind, ("cash_dividend", "special_dividend", "cash_merger"))
    converts = np.isin(kind, ("split", "stock_dividend", "stock_merger"))
    return {
        "unknown_kind": ~np.isin(kind, ACTION_KINDS),
        "missing_ratio": converts & ~np.isfinite(ratio),
        "missing_cash": pays & ~np.isfinite(cash),
        "not_positive_ratio": converts & (ratio <= 0),
        "negative_cash": pays & (cash < 0),
        "foreign_currency": pays & (currency != "USD"),
    }


def _level_faults(table: pa.Table) -> dict[str, Mask]:
    value = _numbers(table, "value")
    unit = np.array(table["unit"].to_pylist(), dtype=object)
    return {
        "not_a_session": ~_on_sessions(table) & ~np.isin(unit, CALENDAR_UNITS),
        "missing_value": ~np.isfinite(value),
        "not_positive_level": (unit == "level") & (value <= 0),
    }


def _surface_faults(table: pa.Table) -> dict[str, Mask]:
    iv, bid, ask = (_numbers(table, name) for name in ("iv", "bid", "ask"))
    delta = _numbers(table, "delta")
    no_place = ~np.isfinite(delta) & ~np.isfinite(_numbers(table, "strike"))
    return {
        "not_a_session": ~_on_sessions(table),
        "unknown_side": ~np.isin(np.array(table["side"].to_pylist(), dtype=object), ("C", "P", "M")),
        "not_positive_tenor": ~(_numbers(table, "tenor_days") > 0),
        "no_strike_or_delta": no_place,
        "delta_beyond_one": np.abs(delta) > 1,
        "missing_iv_and_quote": ~np.isfinite(iv) & ~(np.isfinite(bid) & np.isfinite(ask)),
        "not_positive_iv": iv <= 0,
        "crossed_quote": bid > ask,
        "negative_quote": (bid < 0) | (ask < 0),
    }


FAULTS = {
    "equity_ohlcv": _bar_faults,
    "corporate_actions": _action_faults,
    "index_level": _level_faults,
    "options_surface": _surface_faults,
}


def _check_schema(domain: str, vendor: str, table: pa.Table) -> None:
    if not table.schema.equals(RAW[domain]):
        raise DataError(
            f"the adapter of vendor {vendor} returned another schema than {domain} has:\n{table.schema}\nexpected\n{RAW[domain]}"
        )
    for name in ("basis", "volume_basis"):
        if name in table.schema.names:
            unknown = sorted(set(pc.unique(table[name]).to_pylist()) - set(BASES))
            if unknown:
                raise DataError(f"the adapter of vendor {vendor} declares {name} {', '.join(map(str, unknown))}; known: {', '.join(BASES)}")


def _first_reason(rows: int, faults: Mapping[str, Mask]) -> npt.NDArray[np.int8]:
    reason = np.zeros(rows, dtype=np.int8)
    for number, mask in reversed(list(enumerate(faults.values(), start=1))):
        reason[mask] = number
    return reason


def _duplicates(domain: str, table: pa.Table, sound: Mask) -> tuple[Mask, Mask]:
    """Return which sound rows contradict another row of their key, and which repeat an earlier one; table sorted by key."""
    conflicting, merged = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=bool)
    position = np.flatnonzero(sound)
    rows = table if sound.all() else table.take(pa.array(position))
    same_key = _repeats(rows, KEYS[domain])
    if not same_key.any():
        return conflicting, merged
    same_row = same_key & _repeats(rows, [name for name in rows.schema.names if name not in LINEAGE])
    run = np.cumsum(~same_key)
    disputed = np.isin(run, run[same_key & ~same_row])
    conflicting[position[disputed]] = True
    merged[position[same_row & ~disputed]] = True
    return conflicting, merged


def _repeats(table: pa.Table, names: Sequence[str]) -> Mask:
    """Return for each row whether it equals the row before it in the named columns; two missing values are equal."""
    same = np.ones(len(table), dtype=bool)
    same[:1] = False
    for name in names:
        column = table[name].combine_chunks()
        if pa.types.is_floating(column.type):
            values = column.to_numpy(zero_copy_only=False)
            same[1:] &= (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
            continue
        equal = pc.fill_null(pc.equal(column[1:], column[:-1]), False)
        both_null = pc.and_(pc.is_null(column[1:]), pc.is_null(column[:-1]))
        same[1:] &= pc.or_(equal, both_null).to_numpy(zero_copy_only=False)
    return same


def _from_rows(domain: str, vendor: str, rows: pa.Table, reasons: Sequence[str]) -> list[dict[str, object]]:
    return [
        {
            "domain": domain,
            "vendor": vendor,
            "key": "|".join("" if row[name] is None else str(row[name]) for name in KEYS[domain]),
            "reason": reason,
            "row": row_json(row),
            "payload": row["payload"],
            "payload_row": row["payload_row"],
        }
        for row, reason in zip(rows.to_pylist(), reasons, strict=True)
    ]


def row_json(row: Mapping[str, object]) -> str:
    """Return a quarantined row as canonical JSON; NaN and infinity, which JSON lacks, become text."""
    plain = {name: str(value) if isinstance(value, float) and not np.isfinite(value) else value for name, value in row.items()}
    return canonical_json(plain).decode()


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = table[name].to_numpy()
    return values


def _on_sessions(table: pa.Table) -> Mask:
    """Return which rows lie on a session; each distinct day is looked up once."""
    column = table["session"].combine_chunks()
    days = pc.unique(column)
    known = is_session(days.to_numpy(zero_copy_only=False).astype("datetime64[D]"))
    found: Mask = known[pc.index_in(column, days).to_numpy()]
    return found
