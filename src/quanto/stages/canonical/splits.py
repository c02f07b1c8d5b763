"""Splits that a vendor missed or applied twice, found from its own prices. Pure.

Once a vendor's basis is undone, its raw closes must step by each known split and by nothing else that looks like one. A
step that contradicts this puts the vendor's rows before it on another basis (vendors adjust backwards), until another
step undoes it. It counts where another vendor's prices run on smoothly, or where a known split is not in the prices;
a step that only one vendor can tell of, without an action, may be news: it is flagged, not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from quanto.market.corporate_actions import SplitHistory
from quanto.stages.canonical.axes import Axes, IntArray
from quanto.stages.canonical.bars import BoolArray, FloatArray, VendorBars

# A move of this size (log 1.4) whose ratio is within 3 % of one that splits have is more likely a split than news.
_RATIOS = np.log(np.array([1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0]))
_MATCH = 0.03
_LARGE = float(np.log(1.4))
# A vendor whose close moves by less than this, its known splits undone, has no step.
_SMOOTH = float(np.log(1.2))
# Sessions over which a step is measured where bars are missing; beyond that a price may have gone anywhere.
_REACH = 5

# Sessions on either side over which a vendor's denial must hold.
_AROUND = 2

_BEGINNING = -(1 << 40)


@dataclass(frozen=True, order=True)
class Step:
    """A step in one vendor's raw closes (its position) that contradicts the known splits, at a day (since 1970); log."""

    vendor: int
    symbol: str
    day: int
    size: float


@dataclass(frozen=True, order=True)
class Misbased:
    """Days (since 1970) from `first` to before `until` on which a vendor's rows of a symbol are on another basis."""

    vendor: int
    symbol: str
    first: int
    until: int


def split_like(step: FloatArray) -> BoolArray:
    """Return which logarithmic steps are large and near a ratio that splits have; shape as given, False for NaN."""
    size = np.abs(step)
    out = np.zeros(step.shape, dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        large = np.nonzero(size > _LARGE)
    out[large] = (np.abs(size[large][:, None] - _RATIOS[None, :]) < _MATCH).any(axis=1)
    return out


def log_ratios(axes: Axes, splits: SplitHistory) -> FloatArray:
    """Return the log of the product of split ratios up to each session; (n_sessions, n_symbols), 0 without splits."""
    out = np.zeros(axes.shape)
    codes = splits.codes(axes.symbols)
    columns = np.flatnonzero(codes >= 0)
    if len(columns):
        rows = np.repeat(axes.sessions, len(columns))
        until = splits.ratio_until(np.tile(codes[columns], len(axes.sessions)), rows).reshape(-1, len(columns))
        out[:, columns] = np.log(until)
    return out


def contradictions(bars: Sequence[VendorBars], barred: Sequence[BoolArray], axes: Axes, splits: SplitHistory) -> tuple[Step, ...]:
    """Return the steps of all vendors within the core sessions that contradict the known splits, sorted.

    Cells that are `barred` already are left out.
    """
    known = log_ratios(axes, splits)
    closes = [
        np.where(out, np.nan, item.fields["close"]) if out.any() else item.fields["close"] for item, out in zip(bars, barred, strict=True)
    ]
    columns = _columns(closes, known)
    if not len(columns) or len(axes.sessions) < 2:
        return ()
    known = known[:, columns]
    measured = [_residual(close[:, columns], known) for close in closes]
    core = np.zeros(axes.shape[0], dtype=np.bool_)
    core[axes.core] = True
    found = []
    for position, (residual, expected) in enumerate(measured):
        hit = split_like(residual) & core[:, None]
        if not hit.any():
            continue
        with np.errstate(invalid="ignore"):
            smooth = [_smooth(other) for at, (other, _) in enumerate(measured) if at != position]
            absent = (np.abs(expected) > _LARGE) & (np.abs(residual - expected) < _MATCH)
        counts = hit & (np.logical_or.reduce([absent, *smooth]))
        for row, column in zip(*np.nonzero(counts), strict=True):
            day = int(axes.sessions[row].astype(np.int64))
            found.append(Step(position, axes.symbols[columns[column]], day, float(residual[row, column])))
    return tuple(sorted(found))


def misbased_spans(steps: Iterable[Step]) -> tuple[Misbased, ...]:
    """Return the spans on which vendors' rows are on another basis: before a step, unless an earlier one undoes it."""
    by_series: dict[tuple[int, str], list[Step]] = {}
    for step in steps:
        by_series.setdefault((step.vendor, step.symbol), []).append(step)
    found = []
    for (vendor, symbol), own in by_series.items():
        offset, until = 0.0, None
        for step in sorted(own, key=lambda item: item.day, reverse=True):
            if until is not None:
                found.append(Misbased(vendor, symbol, step.day, until))
            offset += step.size
            until = step.day if abs(offset) > 2 * _MATCH else None
        if until is not None:
            found.append(Misbased(vendor, symbol, _BEGINNING, until))
    return tuple(sorted(found))


def misbased_cells(vendors: int, axes: Axes, spans: Sequence[Misbased]) -> list[BoolArray]:
    """Return per vendor the cells that are on another basis; each (n_sessions, n_symbols)."""
    days = axes.sessions.astype(np.int64)
    out = [np.zeros(axes.shape, dtype=np.bool_) for _ in range(vendors)]
    for span in spans:
        out[span.vendor][(days >= span.first) & (days < span.until), axes.symbols.index(span.symbol)] = True
    return out


def _smooth(residual: FloatArray) -> BoolArray:
    """Return where a vendor's closes run on, over the sessions around as well: the same fall a day later is no denial."""
    moves = np.vstack([np.zeros((_AROUND, residual.shape[1])), np.nan_to_num(residual), np.zeros((_AROUND, residual.shape[1]))])
    around = np.lib.stride_tricks.sliding_window_view(moves, 2 * _AROUND + 1, axis=0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        smooth: BoolArray = (np.abs(residual) < _SMOOTH) & (np.abs(around) < _SMOOTH)
    return smooth


def _columns(closes: Sequence[FloatArray], known: FloatArray) -> IntArray:
    """Return the symbols with a split, or with closes far enough apart for one: few, so that the rest costs nothing."""
    wide = (known[-1] != known[0]) if len(known) else np.zeros(known.shape[1], dtype=np.bool_)
    for close in closes:
        high, low = np.fmax.reduce(close, axis=0, initial=0.0), np.fmin.reduce(close, axis=0, initial=np.inf)
        wide |= high > low * np.exp(_LARGE)
    return np.flatnonzero(wide)


def _residual(close: FloatArray, known: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return per session the log step since the last close, the known splits undone, and what those splits were.

    Both (n_sessions, n_symbols); NaN where there is no close, or none within reach before.
    """
    rows = np.arange(len(close))[:, None]
    last = np.maximum.accumulate(np.where(np.isfinite(close), rows, -1), axis=0)
    before = np.vstack([np.full((1, close.shape[1]), -1), last[:-1]])
    fine = np.isfinite(close) & (before >= 0) & (rows - before <= _REACH)
    at = np.maximum(before, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.log(close)
        expected = np.where(fine, known - np.take_along_axis(known, at, axis=0), np.nan)
        step = np.where(fine, level - np.take_along_axis(level, at, axis=0), np.nan)
    return step + expected, expected
