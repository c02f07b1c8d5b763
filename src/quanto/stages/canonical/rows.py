"""Index levels and option surfaces: one vendor per series and session, or per session and symbol. Pure.

An index level is chosen value by value; a surface is taken whole from one vendor, because two vendors' nodes do not
make one surface. A vendor of lower rank fills gaps of an index series only if its values agreed where both have some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quanto.market.calendar import is_session
from quanto.market.schema import CANONICAL, KEYS, RAW
from quanto.stages.canonical.axes import IntArray
from quanto.stages.canonical.bars import BoolArray, FloatArray
from quanto.stages.canonical.choice import difference_to
from quanto.stages.canonical.config import DomainSources, Fallback
from quanto.stages.canonical.lineage import joined_names, quarantine_rows, restated_rows
from quanto.stages.canonical.verdicts import SEPARATE_DAYS

# What is chosen as one: the columns that name the unit of choice, and the value that vendors are compared by.
CHOICE = {"index_level": ("series", "session"), "options_surface": ("session", "symbol")}
NAME = {"index_level": "series", "options_surface": "symbol"}
VALUE = {"index_level": "value", "options_surface": "iv"}

REASONS = ("not_a_session", "missing_field", "out_of_range", "unknown_unit", "unit_mismatch", "conflicting_duplicate",
           "fallback_without_overlap", "fallback_disagrees")  # fmt: skip
BIT = {name: 1 << bit for bit, name in enumerate(REASONS)}
FLAGS = ("disagreement",)

_HIGHEST_VOLATILITY = 10.0


@dataclass(frozen=True)
class RowsResult:
    """Canonical rows of a domain, the versions that a later one of the chosen rows replaced, and what became of each raw row."""

    table: pa.Table
    restated: pa.Table
    quarantine: pa.Table
    rows: dict[str, int]
    selected: dict[str, int]
    superseded: dict[str, int]
    quarantined: dict[str, int]
    differences: list[dict[str, object]]
    compared: int


@dataclass
class _Stack:
    """All vendors' rows, one after the other; arrays of shape (n_rows,)."""

    vendors: tuple[str, ...]
    table: pa.Table
    vendor: IntArray
    key: IntArray
    unit: IntArray
    reasons: IntArray
    superseded: BoolArray
    replaced_by: IntArray  # the later version of the same vendor's row, -1 where there is none

    @property
    def open(self) -> BoolArray:
        """Rows that can still be chosen."""
        return np.asarray((self.reasons == 0) & ~self.superseded, dtype=np.bool_)


def reconcile_rows(domain: str, tables: Mapping[str, pa.Table], sources: DomainSources, tolerance: float, fallback: Fallback) -> RowsResult:
    """Return the canonical rows of `index_level` or `options_surface` from the vendors' raw tables."""
    vendors = tuple(name for name in sources.priority if name in tables)
    stack = _stack(domain, vendors, tables)
    _check(domain, stack)
    _merge_duplicates(stack)
    rank = _ranks(domain, stack, sources)
    if domain == "index_level":
        _one_unit(stack, rank)
        _refuse_fallback(stack, rank, tolerance, fallback)
    chosen = _choose(stack, rank)
    if sources.policy == "consensus":
        chosen = _vote(stack, rank, chosen, tolerance)
    differences, compared, flagged = _compare(domain, stack, chosen, tolerance)
    count = {name: index for index, name in enumerate(vendors)}
    hits = {"selected": chosen, "superseded": ~chosen & (stack.reasons == 0), "quarantined": stack.reasons != 0}
    counts = {what: {name: int((hit & (stack.vendor == index)).sum()) for name, index in count.items()} for what, hit in hits.items()}
    return RowsResult(
        table=_canonical(domain, stack, chosen, rank, flagged),
        restated=_restated(domain, stack, chosen),
        quarantine=_quarantine(domain, stack),
        rows={name: len(tables[name]) for name in vendors},
        differences=differences,
        compared=compared,
        **counts,
    )


def _stack(domain: str, vendors: Sequence[str], tables: Mapping[str, pa.Table]) -> _Stack:
    plain = [tables[name].cast(RAW[domain]) for name in vendors]
    table = pa.concat_tables(plain).combine_chunks() if plain else RAW[domain].empty_table()
    vendor = np.repeat(np.arange(len(vendors)), [len(part) for part in plain]).astype(np.int64)
    zeros = np.zeros(len(table), dtype=np.int64)
    key, unit = _group(table, KEYS[domain]), _group(table, CHOICE[domain])
    never = np.full(len(table), -1, dtype=np.int64)
    return _Stack(tuple(vendors), table, vendor, key, unit, zeros, np.zeros(len(table), dtype=np.bool_), never)


def _group(table: pa.Table, columns: Sequence[str]) -> IntArray:
    """Return a number per row that is equal where all columns are equal; nulls equal nulls."""
    code = np.zeros(len(table), dtype=np.int64)
    for name in columns:
        indices = table[name].combine_chunks().dictionary_encode(null_encoding="encode").indices
        values = indices.to_numpy(zero_copy_only=False).astype(np.int64)
        code = np.unique(code * (int(values.max(initial=0)) + 1) + values, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return code


def _check(domain: str, stack: _Stack) -> None:
    session = is_session(stack.table["session"].to_numpy().astype("datetime64[D]"))
    if domain == "index_level":
        value, unit = _floats(stack.table["value"]), np.array(stack.table["unit"].to_pylist(), dtype=object)
        monthly = unit == "fraction_per_month"
        stack.reasons[~session & ~monthly] |= BIT["not_a_session"]
        stack.reasons[np.isnan(value)] |= BIT["missing_field"]
        stack.reasons[np.isinf(value) | ((unit == "level") & (value <= 0)) | ((unit != "level") & (value <= -1))] |= BIT["out_of_range"]
        stack.reasons[~np.isin(unit.astype(str), ("level", "fraction", "fraction_per_month"))] |= BIT["unknown_unit"]
        return
    stack.reasons[~session] |= BIT["not_a_session"]
    iv, bid, ask = (_floats(stack.table[name]) for name in ("iv", "bid", "ask"))
    tenor, delta = _floats(stack.table["tenor_days"]), _floats(stack.table["delta"])
    side = np.isin(np.array(stack.table["side"].to_pylist(), dtype=str), ("C", "P", "M"))
    stack.reasons[np.isnan(iv) & np.isnan(bid) & np.isnan(ask)] |= BIT["missing_field"]
    wrong = (iv <= 0) | (iv > _HIGHEST_VOLATILITY) | (bid < 0) | (ask < bid) | (np.abs(delta) > 1) | ~(tenor >= 0) | ~side
    stack.reasons[wrong] |= BIT["out_of_range"]


def _merge_duplicates(stack: _Stack) -> None:
    """Let the latest version of a vendor's row stand; equal rows are merged, contradictions are quarantined (in place)."""
    rows = np.flatnonzero(stack.reasons == 0)
    known = stack.table["known_on"].cast(pa.int32()).to_numpy().astype(np.int64)
    payload = _rank_text(stack.table["payload"])
    row_of = stack.table["payload_row"].to_numpy()
    order = rows[np.lexsort((row_of[rows], payload[rows], known[rows], stack.key[rows], stack.vendor[rows]))]
    if not len(order):
        return
    same = (stack.key[order][1:] == stack.key[order][:-1]) & (stack.vendor[order][1:] == stack.vendor[order][:-1])
    last = np.append(~same, True)
    group = np.cumsum(np.append(True, ~same)) - 1
    winner = order[np.flatnonzero(last)[group]]
    content = _group(stack.table, [name for name in stack.table.column_names if name not in ("payload", "payload_row")])
    clash = (known[order] == known[winner]) & (content[order] != content[winner])
    broken = np.zeros(group[-1] + 1, dtype=np.bool_)
    np.logical_or.at(broken, group, clash)
    hit = broken[group] & (known[order] == known[winner])
    stack.reasons[order[hit]] |= BIT["conflicting_duplicate"]
    stack.superseded[order[(order != winner) & ~hit]] = True
    earlier = ~hit & (known[order] < known[winner])
    stack.replaced_by[order[earlier]] = winner[earlier]


def _ranks(domain: str, stack: _Stack, sources: DomainSources) -> IntArray:
    """Return the rank of each row's vendor in the order that holds for its name and session."""
    rank = stack.vendor.copy()
    free = np.ones(len(rank), dtype=np.bool_)
    names = np.array(stack.table[NAME[domain]].to_pylist(), dtype=str)
    days = stack.table["session"].to_numpy().astype("datetime64[D]")
    for override in sources.overrides:
        hit = free & (np.isin(names, override.symbols) if override.symbols else True)
        if override.start:
            hit &= days >= np.datetime64(override.start, "D")
        if override.end:
            hit &= days <= np.datetime64(override.end, "D")
        first = [name for name in override.priority if name in stack.vendors]
        order = [*first, *(name for name in stack.vendors if name not in first)]
        rank[hit] = np.array([order.index(name) for name in stack.vendors] or [0])[stack.vendor[hit]]
        free &= ~hit
    return rank


def _choose(stack: _Stack, rank: IntArray) -> BoolArray:
    """Return the rows of the best open vendor of each unit of choice."""
    best = np.full(int(stack.unit.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    rows = np.flatnonzero(stack.open)
    np.minimum.at(best, stack.unit[rows], rank[rows])
    chosen = np.zeros(len(rank), dtype=np.bool_)
    chosen[rows] = rank[rows] == best[stack.unit[rows]]
    return chosen


def _one_unit(stack: _Stack, rank: IntArray) -> None:
    """Quarantine values whose unit is not that of the series' leading vendor (in place)."""
    series, unit = stack.table["series"].to_pylist(), stack.table["unit"].to_pylist()
    leading: dict[str, tuple[int, str]] = {}
    for row in np.flatnonzero(stack.open).tolist():
        leading[series[row]] = min(leading.get(series[row], (1 << 30, "")), (int(rank[row]), unit[row]))
    for row in np.flatnonzero(stack.open).tolist():
        if unit[row] != leading[series[row]][1]:
            stack.reasons[row] |= BIT["unit_mismatch"]


def _refuse_fallback(stack: _Stack, rank: IntArray, tolerance: float, settings: Fallback) -> None:
    """Quarantine the gap fillers of vendors that did not agree with the others over a series (in place)."""
    value = _floats(stack.table["value"])
    reference = np.full(int(stack.unit.max(initial=-1)) + 1, np.nan)
    series = _group(stack.table, ("series",))
    days = stack.table["session"].cast(pa.int32()).to_numpy().astype(np.int64)
    for name in np.unique(series):
        rows = np.flatnonzero(stack.open & (series == name))
        vendors = sorted(set(stack.vendor[rows].tolist()), key=lambda vendor: int(rank[rows[stack.vendor[rows] == vendor]].min()))
        reference[:] = np.nan
        for index, vendor in enumerate(vendors):
            mine = rows[stack.vendor[rows] == vendor]
            difference = difference_to(value[mine], reference[stack.unit[mine]])
            compared, agreed = int(np.isfinite(difference).sum()), int((difference <= max(tolerance, settings.tolerance)).sum())
            rest = days[rows[stack.vendor[rows] != vendor]]
            filling = mine[np.isnan(reference[stack.unit[mine]])]
            reason = None
            if index and compared >= settings.overlap_sessions:
                reason = "fallback_disagrees" if agreed < settings.agreement * compared else None
            elif index and not (rest.min() - days[mine].max() > SEPARATE_DAYS or days[mine].min() - rest.max() > SEPARATE_DAYS):
                reason = "fallback_without_overlap"
            if reason is not None:
                stack.reasons[filling] |= BIT[reason]
                continue
            known = np.isnan(reference[stack.unit[mine]])
            reference[stack.unit[mine][known]] = value[mine][known]


def _vote(stack: _Stack, rank: IntArray, chosen: BoolArray, tolerance: float) -> BoolArray:
    """Return the rows that most vendors of a unit confirm; ties go by rank."""
    value = _floats(stack.table["value"])
    rows = np.flatnonzero(stack.open)
    order = rows[np.lexsort((rank[rows], stack.unit[rows]))]
    out = chosen.copy()
    for group in np.split(order, np.flatnonzero(np.diff(stack.unit[order])) + 1):
        votes = [int((difference_to(value[group], np.full(len(group), value[row])) <= tolerance).sum()) for row in group]
        out[group] = False
        out[group[int(np.argmax(votes))]] = True
    return out


def _compare(domain: str, stack: _Stack, chosen: BoolArray, tolerance: float) -> tuple[list[dict[str, object]], int, BoolArray]:
    """Return the differences beyond tolerance to the chosen row of the same key, the comparisons, and the chosen rows that differ."""
    value = _floats(stack.table[VALUE[domain]])
    mine = np.full(int(stack.key.max(initial=-1)) + 1, -1, dtype=np.int64)
    mine[stack.key[chosen]] = np.flatnonzero(chosen)
    others = np.flatnonzero(stack.open & ~chosen & (mine[stack.key] >= 0))
    against = mine[stack.key[others]]
    difference = difference_to(value[others], value[against])
    beyond = np.flatnonzero(difference > tolerance)
    flagged = np.zeros(len(value), dtype=np.bool_)
    flagged[against[beyond]] = True
    picked = stack.table.take(pa.array(others[beyond])).select(["session", NAME[domain]]).to_pylist()
    found: list[dict[str, object]] = []
    for row, at in zip(picked, beyond.tolist(), strict=True):
        ratio = value[others[at]] / value[against[at]]
        kind = "unit_error" if abs(max(ratio, 1 / ratio) / 100 - 1) < 1e-2 else "bad_tick"
        found.append({
            "session": row["session"], "symbol": row[NAME[domain]], "field": VALUE[domain],
            "vendor": stack.vendors[stack.vendor[against[at]]], "other": stack.vendors[stack.vendor[others[at]]],
            "chosen_value": float(value[against[at]]), "other_value": float(value[others[at]]),
            "difference": float(difference[at]), "class": kind,
        })  # fmt: skip
    return found, int(np.isfinite(difference).sum()), flagged


def _canonical(domain: str, stack: _Stack, chosen: BoolArray, rank: IntArray, flagged: BoolArray) -> pa.Table:
    rows = np.flatnonzero(chosen)
    seen = np.zeros(int(stack.unit.max(initial=-1)) + 1, dtype=np.int64)
    there = np.flatnonzero(stack.open)
    np.bitwise_or.at(seen, stack.unit[there], np.int64(1) << stack.vendor[there])
    best = np.full(len(seen), np.iinfo(np.int64).max)
    np.minimum.at(best, stack.unit[there], rank[there])
    lead = _lead(domain, stack, rank)
    alone = (seen[stack.unit[rows]] & (seen[stack.unit[rows]] - 1)) == 0
    methods = np.where(rank[rows] > best[stack.unit[rows]], "consensus", np.where(alone, "only", "priority"))
    methods = np.where(rank[rows] > lead[rows], np.where(methods == "consensus", methods, "fallback"), methods)
    table = stack.table.take(pa.array(rows))
    extra = {
        "vendor": pa.array(np.array(stack.vendors, dtype=object)[stack.vendor[rows]], pa.string()),
        "vendors_seen": joined_names(seen[stack.unit[rows]], stack.vendors),
        "method": pa.array(methods.astype(object), pa.string()),
        "flags": joined_names(flagged[rows].astype(np.int64), FLAGS),
    }
    schema = CANONICAL[domain]
    columns = [extra[name] if name in extra else table[name].combine_chunks() for name in schema.names]
    out = pa.table(columns, schema=schema)
    return out.sort_by([(name, "ascending") for name in KEYS[domain]]).combine_chunks()


def _restated(domain: str, stack: _Stack, chosen: BoolArray) -> pa.Table:
    """Return the earlier versions of chosen rows, as canonical rows with the flag `restated`."""
    rows = np.flatnonzero(stack.replaced_by >= 0)
    rows = rows[chosen[stack.replaced_by[rows]]]
    vendor = pa.array(np.array(stack.vendors, dtype=object)[stack.vendor[rows]], pa.string())
    return restated_rows(domain, stack.table.take(pa.array(rows)), vendor)


def _lead(domain: str, stack: _Stack, rank: IntArray) -> IntArray:
    """Return for each row the best rank that any vendor of its series or symbol has."""
    name = _group(stack.table, (NAME[domain],))
    lead = np.full(int(name.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    rows = np.flatnonzero(stack.open)
    np.minimum.at(lead, name[rows], rank[rows])
    return np.asarray(lead[name], dtype=np.int64)


def _quarantine(domain: str, stack: _Stack) -> pa.Table:
    parts = [quarantine_rows(domain, "", RAW[domain].empty_table(), pa.array([], pa.string()))]
    for index, vendor in enumerate(stack.vendors):
        rows = np.flatnonzero((stack.reasons != 0) & (stack.vendor == index))
        parts.append(quarantine_rows(domain, vendor, stack.table.take(pa.array(rows)), joined_names(stack.reasons[rows], REASONS)))
    return pa.concat_tables(parts)


def _rank_text(column: pa.ChunkedArray) -> IntArray:
    return np.asarray(pc.rank(column, sort_keys="ascending", tiebreaker="dense").to_numpy(), dtype=np.int64)


def _floats(column: pa.ChunkedArray) -> FloatArray:
    values: FloatArray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
