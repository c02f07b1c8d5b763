"""Polygon's bars to rows: per ticker or grouped, days or minutes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from quanto.market.minutes import RAW_MINUTES
from quanto.market.schema import PRICES
from quanto.stages.ingest.bars import minutes_of_day, regular_minutes, session_bars
from quanto.stages.ingest.http_vendor import as_of
from quanto.stages.ingest.rows import MISSING, Records, join, table_by
from quanto.stages.ingest.stamps import local_stamps, provisional, session_dates
from quanto.stages.ingest.vendor import Parsed, Payload, Shard
from quanto.stages.ingest.vendors.polygon_answers import envelope, results

Rows = Sequence[Mapping[str, object]]
FIELDS = {"open": "o", "high": "h", "low": "l", "close": "c"}
KNOWN = frozenset({*FIELDS.values(), "v", "vw", "t", "n", "otc", "T"})


def parse(shard: Shard, payloads: Sequence[Payload], adjusted: bool, final_after_days: int) -> Parsed:
    """Return the session bars of all pages of a shard.

    Minutes become session bars of the regular session. The session is the New York date of `t`: the start of the
    window per ticker, 16:00 in the grouped answer.

    Raises
    ------
    ContractError
        If a field was renamed or removed.
    """
    basis: dict[str, object] = {
        "basis": "split" if adjusted else "raw",
        "volume_basis": "split" if adjusted else "raw",
        "basis_as_of": as_of(shard) if adjusted else None,
    }
    answers = [(payload.sha256, envelope(payload.body)) for payload in payloads]
    notes = [f"answered as DELAYED: {sha256[:12]}" for sha256, answer in answers if answer.get("status") == "DELAYED"]
    pages = [(sha256, results(answer)) for sha256, answer in answers]
    if shard.params["interval"] == "minute":
        parts = _minutes(shard, pages, basis, final_after_days)
    else:
        parts = [_days(shard, *page, basis, final_after_days) for page in pages]
    return join("equity_ohlcv", parts, notes)


def _days(shard: Shard, payload: str, every: Rows, basis: dict[str, object], final_after_days: int) -> Parsed:
    wanted = frozenset(shard.symbols)
    records = Records(payload, every)
    records.require("t", "v", *FIELDS.values())
    symbols: object = shard.symbols[0]
    names = [shard.symbols[0]] * len(every)
    other = np.zeros(len(every), dtype=bool)
    if len(shard.symbols) > 1 or (every and "T" in every[0]):
        tickers = records.values("T")
        other = np.array([ticker is not MISSING and ticker not in wanted for ticker in tickers], dtype=bool)
        symbols = names = [str(ticker) for ticker in tickers]
        records.fault_where(np.array([ticker is MISSING for ticker in tickers], dtype=bool), lambda _: "T is missing")
    sessions = session_dates(records, "t", "ms")
    outside = ~np.isnat(sessions) & ((sessions < np.datetime64(shard.start)) | (sessions > np.datetime64(shard.end)))
    columns = {
        "session": sessions,
        "symbol": symbols,
        **{name: records.numbers(field) for name, field in FIELDS.items()},
        "volume": records.numbers("v"),
        **basis,
        "known_on": sessions,
        "provisional": provisional(sessions, as_of(shard), final_after_days),
    }
    parsed = records.finish("equity_ohlcv", columns, lambda index: f"{names[index]}/{sessions[index]}", drop=other | outside)
    notes = [*records.unknown(KNOWN)]
    if outside.any():
        notes.append(f"{int(outside.sum())} rows outside {shard.start}..{shard.end} left out")
    if not other.any() and (np.diff(sessions[~np.isnat(sessions)]) < np.timedelta64(0, "D")).any():
        notes.append("rows were out of order; sorted")
    return join("equity_ohlcv", [parsed], notes)


def _minutes(shard: Shard, pages: Sequence[tuple[str, Rows]], basis: dict[str, object], final_after_days: int) -> list[Parsed]:
    # A session may lie across a page border, so the pages are one list of minutes; equal repetitions count once.
    every = [(payload, index, record) for payload, rows in pages for index, record in enumerate(rows)]
    records = Records("", [record for _, _, record in every])
    records.require("t", "v", *FIELDS.values())
    stamps = records.integers("t")
    local = local_stamps(stamps, "ms")
    records.fault_where(np.isnat(local), lambda index: f"t is no time in ms between 1985 and 2035 ({stamps[index]})")
    prices = {name: records.numbers(field) for name, field in FIELDS.items()}
    volume = records.numbers("v")
    _fault_conflicts(records, stamps)
    good = np.array([index not in records.faults for index in range(len(every))], dtype=bool) & ~np.isnat(local)
    kept = np.flatnonzero(good)
    kept = kept[np.unique(stamps[kept], return_index=True)[1]]
    days = local[kept].astype("datetime64[D]")
    inside = (days >= np.datetime64(shard.start)) & (days <= np.datetime64(shard.end))
    kept, days = kept[inside], days[inside]
    traded = {
        "session": days, "symbol": shard.symbols[0], "minute": minutes_of_day(local[kept]),
        **{name: prices[name][kept] for name in PRICES}, "volume": volume[kept], **basis, "known_on": days,
        "provisional": provisional(days, as_of(shard), final_after_days),
        "payload": [every[index][0] for index in kept.tolist()], "payload_row": [every[index][1] for index in kept.tolist()],
    }  # fmt: skip
    minutes = table_by(RAW_MINUTES, traded, len(kept))
    regular = regular_minutes(local[kept])
    keep, days = kept[regular], days[regular]
    first, sessions, bars, total = session_bars(days, {name: prices[name][keep] for name in PRICES}, volume[keep])
    source = keep[first]
    rows = Records("", [every[index][2] for index in source.tolist()])
    columns = {
        "session": sessions,
        "symbol": shard.symbols[0],
        **bars,
        "volume": total,
        **basis,
        "known_on": sessions,
        "provisional": provisional(sessions, as_of(shard), final_after_days),
    }
    table = rows.finish("equity_ohlcv", columns, lambda index: str(sessions[index])).table
    table = table.set_column(
        table.schema.get_field_index("payload"), table.schema.field("payload"), [[every[i][0] for i in source.tolist()]]
    )
    table = table.set_column(
        table.schema.get_field_index("payload_row"), table.schema.field("payload_row"), [[every[i][1] for i in source.tolist()]]
    )
    rejected = records.finish("equity_ohlcv", columns={}, key=lambda index: f"{shard.symbols[0]}/{local[index]}", drop=good).rejected
    named = tuple(type(item)(item.key, item.reason, item.row, every[item.payload_row][0], every[item.payload_row][1]) for item in rejected)
    return [Parsed(table, named, records.unknown(KNOWN), minutes)]


def _fault_conflicts(records: Records, stamps: np.ndarray) -> None:
    first: dict[int, int] = {}
    for index, stamp in enumerate(stamps.tolist()):
        known = first.setdefault(stamp, index)
        if known != index and records.records[known] != records.records[index]:
            records.fault(index, f"conflicts with another bar of the same minute (t {stamp})")
            records.fault(known, f"conflicts with another bar of the same minute (t {stamp})")
