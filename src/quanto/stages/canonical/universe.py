"""Who belonged to a universe when, and which ticker meant whom: survivorship as data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import pyarrow as pa

from quanto.market.calendar import next_session
from quanto.market.corporate_actions import ENDING_KINDS
from quanto.market.point_in_time import IDENTITY, MEMBERSHIP
from quanto.stages.canonical.config import Identity, Membership
from quanto.stages.canonical.identity import Derived
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
        first = date.fromisoformat(item.first)
        # A ticker that was given up before belongs to its next holder.
        later = [day for day in ends.get(item.name, []) if day > first]
        last = next_session(later[0], -1) if later else None
        rows.append({"universe": LISTED, "symbol": item.name, "start": first, "end": last, "source": "bars"})
    table = pa.Table.from_pylist(rows, schema=MEMBERSHIP)
    return table.sort_by([("universe", "ascending"), ("symbol", "ascending"), ("start", "ascending")]).combine_chunks()


def identity_table(rules: Sequence[Identity], derived: Sequence[Derived]) -> pa.Table:
    """Return which ticker each entity had when: the configured rules, and what the vendors' actions imply.

    An entity that is called by its current ticker has it from the day after its last other one.
    """
    rows: list[dict[str, object]] = [_row(rule, "data_sources") for rule in rules]
    rows += [_row(item.rule, item.vendor) for item in derived]
    last: dict[str, Derived] = {}
    for item in derived:
        if item.rule.symbol != item.rule.entity and "~" not in item.rule.entity:
            before = last.get(item.rule.entity)
            last[item.rule.entity] = item if before is None or (before.rule.end or date.max) < (item.rule.end or date.max) else before
    for entity, item in last.items():
        start = item.rule.end + timedelta(days=1) if item.rule.end else None
        rows.append({"entity": entity, "symbol": entity, "start": start, "end": None, "source": item.vendor})
    table = pa.Table.from_pylist(rows, schema=IDENTITY)
    return table.sort_by([(name, "ascending") for name in ("entity", "symbol", "start", "source")]).combine_chunks()


def endings(actions: pa.Table) -> dict[str, list[date]]:
    """Return the ex-dates of the events that end each symbol, ascending."""
    ends: dict[str, list[date]] = {}
    for symbol, day, kind in sorted(zip(*(actions[name].to_pylist() for name in ("symbol", "ex_date", "kind")), strict=True)):
        if kind in ENDING_KINDS:
            ends.setdefault(symbol, []).append(day)
    return ends


def _row(rule: Identity, source: str) -> dict[str, object]:
    return {"entity": rule.entity, "symbol": rule.symbol, "start": rule.start, "end": rule.end, "source": source}
