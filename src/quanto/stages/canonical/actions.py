"""Corporate actions of all vendors, reconciled into one table. Pure.

Events of one symbol and family (splits and stock dividends; cash; each other kind by itself) are matched across
vendors by ex-date, or by equal amount within a few sessions (vendors shift dates). The first vendor in order gives the
event; the others are superseded by it, and their differences are reported. An event that only a vendor of lower rank
has is kept, and flagged. An event that cannot be applied blocks its symbol from its date on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import pyarrow as pa

from quanto.market.calendar import FIRST, LAST, sessions_between
from quanto.market.corporate_actions import CASH_KINDS, SPLIT_KINDS
from quanto.market.schema import ACTION_KINDS, CANONICAL, RAW
from quanto.stages.canonical.axes import encode, entity_names
from quanto.stages.canonical.config import DomainSources, Identity
from quanto.stages.canonical.identity import rules_of
from quanto.stages.canonical.lineage import quarantine_rows, restated_rows

DOMAIN = "corporate_actions"


@dataclass(frozen=True)
class Action:
    """One vendor's event; `index` is its row in the vendor's raw table, -1 for an event derived from prices.

    `uncertainty_usd` is what rounding may have done to a derived amount.
    """

    vendor: str
    index: int
    symbol: str
    ex_date: date
    kind: str
    ratio: float | None
    cash_usd: float | None
    other_symbol: str | None
    vendor_id: str | None
    known_on: date
    payload: str
    payload_row: int
    uncertainty_usd: float = 0.0

    @property
    def family(self) -> str:
        """What the event can be matched with."""
        return "split" if self.kind in SPLIT_KINDS else "cash" if self.kind in CASH_KINDS else self.kind

    @property
    def key(self) -> tuple[str, date, str, str]:
        """The canonical key."""
        return self.symbol, self.ex_date, self.kind, self.other_symbol or ""


@dataclass(frozen=True)
class ActionsResult:
    """Canonical actions, the versions that later ones of them replaced, and what became of every raw row."""

    table: pa.Table
    restated: pa.Table
    quarantine: pa.Table
    blocked: dict[str, date]
    rows: dict[str, int]
    selected: dict[str, int]
    superseded: dict[str, int]
    quarantined: dict[str, int]
    differences: list[dict[str, object]]
    compared: int


@dataclass
class _Event:
    """What one vendor has for one symbol, family and ex-date: usually one action."""

    vendor: str
    day: date
    actions: list[Action]
    flags: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    @property
    def amount(self) -> float:
        """The product of ratios and sum of cash, one number to compare."""
        ratio = float(np.prod([action.ratio or 1.0 for action in self.actions]))
        return ratio if self.actions[0].family == "split" else sum(action.cash_usd or 0.0 for action in self.actions)

    def differs(self, other: _Event, tolerance: float) -> bool:
        """Return whether the amounts differ by more than the tolerance (relative to this one) and their uncertainty."""
        uncertainty = sum(action.uncertainty_usd for action in (*self.actions, *other.actions))
        return abs(self.amount - other.amount) > tolerance * abs(self.amount) + uncertainty


def read_actions(vendor: str, table: pa.Table, rules: Sequence[Identity]) -> list[Action]:
    """Return a vendor's raw rows as actions, under their entities' names."""
    days = table["ex_date"].cast(pa.int32()).to_numpy().astype(np.int64)
    codes, names = encode(table["symbol"])
    names, codes = entity_names(names, codes, days, rules_of(rules, vendor))
    columns = [name for name in RAW[DOMAIN].names if name not in ("currency", "symbol")]
    found = []
    for index, row in enumerate(table.select(columns).to_pylist()):
        found.append(Action(vendor=vendor, index=index, symbol=names[codes[index]], **row))
    return found


def fault_of(action: Action, currency: str | None) -> str | None:
    """Return why an action cannot be applied, or None."""
    if action.kind not in ACTION_KINDS or action.kind == "unknown":
        return "unknown_kind"
    if action.family in ("split", "stock_merger") and not _positive(action.ratio):
        return "missing_ratio"
    if action.family in ("cash", "cash_merger", "spin_off") and not _positive(action.cash_usd):
        return "missing_cash"
    if currency not in (None, "", "USD") and action.family in ("cash", "cash_merger", "spin_off", "delisting"):
        return "foreign_currency"
    if action.kind in ("stock_merger", "spin_off", "symbol_change") and not action.other_symbol:
        return "missing_other_symbol"
    return None


def reconcile_actions(
    tables: Mapping[str, pa.Table],
    derived: Sequence[Action],
    sources: DomainSources,
    rules: Sequence[Identity],
    tolerance: float,
    match_sessions: int,
) -> ActionsResult:
    """Return the canonical actions of raw tables (by vendor) and of events derived from prices."""
    good: list[Action] = list(derived)
    faults: dict[tuple[str, int], str] = {}
    bad: list[Action] = []
    for vendor in sorted(tables):
        currencies = tables[vendor]["currency"].to_pylist()
        for action in read_actions(vendor, tables[vendor], rules):
            reason = fault_of(action, currencies[action.index])
            if reason is None:
                good.append(action)
            else:
                faults[vendor, action.index] = reason
                bad.append(action)
    good, merged, clashes = _one_per_key(good)
    for action in clashes:
        faults[action.vendor, action.index] = "conflicting_duplicate"
    chosen, differences, compared = _select(good, sources, tolerance, match_sessions)
    selected = [action for event in chosen for action in event.actions]
    blocked = _blocked([*bad, *clashes], chosen, match_sessions)
    return ActionsResult(
        table=_table(chosen, good, sources),
        restated=_restated(selected, merged),
        quarantine=_quarantine(tables, faults),
        blocked=blocked,
        rows={vendor: len(table) for vendor, table in sorted(tables.items())},
        selected=_by_vendor(tables, selected),
        superseded=_by_vendor(tables, [*merged, *_left(good, selected)]),
        quarantined=_by_vendor(tables, [*bad, *clashes]),
        differences=differences,
        compared=compared,
    )


def _one_per_key(actions: Sequence[Action]) -> tuple[list[Action], list[Action], list[Action]]:
    """Return one action per vendor and key, the rows merged into it, and rows that contradict each other.

    Of several versions the one known latest stands. Equal rows of one day are one event. Cash rows with different
    vendor ids are separate payments of one day: their sum stands. Anything else is a contradiction.
    """
    groups: dict[tuple[str, tuple[str, date, str, str]], list[Action]] = {}
    for action in sorted(actions, key=_origin):
        groups.setdefault((action.vendor, action.key), []).append(action)
    kept, merged, clashes = [], [], []
    for rows in groups.values():
        latest = [row for row in rows if row.known_on == rows[-1].known_on]
        merged += [row for row in rows if row.known_on != rows[-1].known_on]
        distinct = list({(row.ratio, row.cash_usd, row.vendor_id): row for row in latest}.values())
        merged += [row for row in latest if row not in distinct]
        values = {(row.ratio, row.cash_usd) for row in distinct}
        ids = [row.vendor_id for row in distinct]
        if len(values) == 1 and (len(distinct) == 1 or distinct[0].family != "cash" or None in ids):
            kept.append(distinct[0])
            merged += distinct[1:]
        elif distinct[0].family == "cash" and None not in ids and len(set(ids)) == len(ids):
            kept.append(replace(distinct[0], cash_usd=sum(row.cash_usd or 0.0 for row in distinct)))
            merged += distinct[1:]
        else:
            clashes += distinct
    return kept, merged, clashes


def _select(
    actions: Sequence[Action], sources: DomainSources, tolerance: float, match_sessions: int
) -> tuple[list[_Event], list[dict[str, object]], int]:
    groups: dict[tuple[str, str], dict[tuple[str, date], list[Action]]] = {}
    for action in sorted(actions, key=_origin):
        groups.setdefault((action.symbol, action.family), {}).setdefault((action.vendor, action.ex_date), []).append(action)
    chosen: list[_Event] = []
    differences: list[dict[str, object]] = []
    compared = 0
    for (symbol, family), by_day in sorted(groups.items()):
        events = [_Event(vendor, day, rows, seen={vendor}) for (vendor, day), rows in by_day.items()]
        events.sort(key=lambda event: (vendor_order(sources, symbol, event.day).index(event.vendor), event.day))
        covering = {event.vendor for event in events}
        accepted: list[_Event] = []
        for event in events:
            twin = _twin(event, accepted, tolerance, match_sessions)
            if twin is None:
                accepted.append(event)
                continue
            compared += 1
            twin.seen.add(event.vendor)
            differences += _differences(twin, event, family, tolerance)
        if sources.policy == "consensus":
            _vote(accepted, events, tolerance)
        for event in accepted:
            if len(covering) > 1 and len(event.seen) == 1:
                event.flags.add("unconfirmed")
        chosen += accepted
    return chosen, differences, compared


def vendor_order(sources: DomainSources, symbol: str, day: date) -> list[str]:
    """Return the vendors in order for one symbol and day: the first override that fits, then the priority."""
    for override in sources.overrides:
        fits = not override.symbols or symbol in override.symbols
        if fits and (override.start is None or override.start <= day) and (override.end is None or day <= override.end):
            return [*override.priority, *(name for name in sources.priority if name not in override.priority)]
    return list(sources.priority)


def _twin(event: _Event, accepted: Sequence[_Event], tolerance: float, match_sessions: int) -> _Event | None:
    """Return the accepted event that this one repeats: the same day, or an equal amount a few sessions away."""
    for other in accepted:
        if other.vendor != event.vendor and other.day == event.day:
            return other
    near = [
        other
        for other in accepted
        if event.vendor not in other.seen
        and _sessions_apart(other.day, event.day) <= match_sessions
        and not other.differs(event, tolerance)
    ]
    return min(near, key=lambda other: (_sessions_apart(other.day, event.day), other.day), default=None)


def _differences(twin: _Event, event: _Event, family: str, tolerance: float) -> list[dict[str, object]]:
    found = []
    if twin.day != event.day:
        twin.flags.add("date_shift")
        found.append(_difference(twin, event, "ex_date", "one_day_shift", str(twin.day), str(event.day)))
    if twin.differs(event, tolerance):
        twin.flags.add("disagreement")
        kind = "split_basis" if family == "split" else "dividend_basis" if family == "cash" else "unexplained"
        found.append(_difference(twin, event, "ratio" if family == "split" else "cash_usd", kind, twin.amount, event.amount))
    return found


def _difference(twin: _Event, event: _Event, name: str, kind: str, mine: object, other: object) -> dict[str, object]:
    return {
        "symbol": twin.actions[0].symbol, "ex_date": twin.day, "kind": twin.actions[0].kind, "field": name,
        "vendor": twin.vendor, "other": event.vendor, "chosen_value": mine, "other_value": other, "class": kind,
    }  # fmt: skip


def _vote(accepted: list[_Event], events: Sequence[_Event], tolerance: float) -> None:
    """Replace an event by one of the same day whose amount more vendors confirm (in place); ties stay."""
    for index, event in enumerate(accepted):
        rivals = [other for other in events if other.day == event.day]
        votes = [sum(not r.differs(o, tolerance) for o in rivals) for r in rivals]
        best = rivals[int(np.argmax(votes))]
        if max(votes) > votes[rivals.index(event)]:
            accepted[index] = _Event(best.vendor, best.day, best.actions, event.flags | {"consensus"}, event.seen)


def _blocked(bad: Sequence[Action], chosen: Sequence[_Event], match_sessions: int) -> dict[str, date]:
    """Return the first day from which a symbol is quarantined; another vendor's good version of the event lifts it."""
    blocked: dict[str, date] = {}
    for action in bad:
        healed = any(
            event.actions[0].symbol == action.symbol
            and event.actions[0].family == action.family
            and _sessions_apart(event.day, action.ex_date) <= match_sessions
            for event in chosen
        )
        if not healed:
            blocked[action.symbol] = min(action.ex_date, blocked.get(action.symbol, action.ex_date))
    return dict(sorted(blocked.items()))


def _table(chosen: Sequence[_Event], actions: Sequence[Action], sources: DomainSources) -> pa.Table:
    covering: dict[tuple[str, str], set[str]] = {}
    for action in actions:
        covering.setdefault((action.symbol, action.family), set()).add(action.vendor)
    rows = []
    for event in chosen:
        for action in event.actions:
            order = vendor_order(sources, action.symbol, action.ex_date)
            first = min(covering[action.symbol, action.family], key=order.index)
            method = "only" if len(event.seen) == 1 else "priority"
            if "consensus" in event.flags:
                method = "consensus"
            elif first != action.vendor:
                method = "fallback"
            derived = {"implied"} if action.index < 0 else set()
            flags = sorted((event.flags - {"consensus"}) | derived | ({"approximate"} if action.uncertainty_usd else set()))
            rows.append(_row(action, event, method, flags))
    rows.sort(key=lambda row: (str(row["symbol"]), str(row["ex_date"]), str(row["kind"]), str(row["other_symbol"] or "")))
    return pa.Table.from_pylist(rows, schema=CANONICAL[DOMAIN])


def _row(action: Action, event: _Event, method: str, flags: Sequence[str]) -> dict[str, object]:
    return {
        "symbol": action.symbol, "ex_date": action.ex_date, "kind": action.kind, "ratio": action.ratio,
        "cash_usd": action.cash_usd, "other_symbol": action.other_symbol, "vendor": action.vendor,
        "vendors_seen": "|".join(sorted(event.seen)), "method": method, "flags": "|".join(flags),
        "known_on": action.known_on, "payload": action.payload, "payload_row": action.payload_row,
    }  # fmt: skip


def _restated(selected: Sequence[Action], merged: Sequence[Action]) -> pa.Table:
    """Return the earlier versions of the selected events."""
    current = {(action.vendor, action.key): action.known_on for action in selected}
    earlier = [row for row in merged if row.known_on < current.get((row.vendor, row.key), row.known_on)]
    names = [name for name in RAW[DOMAIN].names if name in CANONICAL[DOMAIN].names]
    schema = pa.schema([RAW[DOMAIN].field(name) for name in names])
    rows = pa.Table.from_pylist([{name: getattr(row, name) for name in names} for row in earlier], schema=schema)
    return restated_rows(DOMAIN, rows, pa.array([row.vendor for row in earlier], pa.string()))


def _quarantine(tables: Mapping[str, pa.Table], faults: Mapping[tuple[str, int], str]) -> pa.Table:
    parts = []
    for vendor, table in sorted(tables.items()):
        rows = sorted(index for name, index in faults if name == vendor)
        reasons = pa.array([faults[vendor, index] for index in rows], pa.string())
        parts.append(quarantine_rows(DOMAIN, vendor, table.take(pa.array(rows, pa.int64())), reasons))
    return pa.concat_tables(parts) if parts else quarantine_rows(DOMAIN, "", RAW[DOMAIN].empty_table(), pa.array([], pa.string()))


def _by_vendor(tables: Mapping[str, pa.Table], actions: Sequence[Action]) -> dict[str, int]:
    """Return how many raw rows of each vendor are among the actions; derived events are no raw rows."""
    return {vendor: sum(action.vendor == vendor and action.index >= 0 for action in actions) for vendor in sorted(tables)}


def _left(good: Sequence[Action], selected: Sequence[Action]) -> list[Action]:
    taken = {(action.vendor, action.index, action.key) for action in selected}
    return [action for action in good if (action.vendor, action.index, action.key) not in taken]


def _origin(action: Action) -> tuple[object, ...]:
    ids = (action.vendor_id or "", action.payload, action.payload_row)
    return (action.vendor, *map(str, action.key), action.known_on, *ids, action.index)


def _positive(value: float | None) -> bool:
    return value is not None and np.isfinite(value) and value > 0


def _sessions_apart(one: date, other: date) -> int:
    first, last = min(one, other), max(one, other)
    if one == other:
        return 0
    if first < FIRST or last > LAST or (last - first).days > 60:
        return 1 << 30
    return max(1, len(sessions_between(first, last)) - 1)
