"""One session of minute bars, from the vendors' raw minutes to canonical ones. Pure.

The grid is minutes x symbols of the regular session. A symbol's session comes from one vendor, the first in order that
has it: vendors cut minutes differently, and a series that changes vendor at noon has a return that nobody traded. A
vendor that stands in for a better one must agree with the daily bar, or its minutes are quarantined.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa

from quanto.market.minutes import CANONICAL_MINUTES, MINUTE_KEY, MINUTES, daily_bars, session_hours
from quanto.stages.canonical.axes import Axes, IntArray, encode, entity_names
from quanto.stages.canonical.bars import FIELDS, BasisHistories, BoolArray, FloatArray, Keyed, VendorBars, vendor_bars
from quanto.stages.canonical.build import (
    FLAG_BIT,
    FLAGS,
    Counts,
    count_rows,
    flags_of,
    gather,
    nullable,
    origin,
    quarantined_rows,
    take_out_bad,
    texts,
)
from quanto.stages.canonical.choice import METHODS, Choice, difference_to, orders_of, relative_disagreement
from quanto.stages.canonical.config import CanonicalConfig, Tolerances
from quanto.stages.canonical.disagreement import COMPARED, DETAILS
from quanto.stages.canonical.identity import rules_of
from quanto.stages.canonical.lineage import joined_names

# How the vendor of minutes is called beside vendors of daily bars.
_DERIVED = "minutes of {}"
_TICK = 0.0101


@dataclass(frozen=True)
class MinutesContext:
    """What a session needs to know beside its rows; vendors in order of priority."""

    config: CanonicalConfig
    vendors: tuple[str, ...]
    histories: BasisHistories
    blocked: Mapping[str, date]

    def within(self, symbols: Collection[str], session: date, until: date) -> MinutesContext:
        """Return what of it concerns some symbols on a session, where bases see actions up to `until`."""
        dividends = {vendor: history.within(list(symbols), session, until) for vendor, history in sorted(self.histories.dividends.items())}
        histories = BasisHistories(self.histories.splits.within(list(symbols), session, until), dividends)
        return replace(self, histories=histories, blocked={name: day for name, day in sorted(self.blocked.items()) if name in symbols})


@dataclass(frozen=True)
class MinutesPart:
    """What one session (or a block of its symbols) gives.

    `outside` counts per vendor the minutes before the open and after the close; `details` and `compared` tell how the
    daily bars derived from the minutes differ from the canonical ones.
    """

    session: date
    table: pa.Table
    rows: int
    quarantine: pa.Table
    counts: dict[str, Counts]
    outside: dict[str, int]
    details: pa.Table
    compared: pa.Table


def build_minutes(session: date, tables: Sequence[pa.Table], daily: pa.Table, context: MinutesContext) -> MinutesPart:
    """Return the canonical minutes of a session.

    `tables` holds each vendor's raw minutes of the session, `daily` the session's canonical daily bars.
    """
    config, names = context.config, context.vendors
    opened, closed = (int(bound[0]) for bound in session_hours(np.array([session], dtype="datetime64[D]")))
    inside = [(at >= opened) & (at < closed) for at in (table["minute"].to_numpy() for table in tables)]
    kept = [table if mask.all() else table.filter(pa.array(mask)) for table, mask in zip(tables, inside, strict=True)]
    axes = Axes(np.full(closed - opened, np.datetime64(session)), minute_symbols(kept, session, context), slice(0, closed - opened))
    bars = [_vendor(name, table, session, opened, axes, context) for name, table in zip(names, kept, strict=True)]
    never = [np.zeros(axes.shape, dtype=np.int64)] * len(bars)
    spiked = take_out_bad(bars, never, config.validation)
    choice = _choose(bars, axes, context)
    _refuse_strangers(bars, choice, axes, daily, config)
    chosen = {name: gather(bars, choice.vendor, name) for name in FIELDS}
    disagreement = relative_disagreement(bars, choice.vendor, chosen)
    flags = flags_of(bars, choice, disagreement, never, spiked, config.tolerances)
    table = _rows(bars, axes, opened, choice, chosen, disagreement, flags)
    details, compared, apart = _against_daily(daily_bars(table), daily, config.tolerances)
    if apart:
        table = _flagged(table, apart)
    return MinutesPart(
        session=session,
        table=table,
        rows=len(table),
        quarantine=pa.concat_tables([quarantined_rows(item, MINUTES, MINUTE_KEY) for item in bars]),
        counts={item.vendor: count_rows(item, position, choice, axes) for position, item in enumerate(bars)},
        outside={name: int((~mask).sum()) for name, mask in zip(names, inside, strict=True)},
        details=details,
        compared=compared,
    )


def minute_symbols(tables: Sequence[pa.Table], session: date, context: MinutesContext) -> tuple[str, ...]:
    """Return the entities that have minutes, sorted."""
    found: set[str] = set()
    for vendor, table in zip(context.vendors, tables, strict=True):
        names, codes = _entities(vendor, table, session, context.config)
        found.update(names[code] for code in np.unique(codes).tolist())
    return tuple(sorted(found))


def in_block(vendor: str, table: pa.Table, session: date, symbols: Collection[str], config: CanonicalConfig) -> BoolArray:
    """Return which rows belong to some entities; shape (n_rows,)."""
    names, codes = _entities(vendor, table, session, config)
    inside: BoolArray = np.array([name in symbols for name in names] or [False], dtype=np.bool_)[codes]
    return inside


def _entities(vendor: str, table: pa.Table, session: date, config: CanonicalConfig) -> tuple[list[str], IntArray]:
    codes, names = encode(table["symbol"])
    day = np.full(len(codes), np.datetime64(session).astype(np.int64))
    return entity_names(names, codes, day, rules_of(config.sources.identity, vendor))


def _vendor(name: str, table: pa.Table, session: date, opened: int, axes: Axes, context: MinutesContext) -> VendorBars:
    names, codes = _entities(name, table, session, context.config)
    given, _ = encode(table["symbol"])
    order = {symbol: column for column, symbol in enumerate(axes.symbols)}
    columns = np.array([order.get(symbol, -1) for symbol in names] or [-1], dtype=np.int64)[codes]
    days = np.full(len(table), np.datetime64(session).astype(np.int64))
    rows = table["minute"].to_numpy().astype(np.int64) - opened
    keyed = Keyed(days, rows, columns, np.ones(len(table), dtype=np.bool_), codes != given)
    return vendor_bars(name, table, keyed, axes, context.histories, context.blocked, context.config.validation)


def _choose(bars: Sequence[VendorBars], axes: Axes, context: MinutesContext) -> Choice:
    """Return one vendor per symbol: the first in order with a valid minute; a lower one is a fallback."""
    has = np.stack([item.valid.any(axis=0) for item in bars])
    vendor, method = np.full(axes.shape, -1, dtype=np.int64), np.zeros(axes.shape, dtype=np.int64)
    for order, cells in orders_of(context.vendors, axes, context.config.sources.equity_ohlcv):
        mine = cells.any(axis=0)
        ranked = has[order]
        found = mine & ranked.any(axis=0)
        best = ranked.argmax(axis=0)
        several = ranked.sum(axis=0) > 1
        kind = np.where(best > 0, METHODS.index("fallback"), np.where(several, METHODS.index("priority"), METHODS.index("only")))
        for column in np.flatnonzero(found).tolist():
            position = order[int(best[column])]
            vendor[bars[position].valid[:, column], column] = position
            method[:, column] = kind[column]
    return Choice(vendor, method, [])


def _refuse_strangers(bars: Sequence[VendorBars], choice: Choice, axes: Axes, daily: pa.Table, config: CanonicalConfig) -> None:
    """Quarantine a fallback's minutes whose last close is not the daily bar's (in place)."""
    known = dict(zip(daily["symbol"].to_pylist(), daily["close"].to_pylist(), strict=True))
    for column in np.flatnonzero((choice.method == METHODS.index("fallback")).any(axis=0)).tolist():
        rows = np.flatnonzero(choice.vendor[:, column] >= 0)
        close = known.get(axes.symbols[column])
        if not len(rows) or close is None:
            continue
        item = bars[int(choice.vendor[rows[-1], column])]
        if abs(item.fields["close"][rows[-1], column] / close - 1.0) > config.fallback.tolerance:
            hit = np.zeros(axes.shape, dtype=np.bool_)
            hit[:, column] = True
            item.quarantine(hit, "fallback_disagrees")
            choice.vendor[:, column] = -1


def _rows(
    bars: Sequence[VendorBars],
    axes: Axes,
    opened: int,
    choice: Choice,
    chosen: Mapping[str, FloatArray],
    disagreement: Mapping[str, FloatArray],
    flags: IntArray,
) -> pa.Table:
    columns, rows = np.nonzero(choice.vendor.T >= 0)
    cells = rows * len(axes.symbols) + columns
    vendor, method = choice.vendor.reshape(-1)[cells], choice.method.reshape(-1)[cells]
    seen = np.zeros(len(cells), dtype=np.int64)
    for position, item in enumerate(bars):
        seen |= (item.row.reshape(-1)[cells] >= 0).astype(np.int64) << position
    names = [item.vendor for item in bars]
    known, payload, payload_row = origin(bars, cells, vendor, method)
    values = {
        "session": pa.array(axes.sessions[rows], pa.date32()),
        "symbol": texts(columns, axes.symbols),
        "minute": (rows + opened).astype(np.int16),
        **{name: chosen[name].reshape(-1)[cells] for name in FIELDS},
        **{f"disagreement_{name}": nullable(disagreement[name].reshape(-1)[cells]) for name in FIELDS},
        "vendor": texts(vendor, names),
        "vendors_seen": joined_names(seen, names),
        "method": texts(method, METHODS),
        "flags": joined_names(flags.reshape(-1)[cells], FLAGS),
        "known_on": pa.array(known.astype(np.int32)).cast(pa.date32()),
        "payload": payload,
        "payload_row": payload_row,
    }
    schema = CANONICAL_MINUTES
    return pa.table([pa.array(values[field.name], field.type) for field in schema], schema=schema)


def _against_daily(derived: pa.Table, daily: pa.Table, tolerances: Tolerances) -> tuple[pa.Table, pa.Table, set[str]]:
    """Return how derived daily bars differ from the canonical ones (DETAILS, COMPARED), and whose closes do."""
    order = {symbol: row for row, symbol in enumerate(daily["symbol"].to_pylist())}
    pairs = [(row, order[symbol]) for row, symbol in enumerate(derived["symbol"].to_pylist()) if symbol in order]
    if not pairs:
        return DETAILS.empty_table(), COMPARED.empty_table(), set()
    mine, other = (np.array(rows, dtype=np.int64) for rows in zip(*pairs, strict=True))
    vendors = list(zip(daily["vendor"].take(pa.array(other)).to_pylist(), derived["vendor"].take(pa.array(mine)).to_pylist(), strict=True))
    close = difference_to(derived["close"].to_numpy()[mine], daily["close"].to_numpy()[other])
    details, compared = [], []
    apart: set[str] = set()
    for name in FIELDS:
        values, known = derived[name].to_numpy()[mine], daily[name].to_numpy()[other]
        difference = difference_to(values, known)
        above = difference > getattr(tolerances, name)
        compared += [
            {"vendor": pair[0], "other": _DERIVED.format(pair[1]), "field": name, "cells": 1, "above": int(hit)}
            for pair, hit in zip(vendors, above, strict=True)
        ]
        for at in np.flatnonzero(above).tolist():
            symbol = derived["symbol"][int(mine[at])].as_py()
            kind = _class(name, float(values[at]), float(known[at]), bool(close[at] <= tolerances.close))
            details.append({
                "session": derived["session"][0].as_py(), "symbol": symbol, "field": name, "vendor": vendors[at][0],
                "other": _DERIVED.format(vendors[at][1]), "chosen_value": float(known[at]), "other_value": float(values[at]),
                "difference": float(difference[at]), "class": kind,
            })  # fmt: skip
            if name == "close" and kind != "rounding":
                apart.add(symbol)
    counted = (
        pa.Table.from_pylist(compared, schema=COMPARED)
        .group_by(["vendor", "other", "field"])
        .aggregate([("cells", "sum"), ("above", "sum")])
    )
    ordered = counted.rename_columns(["vendor", "other", "field", "cells", "above"]).select(COMPARED.names).cast(COMPARED)
    return pa.Table.from_pylist(details, schema=DETAILS), ordered, apart


def _class(name: str, value: float, known: float, closes_agree: bool) -> str:
    """Return why a derived bar differs: a daily bar knows auctions, extended volume and corrections that minutes do not."""
    if name == "volume":
        return "volume_difference"
    if abs(value - known) <= _TICK:
        return "rounding"
    if closes_agree and name != "close":
        return "open_auction" if name == "open" else "range_rules"
    return "bad_tick"


def _flagged(table: pa.Table, symbols: set[str]) -> pa.Table:
    """Return the minutes with the flag `daily_disagreement` on some symbols."""
    codes, names = encode(table["symbol"])
    hit = np.array([name in symbols for name in names], dtype=np.bool_)[codes]
    flags, known = encode(table["flags"])
    bits = np.array([sum(FLAG_BIT[flag] for flag in text.split("|") if flag) for text in known], dtype=np.int64)[flags]
    bits = np.where(hit, bits | FLAG_BIT["daily_disagreement"], bits)
    return table.set_column(table.schema.get_field_index("flags"), table.schema.field("flags"), joined_names(bits, FLAGS))
