"""Tickers and companies: a symbol change joins one company's history, a ticker used again never joins two companies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.store import read_json, read_table
from quanto.market.calendar import sessions_between
from quanto.market.point_in_time import IDENTITY, MEMBERSHIP
from quanto.market.schema import RAW
from quanto.stages.canonical.axes import entity_names
from quanto.stages.canonical.identity import derived_rules, rules_of, turns_of
from tests.stages.canonical.vendor_tables import Market, action_row, build, canonical, put, raw_bars, true_market

REACH = 5


@pytest.fixture(autouse=True)
def _own_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))


def called(table: pa.Table, name: str, low: int, high: int) -> pa.Table:
    """Return rows low..high - 1 of a one-symbol table under another ticker."""
    part = table.slice(low, high - low)
    return part.set_column(part.column_names.index("symbol"), part.schema.field("symbol"), pa.array([name] * len(part)))


def put_actions(workspace: Path, vendor: str, *rows: dict[str, object]) -> None:
    put(workspace, vendor, "corporate_actions", pa.Table.from_pylist(list(rows), schema=RAW["corporate_actions"]))


def day_of(market: Market, at: int) -> date:
    day = market.sessions[at].astype(object)
    assert isinstance(day, date)
    return day


def closes(workspace: Path) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for row in canonical(workspace).to_pylist():
        out.setdefault(row["symbol"], []).append(row["close"])
    return out


def changed_at(market: Market, at: int, old: str = "FB", new: str = "META") -> dict[str, object]:
    return action_row(old, day_of(market, at), "symbol_change", None, other_symbol=new)


def test_a_symbol_change_joins_the_history_under_the_current_symbol(tmp_path: Path) -> None:
    market = true_market(("META",))
    table = raw_bars(market)
    put(tmp_path, "one", "equity_ohlcv", pa.concat_tables([called(table, "FB", 0, 30), called(table, "META", 30, 60)]))
    put_actions(tmp_path, "one", changed_at(market, 30), action_row("FB", day_of(market, 10), "cash_dividend", 0.5))
    build(tmp_path)
    assert closes(tmp_path) == {"META": market.bars["close"][:, 0].tolist()}
    actions = canonical(tmp_path, "corporate_actions").to_pylist()
    assert [(row["symbol"], row["kind"]) for row in actions] == [("FB", "symbol_change"), ("META", "cash_dividend")]
    identity = read_table(tmp_path / "data/canonical/identity/part.parquet", IDENTITY).to_pylist()
    assert [(row["entity"], row["symbol"], row["start"]) for row in identity] == [
        ("META", "FB", None),
        ("META", "META", day_of(market, 30)),
    ]
    listed = read_table(tmp_path / "data/canonical/membership/part.parquet", MEMBERSHIP).to_pylist()
    assert [(row["symbol"], row["start"], row["end"]) for row in listed] == [("META", day_of(market, 0), None)]


def test_the_former_holder_of_the_new_ticker_is_another_company(tmp_path: Path) -> None:
    market, fund = true_market(("META",)), true_market(("META",), seed=9)
    table = raw_bars(market)
    parts = [called(raw_bars(fund), "META", 0, 15), called(table, "FB", 0, 30), called(table, "META", 30, 60)]
    put(tmp_path, "one", "equity_ohlcv", pa.concat_tables(parts))
    put_actions(tmp_path, "two", changed_at(market, 30), action_row("META", day_of(market, 10), "cash_dividend", 0.5))
    build(tmp_path)
    other = f"META~{day_of(market, 29)}"
    assert closes(tmp_path) == {"META": market.bars["close"][:, 0].tolist(), other: fund.bars["close"][:15, 0].tolist()}
    paid = [row["symbol"] for row in canonical(tmp_path, "corporate_actions").to_pylist() if row["kind"] == "cash_dividend"]
    assert paid == [other]


def test_a_fund_that_left_the_ticker_before_is_told_apart_even_if_the_old_ticker_was_not_asked_for(tmp_path: Path) -> None:
    market, fund = true_market(("META",)), true_market(("META",), seed=9)
    put(tmp_path, "one", "equity_ohlcv", pa.concat_tables([raw_bars(fund).slice(0, 15), raw_bars(market).slice(30)]))
    put_actions(tmp_path, "one", changed_at(market, 30))
    build(tmp_path)
    assert {name: len(values) for name, values in closes(tmp_path).items()} == {"META": 30, f"META~{day_of(market, 29)}": 15}


def test_vendors_that_use_the_ticker_of_the_day_and_the_current_one_agree(tmp_path: Path) -> None:
    market = true_market(("META",))
    table = raw_bars(market)
    put(tmp_path, "one", "equity_ohlcv", pa.concat_tables([called(table, "FB", 0, 30), called(table, "META", 30, 60)]))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, payload="q"))
    put_actions(tmp_path, "one", changed_at(market, 30))
    table = build(tmp_path)
    assert set(table["symbol"].to_pylist()) == {"META"}
    assert set(table["vendors_seen"].to_pylist()) == {"one|two"}
    assert set(table["disagreement_close"].to_pylist()) == {0.0}


def test_two_changes_lead_to_the_last_name_and_the_given_up_ticker_to_its_next_company(tmp_path: Path) -> None:
    market, other = true_market(("C",)), true_market(("A",), seed=9)
    table = raw_bars(market)
    parts = [called(table, "A", 0, 20), called(table, "B", 20, 40), called(table, "C", 40, 60), called(raw_bars(other), "A", 20, 60)]
    put(tmp_path, "one", "equity_ohlcv", pa.concat_tables(parts))
    put_actions(tmp_path, "one", changed_at(market, 20, "A", "B"), changed_at(market, 40, "B", "C"))
    build(tmp_path)
    assert closes(tmp_path) == {"A": other.bars["close"][20:, 0].tolist(), "C": market.bars["close"][:, 0].tolist()}


def test_a_ticker_taken_up_on_the_day_that_it_was_given_up_stays_apart(tmp_path: Path) -> None:
    one, two = true_market(("B",)), true_market(("C",), seed=9)
    parts = [called(raw_bars(one), "A", 0, 30), called(raw_bars(one), "B", 30, 60)]
    parts += [called(raw_bars(two), "B", 0, 30), called(raw_bars(two), "C", 30, 60)]
    put(tmp_path, "one", "equity_ohlcv", pa.concat_tables(parts))
    put_actions(tmp_path, "one", changed_at(one, 30, "A", "B"), changed_at(one, 30, "B", "C"))
    build(tmp_path)
    assert closes(tmp_path) == {"B": one.bars["close"][:, 0].tolist(), "C": two.bars["close"][:, 0].tolist()}


def test_a_ticker_that_trades_again_long_after_a_delisting_is_another_company(tmp_path: Path) -> None:
    first, second = true_market(("X",)), true_market(("X",), seed=9)
    put(tmp_path, "one", "equity_ohlcv", pa.concat_tables([raw_bars(first).slice(0, 20), raw_bars(second).slice(40)]))
    put_actions(tmp_path, "one", action_row("X", day_of(first, 20), "delisting", 1.0))
    build(tmp_path)
    old = f"X~{day_of(first, 20)}"
    assert closes(tmp_path) == {"X": second.bars["close"][40:, 0].tolist(), old: first.bars["close"][:20, 0].tolist()}
    listed = read_table(tmp_path / "data/canonical/membership/part.parquet", MEMBERSHIP).to_pylist()
    assert [(row["symbol"], row["end"]) for row in listed] == [("X", None), (old, day_of(first, 19))]


def test_a_delisted_company_whose_ticker_rests_keeps_its_name(tmp_path: Path) -> None:
    market = true_market(("X", "Y"))
    keep = np.ones((60, 2), dtype=bool)
    keep[22:, 0] = False  # a stale row or two after the end is no new company
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=keep))
    put_actions(tmp_path, "one", action_row("X", day_of(market, 20), "delisting", 1.0))
    build(tmp_path)
    assert set(closes(tmp_path)) == {"X", "Y"}


def test_a_long_silence_is_reported(tmp_path: Path) -> None:
    market = true_market(("X", "Y"), sessions=300)
    keep = np.ones((300, 2), dtype=bool)
    keep[20:250, 0] = False
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=keep))
    build(tmp_path)
    report = read_json(tmp_path / "reports/canonical/canonical_report.json")
    found = report["identity"]["suspected_reuse"]  # type: ignore[index,call-overload]
    assert [(item["symbol"], item["sessions"]) for item in found] == [("X", 230)]  # type: ignore[index,call-overload,union-attr]


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_no_entity_ever_holds_two_companies_and_no_renamed_company_is_torn(data: st.DataObject) -> None:
    sessions = sessions_between(date(2010, 1, 4), date(2011, 12, 30))
    holder: dict[str, int] = {}
    since: dict[str, int] = {}  # the first session on which a free ticker may be listed on again
    spans: list[tuple[str, int, int, int]] = []  # ticker, company, first and last session + 1
    begun: dict[str, int] = {}
    actions: list[dict[str, object]] = []
    silent: set[int] = set()  # companies that ended without an action

    def leave(ticker: str, at: int) -> int:
        company = holder.pop(ticker)
        spans.append((ticker, company, begun.pop(ticker), at))
        return company

    def enter(ticker: str, company: int, at: int) -> None:
        holder[ticker], begun[ticker] = company, at

    at, companies = 0, 0
    for _ in range(data.draw(st.integers(1, 12))):
        free = sorted(set("ABCD") - holder.keys())
        ready = [ticker for ticker in free if since.get(ticker, 0) <= at]
        kinds = [kind for kind, possible in (("list", ready), ("change", holder and free), ("end", holder), ("silent", holder)) if possible]
        if not kinds:
            break
        kind = data.draw(st.sampled_from(kinds))
        day = sessions[at].astype(object)
        if kind == "list":
            enter(data.draw(st.sampled_from(ready)), companies, at)
            companies += 1
        elif kind == "change":
            old, new = data.draw(st.sampled_from(sorted(holder))), data.draw(st.sampled_from(free))
            enter(new, leave(old, at), at)
            actions.append(action_row(old, day, "symbol_change", None, row=len(actions), other_symbol=new))
            since[old] = at
        else:
            ticker = data.draw(st.sampled_from(sorted(holder)))
            company = leave(ticker, at)
            if kind == "end":
                actions.append(action_row(ticker, day, "delisting", 1.0, row=len(actions)))
                since[ticker] = at + REACH + 2
            else:
                silent.add(company)
                since[ticker] = 10**6  # nothing tells a new listing apart from a gap: only a change may bring it back
        at += data.draw(st.integers(REACH + 2, 30))
    for ticker in sorted(holder):
        leave(ticker, at)
    turns = turns_of({"one": pa.Table.from_pylist(actions, schema=RAW["corporate_actions"])}, REACH)
    rows = [(ticker, company, session) for ticker, company, first, last in spans for session in range(first, last)]
    days = {name: np.sort(sessions[[session for ticker, _, session in rows if ticker == name]]) for name in {row[0] for row in rows}}
    rules = rules_of([item.rule for item in derived_rules(turns, {"one": days}, REACH)], "one")
    named = _named(rows, sessions, rules)
    for name in {entity for entity, _ in named}:
        assert len({company for entity, company in named if entity == name}) == 1
    for company in {company for _, company in named}:
        assert len({entity for entity, owner in named if owner == company}) == 1


def _named(rows: Sequence[tuple[str, int, int]], sessions: np.ndarray, rules: Sequence[object]) -> set[tuple[str, int]]:
    names = sorted({ticker for ticker, _, _ in rows})
    codes = np.array([names.index(ticker) for ticker, _, _ in rows], dtype=np.int64)
    days = sessions[[session for _, _, session in rows]].astype(np.int64)
    texts, out = entity_names(names, codes, days, rules)  # type: ignore[arg-type]
    return {(texts[code], company) for code, (_, company, _) in zip(out.tolist(), rows, strict=True)}
