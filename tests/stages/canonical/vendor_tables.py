"""A true market, and raw tables of vendors that tell it on different bases, with gaps and faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from quanto.core.config import load_section
from quanto.core.store import read_table, write_table
from quanto.market.calendar import sessions_between
from quanto.market.schema import CANONICAL, KEYS, QUARANTINE, RAW
from quanto.stages.canonical import stage
from quanto.stages.canonical.config import CanonicalConfig

ROOT = Path(__file__).parents[3]
FIELDS = ("open", "high", "low", "close", "volume")


class Serial(Executor):
    """Runs every task at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@dataclass(frozen=True)
class Market:
    """True raw bars (n_sessions, n_symbols) and actions: (symbol, session index, kind, number)."""

    sessions: np.ndarray
    symbols: tuple[str, ...]
    bars: dict[str, np.ndarray]
    events: tuple[tuple[str, int, str, float], ...] = field(default=())

    def column(self, symbol: str) -> int:
        return self.symbols.index(symbol)

    def split(self, symbol: str) -> np.ndarray:
        """Ratio effective at each session."""
        out = np.ones(len(self.sessions))
        for name, at, kind, number in self.events:
            if name == symbol and kind == "split":
                out[at] *= number
        return out

    def factor(self, symbol: str, dividends: bool) -> np.ndarray:
        """What raw prices are multiplied by to reach the basis of the last session."""
        split = self.split(symbol)
        close = self.bars["close"][:, self.column(symbol)]
        step = 1 / split
        for name, at, kind, number in self.events:
            if dividends and name == symbol and kind == "dividend":
                step[at] *= 1 - number / close[at - 1]
        out = np.ones(len(step))
        out[:-1] = np.cumprod(step[::-1])[::-1][1:]
        return out


def true_market(
    symbols: Sequence[str] = ("AAA", "BBB", "CCC"),
    sessions: int = 60,
    seed: int = 1,
    start: date = date(2010, 11, 1),
    events: Sequence[tuple[str, int, str, float]] = (),
) -> Market:
    """Return a seeded market in cents whose raw closes fall on ex-dates as splits and dividends demand."""
    rng = np.random.default_rng(seed)
    days = sessions_between(start, date(start.year + 1 + sessions // 240, 12, 31))[:sessions]
    log = np.cumsum(rng.normal(0, 0.012, (sessions, len(symbols))), axis=0)
    level = np.exp(log) * rng.uniform(30, 90, len(symbols))
    for name, at, kind, number in events:
        column = tuple(symbols).index(name)
        level[at:, column] = level[at:, column] / number if kind == "split" else level[at:, column] - number
    close = np.round(level, 2)
    opened = np.round(close * np.exp(rng.normal(0, 0.004, close.shape)), 2)
    high = np.round(np.maximum(opened, close) * (1 + rng.uniform(0.001, 0.01, close.shape)), 2)
    low = np.round(np.minimum(opened, close) * (1 - rng.uniform(0.001, 0.01, close.shape)), 2)
    volume = np.round(rng.lognormal(13, 0.5, close.shape))
    bars = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    return Market(days, tuple(symbols), bars, tuple(events))


def raw_bars(
    market: Market,
    symbols: Sequence[str] | None = None,
    basis: str = "raw",
    volume_basis: str = "raw",
    adj_close: bool = False,
    keep: np.ndarray | None = None,
    changes: Mapping[tuple[str, int, str], float] | None = None,
    payload: str = "p",
) -> pa.Table:
    """Return a vendor's table of the market; `keep` (n_sessions, n_symbols) marks the rows it has."""
    rows: list[dict[str, object]] = []
    as_of = market.sessions[-1].astype(object)
    for symbol in symbols if symbols is not None else market.symbols:
        column = market.column(symbol)
        price = market.factor(symbol, dividends=basis == "total") if basis in ("split", "total") else np.ones(len(market.sessions))
        shares = 1 / market.factor(symbol, dividends=False) if volume_basis == "split" else np.ones(len(market.sessions))
        total = market.factor(symbol, dividends=True)
        for at, session in enumerate(market.sessions):
            if keep is not None and not keep[at, column]:
                continue
            values = {name: float(market.bars[name][at, column] * (shares[at] if name == "volume" else price[at])) for name in FIELDS}
            values |= {name: value for (who, when, name), value in (changes or {}).items() if (who, when) == (symbol, at)}
            close = market.bars["close"][at, column]
            rows.append({
                "session": session.astype(object), "symbol": symbol, **values, "adj_close": float(close * total[at]) if adj_close else None,
                "basis": basis, "volume_basis": volume_basis, "basis_as_of": None if basis == volume_basis == "raw" else as_of,
                "known_on": session.astype(object), "provisional": False, "payload": payload, "payload_row": len(rows),
            })  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=RAW["equity_ohlcv"])
    return table.sort_by([("session", "ascending"), ("symbol", "ascending")])


def raw_actions(market: Market, only: Sequence[str] = ("split", "dividend"), payload: str = "a") -> pa.Table:
    """Return the market's actions as a vendor lists them."""
    rows = [
        action_row(symbol, market.sessions[at].astype(object), "split" if kind == "split" else "cash_dividend", number, payload, index)
        for index, (symbol, at, kind, number) in enumerate(market.events)
        if kind in only
    ]
    return pa.Table.from_pylist(rows, schema=RAW["corporate_actions"])


def action_row(
    symbol: str, day: date, kind: str, number: float | None, payload: str = "a", row: int = 0, **more: object
) -> dict[str, object]:
    ratio = number if kind in ("split", "stock_dividend", "stock_merger") else None
    cash = number if ratio is None else None
    return {
        "symbol": symbol, "ex_date": day, "kind": kind, "ratio": ratio, "cash_usd": cash, "currency": "USD", "other_symbol": None,
        "vendor_id": None, "known_on": day, "payload": payload, "payload_row": row, **more,
    }  # fmt: skip


def put(workspace: Path, vendor: str, domain: str, table: pa.Table) -> None:
    """Write a vendor's raw table where the stage finds it."""
    write_table(workspace / "data/raw" / vendor / domain / "part.parquet", table.cast(RAW[domain]))


def canonical_config(priority: Sequence[str] = ("one", "two", "three"), **changes: object) -> CanonicalConfig:
    """Return the shipped configuration with other vendors; a change's key may be dotted (`fallback.tolerance`)."""
    section = yaml.safe_load((ROOT / "conf/canonical/default.yaml").read_text())
    plain = {"policy": "priority", "priority": list(priority), "overrides": []}
    section["sources"] = {name: dict(plain) for name in RAW} | {"identity": [], "membership": [], "membership_files": []}
    section["max_missing"]["equity_ohlcv"] = 1.0
    section["max_disagreement"]["equity_ohlcv"] = 1.0
    for path, value in changes.items():
        *parents, leaf = path.replace("__", ".").split(".")
        target = section
        for name in parents:
            target = target[name]
        if leaf not in target:
            raise KeyError(path)
        target[leaf] = value
    return load_section("canonical", section, CanonicalConfig)


def build(workspace: Path, config: CanonicalConfig | None = None) -> pa.Table:
    """Run the stage and return the canonical bars."""
    stage.run(config or canonical_config(), workspace, Serial())
    return canonical(workspace)


def canonical(workspace: Path, domain: str = "equity_ohlcv") -> pa.Table:
    """Return a canonical table."""
    return read_table(workspace / "data/canonical" / domain, CANONICAL[domain])


def quarantine(workspace: Path) -> list[dict[str, Any]]:
    """Return the quarantined rows."""
    rows: list[dict[str, Any]] = read_table(workspace / "data/canonical/quarantine/part.parquet", QUARANTINE).to_pylist()
    return rows


def cells(table: pa.Table, column: str) -> dict[tuple[str, str], Any]:
    """Return one column by (session, symbol)."""
    keys = KEYS["equity_ohlcv"]
    return {tuple(str(row[name]) for name in keys): row[column] for row in table.to_pylist()}  # type: ignore[misc]
