"""Canonical tables and features as arrays on one session axis: what training, evaluation and shadow replay share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.core.errors import DataError
from quanto.env.tape import Tape, build_tape
from quanto.market.calendar import DateArray, as_date, sessions_between
from quanto.market.panel import Panel, build_panel, pivot
from quanto.market.point_in_time import cash_rate
from quanto.portfolio.costs import CostConfig

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

KEYS = ("session", "symbol")
ELIGIBLE = "eligible"


@dataclass(frozen=True)
class MarketData:
    """The market of an experiment on the sessions and symbols of its feature table.

    Attributes
    ----------
    features
        Shape (n_sessions, n_symbols, n_asset_columns), in the order of `asset_columns`, unscaled; NaN where missing.
    market
        Shape (n_sessions, n_market_columns), in the order of `market_columns`, unscaled; NaN where missing.
    eligible
        Shape (n_sessions, n_symbols): whether the name may be held, as known at the close of the session.
    """

    panel: Panel
    tape: Tape
    asset_columns: tuple[str, ...]
    market_columns: tuple[str, ...]
    features: FloatArray
    market: FloatArray
    eligible: BoolArray

    @property
    def sessions(self) -> DateArray:
        """The session axis; shape (n_sessions,), ascending."""
        return self.panel.sessions

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbol axis, sorted."""
        return self.panel.symbols

    def market_column(self, name: str) -> FloatArray:
        """Return one market column; shape (n_sessions,).

        Raises
        ------
        DataError
            If the regime table has no such column; lists those it has.
        """
        if name not in self.market_columns:
            raise DataError(f"data/features/regime.parquet has no column {name!r}; it has {', '.join(self.market_columns)}")
        return self.market[:, self.market_columns.index(name)]


def market_data(
    bars: pa.Table, actions: pa.Table, index_level: pa.Table, features: pa.Table, regime: pa.Table, costs: CostConfig
) -> MarketData:
    """Return canonical bars, actions and index levels, and the two feature tables, as arrays on the features' sessions.

    Raises
    ------
    DataError
        If the feature table is empty, repeats a key, lacks a (session, symbol) pair, skips a session, or the regime
        table has other sessions; or as `build_tape`.
    """
    sessions, symbols = _axes(features)
    columns = tuple(name for name in features.column_names if name not in (*KEYS, ELIGIBLE))
    market_columns = tuple(field.name for field in regime.schema if pa.types.is_floating(field.type))
    blocks = [pivot(features, name, sessions, symbols) for name in columns]
    eligible = pivot(features, ELIGIBLE, sessions, symbols) == 1.0
    panel = build_panel(bars, actions, sessions, symbols)
    tape = build_tape(panel, eligible, cash_rate(sessions, index_level), costs, actions)
    return MarketData(
        panel=panel,
        tape=tape,
        asset_columns=columns,
        market_columns=market_columns,
        features=np.stack(blocks, axis=-1) if blocks else np.empty((*eligible.shape, 0)),
        market=_market_block(regime, market_columns, sessions),
        eligible=eligible,
    )


def select(block: FloatArray, found: Sequence[str], wanted: Sequence[str], table: str) -> FloatArray:
    """Return the wanted columns (last axis of `block`) in the wanted order.

    Raises
    ------
    DataError
        If columns are missing; names all of them.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(f"{table} lacks {', '.join(missing)}; it has {', '.join(found)}. Build the features the policy was trained on")
    return np.ascontiguousarray(block[..., [list(found).index(name) for name in wanted]])


def _axes(features: pa.Table) -> tuple[DateArray, tuple[str, ...]]:
    if len(features) == 0:
        raise DataError("the feature table is empty; check symbols, start_date and end_date, then run the features stage")
    sessions = np.unique(features["session"].to_numpy().astype("datetime64[D]"))
    symbols = tuple(sorted(set(features["symbol"].to_pylist())))
    if len(features) != len(sessions) * len(symbols):
        expected = f"{len(sessions)} sessions x {len(symbols)} symbols"
        raise DataError(f"the feature table needs one row per session and symbol: expected {expected}, found {len(features)} rows")
    expected_sessions = sessions_between(as_date(sessions[0]), as_date(sessions[-1]))
    if not np.array_equal(sessions, expected_sessions):
        odd = np.setxor1d(sessions, expected_sessions)[0]
        raise DataError(f"the feature table must hold exactly the sessions of the exchange calendar between its ends; {odd} differs")
    return sessions, symbols


def _market_block(regime: pa.Table, columns: Sequence[str], sessions: DateArray) -> FloatArray:
    found = regime["session"].to_numpy().astype("datetime64[D]")
    if not np.array_equal(found, sessions):
        raise DataError(f"the regime table has {len(found)} sessions, the feature table {len(sessions)}; both must be the same, in order")
    blocks = [regime[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in columns]
    return np.stack(blocks, axis=-1) if blocks else np.empty((len(sessions), 0))
