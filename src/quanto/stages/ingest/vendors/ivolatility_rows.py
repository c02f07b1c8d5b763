"""IVolatility's records to bars and surface rows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quanto.market.schema import PRICES
from quanto.stages.ingest.errors import ContractError
from quanto.stages.ingest.http_vendor import as_of
from quanto.stages.ingest.rows import DateArray, FloatArray, Records, join
from quanto.stages.ingest.stamps import provisional
from quanto.stages.ingest.vendor import Parsed, Payload, Shard
from quanto.stages.ingest.vendors.ivolatility_answers import First, first_answer, job_state, records_of, unpack

IVX = re.compile(r"(\d+)d_iv_(call|put|mean)")
OCC = re.compile(r"(\d{6})[CP]\d{8}$")  # the tail of a contract's symbol: yymmdd, side, strike
SIDES = {"call": "C", "put": "P", "mean": "M", "c": "C", "p": "P"}
PERCENT_ABOVE = 5.0  # no market has a median volatility of 500 %
AT_THE_MONEY = {"C": 0.5, "M": 0.5, "P": -0.5}  # IVX is made of the options around the money


@dataclass(frozen=True)
class Reading:
    """How the records are read: which listing, which prices, which surface, and the unit of volatilities."""

    exchanges: tuple[str, ...]
    prices: str
    surface: str
    iv_unit: str
    final_after_days: int


def tables(payloads: Sequence[Payload]) -> Iterator[Records]:
    """Yield the records of a shard: of the first answer if it was inline, else of the job's file.

    Raises
    ------
    FetchError
        If a payload is in no known form.
    """
    if not payloads:
        return
    first = first_answer(payloads[0].status, payloads[0].body)
    if first.details_url is None:
        yield records_of(payloads[0].sha256, first)
    elif len(payloads) > 2:  # first answer, state, file
        yield records_of(payloads[2].sha256, First(table=unpack(payloads[2].body)))
    else:
        job_state(payloads[1].body)  # a finished job without a file found nothing


def bars(shard: Shard, records: Records, reading: Reading) -> Parsed:
    """Return bars: `close` and the others adjusted for splits, or all brought to `unadjusted_close`.

    Raises
    ------
    ContractError
        If a column was renamed or removed, or rows of several exchanges are mixed.
    """
    records.require("date", *PRICES, "volume")
    sessions, drop = _places(shard, records, reading)
    prices = {name: records.numbers(name) for name in PRICES}
    raw = reading.prices == "unadjusted"
    if raw:
        records.require("unadjusted_close")
        ratio = np.divide(
            records.numbers("unadjusted_close"), prices["close"], out=np.full(len(records), np.nan), where=prices["close"] > 0
        )
        records.fault_where(~(ratio > 0), lambda index: f"no raw basis: close {prices['close'][index]}, ratio {ratio[index]}")
        prices = {name: values * ratio for name, values in prices.items()}
        prices["close"] = records.numbers("unadjusted_close")
    columns = {
        "session": sessions,
        "symbol": shard.symbols[0],
        **prices,
        "volume": records.numbers("volume"),
        "basis": "raw" if raw else "split",
        "volume_basis": "raw" if raw else "split",
        "basis_as_of": None if raw else as_of(shard),
        "known_on": sessions,
        "provisional": provisional(sessions, as_of(shard), reading.final_after_days),
    }
    parsed = records.finish("equity_ohlcv", columns, lambda index: f"{shard.symbols[0]}/{sessions[index]}", drop=drop)
    return join("equity_ohlcv", [parsed], _notes(drop, shard))


def surface(shard: Shard, records: Records, reading: Reading) -> Parsed:
    """Return surface rows: IVX at the money by tenor, the grid by strike or delta, or the chain; volatilities as fractions.

    Raises
    ------
    ContractError
        If columns are missing, listings are mixed, or volatilities are percent where fractions are declared.
    """
    records.require("date")
    sessions, drop = _places(shard, records, reading)
    if reading.surface == "ivx":
        parts = _ivx(shard, records, sessions, drop, reading)
    else:
        read = _chain if reading.surface == "options-rawiv" else _grid
        parts = [read(shard, records, sessions, drop, reading)]
    return join("options_surface", parts, _notes(drop, shard))


def _ivx(shard: Shard, records: Records, sessions: DateArray, drop: np.ndarray, reading: Reading) -> list[Parsed]:
    found = sorted({name for record in records.records for name in record if IVX.fullmatch(name)}, key=_tenor_and_side)
    if len(records) and not found:
        raise ContractError(f"no column like '30d IV Call'; found {', '.join(sorted({name for row in records.records for name in row}))}")
    parts: list[Parsed] = []
    for name in found:
        tenor, side = _tenor_and_side(name)
        view = Records(records.payload, records.records)
        view.faults = dict(records.faults)
        values = view.parsed_numbers(name, [None if value == "" else value for value in view.values(name)], optional=True)
        absent = np.isnan(values) & np.array([index not in view.faults for index in range(len(view))], dtype=bool)
        delta = AT_THE_MONEY[side]
        parts.append(_finish(shard, view, sessions, drop | absent, reading, values, tenor_days=float(tenor), side=side, delta=delta))
    # A fault of the record itself (its date) came back with every tenor; it is told once.
    told = {(item.payload_row, item.reason): item for part in parts for item in part.rejected}
    return [Parsed(part.table, tuple(told.values()) if part is parts[0] else (), part.notes) for part in parts]


def _chain(shard: Shard, records: Records, sessions: DateArray, drop: np.ndarray, reading: Reading) -> Parsed:
    """Return one row per contract; the expiry is that of the contract's symbol: old monthlies are listed a day beside it."""
    records.require("expiration", "strike", "call_put", "iv")
    listed = records.dates("expiration")
    named = [OCC.search(str(symbol)) for symbol in records.values("option_symbol")]
    codes = [f"20{found[1][:2]}-{found[1][2:4]}-{found[1][4:]}" if found else None for found in named]
    expiries = np.where([code is None for code in codes], listed, np.array(codes, dtype="datetime64[D]"))
    known = ~np.isnat(sessions) & ~np.isnat(expiries)
    numbers = {name: _optional(records, name) for name in ("bid", "ask", "delta", "volume", "open_interest")}
    return _finish(
        shard, records, sessions, drop, reading, _optional(records, "iv"),
        tenor_days=np.where(known, (expiries - sessions).astype(np.float64), np.nan),
        side=_sides(records), strike=records.numbers("strike"), **numbers,
    )  # fmt: skip


def _optional(records: Records, name: str) -> FloatArray:
    """Return a field in which an empty cell is no value, as in the files of jobs."""
    return records.parsed_numbers(name, [None if value == "" else value for value in records.values(name)], optional=True)


def _sides(records: Records) -> list[str | None]:
    sides = [SIDES.get(str(value).strip().lower()) for value in records.values("call_put")]
    records.fault_where(
        np.array([side is None for side in sides], dtype=bool), lambda index: f"call/put is {records.records[index].get('call_put')!r}"
    )
    return sides


def _grid(shard: Shard, records: Records, sessions: DateArray, drop: np.ndarray, reading: Reading) -> Parsed:
    records.require("period", "iv", "call_put")
    return _finish(
        shard, records, sessions, drop, reading, records.numbers("iv"),
        tenor_days=records.numbers("period"), side=_sides(records),
        delta=records.numbers("delta", optional=True), strike=records.numbers("strike", optional=True),
    )  # fmt: skip


def _finish(
    shard: Shard, records: Records, sessions: DateArray, drop: np.ndarray, reading: Reading, iv: FloatArray, **columns: object
) -> Parsed:
    known = iv[~np.isnan(iv)]
    if reading.iv_unit == "fraction" and len(known) and np.median(known) > PERCENT_ABOVE:
        raise ContractError(f"the median volatility of {shard.key} is {np.median(known):g}: percent, not a fraction; set iv_unit: percent")
    iv = iv / 100.0 if reading.iv_unit == "percent" else iv
    every = {"session": sessions, "symbol": shard.symbols[0], "iv": iv, "known_on": sessions, **columns}
    return records.finish("options_surface", every, lambda index: f"{shard.symbols[0]}/{sessions[index]}", drop=drop)


def _places(shard: Shard, records: Records, reading: Reading) -> tuple[DateArray, np.ndarray]:
    """Return sessions, and which records are left out: of other listings, or outside the range."""
    sessions = records.dates("date")
    drop = ~np.isnat(sessions) & ((sessions < np.datetime64(shard.start)) | (sessions > np.datetime64(shard.end)))
    exchanges = [str(record.get("exchange") or "") for record in records.records]
    if reading.exchanges:
        return sessions, drop | np.array([name not in ("", *reading.exchanges) for name in exchanges], dtype=bool)
    listings = sorted({name for index, name in enumerate(exchanges) if index not in records.faults} - {""})
    if len(listings) > 1:
        raise ContractError(f"{shard.key} has rows of several listings ({', '.join(listings)}); name the right ones in `exchanges`")
    return sessions, drop


def _tenor_and_side(name: str) -> tuple[int, str]:
    found = IVX.fullmatch(name)
    return (int(found[1]), SIDES[found[2]]) if found else (0, "")


def _notes(drop: np.ndarray, shard: Shard) -> list[str]:
    return [f"{int(drop.sum())} rows of other listings or outside {shard.start}..{shard.end} left out"] if drop.any() else []
