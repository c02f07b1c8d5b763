"""What several columns share, computed once for each view: returns, carried closes, the market's return.

Conventions. A *close carried to t* is the close of the latest session in t-4..t that has a bar, in the share basis of
t: a return after a halt spans the halt, and a name silent for five sessions has no return. All ratios bring the older
price to the share basis of the newer one by the split ratios between them, so no later action changes a value.
Returns are price returns: cash dividends belong to accounting, and enter no column.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from quanto.market.panel import FloatArray, Panel
from quanto.market.windows import CARRIED_SESSIONS, lag, window_product
from quanto.stages.features.view import INDEX, VIX, MarketView

# A cross-section of fewer names says nothing.
MINIMUM_NAMES = 3

ANNUAL_SESSIONS = 252


class Derived:
    """Lazily computed arrays of one view; shape (n_sessions, n_symbols) unless said otherwise, NaN where missing."""

    def __init__(self, view: MarketView) -> None:
        self.view = view
        self._returns: dict[int, FloatArray] = {}
        self._shared: dict[Callable[[Derived], FloatArray], FloatArray] = {}

    @property
    def panel(self) -> Panel:
        """The raw bars and split ratios."""
        return self.view.panel

    def peers(self, values: FloatArray) -> FloatArray:
        """Return the values of the session's members of the universe: what a cross-section is made of; else NaN."""
        return np.where(self.view.member, values, np.nan)

    @cached_property
    def carried_close(self) -> FloatArray:
        """The latest close of sessions t-4..t, in the share basis of t."""
        return carry(self.panel.close, self.panel.split)

    @cached_property
    def previous_close(self) -> FloatArray:
        """The close carried to t-1, in the share basis of t."""
        return lag(self.carried_close, 1) / self.panel.split

    @cached_property
    def simple_return(self) -> FloatArray:
        """Close over previous close, minus 1."""
        return self.panel.close / self.previous_close - 1.0

    def once(self, function: Callable[[Derived], FloatArray]) -> FloatArray:
        """Return what a column function gives for this view, computed at most once: for what several columns use."""
        if function not in self._shared:
            self._shared[function] = function(self)
        return self._shared[function]

    def log_return(self, sessions: int) -> FloatArray:
        """Return the log of the close over the close carried to t - `sessions`, split-adjusted."""
        if sessions not in self._returns:
            older = lag(self.carried_close, sessions) / window_product(self.panel.split, sessions)
            self._returns[sessions] = np.log(self.panel.close / older)
        return self._returns[sessions]

    @cached_property
    def index_return(self) -> FloatArray:
        """Simple return of the market index; shape (n_sessions,).

        Where no index is configured: the mean simple return of the universe's names (one or more).
        """
        if INDEX in self.view.series:
            values = self.view.series[INDEX][0]
            level = np.where(values > 0.0, values, np.nan)[:, None]
            carried = carry(level, np.ones_like(level))
            return np.asarray((level / lag(carried, 1) - 1.0)[:, 0])
        return row_mean(self.peers(self.simple_return), minimum=1)

    @cached_property
    def vix(self) -> FloatArray:
        """The VIX as a fraction per year (0.20, not 20: canonical keeps its unit as `fraction`); shape (n_sessions,)."""
        values = self.view.series[VIX][0]
        return np.where(values > 0.0, values, np.nan)


def carry(values: FloatArray, split: FloatArray) -> FloatArray:
    """Return the latest observed value of sessions t-4..t, in the share basis of t; shape as given."""
    out = values
    ratio = split
    for back in range(1, CARRIED_SESSIONS + 1):
        if not np.isnan(out).any():
            break
        out = np.where(np.isnan(out), lag(values, back) / ratio, out)
        ratio = ratio * np.where(np.isnan(lag(split, back)), 1.0, lag(split, back))
    return out


def row_mean(values: FloatArray, minimum: int = MINIMUM_NAMES) -> FloatArray:
    """Return the mean of each session's observed values; shape (n_sessions,); NaN where fewer than `minimum`."""
    seen = np.isfinite(values)
    count = seen.sum(axis=1)
    total = np.where(seen, values, 0.0).sum(axis=1)
    return np.where(count >= minimum, total / np.maximum(count, 1), np.nan)


def row_moments(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation (ddof 1) of each session's observed values; NaN where fewer than 3 names."""
    seen = np.isfinite(values)
    count = seen.sum(axis=1)
    mean = np.where(seen, values, 0.0).sum(axis=1) / np.maximum(count, 1)
    apart = np.where(seen, values - mean[:, None], 0.0)
    deviation = np.sqrt((apart * apart).sum(axis=1) / np.maximum(count - 1, 1))
    enough = count >= MINIMUM_NAMES
    return np.where(enough, mean, np.nan), np.where(enough, deviation, np.nan)


def row_zscore(values: FloatArray) -> FloatArray:
    """Return (value - mean) / standard deviation (ddof 1) over the session's names.

    0 where all names are equal; NaN where the value is missing or fewer than 3 names are observed.
    """
    mean, deviation = row_moments(values)
    apart = values - mean[:, None]
    equal = deviation <= 1e-12 * np.maximum(np.abs(mean), 1.0)
    return np.where(equal[:, None], apart * 0.0, apart / np.where(equal, 1.0, deviation)[:, None])


def row_rank(values: FloatArray) -> FloatArray:
    """Return the rank over the session's names, scaled to -0.5 (lowest) .. 0.5 (highest); ties share their mean rank.

    NaN where the value is missing or fewer than 3 names are observed.
    """
    names = values.shape[1]
    order = np.argsort(values, axis=1, kind="stable")  # NaN last
    ordered = np.take_along_axis(values, order, axis=1)
    place = np.broadcast_to(np.arange(names), values.shape)
    starts = np.ones(values.shape, dtype=np.bool_)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    ends = np.ones(values.shape, dtype=np.bool_)
    ends[:, :-1] = starts[:, 1:]
    last = np.minimum.accumulate(np.where(ends, place, names)[:, ::-1], axis=1)[:, ::-1]
    count = np.isfinite(values).sum(axis=1)
    scaled = 0.5 * (first + last) / np.maximum(count - 1, 1)[:, None] - 0.5
    out = np.empty_like(values)
    np.put_along_axis(out, order, scaled, axis=1)
    return np.where(np.isfinite(values) & (count >= MINIMUM_NAMES)[:, None], out, np.nan)
