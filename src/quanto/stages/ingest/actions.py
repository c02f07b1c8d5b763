"""Corporate actions as rows: the kinds, what was knowable when, and several of one day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa

from quanto.market.calendar import next_session
from quanto.market.schema import RAW


@dataclass(frozen=True)
class Action:
    """One corporate action of a symbol, by the RAW schema."""

    symbol: str
    ex_date: date
    kind: str
    known_on: date
    payload: str
    payload_row: int
    ratio: float | None = None
    cash_usd: float | None = None
    currency: str | None = None
    other_symbol: str | None = None
    vendor_id: str | None = None


def known_before(ex_date: date, announced: date | None = None) -> date:
    """Return the day in whose evening an action was knowable: when announced, at the latest the session before the ex-date."""
    before = next_session(ex_date, -1)
    return before if announced is None or announced >= ex_date else announced


def cash_kind(currency: str | None, special: bool) -> str:
    """Return the kind of a cash payment; an amount that is not in USD cannot be applied, so it stops the symbol."""
    if (currency or "USD").upper() != "USD":
        return "unknown"
    return "special_dividend" if special else "cash_dividend"


def actions_table(actions: Sequence[Action]) -> tuple[pa.Table, tuple[str, ...]]:
    """Return actions as a table and notes; several payments of one kind, symbol and day (other ids) are one, summed.

    Equal repetitions of one record are one. Ratios of one day multiply.
    """
    merged: dict[tuple[str, date, str, str], Action] = {}
    seen: set[tuple[object, ...]] = set()
    repeated = combined = 0
    for action in actions:
        identity = (action.symbol, action.ex_date, action.kind, action.other_symbol, action.vendor_id, action.ratio, action.cash_usd)
        if identity in seen:
            repeated += 1
            continue
        seen.add(identity)
        key = (action.symbol, action.ex_date, action.kind, action.other_symbol or "")
        if key in merged and action.vendor_id is not None and merged[key].vendor_id not in (None, action.vendor_id):
            merged[key] = _combine(merged[key], action)
            combined += 1
        else:
            # Two records without ids, or one id with two contents, contradict: both go on, and validation rejects them.
            merged[key if key not in merged else (*key[:3], f"{key[3]}#{len(merged)}")] = action
    notes = [f"{repeated} equal duplicates merged"] if repeated else []
    notes += [f"{combined} payments of one day added to another of their kind"] if combined else []
    rows = [_row(action) for action in merged.values()]
    return pa.Table.from_pylist(rows, schema=RAW["corporate_actions"]), tuple(notes)


def _combine(one: Action, other: Action) -> Action:
    ratio = one.ratio if other.ratio is None else (one.ratio or 1.0) * other.ratio
    cash = one.cash_usd if other.cash_usd is None else (one.cash_usd or 0.0) + other.cash_usd
    ids = "|".join(sorted({*(one.vendor_id or "").split("|"), *(other.vendor_id or "").split("|")} - {""}))
    return replace(one, ratio=ratio, cash_usd=cash, vendor_id=ids, known_on=max(one.known_on, other.known_on))


def _row(action: Action) -> Mapping[str, object]:
    return {name: getattr(action, name) for name in RAW["corporate_actions"].names}
