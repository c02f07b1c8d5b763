"""Alpaca's corporate actions, grouped by type, to rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quanto.market.calendar import as_date
from quanto.stages.ingest.actions import Action, actions_table, known_before
from quanto.stages.ingest.errors import ContractError
from quanto.stages.ingest.http_vendor import mapping, record_list
from quanto.stages.ingest.paging import Page, token_url
from quanto.stages.ingest.rows import FloatArray, Records
from quanto.stages.ingest.vendor import Parsed, Payload, Rejected, Shard
from quanto.stages.ingest.wire import decode_json


@dataclass(frozen=True)
class _Kind:
    """How one type of the vendor reads: our kind, whose row it is, its day, its ratio or cash, the other symbol."""

    kind: str
    symbol: str = "symbol"
    day: str = "ex_date"
    new: str = ""  # ratio = new / old, or 1 + new where `added`
    old: str = ""
    added: bool = False
    cash: str = ""
    other: str = ""


KINDS: Mapping[str, _Kind] = {
    "forward_splits": _Kind("split", new="new_rate", old="old_rate"),
    "reverse_splits": _Kind("split", new="new_rate", old="old_rate"),
    "unit_splits": _Kind("unknown", symbol="old_symbol", day="effective_date", other="new_symbol"),
    "stock_dividends": _Kind("stock_dividend", new="rate", added=True),
    "cash_dividends": _Kind("cash_dividend", cash="rate"),
    "spin_offs": _Kind("spin_off", symbol="source_symbol", new="new_rate", old="source_rate", other="new_symbol"),
    "name_changes": _Kind("symbol_change", symbol="old_symbol", day="process_date", other="new_symbol"),
    "cash_mergers": _Kind("cash_merger", symbol="acquiree_symbol", day="effective_date", cash="rate", other="acquirer_symbol"),
    "stock_mergers": _Kind(
        "stock_merger", symbol="acquiree_symbol", day="effective_date", new="acquirer_rate", old="acquiree_rate", other="acquirer_symbol"
    ),
    "worthless_removals": _Kind("delisting", day="process_date"),
}

# A type that is not listed is kept as unknown, which stops the symbol: these fields may name it and its day.
UNKNOWN_SYMBOLS = ("symbol", "old_symbol", "source_symbol", "acquiree_symbol")
UNKNOWN_DAYS = ("ex_date", "effective_date", "process_date")


def read_page(first_url: str, body: bytes) -> Page:
    """Return a page of actions.

    Raises
    ------
    ContractError
        If the envelope is another.
    """
    value = mapping(decode_json(body), "the answer")
    keys = [(kind, repr(sorted(row.items()))) for kind, rows in _groups(body) for row in rows]
    return Page(token_url(first_url, value.get("next_page_token")), tuple(keys))


def parse(shard: Shard, payloads: Sequence[Payload]) -> Parsed:
    """Return the actions of one symbol; types that are not known become rows of kind `unknown`.

    Raises
    ------
    ContractError
        If a required field was renamed or removed.
    """
    actions: list[Action] = []
    rejected: list[Rejected] = []
    notes: list[str] = []
    for payload in payloads:
        first = 0
        for name, rows in _groups(payload.body):
            records = Records(payload.sha256, rows, first)
            first += len(rows)
            kind = KINDS.get(name) or _unknown(rows)
            if name not in KINDS and rows:
                notes.append(f"unknown type of action: {name}")
            found = _read(records, kind)
            actions += [action for action in found if action.symbol == shard.symbols[0]]
            elsewhere = sum(action.symbol != shard.symbols[0] for action in found)
            notes += [f"{elsewhere} {name} that change another symbol left out"] if elsewhere else []
            rejected += [
                Rejected(f"{shard.symbols[0]}/{name}/{index}", reason, dict(rows[index]), payload.sha256, records.first + index)
                for index, reason in sorted(records.faults.items())
            ]
    table, merged = actions_table(actions)
    return Parsed(table, tuple(rejected), (*dict.fromkeys(notes), *merged))


def _unknown(rows: Sequence[Mapping[str, object]]) -> _Kind:
    def first(names: Sequence[str]) -> str:
        return next((name for name in names if any(name in row for row in rows)), names[0])

    return _Kind("unknown", symbol=first(UNKNOWN_SYMBOLS), day=first(UNKNOWN_DAYS))


def _read(records: Records, kind: _Kind) -> list[Action]:
    records.require(*filter(None, (kind.symbol, kind.day, kind.new, kind.old, kind.cash)))
    days, symbols = records.dates(kind.day), records.texts(kind.symbol)
    others = records.texts(kind.other, optional=True) if kind.other else [None] * len(records)
    ratio, cash = _ratio(records, kind), records.numbers(kind.cash) if kind.cash else None
    ids = records.texts("id", optional=True)
    special = [value is True for value in records.values("special")]
    actions = []
    for index in range(len(records)):
        if index in records.faults:
            continue
        day = as_date(days[index])
        actions.append(
            Action(
                symbol=symbols[index] or "",
                ex_date=day,
                kind="special_dividend" if kind.kind == "cash_dividend" and special[index] else kind.kind,
                known_on=known_before(day),
                payload=records.payload,
                payload_row=records.first + index,
                ratio=None if ratio is None else float(ratio[index]),
                cash_usd=None if cash is None else float(cash[index]),
                currency=None if cash is None else "USD",
                other_symbol=others[index],
                vendor_id=ids[index],
            )
        )
    return actions


def _ratio(records: Records, kind: _Kind) -> FloatArray | None:
    if not kind.new:
        return None
    new = records.numbers(kind.new)
    if kind.added:
        return np.asarray(1.0 + new, dtype=np.float64)
    old = records.numbers(kind.old)
    records.fault_where(~((old > 0) & (new > 0)), lambda index: f"{new[index]:g} for {old[index]:g} shares is no ratio")
    ratio: FloatArray = np.divide(new, old, out=np.full(len(new), np.nan), where=old > 0)
    return ratio


def _groups(body: bytes) -> list[tuple[str, list[Mapping[str, object]]]]:
    value = mapping(decode_json(body), "the answer")
    # The groups stand under one name, or at the top beside the token.
    bare = {name: rows for name, rows in value.items() if name != "next_page_token"}
    if "corporate_actions" not in value and not (bare and set(bare) <= set(KINDS)):
        raise ContractError(f"the answer has no corporate_actions; found {', '.join(sorted(value))}")
    groups = mapping(value.get("corporate_actions", bare), "corporate_actions")
    return [(name, record_list(rows, f"corporate_actions.{name}")) for name, rows in sorted(groups.items())]
