"""Prices of every declared basis come back to what was traded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quanto.market.schema import RAW
from tests.stages.canonical.vendor_tables import (
    Market,
    action_row,
    build,
    canonical,
    canonical_config,
    cells,
    put,
    quarantine,
    raw_actions,
    raw_bars,
    true_market,
)

EVENTS = (
    ("AAA", 12, "split", 2.0),
    ("AAA", 40, "split", 1.5),
    ("BBB", 25, "split", 0.1),
    ("AAA", 30, "dividend", 0.40),
    ("CCC", 20, "dividend", 3.08),
)


@pytest.fixture
def market() -> Market:
    return true_market(events=EVENTS)


@pytest.mark.parametrize(("basis", "volume_basis"), [("raw", "raw"), ("split", "split"), ("split", "raw"), ("total", "split")])
def test_raw_prices_and_volumes_are_recovered_from_each_basis(tmp_path: Path, market: Market, basis: str, volume_basis: str) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, basis=basis, volume_basis=volume_basis))
    put(tmp_path, "two", "corporate_actions", raw_actions(market))
    table = build(tmp_path)
    for name in ("open", "high", "low", "close", "volume"):
        found = cells(table, name)
        for column, symbol in enumerate(market.symbols):
            expected = market.bars[name][:, column]
            np.testing.assert_allclose([found[str(day), symbol] for day in market.sessions], expected, rtol=1e-12)


def test_vendors_that_differ_by_basis_alone_do_not_differ(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, basis="split", volume_basis="split"))
    put(tmp_path, "three", "equity_ohlcv", raw_bars(market, basis="total", volume_basis="split"))
    put(tmp_path, "one", "corporate_actions", raw_actions(market))
    table = build(tmp_path)
    for name in ("open", "high", "low", "close", "volume"):
        assert max(table[f"disagreement_{name}"].to_pylist()) < 1e-12
    assert not any("disagreement" in flags for flags in table["flags"].to_pylist())


def test_splits_after_the_date_of_the_adjustment_are_not_undone(tmp_path: Path, market: Market) -> None:
    table = raw_bars(market, basis="split", volume_basis="split")
    early = market.sessions[35].astype(object)
    # The history as it was delivered before the second split of AAA.
    first = np.where(np.arange(60) < 40, 1.5, 1.0)
    rows = table.to_pylist()
    for row in rows:
        at = int(np.searchsorted(market.sessions, np.datetime64(row["session"])))
        if row["symbol"] == "AAA":
            for name in ("open", "high", "low", "close"):
                row[name] *= first[at]
            row["volume"] /= first[at]
        row["basis_as_of"] = early
    put(tmp_path, "one", "equity_ohlcv", pa.Table.from_pylist(rows, schema=table.schema))
    put(tmp_path, "one", "corporate_actions", raw_actions(market))
    built = cells(build(tmp_path), "close")
    expected = market.bars["close"][:, 0]
    np.testing.assert_allclose([built[str(day), "AAA"] for day in market.sessions], expected, rtol=1e-12)


def test_rows_whose_raw_basis_cannot_be_derived_are_quarantined(tmp_path: Path, market: Market) -> None:
    split = raw_bars(market, basis="split", volume_basis="split", symbols=["BBB"])
    undated = split.set_column(split.column_names.index("basis_as_of"), "basis_as_of", pa.nulls(len(split), pa.date32()))
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, basis="unknown", symbols=["AAA"]))
    put(tmp_path, "two", "equity_ohlcv", undated)
    put(tmp_path, "three", "equity_ohlcv", raw_bars(market))
    build(tmp_path)
    reasons = {(row["vendor"], row["reason"]) for row in quarantine(tmp_path)}
    assert reasons == {("one", "basis_unknown"), ("two", "basis_as_of_missing")}
    assert set(canonical(tmp_path)["vendor"].to_pylist()) == {"three"}


def test_dividends_and_splits_that_no_table_has_come_from_the_adjusted_close(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, adj_close=True))
    build(tmp_path)
    rows = canonical(tmp_path, "corporate_actions").to_pylist()
    found = {(row["symbol"], str(row["ex_date"]), row["kind"], row["ratio"] or row["cash_usd"]) for row in rows}
    kinds = {"split": "split", "dividend": "cash_dividend"}
    assert found == {(symbol, str(market.sessions[at]), kinds[kind], number) for symbol, at, kind, number in EVENTS}
    assert {row["flags"] for row in rows} == {"implied"}
    assert {row["vendor"] for row in rows} == {"one"}
    assert all(row["known_on"] < row["ex_date"] for row in rows)


def test_derivation_can_be_turned_off(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, adj_close=True))
    build(tmp_path, canonical_config(implied_actions=False))
    assert len(canonical(tmp_path, "corporate_actions")) == 0


def test_a_listed_dividend_is_not_doubled_by_the_one_that_the_adjusted_close_implies(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, adj_close=True))
    put(tmp_path, "two", "corporate_actions", raw_actions(market))
    build(tmp_path, canonical_config(sources__corporate_actions__priority=["two", "one"]))
    table = canonical(tmp_path, "corporate_actions")
    assert len(table) == len(EVENTS)
    assert set(table["vendor"].to_pylist()) == {"two"}
    seen = {(row["kind"], row["vendors_seen"]) for row in table.to_pylist()}
    assert seen == {("cash_dividend", "one|two"), ("split", "two")}  # a listed split leaves nothing to imply


def test_an_adjusted_price_says_so_in_its_flags(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, basis="split", volume_basis="split"))
    put(tmp_path, "one", "corporate_actions", raw_actions(market))
    assert all("adjusted_basis" in flags.split("|") for flags in build(tmp_path)["flags"].to_pylist())


def test_a_step_like_a_split_that_no_action_explains_is_flagged(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    listed = raw_actions(market).to_pylist()
    missing = [row for row in listed if row["symbol"] != "BBB"]
    put(tmp_path, "one", "corporate_actions", pa.Table.from_pylist(missing, schema=raw_actions(market).schema))
    flags = cells(build(tmp_path), "flags")
    suspected = {key for key, value in flags.items() if "suspected_split" in value.split("|")}
    assert suspected == {(str(market.sessions[25]), "BBB")}
    report = json.loads((tmp_path / "reports/canonical/canonical_report.json").read_text())
    assert report["suspected_splits"] == [["BBB", str(market.sessions[25])]]


def test_a_listed_split_that_the_prices_do_not_show_leaves_no_row_before_it(tmp_path: Path) -> None:
    market = true_market()
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    false = action_row("AAA", market.sessions[20].astype(object), "split", 2.0)
    put(tmp_path, "one", "corporate_actions", pa.Table.from_pylist([false], schema=RAW["corporate_actions"]))
    sessions = [session for session, symbol in cells(build(tmp_path), "flags") if symbol == "AAA"]
    assert sessions == [str(session) for session in market.sessions[20:]]
    assert [row["reason"] for row in quarantine(tmp_path)] == ["split_contradicted"] * 20
