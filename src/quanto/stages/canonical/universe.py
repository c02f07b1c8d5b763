"""Who belonged to a universe when, and which ticker meant whom: survivorship as data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pyarrow as pa

from quanto.market.calendar import next_session
from quanto.market.corporate_actions import ENDING_KINDS
from quanto.market.point_in_time import IDENTITY, MEMBERSHIP
from quanto.stages.canonical.config import Identity, Membership
from quanto.stages.canonical.report import Coverage

LISTED = "listed"


def membership_table(lists: Sequence[Membership], covered: Sequence[Coverage], actions: pa.Table) -> pa.Table:
    """Return the configured memberships, and the universe `listed`: from a symbol's first bar to the event that ended it.

    A symbol that no action ended is listed still; that its bars end earlier is a gap of the vendors, not a delisting.
    """
    rows: list[dict[str, object]] = [
        {"universe": item.universe, "symbol": item.symbol, "start": item.start, "end": item.end, "source": "data_sources"} for item in lists
    ]
    ends = endings(actions)
    for item in covered:
        last = next_session(ends[item.name], -1) if item.name in ends else None
        rows.append({"universe": LISTED, "symbol": item.name, "start": date.fromisoformat(item.first), "end": last, "source": "bars"})
    table = pa.Table.from_pylist(rows, schema=MEMBERSHIP)
    return table.sort_by([("universe", "ascending"), ("symbol", "ascending"), ("start", "ascending")]).combine_chunks()


def identity_table(rules: Sequence[Identity], actions: pa.Table) -> pa.Table:
    """Return which ticker each entity had when: the configured rules, and the vendors' symbol changes."""
    rows: list[dict[str, object]] = [
        {"entity": rule.entity, "symbol": rule.symbol, "start": rule.start, "end": rule.end, "source": "data_sources"} for rule in rules
    ]
    for row in actions.to_pylist():
        if row["kind"] == "symbol_change":
            until = next_session(row["ex_date"], -1)
            source = {"entity": row["other_symbol"], "source": row["vendor"]}
            rows.append({**source, "symbol": row["symbol"], "start": None, "end": until})
            rows.append({**source, "symbol": row["other_symbol"], "start": row["ex_date"], "end": None})
    table = pa.Table.from_pylist(rows, schema=IDENTITY)
    return table.sort_by([("entity", "ascending"), ("symbol", "ascending"), ("start", "ascending")]).combine_chunks()


def endings(actions: pa.Table) -> dict[str, date]:
    """Return the ex-date of the first event that ends each symbol."""
    ends: dict[str, date] = {}
    for symbol, day, kind in zip(*(actions[name].to_pylist() for name in ("symbol", "ex_date", "kind")), strict=True):
        if kind in ENDING_KINDS:
            ends[symbol] = min(day, ends.get(symbol, day))
    return ends
