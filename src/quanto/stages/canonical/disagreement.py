"""Why two vendors differ: every value beyond the tolerance gets a class, from the strongest evidence down.

1. `rounding`: at most one tick of the vendor's own quotation.
2. `stale_fill`: one side repeats its own last bar, or stands at its last close, while the other moves (a close alone that
   repeats: where nothing up to 7 explains the difference).
3. `split_basis`, `volume_basis`: the ratio is a product of the symbol's splits, or one that splits have, and it stays.
4. `unit_error`: the ratio is 100 or 1000, or the inverse.
5. `dividend_basis`: the difference is the dividend of the next ex-date, or the ratio is near one and stays.
6. `one_day_shift`: the value is the other side's value of a neighbouring session.
7. `bad_session`: half of the session's symbols, or more, differ between the chosen and some other vendor.
8. `open_auction`, `range_rules`: the close agrees; the open, or the high or low, differs a little.
9. `volume_difference` for volumes, `bad_tick` for prices: what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quanto.market.corporate_actions import CASH_KINDS, SplitHistory, split_history
from quanto.market.schema import PRICES
from quanto.stages.canonical.axes import Axes, IntArray
from quanto.stages.canonical.bars import FIELDS, BoolArray, FloatArray, VendorBars
from quanto.stages.canonical.choice import difference_to
from quanto.stages.canonical.config import CanonicalConfig

CLASSES = (
    "stale_fill",
    "dividend_basis",
    "split_basis",
    "volume_basis",
    "unit_error",
    "one_day_shift",
    "rounding",
    "bad_session",
    "open_auction",
    "range_rules",
    "volume_difference",
    "bad_tick",
)

DETAILS = pa.schema(
    [
        pa.field("session", pa.date32(), False),
        pa.field("symbol", pa.string(), False),
        pa.field("field", pa.string(), False),
        pa.field("vendor", pa.string(), False),  # chosen
        pa.field("other", pa.string(), False),
        pa.field("chosen_value", pa.float64(), False),
        pa.field("other_value", pa.float64(), False),
        pa.field("difference", pa.float64(), False),
        pa.field("class", pa.string(), False),
    ]
)
COMPARED = pa.schema(
    [
        pa.field("vendor", pa.string(), False),
        pa.field("other", pa.string(), False),
        pa.field("field", pa.string(), False),
        pa.field("cells", pa.int64(), False),
        pa.field("above", pa.int64(), False),
    ]
)

_PRICE_MATCH = 1e-3
_VOLUME_MATCH = 0.02
_SIMPLE_RATIOS = np.array([1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0])
_LEAST_RATIO = 1.04
_UNITS = np.array([100.0, 1000.0])
_TICK = 0.0101
_SMALL_TICK = 0.000101
_OPEN_RANGE = 0.05
_HIGH_LOW_RANGE = 0.02
_SHIFT_MATCH = 1e-5
_STEADY = 2e-4
_BAD_SESSION_SYMBOLS = 3


@dataclass(frozen=True)
class ActionDays:
    """The actions that explain differences: cash by (symbol, ex-date as days since 1970), and the splits."""

    cash: Mapping[tuple[str, int], float]
    splits: SplitHistory

    def within(self, symbols: Sequence[str], after: date, until: date) -> ActionDays:
        """Return the actions of some symbols with an ex-date in (after, until]."""
        wanted, epoch = set(symbols), date(1970, 1, 1).toordinal()
        low, high = after.toordinal() - epoch, until.toordinal() - epoch
        cash = {key: amount for key, amount in sorted(self.cash.items()) if key[0] in wanted and low < key[1] <= high}
        return ActionDays(cash, self.splits.within(symbols, after, until))


def action_days(actions: pa.Table) -> ActionDays:
    """Return the look-up of a canonical table of corporate actions."""
    rows = actions.filter(pc.is_in(actions["kind"], pa.array(CASH_KINDS)))
    cash: dict[tuple[str, int], float] = {}
    days = rows["ex_date"].cast(pa.int32()).to_pylist()
    for symbol, day, amount in zip(rows["symbol"].to_pylist(), days, rows["cash_usd"].to_pylist(), strict=True):
        cash[symbol, day] = cash.get((symbol, day), 0.0) + amount
    return ActionDays(cash, split_history(actions))


@dataclass(frozen=True)
class Cases:
    """Differences beyond tolerance between the chosen and one other vendor in one field; arrays of shape (n,)."""

    field: str
    row: IntArray
    column: IntArray
    chosen: FloatArray
    value: FloatArray


def explain(
    bars: Sequence[VendorBars],
    names: Sequence[str],
    axes: Axes,
    vendor: IntArray,
    chosen: Mapping[str, FloatArray],
    config: CanonicalConfig,
    actions: ActionDays,
) -> tuple[pa.Table, pa.Table]:
    """Return the differences beyond tolerance with their class (DETAILS), and how many cells were compared (COMPARED)."""
    core = np.zeros(axes.shape, dtype=np.bool_)
    core[axes.core] = True
    payout = _next_dividend(axes, actions)
    pairs = [(mine, other) for other in range(len(bars)) for mine in range(len(bars)) if mine != other]
    cells = {(mine, other): core & (vendor == mine) & bars[other].valid for mine, other in pairs}
    cells = {pair: here for pair, here in cells.items() if here.any()}
    cases = {
        (pair, name): _beyond(name, bars[pair[1]], here, chosen, getattr(config.tolerances, name))
        for pair, here in cells.items()
        for name in FIELDS
    }
    bad = _bad_sessions(cases, cells, len(bars), len(axes.sessions))
    details = [DETAILS.empty_table()]
    compared = []
    for ((mine, other), name), case in cases.items():
        counted = {"field": name, "cells": int(cells[mine, other].sum()), "above": len(case.row)}
        compared.append({"vendor": names[mine], "other": names[other], **counted})
        if len(case.row):
            kind = _classify(case, bars[mine], bars[other], axes, chosen, config, actions, payout, bad[mine])
            details.append(_detail_rows(case, kind, names[mine], names[other], axes))
    return pa.concat_tables(details), pa.Table.from_pylist(compared, schema=COMPARED)


def _beyond(name: str, bar: VendorBars, pair: BoolArray, chosen: Mapping[str, FloatArray], tolerance: float) -> Cases:
    rows, columns = np.nonzero(pair)
    mine, theirs = chosen[name][rows, columns], bar.fields[name][rows, columns]
    hit = difference_to(theirs, mine) > tolerance
    return Cases(name, rows[hit], columns[hit], mine[hit], theirs[hit])


def _bad_sessions(
    cases: Mapping[tuple[tuple[int, int], str], Cases], cells: Mapping[tuple[int, int], BoolArray], vendors: int, sessions: int
) -> BoolArray:
    """Return the sessions in which, against any one vendor, half of at least three symbols differ in the close.

    Shape (n_vendors, n_sessions), by the chosen vendor: what is wrong in a whole session is wrong against all others.
    """
    bad = np.zeros((vendors, sessions), dtype=np.bool_)
    for (mine, other), here in cells.items():
        count = here.sum(axis=1)
        differ = np.bincount(cases[(mine, other), "close"].row, minlength=sessions)
        bad[mine] |= (count >= _BAD_SESSION_SYMBOLS) & (2 * differ >= count)
    return bad


def _classify(
    case: Cases,
    mine: VendorBars,
    bar: VendorBars,
    axes: Axes,
    chosen: Mapping[str, FloatArray],
    config: CanonicalConfig,
    actions: ActionDays,
    payout: FloatArray,
    bad_session: BoolArray,
) -> IntArray:
    """Return the class of each case, an index into CLASSES."""
    with np.errstate(invalid="ignore", divide="ignore"):
        tests = _tests(case, mine, bar, axes, chosen, config, actions, payout, bad_session)
    last = "volume_difference" if case.field == "volume" else "bad_tick"
    # A close alone that repeats may be chance: a stale fill only where nothing else explains it.
    kinds = [CLASSES.index("stale_fill" if name == "repeated_close" else name) for name in tests]
    return np.select(list(tests.values()), kinds, CLASSES.index(last)).astype(np.int64)


def _tests(
    case: Cases,
    mine: VendorBars,
    bar: VendorBars,
    axes: Axes,
    chosen: Mapping[str, FloatArray],
    config: CanonicalConfig,
    actions: ActionDays,
    payout: FloatArray,
    bad_session: BoolArray,
) -> dict[str, BoolArray]:
    row, column = case.row, case.column
    ratio = case.value / case.chosen
    volume = case.field == "volume"
    grid, own = bar.fields[case.field], chosen[case.field]
    match = _VOLUME_MATCH if volume else _PRICE_MATCH
    # A basis differs on many sessions running: the ratio of the session before or after is the same.
    before, after = _shifted(grid / own, row, column, -1), _shifted(grid / own, row, column, 1)
    steadiness = match if volume else _STEADY
    steady = (np.abs(before / ratio - 1) <= steadiness) | (np.abs(after / ratio - 1) <= steadiness)
    on_split = _is_split_product(ratio, column, axes, actions.splits, match)
    simple = steady & _near(ratio, _SIMPLE_RATIOS, match)
    difference = case.value - case.chosen
    owed = np.abs(np.abs(difference) - payout[row, column]) <= 0.006  # half a cent, and the rounding of a sum
    close_agrees = difference_to(bar.fields["close"][row, column], chosen["close"][row, column]) <= config.tolerances.close
    tick = np.maximum(_tick(case.chosen, mine, row, column), _tick(case.value, bar, row, column))
    never = np.zeros(len(row), dtype=np.bool_)
    repeats = (_shifted(grid, row, column, -1) == case.value) ^ (_shifted(own, row, column, -1) == case.chosen)
    stale = repeats & (_is_stale(bar.fields, row, column) | _is_stale(chosen, row, column))
    shifted = _is_shifted(case.value, own, row, column)
    # One equal high or open is chance: the whole bar must be the neighbour's.
    shifted &= _is_shifted(bar.fields["close"][row, column], chosen["close"], row, column)
    return {
        "rounding": never if volume else np.abs(difference) <= tick,
        "stale_fill": stale if case.field == "close" else never,
        "split_basis": never if volume else on_split | simple,
        "volume_basis": on_split | simple if volume else never,
        "unit_error": _near(ratio, _UNITS, match),
        "dividend_basis": never if volume else ((case.field == "close") & owed) | (steady & (np.abs(ratio - 1) < 0.5) & ~shifted),
        "one_day_shift": shifted & ~stale,
        "bad_session": bad_session[row] & (case.field == "close"),
        "repeated_close": repeats if case.field == "close" else never,
        "open_auction": close_agrees & (np.abs(ratio - 1) <= _OPEN_RANGE) if case.field == "open" else never,
        "range_rules": close_agrees & (np.abs(ratio - 1) <= _HIGH_LOW_RANGE) if case.field in ("high", "low") else never,
    }


def _is_stale(bars: Mapping[str, FloatArray], row: IntArray, column: IntArray) -> BoolArray:
    """Return whether each bar has all prices of the bar before, or stands at its close."""
    last = _shifted(bars["close"], row, column, -1)
    same, flat = np.ones(len(row), dtype=np.bool_), np.ones(len(row), dtype=np.bool_)
    for name in PRICES:
        same &= bars[name][row, column] == _shifted(bars[name], row, column, -1)
        flat &= bars[name][row, column] == last
    return same | flat


def _is_shifted(value: FloatArray, own: FloatArray, row: IntArray, column: IntArray) -> BoolArray:
    """Return whether each value is the other side's value of the session before or after."""
    found = [np.abs(_shifted(own, row, column, by) / value - 1) <= _SHIFT_MATCH for by in (-1, 1)]
    return np.asarray(found[0] | found[1], dtype=np.bool_)


def _tick(value: FloatArray, bar: VendorBars, row: IntArray, column: IntArray) -> FloatArray:
    """Return one unit of the last digit that a vendor quotes, on the raw basis; at least a cent (1/100 cent below a dollar).

    A vendor that rounds adjusted prices to cents is off by a cent times the factor; one that gives six digits is not.
    """
    scale = bar.scale[np.maximum(bar.row[row, column], 0)]
    own = value / scale
    digit = np.full(len(own), 1e-6)
    for unit in (1e-4, 1e-2):
        digit[np.abs(own / unit - np.round(own / unit)) < 1e-6 / unit] = unit
    return np.maximum(1.01 * digit * scale, np.where(value >= 1, _TICK, _SMALL_TICK))


def _shifted(grid: FloatArray, row: IntArray, column: IntArray, by: int) -> FloatArray:
    """Return the grid's values `by` sessions away; NaN outside the grid."""
    at = row + by
    inside = (at >= 0) & (at < len(grid))
    return np.where(inside, grid[np.clip(at, 0, len(grid) - 1), column], np.nan)


def _near(ratio: FloatArray, wanted: FloatArray, tolerance: float) -> BoolArray:
    """Return whether a ratio, or its inverse, is one of the wanted ones, within a relative tolerance."""
    above = np.where(ratio >= 1, ratio, 1 / ratio)
    return np.asarray((np.abs(above[:, None] / wanted[None, :] - 1) <= tolerance).any(axis=1), dtype=np.bool_)


def _is_split_product(ratio: FloatArray, column: IntArray, axes: Axes, splits: SplitHistory, tolerance: float) -> BoolArray:
    """Return whether a ratio, or its inverse, is the product of a run of the symbol's splits."""
    out = np.zeros(len(ratio), dtype=np.bool_)
    codes = splits.codes(axes.symbols)
    for at in np.unique(column[codes[column] >= 0]):
        mine_too = np.array([symbol == axes.symbols[at] for symbol, _, _ in splits.events()])
        products = np.append(1.0, splits.cumulative[mine_too])
        runs = np.unique([late / early for i, early in enumerate(products) for late in products[i + 1 :]])
        # A stock dividend below a few per cent cannot be told from an ordinary difference of prices.
        runs = runs[np.maximum(runs, 1 / runs) >= _LEAST_RATIO]
        mine = column == at
        out[mine] = _near(ratio[mine], np.maximum(runs, 1 / runs), tolerance)
    return out


def _next_dividend(axes: Axes, actions: ActionDays) -> FloatArray:
    """Return the cash that goes ex on the next session; NaN where none; (n_sessions, n_symbols)."""
    out = np.full(axes.shape, np.nan)
    order = {name: column for column, name in enumerate(axes.symbols)}
    for (symbol, day), amount in actions.cash.items():
        row = int(axes.rows_of(np.array([day]))[0])
        if symbol in order and row > 0:
            out[row - 1, order[symbol]] = amount
    return out


def _detail_rows(case: Cases, kind: IntArray, vendor: str, other: str, axes: Axes) -> pa.Table:
    n = len(case.row)
    same = {"field": case.field, "vendor": vendor, "other": other}
    values = {
        "session": pa.array(axes.sessions[case.row], pa.date32()),
        "symbol": pa.array(np.array(axes.symbols, dtype=object)[case.column], pa.string()),
        "chosen_value": case.chosen,
        "other_value": case.value,
        "difference": difference_to(case.value, case.chosen),
        "class": pa.array(np.array(CLASSES, dtype=object)[kind], pa.string()),
        **{name: pa.array([text] * n, pa.string()) for name, text in same.items()},
    }
    return pa.table([pa.array(values[name], DETAILS.field(name).type) for name in DETAILS.names], schema=DETAILS)
