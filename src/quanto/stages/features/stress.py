"""Markets for the leak proof: another future, another market altogether, and a copy with everything that goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from quanto.market.panel import BoolArray, FloatArray, Panel
from quanto.stages.features.view import BAR_FIELDS, MarketView, Versions, mask_bars

Series = Mapping[str, tuple[FloatArray, FloatArray]]

_HOLE_RATE = 0.01
_HALT_SESSIONS = 6

# Sessions beside which rows come late: each costs every build of the market some sessions that are computed again.
LATE_SESSIONS = 8

_RATIOS = (2.0, 3.0, 0.5, 1.5)


def perturb_after(view: MarketView, row: int, rng: np.random.Generator, keep: int | None = None, *, accidents: bool = True) -> MarketView:
    """Return the market with other data after session `row` (-1: everywhere), the same bits up to it.

    Prices, volumes, index levels and surfaces get other values, bars vanish and appear, splits and unknown actions
    happen (with `accidents`). The symbol at position `keep` stays as it is.
    """
    after = np.zeros(view.panel.close.shape, dtype=np.bool_)
    after[row + 1 :] = True
    if keep is not None:
        after[:, keep] = False
    days = np.broadcast_to(view.days[:, None], after.shape)
    appear = after & np.isnan(view.panel.close) & (rng.random(after.shape) < 0.2)
    vanish = after & ~appear & (rng.random(after.shape) < 0.05 * accidents)
    split_now = after & (rng.random(after.shape) < 0.01)
    blocked = after & (rng.random(after.shape) < 0.002 * accidents)
    panel = _other_bars(view.panel, after, appear, rng)
    panel = replace(
        mask_bars(panel, vanish),
        split=np.where(split_now, rng.choice(_RATIOS, after.shape), panel.split),
        dividend_usd=np.where(split_now, 0.5, panel.dividend_usd),
    )
    bars_known = np.where(appear, days, view.bars_known)
    surface_gone = after & (rng.random(after.shape) < 0.05)
    tail = np.arange(len(after)) > row
    return MarketView(
        panel=panel,
        bars_known=np.where(vanish, np.nan, bars_known),
        actions_known=np.where(split_now, days, view.actions_known),
        blocks_known=np.where(blocked, days, view.blocks_known),
        series=_other_series(view.series, tail, rng),
        surface={name: np.where(surface_gone, np.nan, _noisy(values, after, 0.2, rng)) for name, values in view.surface.items()},
        surface_known=np.where(surface_gone, np.nan, view.surface_known),
        member=view.member ^ (after & (rng.random(after.shape) < 0.05 * accidents)),
        earlier=view.earlier,
    )


def another_market(view: MarketView, rng: np.random.Generator) -> MarketView:
    """Return a market of the same shape in which every value is another one."""
    return perturb_after(view, -1, rng, accidents=False)


def stressed(view: MarketView, rng: np.random.Generator) -> MarketView:
    """Return a copy where much goes wrong at once.

    Bars and surfaces are missing; there are halts, a late listing, an ending, splits, dividends, sessions without volume
    and a name that leaves the universe.
    """
    shape = view.panel.close.shape
    hidden = rng.random(shape) < _HOLE_RATE
    sessions, names = shape
    for column in range(names):
        start = int(rng.integers(0, sessions))
        hidden[start : start + _HALT_SESSIONS, column] = True
    if names > 3:
        hidden[: sessions // 3, 1] = True
        hidden[sessions - sessions // 5 :, 2] = True
    left = np.zeros(shape, dtype=np.bool_)
    if names > 4:
        left[sessions // 2 :, 3] = True
    panel = mask_bars(_with_splits(view.panel, rng), hidden)
    panel = replace(panel, volume=np.where(np.isfinite(panel.volume) & (rng.random(shape) < 0.005), 0.0, panel.volume))
    pays = np.isfinite(panel.close) & (rng.random(shape) < _HOLE_RATE)
    panel = replace(panel, dividend_usd=np.where(pays, 0.01 * panel.close, panel.dividend_usd))
    acted = pays | (panel.split != view.panel.split)
    no_surface = hidden | (rng.random(shape) < _HOLE_RATE)
    return MarketView(
        panel=panel,
        bars_known=np.where(hidden, np.nan, view.bars_known),
        actions_known=np.where(acted, view.days[:, None], view.actions_known),
        blocks_known=view.blocks_known,
        series={name: _with_holes(values, known, rng) for name, (values, known) in view.series.items()},
        surface={name: np.where(no_surface, np.nan, values) for name, values in view.surface.items()},
        surface_known=np.where(no_surface, np.nan, view.surface_known),
        member=view.member & ~left,
        earlier=view.earlier,
    )


def with_late_rows(view: MarketView, cuts: npt.NDArray[np.int64], rng: np.random.Generator) -> tuple[MarketView, npt.NDArray[np.int64]]:
    """Return a copy in which bars, surfaces and index levels beside some of the cuts were known late, and where to look.

    A row of session t or t-1, for a cut t, is known in the evening of t+1; of some bars another version was known in
    time. The second value holds t-1, t and t+1 of
    each, ascending: where what was not yet known could be seen.
    """
    bars, surface, actions = view.bars_known.copy(), view.surface_known.copy(), view.actions_known.copy()
    series = {name: (values, known.copy()) for name, (values, known) in view.series.items()}
    restated: list[tuple[int, int]] = []
    inner = cuts[(cuts > 1) & (cuts + 1 < len(bars))]
    chosen = inner[:: max(1, len(inner) // LATE_SESSIONS)]
    for cut in chosen:
        row, late = int(cut) - int(rng.integers(0, 2)), view.days[cut + 1]
        columns = np.flatnonzero(np.append(rng.random(bars.shape[1] - 1) < 0.5, True))
        restated += [(row, int(column)) for column in columns[::2] if np.isfinite(bars[row, column])]
        for known in (bars, surface, actions):
            known[row, columns] = np.where(np.isnan(known[row, columns]), np.nan, late)
        for _, known in series.values():
            known[cut] = np.where(np.isnan(known[cut]), np.nan, late)
    around = np.unique(np.concatenate([chosen - 1, chosen, chosen + 1]))
    earlier = _first_versions(view, restated, rng)
    return replace(view, bars_known=bars, surface_known=surface, actions_known=actions, series=series, earlier=earlier), around


def _first_versions(view: MarketView, places: list[tuple[int, int]], rng: np.random.Generator) -> Versions:
    """Return other bars at the given places, known in their own evenings, beside the versions that the view has."""
    row, column = (np.array([place[axis] for place in places], dtype=np.int64) for axis in (0, 1))
    bars = np.stack([getattr(view.panel, name)[row, column] for name in BAR_FIELDS], axis=1)
    values = bars * np.exp(0.05 * rng.standard_normal(len(row)))[:, None]
    old = view.earlier
    known = np.concatenate([old.known, view.days[row]])
    order = np.argsort(known, kind="stable")
    joined = (np.concatenate([old.row, row]), np.concatenate([old.column, column]), np.concatenate([old.values, values]), known)
    return Versions(*(array[order] for array in joined))


def _with_splits(panel: Panel, rng: np.random.Generator) -> Panel:
    ratio = np.ones_like(panel.split)
    for column in range(ratio.shape[1]):
        for row in rng.integers(1, max(2, len(ratio)), 2):
            ratio[int(row) % len(ratio), column] = rng.choice(_RATIOS)
    shares = np.cumprod(ratio, axis=0)
    prices = {name: getattr(panel, name) / shares for name in ("open", "high", "low", "close")}
    return replace(panel, **prices, volume=panel.volume * shares, split=panel.split * ratio)


def _with_holes(values: FloatArray, known: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    hidden = rng.random(values.shape) < _HOLE_RATE
    return np.where(hidden, np.nan, values), np.where(hidden, np.nan, known)


def _other_bars(panel: Panel, after: BoolArray, appear: BoolArray, rng: np.random.Generator) -> Panel:
    factor = np.exp(0.3 * rng.standard_normal(after.shape))
    typical = np.exp(3.0 + rng.standard_normal(after.shape))
    low = np.where(appear, typical, panel.low * factor)
    high = np.where(appear, 1.03 * typical, panel.high * factor)
    inside = {name: low + rng.random(after.shape) * (high - low) for name in ("open", "close")}
    volume = np.where(appear, 1e6, panel.volume) * np.exp(rng.standard_normal(after.shape))
    other = {"low": low, "high": high, "volume": np.round(volume), **inside}
    return replace(panel, **{name: np.where(after, values, getattr(panel, name)) for name, values in other.items()})


def _other_series(series: Series, tail: BoolArray, rng: np.random.Generator) -> Series:
    out = {}
    for name, (values, known) in series.items():
        gone = tail & (rng.random(tail.shape) < 0.02)
        out[name] = (np.where(gone, np.nan, _noisy(values, tail, 0.1, rng)), np.where(gone, np.nan, known))
    return out


def _noisy(values: FloatArray, where: BoolArray, scale: float, rng: np.random.Generator) -> FloatArray:
    return np.where(where, values * np.exp(scale * rng.standard_normal(values.shape)), values)
