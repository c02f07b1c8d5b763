"""Which company a ticker meant when: what symbol changes, mergers and delistings say beside the configured rules. Pure.

A symbol change joins a company's history under its current symbol. Vendors differ in how they deliver it: some keep the
ticker of the day (FB until 2022-06-08, META from then on), some call the whole history by the current one. So the rows
of the new ticker before the change are the same company only where a vendor has no rows of the old one and its rows
run up to the change; else another company had the ticker before, and its rows get a name of their own,
`<ticker>~<last day>`. A ticker that trades again long after its company ended is another company, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from quanto.market.calendar import FIRST, LAST, DateArray, sessions_between
from quanto.stages.canonical.config import Identity

DERIVED_FROM = ("symbol_change", "delisting", "cash_merger", "stock_merger")

# Vendor -> ticker -> its days, ascending.
TickerDays = Mapping[str, Mapping[str, DateArray]]


@dataclass(frozen=True)
class Turn:
    """A day on which a ticker changed hands: `new` is the company's next ticker, None where the company ended."""

    old: str
    new: str | None
    day: date
    vendor: str


@dataclass(frozen=True)
class Derived:
    """A rule that the vendors' actions imply, and whose action it was."""

    rule: Identity
    vendor: str


def rules_of(rules: Sequence[Identity], vendor: str) -> tuple[Identity, ...]:
    """Return the rules that hold for one vendor's rows, in order."""
    return tuple(rule for rule in rules if rule.vendor in (None, vendor))


def turns_of(tables: Mapping[str, pa.Table], reach: int) -> list[Turn]:
    """Return the turns in the raw actions of vendors (in order of priority), sorted by day.

    The first vendor's date stands: the same change, or the end of the same ticker, within `reach` sessions is one turn.
    """
    found: list[Turn] = []
    for vendor, table in tables.items():
        for old, day, kind, new in zip(*(table[name].to_pylist() for name in ("symbol", "ex_date", "kind", "other_symbol")), strict=True):
            changed = kind == "symbol_change"
            if kind not in DERIVED_FROM or (changed and (not new or new == old)):
                continue
            turn = Turn(old, new if changed else None, day, vendor)
            if not any((t.old, t.new) == (turn.old, turn.new) and _apart(t.day, day) <= reach for t in found):
                found.append(turn)
    return sorted(found, key=lambda turn: (turn.day, turn.old, turn.new or ""))


def tickers_of(turns: Sequence[Turn]) -> tuple[str, ...]:
    """Return the tickers whose days decide what the turns mean, sorted."""
    return tuple(sorted({name for turn in turns for name in (turn.old, turn.new) if name}))


def derived_rules(turns: Sequence[Turn], days: TickerDays, reach: int, without_bars: Sequence[str] = ()) -> list[Derived]:
    """Return the rules that follow from the turns and from the days on which vendors have their tickers.

    `reach` is the number of sessions over which rows count as running on. `without_bars` names vendors that have actions
    only: what they date within the life of a ticker's former holder is the former holder's.
    """
    ends = [turn for turn in turns if turn.new is None and _used_again(turn, days, reach)]
    changes = [turn for turn in turns if turn.new is not None]
    found = [_rule(turn, turn.old, _begin(turn.old, turn.day, changes, ends), turn.day, _entity(turn, changes, ends)) for turn in changes]
    for turn in ends:
        begin, until = _begin(turn.old, turn.day, changes, ends), turn.day + timedelta(days=1)
        found.append(_rule(turn, turn.old, begin, until, _own_name(turn.old, turn.day)))
    # Last, as the first rule that fits a row holds: a ticker that changed hands twice on one day was given up first.
    for turn in changes:
        found += _former_holders(turn, changes, ends, days, reach, without_bars)
    return found


def _former_holders(
    turn: Turn, changes: Sequence[Turn], ends: Sequence[Turn], days: TickerDays, reach: int, without_bars: Sequence[str]
) -> list[Derived]:
    """Return a rule for each vendor whose rows of the new ticker before the change are another company's."""
    new = turn.new or ""
    begin, entity = _begin(new, turn.day, changes, ends), _own_name(new, turn.day - timedelta(days=1))
    found, last = [], None
    for vendor, tickers in days.items():
        before = _within(tickers.get(new), begin, turn.day)
        if not len(before):
            continue
        has_old = len(_within(tickers.get(turn.old), _begin(turn.old, turn.day, changes, ends), turn.day)) > 0
        if has_old or _apart(before[-1].astype(object), turn.day) > reach:
            found.append(_rule(turn, new, begin, turn.day, entity, vendor))
            last = max(last or date.min, before[-1].astype(object))
    if last is not None:
        found += [_rule(turn, new, begin, last + timedelta(days=1), entity, vendor) for vendor in without_bars]
    return found


def _entity(turn: Turn, changes: Sequence[Turn], ends: Sequence[Turn]) -> str:
    """Return the name of the company that changed: its current ticker, or its own name where others took that up later."""
    name, day = turn.new or "", turn.day
    while True:
        # The ticker's next turn tells: its holder changed on, ended, or had gone when another company changed to it.
        onward = [(change.day, 0, change.new or "") for change in changes if change.old == name and change.day > day]
        closed = [(end.day, 1, _own_name(name, end.day)) for end in ends if end.old == name and end.day >= day]
        taken = [(o.day, 2, _own_name(name, o.day - timedelta(days=1))) for o in changes if o.new == name and o.day > day]
        if not (following := sorted([*onward, *closed, *taken])):
            return name
        day, kind, name = following[0]
        if kind:
            return name


def _used_again(turn: Turn, days: TickerDays, reach: int) -> bool:
    """Return whether a vendor has rows of an ended company's ticker that begin long after its end."""
    for tickers in days.values():
        later = _within(tickers.get(turn.old), turn.day + timedelta(days=1), None)
        if len(later) and _apart(turn.day, later[0].astype(object)) > reach:
            return True
    return False


def _begin(ticker: str, before: date, changes: Sequence[Turn], ends: Sequence[Turn]) -> date | None:
    """Return the first day since which a ticker has had the holder that it had just before a day; None: always."""
    taken = [turn.day for turn in changes if turn.day < before and ticker in (turn.old, turn.new)]
    taken += [turn.day + timedelta(days=1) for turn in ends if turn.day < before and ticker == turn.old]
    return max(taken, default=None)


def _rule(turn: Turn, ticker: str, begin: date | None, until: date, entity: str, vendor: str | None = None) -> Derived:
    rule = Identity(symbol=ticker, start=begin, end=until - timedelta(days=1), entity=entity, vendor=vendor)
    return Derived(rule, turn.vendor)


def _own_name(ticker: str, last: date) -> str:
    return f"{ticker}~{last}"


def _within(days: DateArray | None, begin: date | None, until: date | None) -> DateArray:
    """Return the days from `begin`, included, to `until`, not included."""
    if days is None:
        return np.empty(0, "datetime64[D]")
    low = 0 if begin is None else int(np.searchsorted(days, np.datetime64(begin, "D")))
    high = len(days) if until is None else int(np.searchsorted(days, np.datetime64(until, "D")))
    return days[low:high]


def _apart(one: date, other: date) -> int:
    first, last = sorted(min(max(day, FIRST), LAST) for day in (one, other))
    return len(sessions_between(first, last)) - 1 if first < last else 0
