"""One vendor's bars of a partition, brought to the raw basis, checked, and laid out on the grid.

Vendors round adjusted prices, so a recomputed raw price carries their rounding (up to half their last digit times the
factor); it is kept as computed, never rounded to what it might have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.market.corporate_actions import SplitHistory
from quanto.market.schema import PRICES
from quanto.stages.canonical.axes import Axes, IntArray, encode, entity_names
from quanto.stages.canonical.config import Identity, Validation

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FIELDS = (*PRICES, "volume")

# Why a row cannot be used; a row may have several reasons, each has its bit.
REASONS = (
    "not_a_session",
    "missing_field",
    "not_positive",
    "negative_volume",
    "inconsistent_bar",
    "basis_unknown",
    "basis_as_of_missing",
    "conflicting_duplicate",
    "unknown_action",
    "split_contradicted",
    "stale_fill",
    "bad_tick",
    "fallback_without_overlap",
    "fallback_disagrees",
)
REASON_BIT = {name: 1 << bit for bit, name in enumerate(REASONS)}


@dataclass(frozen=True)
class BasisHistories:
    """What is undone to reach the raw basis: splits of all symbols, and per vendor the dividends in a total basis."""

    splits: SplitHistory
    dividends: Mapping[str, SplitHistory]


@dataclass(frozen=True)
class VendorBars:
    """One vendor's bars on the grid, and what became of each of its rows.

    Attributes
    ----------
    fields
        Raw open, high, low, close, volume; each (n_sessions, n_symbols), NaN where there is no valid row.
    row
        (n_sessions, n_symbols): the row of `table` in the cell, -1 where there is none.
    reasons
        (n_rows,): bits of REASONS; 0 for a valid row.
    superseded, earlier
        (n_rows,): an equal duplicate, or a version that a later one replaced; only the latter.
    values
        The rows' raw open, high, low, close, volume; each (n_rows,).
    cell
        (n_rows,): the flat position on the grid, -1 outside.
    core
        (n_rows,): the row belongs to the partition, not to its context.
    scale
        (n_rows,): what the vendor's prices were multiplied by; a rounding of theirs grows with it.
    adjusted, renamed, provisional
        (n_rows,): the basis was not raw; the entity is not the vendor's ticker; the session was not final.
    """

    vendor: str
    table: pa.Table
    fields: dict[str, FloatArray]
    row: IntArray
    reasons: IntArray
    superseded: BoolArray
    earlier: BoolArray
    values: dict[str, FloatArray]
    cell: IntArray
    core: BoolArray
    scale: FloatArray
    adjusted: BoolArray
    renamed: BoolArray
    provisional: BoolArray

    @property
    def valid(self) -> BoolArray:
        """Whether a cell has a valid row."""
        return self.row >= 0

    def quarantine(self, hit: BoolArray, reason: str) -> None:
        """Take the rows in the given cells out for a reason (in place, while the partition is built)."""
        rows = self.row[hit & self.valid]
        self.reasons[rows] |= REASON_BIT[reason]
        for values in self.fields.values():
            values[hit] = np.nan
        self.row[hit] = -1


@dataclass(frozen=True)
class Keyed:
    """Row keys of one vendor: days, session and symbol positions (-1: outside), and the partition's own rows."""

    days: IntArray
    rows: IntArray
    columns: IntArray
    core: BoolArray
    renamed: BoolArray


def key_rows(table: pa.Table, axes: Axes, rules: Sequence[Identity], first: date, last: date) -> Keyed:
    """Return where each row of a raw table lies on the grid; first..last are the partition's own days."""
    days = table["session"].cast(pa.int32()).to_numpy().astype(np.int64)
    given, names = encode(table["symbol"])
    names, codes = entity_names(names, given, days, rules)
    order = {name: position for position, name in enumerate(axes.symbols)}
    columns = np.array([order.get(name, -1) for name in names] or [-1], dtype=np.int64)[codes]
    bounds = np.array([first, last], dtype="datetime64[D]").astype(np.int64)
    return Keyed(days, axes.rows_of(days), columns, (days >= bounds[0]) & (days <= bounds[1]), codes != given)


def vendor_bars(
    vendor: str,
    table: pa.Table,
    keyed: Keyed,
    axes: Axes,
    histories: BasisHistories,
    blocked: Mapping[str, date],
    settings: Validation,
) -> VendorBars:
    """Return one vendor's bars on the raw basis, validated row by row.

    `blocked` gives the day from which a symbol is quarantined because of an action that is not understood.
    """
    raw, scale, adjusted, reasons = _raw_basis(vendor, table, keyed, axes, histories)
    reasons[keyed.rows < 0] |= REASON_BIT["not_a_session"]
    reasons |= _row_faults(raw, settings)
    reasons |= _blocked_rows(keyed, axes, blocked)
    cell = np.where((keyed.rows >= 0) & (keyed.columns >= 0), keyed.rows * len(axes.symbols) + keyed.columns, -1)
    superseded, earlier = _merge_duplicates(table, raw, cell, axes, reasons)
    usable = np.flatnonzero((reasons == 0) & ~superseded)
    cells = cell[usable]
    row = np.full(axes.shape, -1, dtype=np.int64)
    row.reshape(-1)[cells] = usable
    fields = {}
    for name, values in raw.items():
        grid = np.full(axes.shape, np.nan)
        grid.reshape(-1)[cells] = values[usable]
        fields[name] = grid
    provisional = table["provisional"].to_numpy(zero_copy_only=False)
    return VendorBars(
        vendor, table, fields, row, reasons, superseded, earlier, raw, cell, keyed.core, scale, adjusted, keyed.renamed, provisional
    )  # fmt: skip


def _raw_basis(
    vendor: str, table: pa.Table, keyed: Keyed, axes: Axes, histories: BasisHistories
) -> tuple[dict[str, FloatArray], FloatArray, BoolArray, IntArray]:
    values = {name: _floats(table[name]) for name in FIELDS}
    reasons, scale = np.zeros(len(table), dtype=np.int64), np.ones(len(table))
    basis = _codes(table["basis"], ("raw", "split", "total"))
    volume_split = _codes(table["volume_basis"], ("raw", "split"))
    adjusted = (basis == 1) | (basis == 2)
    reasons[basis < 0] |= REASON_BIT["basis_unknown"]
    reasons[volume_split < 0] |= REASON_BIT["basis_unknown"]
    rescaled = np.flatnonzero((adjusted | (volume_split == 1)) & (keyed.columns >= 0))
    if not len(rescaled):
        return values, scale, adjusted, reasons
    as_of = table["basis_as_of"].cast(pa.int32()).fill_null(np.iinfo(np.int32).min).to_numpy().astype(np.int64)[rescaled]
    unknown = as_of == np.iinfo(np.int32).min
    reasons[rescaled[unknown]] |= REASON_BIT["basis_as_of_missing"]
    columns, days, until = keyed.columns[rescaled], keyed.days[rescaled], np.where(unknown, keyed.days[rescaled], as_of)
    ratio = _between(histories.splits, axes, columns, days, until)
    price = np.where(adjusted[rescaled], ratio, 1.0)
    total = basis[rescaled] == 2
    if total.any():
        kept = histories.dividends.get(vendor)
        factor = _between(kept, axes, columns, days, until) if kept is not None else np.ones(len(rescaled))
        price = np.where(total, price * factor, price)
    scale[rescaled] = price
    for name in PRICES:
        values[name] = values[name] * scale
    values["volume"] = values["volume"].copy()
    values["volume"][rescaled] /= np.where(volume_split[rescaled] == 1, ratio, 1.0)
    return values, scale, adjusted, reasons


def _between(history: SplitHistory, axes: Axes, columns: IntArray, days: IntArray, until: IntArray) -> FloatArray:
    codes = history.codes(axes.symbols)[columns]
    return history.ratio_between(codes, days.astype("datetime64[D]"), np.maximum(days, until).astype("datetime64[D]"))


def _row_faults(raw: Mapping[str, FloatArray], settings: Validation) -> IntArray:
    stacked = [raw[name] for name in PRICES]
    opened, high, low, close = stacked
    volume = raw["volume"]
    missing = np.isnan(volume)
    for values in stacked:
        missing |= np.isnan(values)
    positive = np.isfinite(volume)
    for values in stacked:
        positive &= (values > 0) & np.isfinite(values)
    top, bottom = high * (1 + settings.bar_tolerance), low * (1 - settings.bar_tolerance)
    consistent = (high >= low) & (opened <= top) & (close <= top) & (opened >= bottom) & (close >= bottom)
    reasons = np.where(missing, REASON_BIT["missing_field"], 0)
    reasons |= np.where(~missing & ~positive, REASON_BIT["not_positive"], 0)
    reasons |= np.where(volume < 0, REASON_BIT["negative_volume"], 0)
    reasons |= np.where(~missing & positive & ~consistent, REASON_BIT["inconsistent_bar"], 0)
    return reasons


def _blocked_rows(keyed: Keyed, axes: Axes, blocked: Mapping[str, date]) -> IntArray:
    reasons = np.zeros(len(keyed.days), dtype=np.int64)
    for symbol, day in sorted(blocked.items()):
        if symbol in axes.symbols:
            column = axes.symbols.index(symbol)
            hit = (keyed.columns == column) & (keyed.days >= np.datetime64(day, "D").astype(np.int64))
            reasons[hit] |= REASON_BIT["unknown_action"]
    return reasons


def _merge_duplicates(
    table: pa.Table, raw: Mapping[str, FloatArray], cell: IntArray, axes: Axes, reasons: IntArray
) -> tuple[BoolArray, BoolArray]:
    """Return the rows that another row of the same key supersedes, and those of them that were versions known earlier.

    Rows of one key and one knowledge date that differ are all marked as conflicting (in `reasons`).
    """
    superseded, earlier = np.zeros(len(table), dtype=np.bool_), np.zeros(len(table), dtype=np.bool_)
    valid = np.flatnonzero(reasons == 0)
    cells = cell[valid]
    holder = np.full(axes.shape[0] * axes.shape[1], -1, dtype=np.int64)
    holder[cells] = valid
    if (holder[cells] == valid).all():
        return superseded, earlier
    known = table["known_on"].cast(pa.int32()).to_numpy().astype(np.int64)[valid]
    codes, payloads = encode(table["payload"])
    rank = np.argsort(np.argsort(np.array(payloads)))[codes][valid]
    # The tie-break is the row's origin, not its place in the file: any order of rows gives the same result.
    order = np.lexsort((table["payload_row"].to_numpy()[valid], rank, known, cells))
    ordered, key, day = valid[order], cells[order], known[order]
    last = np.append(key[1:] != key[:-1], True)
    group = np.cumsum(np.append(True, last[:-1])) - 1
    winner = np.flatnonzero(last)[group]
    equal = np.ones(len(ordered), dtype=np.bool_)
    for values in raw.values():
        equal &= values[ordered] == values[ordered[winner]]
    same_day = day == day[winner]
    conflict = np.zeros(group[-1] + 1, dtype=np.bool_)
    np.logical_or.at(conflict, group, same_day & ~equal)
    loser = np.arange(len(ordered)) != winner
    clash = conflict[group] & same_day
    superseded[ordered[loser & ~clash]] = True
    earlier[ordered[loser & ~same_day]] = True
    reasons[ordered[clash]] |= REASON_BIT["conflicting_duplicate"]
    return superseded, earlier


def _floats(column: pa.ChunkedArray) -> FloatArray:
    # Arrow nulls become NaN; a vendor's NaN stays one.
    values: FloatArray = column.to_numpy(zero_copy_only=False)
    return values


def _codes(column: pa.ChunkedArray, names: tuple[str, ...]) -> IntArray:
    codes, texts = encode(column)
    lookup = np.array([names.index(text) if text in names else -1 for text in texts] or [-1], dtype=np.int64)
    return lookup[codes]
