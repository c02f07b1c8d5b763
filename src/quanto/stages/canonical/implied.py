"""What one vendor's adjusted close reveals: actions that no table has, and the dividends inside a total-return basis. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from quanto.market.calendar import as_date, is_session, next_session
from quanto.market.corporate_actions import SplitHistory, history_of, implied_actions
from quanto.stages.canonical.actions import Action
from quanto.stages.canonical.axes import IntArray, encode, entity_names
from quanto.stages.canonical.bars import FloatArray
from quanto.stages.canonical.config import Identity
from quanto.stages.canonical.disagreement import ActionDays

# The columns that the pure functions of this module need from a raw table of bars.
COLUMNS = ("session", "symbol", "close", "adj_close", "basis", "basis_as_of", "payload", "payload_row")


@dataclass(frozen=True)
class Series:
    """One symbol's closes of one vendor in order of sessions: raw but for dividends, with the row each came from."""

    symbol: str
    days: IntArray
    close: FloatArray
    split: FloatArray
    row: IntArray


@dataclass(frozen=True)
class Refusal:
    """A step of an adjustment factor that is no action: the vendor's adjusted close contradicts its close."""

    vendor: str
    symbol: str
    session: str


def implied_events(vendor: str, table: pa.Table, splits: SplitHistory, rules: Sequence[Identity]) -> tuple[list[Action], list[Refusal]]:
    """Return the dividends and unlisted splits that a vendor's `adj_close` implies, and the steps that are no action."""
    adjusted = table["adj_close"].to_numpy(zero_copy_only=False)
    payloads, rows = table["payload"], table["payload_row"]
    found: list[Action] = []
    refused: list[Refusal] = []
    for series in _series(table, splits, rules, ("raw", "split"), np.isfinite(adjusted) & (adjusted > 0)):
        implied = implied_actions(series.close, adjusted[series.row], series.split)
        numbers = (implied.position, implied.split_ratio, implied.dividend_usd, implied.uncertainty_usd)
        for position, ratio, cash, uncertainty in zip(*numbers, strict=True):
            row = int(series.row[position])
            day = as_date(np.datetime64(int(series.days[position]), "D"))
            events: list[tuple[str, float | None, float | None]] = [("split", float(ratio), None)] if ratio != 1.0 else []
            events += [("cash_dividend", None, float(cash))] if cash > 0 else []
            origin = {"known_on": next_session(day, -1), "payload": str(payloads[row]), "payload_row": rows[row].as_py()}
            for kind, share, amount in events:
                found.append(
                    Action(
                        vendor=vendor, index=-1, symbol=series.symbol, ex_date=day, kind=kind, ratio=share, cash_usd=amount,
                        other_symbol=None, vendor_id=None, uncertainty_usd=float(uncertainty) if kind == "cash_dividend" else 0.0, **origin,
                    )
                )  # fmt: skip
        refused += [Refusal(vendor, series.symbol, str(np.datetime64(int(series.days[i]), "D"))) for i in implied.refused]
    return found, refused


def dividends_in_total_basis(table: pa.Table, actions: ActionDays, rules: Sequence[Identity]) -> SplitHistory:
    """Return, per symbol and ex-date, by how much a total-return basis had lowered the prices before: raw / (raw - d).

    With a the adjusted close before the ex-date, s the splits and k the dividends after it, a s / k = raw - d, so
    raw = a s / k + d: worked backwards from the last dividend before `basis_as_of`, no raw price is needed.
    """
    keys: list[tuple[str, int, float]] = []
    for series in _series(table, actions.splits, rules, ("total",), np.ones(len(table), dtype=np.bool_)):
        as_of = int(table["basis_as_of"][int(series.row[-1])].value or 0)
        days = sorted((d for s, d in actions.cash if s == series.symbol and series.days[0] < d <= as_of), reverse=True)
        kept = 1.0
        for day in days:
            before = int(np.searchsorted(series.days, day)) - 1
            raw = series.close[before] / kept + actions.cash[series.symbol, day]
            share = 1.0 - actions.cash[series.symbol, day] / raw
            keys.append((series.symbol, day, 1.0 / share))
            kept *= share
    return history_of(keys)


def _series(table: pa.Table, splits: SplitHistory, rules: Sequence[Identity], bases: Sequence[str], usable: np.ndarray) -> Iterator[Series]:
    """Yield the closes per symbol with splits undone, one row per session, sorted by symbol and session."""
    days = table["session"].cast(pa.int32()).to_numpy().astype(np.int64)
    codes, names = encode(table["symbol"])
    names, codes = entity_names(names, codes, days, rules)
    basis, basis_names = encode(table["basis"])
    close = table["close"].to_numpy(zero_copy_only=False)
    as_of = table["basis_as_of"].cast(pa.int32()).fill_null(0).to_numpy().astype(np.int64)
    keep = usable & np.isin(np.array(basis_names)[basis], bases) & np.isfinite(close) & (close > 0)
    keep &= is_session(days.astype("datetime64[D]"))
    rank = np.argsort(np.argsort(np.array(names)))[codes]
    order = np.flatnonzero(keep)
    order = order[np.lexsort((days[order], rank[order]))]
    if not len(order):
        return
    fresh = np.append(True, (rank[order][1:] != rank[order][:-1]) | (days[order][1:] != days[order][:-1]))
    order = order[fresh]
    cuts = np.flatnonzero(np.diff(rank[order])) + 1
    for rows in np.split(order, cuts):
        symbol = names[codes[rows[0]]]
        at = np.full(len(rows), splits.codes([symbol])[0])
        own = days[rows].astype("datetime64[D]")
        adjusted = np.array(basis_names)[basis[rows]] != "raw"
        until = np.where(adjusted, np.maximum(as_of[rows], days[rows]), days[rows]).astype("datetime64[D]")
        effective = splits.ratio_until(at, own)
        between = np.append(1.0, effective[1:] / effective[:-1])
        yield Series(symbol, days[rows], close[rows] * splits.ratio_between(at, own, until), between, rows)
