"""From a view to the features of every session, each computed from what was known by its evening.

Most rows of a market are known in their own evening, and one vectorised pass serves all sessions. Where a row came
late, the sessions in between are computed again, each from the view as it was: for the columns that read the domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quanto.market.calendar import DateArray
from quanto.market.panel import BoolArray, FloatArray
from quanto.market.regimes import RegimeLabels
from quanto.stages.features.column import FeatureColumn
from quanto.stages.features.config import Selection
from quanto.stages.features.derived import Derived
from quanto.stages.features.view import ACTIONS, BARS, INDEX, MarketView


@dataclass(frozen=True)
class Features:
    """Everything that the stage gives for a view.

    Attributes
    ----------
    asset
        By column, shape (n_sessions, n_symbols); NaN where missing.
    market
        By column, shape (n_sessions,).
    eligible
        Shape (n_sessions, n_symbols): member of the universe, bar known, every column that holds a name back finite,
        history long enough, not quarantined.
    labels
        Causal regime labels of the sessions.
    """

    sessions: DateArray
    symbols: tuple[str, ...]
    asset: dict[str, FloatArray]
    market: dict[str, FloatArray]
    eligible: BoolArray
    labels: RegimeLabels

    def outputs(self) -> dict[str, FloatArray]:
        """Return all arrays by name as float64, for comparisons."""
        return {
            **self.asset,
            **self.market,
            "eligible": self.eligible.astype(np.float64),
            "high_volatility": np.where(self.labels.known, self.labels.high.astype(np.float64), np.nan),
            "enter_threshold": self.labels.enter_threshold,
            "exit_threshold": self.labels.exit_threshold,
        }


def compute(view: MarketView, selection: Selection) -> Features:
    """Return the features of all sessions of a view; each row as its evening knew it."""
    columns = (*selection.asset, *selection.market)
    values = compute_columns(view, columns)
    asset = {column.name: values[column.name] for column in selection.asset}
    return Features(
        sessions=view.sessions,
        symbols=view.symbols,
        asset=asset,
        market={column.name: values[column.name] for column in selection.market},
        eligible=_eligible(view, selection, asset),
        labels=selection.labeller.label(_index_return(view)),
    )


def compute_columns(view: MarketView, columns: Sequence[FeatureColumn]) -> dict[str, FloatArray]:
    """Return each column by name, point in time; (n_sessions, n_symbols) or (n_sessions,), float64, never infinite."""
    market = Derived(view)
    out = {column.name: _finite(column.compute(market)) for column in columns}
    late = {reads: view.late(reads) for reads in {column.reads for column in columns}}
    affected = np.zeros(len(view.sessions), dtype=np.bool_)
    for rows in late.values():
        affected |= rows
    if affected.any():
        out = {name: values.copy() for name, values in out.items()}
    for row in np.flatnonzero(affected):
        then = view.known_by(int(row)).until(int(row) + 1)
        wanted = [column for column in columns if late[column.reads][row]]
        for column, value in zip(wanted, _last_values(then, wanted), strict=True):
            out[column.name][row] = value
    return out


def _last_values(view: MarketView, columns: Sequence[FeatureColumn]) -> list[FloatArray]:
    """Return the values of the last session; columns with a look-back from no more history than that."""
    reach = max((column.lookback for column in columns if column.lookback is not None), default=0)
    whole, part = Derived(view), Derived(view.since(max(0, len(view.sessions) - 1 - reach)))
    return [_finite(column.compute(whole if column.lookback is None else part))[-1] for column in columns]


def _finite(values: FloatArray) -> FloatArray:
    """Return the values without infinities; never the array itself where it must change, for columns share arrays."""
    return np.where(np.isinf(values), np.nan, values) if np.isinf(values).any() else values


def _eligible(view: MarketView, selection: Selection, asset: dict[str, FloatArray]) -> BoolArray:
    days = view.days[:, None]
    visible = view.panel.traded & (view.first_known <= days)
    out = visible & view.member
    for column in selection.asset:
        if selection.holds_back(column):
            out &= np.isfinite(asset[column.name])
    # A bar that came late is not counted as history: counting it from a later session would need its own bookkeeping.
    out &= np.cumsum(visible, axis=0) >= selection.minimum_history_sessions
    return out & ~_blocked(view)


def _blocked(view: MarketView) -> BoolArray:
    """Whether an action that nothing can apply is in effect and known; for good."""
    effective = np.fmax(view.blocks_known, view.days[:, None])
    since = np.fmin.accumulate(np.where(np.isnan(view.blocks_known), np.inf, effective), axis=0)
    return since <= view.days[:, None]


def _index_return(view: MarketView) -> FloatArray:
    domains = frozenset({INDEX}) if INDEX in view.series else frozenset({BARS, ACTIONS})
    out = Derived(view).index_return.copy()
    for row in np.flatnonzero(view.late(domains)):
        out[row] = Derived(view.known_by(int(row)).until(int(row) + 1)).index_return[-1]
    return out
