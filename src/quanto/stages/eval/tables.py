"""The tables of an evaluation: Parquet for programs, CSV for `dvc plots`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from quanto.env.simulation import Simulation
from quanto.market.calendar import DateArray
from quanto.portfolio.drawdowns import drawdowns
from quanto.stages.eval.arena import Arena
from quanto.stages.eval.books import MATCHED, MEMBER, SABOTEUR

FloatArray = npt.NDArray[np.float64]

Curve = Literal["equity", "drawdown", "exposure"]
CURVES: tuple[Curve, ...] = ("equity", "drawdown", "exposure")
CASH = "cash"
# What `dvc plots` draws as bars per regime.
REGIME_COLUMNS = ("annual_return", "annual_volatility", "sharpe", "drawdown_within_episodes", "exposure_mean", "turnover_annual")

RETURNS = pa.schema(
    [
        pa.field("book", pa.string(), False),
        pa.field("session", pa.date32(), False),
        pa.field("return", pa.float64(), False),
        pa.field("nav", pa.float64(), False),
        pa.field("exposure", pa.float64(), False),
        pa.field("turnover", pa.float64(), False),
        pa.field("cost", pa.float64(), False),
    ]
)
WEIGHTS = pa.schema(
    [
        pa.field("book", pa.string(), False),
        pa.field("session", pa.date32(), False),
        pa.field("symbol", pa.string(), False),
        pa.field("target", pa.float64(), False),  # decided after the close before, constrained
        pa.field("weight", pa.float64(), False),  # at the close, after drift
    ]
)


def returns_table(sessions: DateArray, books: Mapping[str, Simulation]) -> pa.Table:
    """Return one row per book and session, sorted by both."""
    parts = [_returns(name, sessions, books[name]) for name in sorted(books)]
    return pa.concat_tables(parts).combine_chunks()


def weights_table(arena: Arena, books: Mapping[str, Simulation]) -> pa.Table:
    """Return one row per book, session and symbol, sorted by all three."""
    sessions, symbols = arena.sessions, arena.data.symbols
    parts = []
    for name in sorted(books):
        book = books[name]
        columns = [
            pa.array([name] * book.weights.size),
            pa.array(np.repeat(sessions, len(symbols))).cast(pa.date32()),
            pa.array(np.tile(np.array(symbols, dtype=object), len(sessions)), pa.string()),
            pa.array(book.targets.ravel()),
            pa.array(book.weights.ravel()),
        ]
        parts.append(pa.table(columns, schema=WEIGHTS))
    return pa.concat_tables(parts).combine_chunks()


def curve_csv(sessions: DateArray, books: Mapping[str, Simulation], kind: Curve) -> bytes:
    """Return a CSV with a session column and one column per shown book: `equity` of one dollar, `drawdown` or `exposure`."""
    shown = [name for name in books if not name.startswith((SABOTEUR, MEMBER)) and (not name.startswith(MATCHED) or kind == "equity")]
    columns = {name: pa.array(_curve(books[name], kind)) for name in shown}
    return _csv({"session": pa.array([str(day) for day in sessions]), **columns})


def weights_csv(arena: Arena, book: Simulation) -> bytes:
    """Return a CSV of session, symbol and weight at the close of each week's last session; the cash is a symbol of its own."""
    weeks = arena.sessions.astype("datetime64[D]").astype(np.int64) + 3  # the epoch was a Thursday: Mondays divide by 7
    last = np.flatnonzero(np.append(np.diff(weeks // 7) != 0, True))
    held = np.column_stack([book.weights[last], 1.0 - book.weights[last].sum(axis=1)])
    symbols = [*arena.data.symbols, CASH]
    return _csv(
        {
            "session": pa.array([str(day) for day in arena.sessions[last] for _ in symbols]),
            "symbol": pa.array(symbols * len(last)),
            "weight": pa.array(held.ravel()),
        }
    )


def regimes_csv(document: Mapping[str, Any], books: Sequence[str]) -> bytes:
    """Return regime_slices.json as a CSV, one row per slice and book; a metric that a slice is too short for is an empty field."""
    rows = [
        (name, book, part["sessions"], *(part["books"][book].get(key) for key in REGIME_COLUMNS))
        for name, part in document["slices"].items()
        for book in books
        if book in part["books"]
    ]
    types = (pa.string(), pa.string(), pa.int64(), *(pa.float64() for _ in REGIME_COLUMNS))
    columns = [[row[index] for row in rows] for index in range(len(types))]
    names = ("slice", "book", "sessions", *REGIME_COLUMNS)
    return _csv({name: pa.array(values, kind) for name, values, kind in zip(names, columns, types, strict=True)})


def _csv(columns: Mapping[str, pa.Array]) -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(dict(columns)), sink, pyarrow.csv.WriteOptions(quoting_style="none"))
    return sink.getvalue()


def _curve(book: Simulation, kind: Curve) -> FloatArray:
    if kind == "equity":
        return np.asarray(book.nav / book.nav_before)
    return drawdowns(book.returns) if kind == "drawdown" else book.exposure


def _returns(name: str, sessions: DateArray, book: Simulation) -> pa.Table:
    columns = [
        pa.array([name] * len(sessions)),
        pa.array(sessions).cast(pa.date32()),
        *(pa.array(np.ascontiguousarray(values)) for values in (book.returns, book.nav, book.exposure, book.turnover, book.cost)),
    ]
    return pa.table(columns, schema=RETURNS)
