"""The tables of an evaluation: Parquet for programs, CSV for `dvc plots`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

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
    table = pa.table({"session": pa.array([str(day) for day in sessions]), **columns})
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(quoting_style="none"))
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
