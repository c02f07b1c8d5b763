"""Dense session x symbol panels: the shape in which features, the environment and execution see the market."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.core.errors import DataError
from quanto.market.calendar import DateArray

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Panel:
    """Raw bars and the corporate actions that take effect at each open, on every session of the calendar.

    All arrays have shape (n_sessions, n_symbols), are read-only, and carry NaN where there is no bar.

    Attributes
    ----------
    open, high, low, close
        USD, raw (as traded).
    volume
        Shares, raw.
    split
        Shares after the open of t per share held at the close of t-1; 1 where nothing happens. Never NaN.
    dividend_usd
        Cash at the open of t per share held at the close of t-1, before t's split; 0 where nothing. Never NaN.
    """

    sessions: DateArray
    symbols: tuple[str, ...]
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    split: FloatArray
    dividend_usd: FloatArray

    @property
    def traded(self) -> BoolArray:
        """Whether a symbol has a bar on a session; shape (n_sessions, n_symbols)."""
        return np.isfinite(self.close) & np.isfinite(self.open)

    def window(self, start: int, stop: int) -> Panel:
        """Return the sessions start..stop-1 as a panel that shares this one's memory."""
        part = slice(start, stop)
        return Panel(
            self.sessions[part], self.symbols,
            *(getattr(self, name)[part] for name in ("open", "high", "low", "close", "volume", "split", "dividend_usd")),
        )  # fmt: skip


def pivot(table: pa.Table, column: str, sessions: DateArray, symbols: Sequence[str]) -> FloatArray:
    """Return one column of a (session, symbol) table as a dense array; NaN where there is no row.

    Rows of other sessions or symbols are left out.

    Raises
    ------
    DataError
        If two rows share a key.
    """
    rows, columns = _positions(table, "session", sessions, symbols)
    inside = (rows >= 0) & (columns >= 0)
    flat = rows[inside] * len(symbols) + columns[inside]
    if len(np.unique(flat)) != len(flat):
        raise DataError(f"the table has two rows for one (session, symbol); its key is unique by contract ({column})")
    out = np.full(len(sessions) * len(symbols), np.nan)
    out[flat] = table[column].to_numpy()[inside].astype(np.float64)
    return out.reshape(len(sessions), len(symbols))


def build_panel(bars: pa.Table, actions: pa.Table, sessions: DateArray, symbols: Sequence[str]) -> Panel:
    """Return canonical bars and corporate actions as a panel on the given sessions.

    An action whose ex-date is no session takes effect on the next session. Several actions of one day combine:
    ratios multiply, cash adds. A spin-off counts as its value in cash. Other kinds do not enter the panel.

    Raises
    ------
    DataError
        If bars repeat a key.
    """
    fields = {name: pivot(bars, name, sessions, symbols) for name in ("open", "high", "low", "close", "volume")}
    split = np.ones((len(sessions), len(symbols)))
    cash = np.zeros_like(split)
    rows, columns = _positions(actions, "ex_date", sessions, symbols, forward=True)
    kinds = actions["kind"].to_pylist()
    ratios = actions["ratio"].to_pylist()
    amounts = actions["cash_usd"].to_pylist()
    for row, column, kind, ratio, amount in zip(rows, columns, kinds, ratios, amounts, strict=True):
        if row < 0 or column < 0:
            continue
        if kind in ("split", "stock_dividend"):
            split[row, column] *= ratio
        elif kind in ("cash_dividend", "special_dividend", "spin_off"):
            # A spin-off is paid out at its value: the new shares are sold at the open at which they appear.
            cash[row, column] += amount
    arrays = [*fields.values(), split, cash]
    for array in arrays:
        array.setflags(write=False)
    return Panel(sessions, tuple(symbols), *arrays)


def _positions(
    table: pa.Table, column: str, sessions: DateArray, symbols: Sequence[str], forward: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    days = table[column].to_numpy().astype("datetime64[D]")
    rows = np.searchsorted(sessions, days).astype(np.int64)
    outside = rows >= len(sessions)
    clipped = np.minimum(rows, len(sessions) - 1)
    if forward:
        outside |= days < sessions[0]
    else:
        outside |= sessions[clipped] != days
    rows[outside] = -1
    order = {symbol: index for index, symbol in enumerate(symbols)}
    names = table["symbol"].combine_chunks().dictionary_encode()
    lookup = np.array([order.get(name, -1) for name in names.dictionary.to_pylist()] or [-1], dtype=np.int64)
    columns = lookup[names.indices.to_numpy(zero_copy_only=False)] if len(names) else np.empty(0, dtype=np.int64)
    return rows, columns
