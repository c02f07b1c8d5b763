"""What was knowable when: the market as arrays, each value with the day in whose evening it was known.

A decision taken after the close of session t sees the rows of sessions up to t whose `known_on` is not after the date
of t. `until`, `since` and `known_by` give the same market with less of it; they are all that the leak proof needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quanto.market.calendar import DateArray
from quanto.market.panel import BoolArray, FloatArray, Panel

BARS = "equity_ohlcv"
ACTIONS = "corporate_actions"
INDEX = "index"
VIX = "vix"
SURFACE = "options_surface"
DOMAINS = (BARS, ACTIONS, INDEX, VIX, SURFACE)
BAR_FIELDS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Versions:
    """Earlier versions of bars that were restated since: one element each, ascending in the day they were known.

    Attributes
    ----------
    row, column
        Positions in the panel.
    values
        Shape (n_versions, 5): open, high, low, close, volume.
    known
        Days since 1970-01-01.
    """

    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    values: FloatArray
    known: FloatArray

    def take(self, rows: BoolArray | npt.NDArray[np.int64], shift: int = 0) -> Versions:
        """Return the chosen versions, their sessions moved down by `shift`."""
        return Versions(self.row[rows] - shift, self.column[rows], self.values[rows], self.known[rows])


NO_VERSIONS = Versions(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty((0, len(BAR_FIELDS))), np.empty(0))


@dataclass(frozen=True)
class MarketView:
    """Canonical data on one session axis, with knowledge days (days since 1970-01-01 as floats, NaN: no value).

    Attributes
    ----------
    panel
        Raw bars, split ratios and dividends, shape (n_sessions, n_symbols).
    bars_known
        Shape (n_sessions, n_symbols): when the bar was known.
    actions_known
        Shape (n_sessions, n_symbols): when split ratio and dividend that take effect at this open were known.
    blocks_known
        Shape (n_sessions, n_symbols): when an action that no part of the pipeline can apply, effective at this open,
        was known: the symbol is quarantined from here on.
    series
        `index` and `vix`: (values, known), each of shape (n_sessions,); absent where not configured.
    surface
        Measures of the options surface by name, shape (n_sessions, n_symbols); empty where there is none.
    surface_known
        Shape (n_sessions, n_symbols).
    member
        Shape (n_sessions, n_symbols): whether the symbol belonged to the universe on that session.
    earlier
        Versions of bars before their restatement: what was known between the two.
    """

    panel: Panel
    bars_known: FloatArray
    actions_known: FloatArray
    blocks_known: FloatArray
    series: Mapping[str, tuple[FloatArray, FloatArray]]
    surface: Mapping[str, FloatArray]
    surface_known: FloatArray
    member: BoolArray
    earlier: Versions = NO_VERSIONS

    @property
    def sessions(self) -> DateArray:
        """The session axis, ascending."""
        return self.panel.sessions

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbol axis."""
        return self.panel.symbols

    @property
    def days(self) -> FloatArray:
        """The dates of the sessions as days since 1970-01-01; shape (n_sessions,)."""
        return self.sessions.astype("datetime64[D]").astype(np.float64)

    def until(self, stop: int) -> MarketView:
        """Return the sessions before position `stop`: history cut on the right."""
        return self._rows(slice(0, stop))

    def since(self, start: int) -> MarketView:
        """Return the sessions from position `start` on: history cut on the left."""
        return self._rows(slice(start, None))

    def known_by(self, row: int) -> MarketView:
        """Return the market with nothing in it that was known after the date of session `row`; no session is cut."""
        day = self.days[row]
        bars_hidden, actions_hidden = ~(self.bars_known <= day), ~(self.actions_known <= day)
        blocks_hidden, surface_hidden = ~(self.blocks_known <= day), ~(self.surface_known <= day)
        panel, bars_known = mask_bars(self.panel, bars_hidden), _hide(self.bars_known, bars_hidden)
        versions = self.earlier.take(self.earlier.known <= day)
        panel, bars_known = _as_it_was(panel, bars_known, versions.take(bars_hidden[versions.row, versions.column]))
        return MarketView(
            panel=replace(
                panel,
                split=np.where(actions_hidden, 1.0, panel.split),
                dividend_usd=np.where(actions_hidden, 0.0, panel.dividend_usd),
            ),
            bars_known=bars_known,
            actions_known=_hide(self.actions_known, actions_hidden),
            blocks_known=_hide(self.blocks_known, blocks_hidden),
            series={name: (_hide(values, ~(known <= day)), _hide(known, ~(known <= day))) for name, (values, known) in self.series.items()},
            surface={name: _hide(values, surface_hidden) for name, values in self.surface.items()},
            surface_known=_hide(self.surface_known, surface_hidden),
            member=self.member,
            earlier=versions,
        )

    @property
    def first_known(self) -> FloatArray:
        """When the first version of each bar was known; shape (n_sessions, n_symbols)."""
        out = self.bars_known.copy()
        np.fmin.at(out, (self.earlier.row, self.earlier.column), self.earlier.known)
        return out

    def without(self, domains: frozenset[str]) -> MarketView:
        """Return the market without the given domains: a column that does not declare them must not notice."""
        nothing = np.full_like(self.bars_known, np.nan)
        out = self
        if BARS in domains:
            out = replace(out, panel=mask_bars(out.panel, np.ones_like(nothing, dtype=np.bool_)), bars_known=nothing, earlier=NO_VERSIONS)
        if ACTIONS in domains:
            panel = replace(out.panel, split=np.ones_like(nothing), dividend_usd=np.zeros_like(nothing))
            out = replace(out, panel=panel, actions_known=nothing, blocks_known=nothing)
        if SURFACE in domains:
            out = replace(out, surface=dict.fromkeys(out.surface, nothing), surface_known=nothing)
        hidden = {name: (np.full_like(v, np.nan), np.full_like(k, np.nan)) for name, (v, k) in out.series.items() if name in domains}
        return replace(out, series={**out.series, **hidden})

    def late(self, domains: frozenset[str]) -> BoolArray:
        """Return for each session whether a row of the domains up to it was not yet known; shape (n_sessions,)."""
        known: list[FloatArray] = []
        if BARS in domains:
            known.append(_latest(self.bars_known))
        if ACTIONS in domains:
            known += [_latest(self.actions_known), _latest(self.blocks_known)]
        if SURFACE in domains:
            known.append(_latest(self.surface_known))
        known += [days for name, (_, days) in self.series.items() if name in domains]
        out = np.zeros(len(self.sessions), dtype=np.bool_)
        for days in known:
            out |= np.fmax.accumulate(np.where(np.isnan(days), -np.inf, days)) > self.days
        return out

    def _rows(self, rows: slice) -> MarketView:
        def cut(values: FloatArray) -> FloatArray:
            return values[rows]

        start, stop, _ = rows.indices(len(self.sessions))
        return MarketView(
            panel=self.panel.window(start, stop),
            bars_known=cut(self.bars_known),
            actions_known=cut(self.actions_known),
            blocks_known=cut(self.blocks_known),
            series={name: (cut(values), cut(known)) for name, (values, known) in self.series.items()},
            surface={name: cut(values) for name, values in self.surface.items()},
            surface_known=cut(self.surface_known),
            member=self.member[rows],
            earlier=self.earlier.take((self.earlier.row >= start) & (self.earlier.row < stop), shift=start),
        )


def mask_bars(panel: Panel, hidden: BoolArray) -> Panel:
    """Return the panel without the bars where `hidden` (shape (n_sessions, n_symbols)) is true; actions stay."""
    return replace(
        panel,
        open=_hide(panel.open, hidden),
        high=_hide(panel.high, hidden),
        low=_hide(panel.low, hidden),
        close=_hide(panel.close, hidden),
        volume=_hide(panel.volume, hidden),
    )


def _as_it_was(panel: Panel, known: FloatArray, versions: Versions) -> tuple[Panel, FloatArray]:
    """Return the panel with the given earlier versions in place, the latest of each bar last, and when they were known."""
    if not len(versions.row):
        return panel, known
    place = versions.row, versions.column
    fields = {name: getattr(panel, name).copy() for name in BAR_FIELDS}
    for number, values in enumerate(fields.values()):
        values[place] = versions.values[:, number]
    known[place] = versions.known
    open_, high, low, close, volume = fields.values()
    return replace(panel, open=open_, high=high, low=low, close=close, volume=volume), known


def _hide(values: FloatArray, hidden: BoolArray) -> FloatArray:
    return np.where(hidden, np.nan, values)


def _latest(known: FloatArray) -> FloatArray:
    """Return the last knowledge day of each session over the symbols; -inf where there is none."""
    latest: FloatArray = np.where(np.isnan(known), -np.inf, known).max(axis=1, initial=-np.inf)
    return latest
