"""One partition of bars, from the vendors' raw slices to canonical rows, quarantined rows and counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quanto.market.calendar import DateArray
from quanto.market.corporate_actions import SplitHistory
from quanto.market.schema import CANONICAL, KEYS, PRICES
from quanto.stages.canonical.axes import Axes, IntArray, Partition, encode, entity_names, partition_axes
from quanto.stages.canonical.bars import FIELDS, REASONS, BasisHistories, BoolArray, FloatArray, VendorBars, key_rows, vendor_bars
from quanto.stages.canonical.choice import METHODS, Choice, Verdicts, choose, measure_overlap, relative_disagreement
from quanto.stages.canonical.config import CanonicalConfig, Tolerances, Validation
from quanto.stages.canonical.disagreement import ActionDays, explain
from quanto.stages.canonical.identity import rules_of
from quanto.stages.canonical.lineage import joined_names, quarantine_rows
from quanto.stages.canonical.neighbours import confirmed, excursions, repeats, spikes
from quanto.stages.canonical.splits import Misbased, Step, contradictions, log_ratios, misbased_cells, split_like
from quanto.stages.canonical.verdicts import YearOverlap

FLAGS = (
    "adjusted_basis",  # the raw price was recomputed from an adjusted one
    "daily_disagreement",  # minutes: their session's close is not the daily bar's
    "disagreement",  # a price differs from another vendor's by more than the tolerance
    "disagreement_volume",
    "provisional",  # the vendor had not declared the session final
    "renamed",  # the vendor delivered it under another ticker
    "repeated",  # equal to the bar before
    "suspected_split",  # the close steps by a ratio like a split's, with no action that explains it
    "spike_confirmed",  # jumps and reverts, but another vendor has it too
    "zero_volume",
)
FLAG_BIT = {name: 1 << bit for bit, name in enumerate(FLAGS)}


@dataclass(frozen=True)
class Context:
    """What every partition needs to know beside its rows."""

    config: CanonicalConfig
    vendors: tuple[str, ...]
    histories: BasisHistories
    actions: ActionDays
    blocked: Mapping[str, date]
    misbased: tuple[Misbased, ...] = ()

    def within(self, partition: Partition, tables: Sequence[pa.Table], symbols: Sequence[str]) -> Context:
        """Return what of it concerns one partition: its symbols, and actions that its rows' bases can see.

        The result of a partition depends on nothing else, so it can be kept and found again by its content.
        """
        wanted = set(symbols)
        first, last = partition.context()
        dates = [day for table in tables if (day := pc.max(table["basis_as_of"]).as_py()) is not None]
        span = (symbols, first, max([last, *dates]))
        dividends = {vendor: history.within(*span) for vendor, history in sorted(self.histories.dividends.items())}
        actions = self.actions.within(*span)
        blocked = {name: day for name, day in sorted(self.blocked.items()) if name in wanted}
        low, high = (int(np.datetime64(day, "D").astype(np.int64)) for day in (first, last))
        misbased = tuple(span for span in self.misbased if span.symbol in wanted and span.first <= high and span.until > low)
        histories = BasisHistories(actions.splits, dividends)
        return replace(self, histories=histories, actions=actions, blocked=blocked, misbased=misbased)


@dataclass(frozen=True)
class Counts:
    """The conservation law of one vendor in one partition, each term counted by itself."""

    rows: int
    selected: int
    superseded: int
    quarantined: int


@dataclass(frozen=True)
class BarsPart:
    """What one partition gives.

    `restated` holds the earlier versions of chosen rows; `steps` what contradicts the known splits; `suspected` (symbol,
    session) whose step looks like a split that was missed or applied twice; `present` marks the core cells (sessions x
    symbols) with a bar.
    """

    partition: Partition
    symbols: tuple[str, ...]
    table: pa.Table
    restated: pa.Table
    quarantine: pa.Table
    steps: tuple[Step, ...]
    suspected: tuple[tuple[str, str], ...]
    details: pa.Table
    compared: pa.Table
    counts: dict[str, Counts]
    measured: YearOverlap
    sessions: DateArray
    present: BoolArray
    rows: int


def build_bars(partition: Partition, tables: Sequence[pa.Table], symbols: Sequence[str], verdicts: Verdicts, context: Context) -> BarsPart:
    """Return the canonical bars of a partition.

    `tables` holds each vendor's raw slice, context sessions included; `symbols`, `verdicts` and `context` are the
    partition's own (`partition_symbols`, `Verdicts.within`, `Context.within`).
    """
    axes = partition_axes(partition, symbols)
    bars = [_vendor(name, table, partition, axes, context) for name, table in zip(context.vendors, tables, strict=True)]
    barred = misbased_cells(len(bars), axes, context.misbased)
    repeated = [repeats(item, context.config.validation.stale_sessions) for item in bars]
    spiked = take_out_bad(bars, repeated, context.config.validation)
    steps = contradictions(bars, barred, axes, context.histories.splits)
    measured = measure_overlap(bars, barred, axes, context.config.fallback)
    sources = context.config.sources.equity_ohlcv
    choice = choose(bars, context.vendors, axes, partition.year, sources, verdicts, context.config.tolerances, barred)
    for position, reason, cells in choice.refused:
        bars[position].quarantine(cells, reason)
    chosen = {name: gather(bars, choice.vendor, name) for name in FIELDS}
    disagreement = relative_disagreement(bars, choice.vendor, chosen)
    flags = flags_of(bars, choice, disagreement, repeated, spiked, context.config.tolerances)
    flags |= _suspected_splits(chosen["close"], axes, context.histories.splits)
    table = _rows(bars, axes, choice, chosen, disagreement, flags)
    details, compared = explain(bars, context.vendors, axes, choice.vendor, chosen, context.config, context.actions)
    return BarsPart(
        partition=partition,
        symbols=axes.symbols,
        table=table,
        restated=pa.concat_tables([_restated(item, position, choice, axes) for position, item in enumerate(bars)]),
        quarantine=pa.concat_tables([quarantined_rows(item) for item in bars]),
        steps=steps,
        suspected=_suspected(table),
        details=details,
        compared=compared,
        counts={item.vendor: count_rows(item, position, choice, axes) for position, item in enumerate(bars)},
        measured=YearOverlap(partition.year, axes.symbols, measured),
        sessions=axes.sessions[axes.core],
        present=choice.vendor[axes.core] >= 0,
        rows=len(table),
    )


def partition_symbols(tables: Sequence[pa.Table], context: Context) -> tuple[str, ...]:
    """Return the entities that the vendors' slices hold, sorted."""
    found: set[str] = set()
    for vendor, table in zip(context.vendors, tables, strict=True):
        codes, names = encode(table["symbol"])
        if rules := rules_of(context.config.sources.identity, vendor):
            days = table["session"].cast(pa.int32()).to_numpy().astype(np.int64)
            names, codes = entity_names(names, codes, days, rules)
        found.update(names[code] for code in np.unique(codes).tolist())
    return tuple(sorted(found))


def _vendor(name: str, table: pa.Table, partition: Partition, axes: Axes, context: Context) -> VendorBars:
    keyed = key_rows(table, axes, rules_of(context.config.sources.identity, name), partition.first, partition.last)
    return vendor_bars(name, table, keyed, axes, context.histories, context.blocked, context.config.validation)


def take_out_bad(bars: Sequence[VendorBars], repeated: Sequence[IntArray], settings: Validation) -> list[BoolArray]:
    """Quarantine stale fills and unconfirmed odd prices; return the odd prices that other vendors confirm."""
    odd = [{"close": spikes(item.fields["close"], settings), **excursions(item, settings)} for item in bars]
    kept = [np.zeros_like(found["close"]) for found in odd]
    lone = [np.zeros_like(found["close"]) for found in odd]
    for index, (item, found) in enumerate(zip(bars, odd, strict=True)):
        others = [other for other in bars if other is not item]
        for name, hit in found.items():
            if hit.any():
                known = confirmed(hit, name, item, others)
                kept[index] |= known
                lone[index] |= hit & ~known
    for item, hit, run in zip(bars, lone, repeated, strict=True):
        item.quarantine(run >= settings.stale_sessions, "stale_fill")
        item.quarantine(hit, "bad_tick")
    return kept


def gather(bars: Sequence[VendorBars], vendor: IntArray, name: str) -> FloatArray:
    """Return one field of the chosen vendors' bars; NaN where nobody was chosen."""
    out = bars[0].fields[name].copy()
    for position, item in enumerate(bars[1:], start=1):
        np.copyto(out, item.fields[name], where=vendor == position)
    return out


def flags_of(
    bars: Sequence[VendorBars],
    choice: Choice,
    disagreement: Mapping[str, FloatArray],
    repeated: Sequence[IntArray],
    spiked: Sequence[BoolArray],
    tolerances: Tolerances,
) -> IntArray:
    """Return the bits of FLAGS of every chosen bar."""
    flags = np.zeros(choice.vendor.shape, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        for name in PRICES:
            flags |= np.where(disagreement[name] > getattr(tolerances, name), FLAG_BIT["disagreement"], 0)
        flags |= np.where(disagreement["volume"] > tolerances.volume, FLAG_BIT["disagreement_volume"], 0)
    for position, (item, run, spike) in enumerate(zip(bars, repeated, spiked, strict=True)):
        mine = choice.vendor == position
        flags[mine & (run > 0)] |= FLAG_BIT["repeated"]
        flags[mine & spike] |= FLAG_BIT["spike_confirmed"]
        flags[mine & (item.fields["volume"] == 0)] |= FLAG_BIT["zero_volume"]
        for row_flag, name in ((item.adjusted, "adjusted_basis"), (item.renamed, "renamed"), (item.provisional, "provisional")):
            if row_flag.any():
                flags[mine] |= np.where(row_flag[item.row[mine]], FLAG_BIT[name], 0)
    return flags


def _suspected_splits(close: FloatArray, axes: Axes, splits: SplitHistory) -> IntArray:
    """Return the flag where the close steps like a split that no action explains, or an action's split is not in it."""
    flags = np.zeros(close.shape, dtype=np.int64)
    if len(close) > 1:
        with np.errstate(invalid="ignore", divide="ignore"):
            step = np.diff(np.log(close), axis=0)
        flags[1:][split_like(step + np.diff(log_ratios(axes, splits), axis=0))] = FLAG_BIT["suspected_split"]
    return flags


def _suspected(table: pa.Table) -> tuple[tuple[str, str], ...]:
    rows = table.filter(pc.match_substring(table["flags"], "suspected_split"))
    return tuple((row["symbol"], str(row["session"])) for row in rows.select(["symbol", "session"]).to_pylist())


def _rows(
    bars: Sequence[VendorBars],
    axes: Axes,
    choice: Choice,
    chosen: Mapping[str, FloatArray],
    disagreement: Mapping[str, FloatArray],
    flags: IntArray,
) -> pa.Table:
    rows, columns = np.nonzero(choice.vendor[axes.core] >= 0)
    cells = (rows + axes.core.start) * len(axes.symbols) + columns
    vendor = choice.vendor.reshape(-1)[cells]
    seen = np.zeros(len(cells), dtype=np.int64)
    for position, item in enumerate(bars):
        seen |= (item.row.reshape(-1)[cells] >= 0).astype(np.int64) << position
    names = [item.vendor for item in bars]
    known, payload, payload_row = origin(bars, cells, vendor, choice.method.reshape(-1)[cells])
    values = {
        "session": pa.array(axes.sessions[rows + axes.core.start], pa.date32()),
        "symbol": texts(columns, axes.symbols),
        **{name: chosen[name].reshape(-1)[cells] for name in FIELDS},
        **{f"disagreement_{name}": nullable(disagreement[name].reshape(-1)[cells]) for name in FIELDS},
        "vendor": texts(vendor, names),
        "vendors_seen": joined_names(seen, names),
        "method": texts(choice.method.reshape(-1)[cells], METHODS),
        "flags": joined_names(flags.reshape(-1)[cells], FLAGS),
        "known_on": pa.array(known.astype(np.int32)).cast(pa.date32()),
        "payload": payload,
        "payload_row": payload_row,
    }
    schema = CANONICAL["equity_ohlcv"]
    return pa.table([pa.array(values[name], schema.field(name).type) for name in schema.names], schema=schema)


def origin(bars: Sequence[VendorBars], cells: IntArray, vendor: IntArray, method: IntArray) -> tuple[IntArray, pa.Array, IntArray]:
    """Return per canonical row when it was known, and the payload and payload row of the chosen raw row."""
    known, code, payload_row = (np.zeros(len(cells), dtype=np.int64) for _ in range(3))
    every = np.zeros(len(cells), dtype=np.int64)
    payloads: list[str] = []
    for position, item in enumerate(bars):
        row = item.row.reshape(-1)[cells]
        mine, there = np.flatnonzero(vendor == position), np.flatnonzero(row >= 0)
        days = item.table["known_on"].cast(pa.int32()).to_numpy().astype(np.int64)
        codes, names = encode(item.table["payload"])
        known[mine] = days[row[mine]]
        code[mine] = codes[row[mine]] + len(payloads)
        payload_row[mine] = item.table["payload_row"].to_numpy()[row[mine]]
        every[there] = np.maximum(every[there], days[row[there]])
        payloads += names
    # A vote needs all its voters: it was known when the last of them was.
    known = np.where(method == METHODS.index("consensus"), every, known)
    return known, texts(code, payloads), payload_row


def quarantined_rows(bars: VendorBars, domain: str = "equity_ohlcv", key: Sequence[str] = KEYS["equity_ohlcv"]) -> pa.Table:
    """Return a vendor's rows that cannot be used, with their reasons."""
    rows = np.flatnonzero((bars.reasons != 0) & bars.core)
    return quarantine_rows(domain, bars.vendor, bars.table.take(pa.array(rows)), joined_names(bars.reasons[rows], REASONS), key)


def _restated(bars: VendorBars, position: int, choice: Choice, axes: Axes) -> pa.Table:
    """Return the earlier versions of the rows that were chosen from a vendor, as canonical rows with the flag `restated`."""
    rows = np.flatnonzero(bars.earlier & bars.core & (bars.cell >= 0))
    rows = rows[choice.vendor.reshape(-1)[bars.cell[rows]] == position]
    days, columns = np.divmod(bars.cell[rows], max(len(axes.symbols), 1))
    raw = bars.table.take(pa.array(rows))
    same = {"vendor": bars.vendor, "vendors_seen": bars.vendor, "method": "only", "flags": "restated"}
    values = {
        "session": pa.array(axes.sessions[days], pa.date32()),
        "symbol": texts(columns, axes.symbols),
        **{name: bars.values[name][rows] for name in FIELDS},
        **{f"disagreement_{name}": pa.nulls(len(rows), pa.float64()) for name in FIELDS},
        **{name: pa.array([text] * len(rows), pa.string()) for name, text in same.items()},
        "known_on": raw["known_on"].combine_chunks(),
        "payload": raw["payload"].cast(pa.string()).combine_chunks(),
        "payload_row": raw["payload_row"].combine_chunks(),
    }
    schema = CANONICAL["equity_ohlcv"]
    return pa.table([pa.array(values[name], schema.field(name).type) for name in schema.names], schema=schema)


def count_rows(bars: VendorBars, position: int, choice: Choice, axes: Axes) -> Counts:
    """Return the terms of the conservation law, each counted by itself."""
    left = bars.row[axes.core] >= 0
    chosen = choice.vendor[axes.core] == position
    return Counts(
        rows=int(bars.core.sum()),
        selected=int(chosen.sum()),
        superseded=int((bars.superseded & bars.core).sum()) + int((left & ~chosen).sum()),
        quarantined=int(((bars.reasons != 0) & bars.core).sum()),
    )


def texts(codes: IntArray, names: Sequence[str]) -> pa.Array:
    """Return the text of each code."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(list(names), pa.string())).cast(pa.string())


def nullable(values: FloatArray) -> pa.Array:
    """Return numbers with nulls for NaN."""
    return pa.array(values, from_pandas=True)
