"""Versions of rows, membership, identities: what was known and who existed when."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quanto.core.errors import ConfigError, MissingDataError
from quanto.core.store import read_table
from quanto.market.calendar import sessions_between
from quanto.market.point_in_time import IDENTITY, MEMBERSHIP, as_known, as_of, members
from quanto.market.schema import CANONICAL, KEYS, RAW
from tests.stages.canonical.vendor_tables import (
    action_row,
    build,
    canonical,
    canonical_config,
    put,
    raw_bars,
    true_market,
)


def test_a_restated_row_keeps_its_history_and_each_day_reads_what_it_knew(tmp_path: Path) -> None:
    market = true_market()
    table = raw_bars(market)
    rows = table.to_pylist()
    first = {**rows[4], "close": rows[4]["close"] - 0.01, "payload": "first"}
    known = rows[4]["known_on"] + timedelta(days=10)
    rows[4] = {**rows[4], "known_on": known}
    put(tmp_path, "one", "equity_ohlcv", pa.Table.from_pylist([*rows, first], schema=table.schema))
    current = build(tmp_path)
    restated = read_table(tmp_path / "data/canonical/restated/equity_ohlcv.parquet", CANONICAL["equity_ohlcv"])
    assert [(row["payload"], row["flags"]) for row in restated.to_pylist()] == [("first", "restated")]
    versions = pa.concat_tables([current, restated])
    for day, close in ((known - timedelta(days=1), first["close"]), (known, rows[4]["close"])):
        view = as_of(versions, day, KEYS["equity_ohlcv"]).to_pylist()
        found = [row["close"] for row in view if (row["session"], row["symbol"]) == (rows[4]["session"], rows[4]["symbol"])]
        assert found == [close]


def test_a_version_of_a_vendor_that_was_not_chosen_is_no_history_of_the_canonical_row(tmp_path: Path) -> None:
    market = true_market()
    table = raw_bars(market)
    rows = table.to_pylist()
    later = {**rows[4], "volume": 1.0, "known_on": rows[4]["known_on"] + timedelta(days=2), "payload_row": 900}
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    put(tmp_path, "two", "equity_ohlcv", pa.Table.from_pylist([*rows, later], schema=table.schema))
    build(tmp_path)
    assert len(read_table(tmp_path / "data/canonical/restated/equity_ohlcv.parquet")) == 0


def test_a_symbol_is_listed_from_its_first_bar_to_the_event_that_ended_it(tmp_path: Path) -> None:
    market = true_market()
    keep = np.ones(market.bars["close"].shape, dtype=bool)
    keep[40:, 1], keep[:10, 2] = False, False
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=keep))
    end = market.sessions[40].astype(object)
    put(
        tmp_path,
        "one",
        "corporate_actions",
        pa.Table.from_pylist([action_row("BBB", end, "delisting", 0.5)], schema=RAW["corporate_actions"]),
    )
    build(tmp_path)
    table = read_table(tmp_path / "data/canonical/membership/part.parquet", MEMBERSHIP)
    inside = members(table, "listed", market.sessions, ("AAA", "BBB", "CCC"))
    np.testing.assert_array_equal(inside, keep)
    assert canonical(tmp_path)["symbol"].to_pylist().count("BBB") == 40  # its history stays


def test_index_membership_comes_from_the_configuration_and_from_files(tmp_path: Path) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(true_market()))
    path = tmp_path / "conf/reference/index.csv"
    path.parent.mkdir(parents=True)
    path.write_text("universe,symbol,start,end\nsp3,AAA,2010-01-04,2010-11-30\nsp3,AAA,2011-01-03,\n")
    config = canonical_config(
        sources__membership=[{"universe": "sp3", "symbol": "BBB", "start": "2010-12-01", "end": None}],
        sources__membership_files=["conf/reference/index.csv"],
    )
    build(tmp_path, config)
    table = read_table(tmp_path / "data/canonical/membership/part.parquet", MEMBERSHIP)
    days = sessions_between(date(2010, 11, 29), date(2010, 12, 2))
    assert members(table, "sp3", days, ("AAA", "BBB")).tolist() == [[True, False], [True, False], [False, True], [False, True]]
    assert members(table, "sp3", sessions_between(date(2011, 1, 3), date(2011, 1, 3)), ("AAA",)).all()
    with pytest.raises(MissingDataError, match="no membership of universe 'sp500' is recorded; known: listed, sp3"):
        members(table, "sp500", days, ("AAA",))


@pytest.mark.parametrize(("text", "message"), [("2010-13-01", "start"), ("", "start")])
def test_a_membership_file_with_a_bad_date_is_named_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(true_market()))
    path = tmp_path / "conf/reference/index.csv"
    path.parent.mkdir(parents=True)
    path.write_text(f"universe,symbol,start,end\nsp3,AAA,{text},\n")
    with pytest.raises(ConfigError, match=rf"conf/reference/index\.csv:2\.{message}"):
        build(tmp_path, canonical_config(sources__membership_files=["conf/reference/index.csv"]))
    with pytest.raises(MissingDataError, match=r"names conf/reference/none\.csv"):
        build(tmp_path, canonical_config(sources__membership_files=["conf/reference/none.csv"]))
    with pytest.raises(ConfigError, match="membership_files"):
        canonical_config(sources__membership_files=["../secrets.csv"])


def test_symbol_changes_and_rules_make_the_identity_table(tmp_path: Path) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(true_market()))
    change = action_row("FB", date(2022, 6, 9), "symbol_change", None, other_symbol="META")
    put(tmp_path, "one", "corporate_actions", pa.Table.from_pylist([change], schema=RAW["corporate_actions"]))
    rule = {"symbol": "AAA", "start": None, "end": date(2010, 12, 1), "entity": "AAA.old"}
    build(tmp_path, canonical_config(sources__identity=[rule]))
    rows = read_table(tmp_path / "data/canonical/identity/part.parquet", IDENTITY).to_pylist()
    assert [(row["entity"], row["symbol"], row["start"], row["end"]) for row in rows] == [
        ("AAA.old", "AAA", None, date(2010, 12, 1)),
        ("META", "FB", None, date(2022, 6, 8)),
        ("META", "META", date(2022, 6, 9), None),
    ]


def test_the_page_stands_alone_and_shows_gaps_and_reasons(tmp_path: Path) -> None:
    market = true_market()
    keep = np.ones(market.bars["close"].shape, dtype=bool)
    keep[20:23, 0] = False
    odd = {("BBB", 30, "close"): -1.0, ("CCC", 31, "close"): float(market.bars["low"][31, 2])}
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=keep, changes=odd))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, symbols=["CCC"]))
    build(tmp_path)
    page = (tmp_path / "reports/canonical/quality.html").read_text()
    assert f"AAA: 3 sessions missing, {market.sessions[20]} to {market.sessions[22]}" in page
    assert "not_positive" in page
    assert "bad_tick" in page
    assert "<script" not in page
    assert "http" not in page


def restated(workspace: Path, domain: str) -> pa.Table:
    return read_table(workspace / f"data/canonical/restated/{domain}.parquet", CANONICAL[domain])


def known(workspace: Path, domain: str, day: date) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = as_known(domain, canonical(workspace, domain), restated(workspace, domain), day).to_pylist()
    return rows


def test_an_action_reads_as_it_was_announced_then(tmp_path: Path) -> None:
    market = true_market()
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    ex, early, late = market.sessions[40].astype(object), market.sessions[10].astype(object), market.sessions[30].astype(object)
    rows = [
        action_row("AAA", ex, "cash_dividend", 0.50, row=0, known_on=early),
        action_row("AAA", ex, "cash_dividend", 0.75, row=1, known_on=late),
        action_row("BBB", ex, "cash_dividend", 0.10, row=2, known_on=early),
        action_row("BBB", ex, "cash_dividend", 0.10, row=3, known_on=late),  # told again, unchanged
    ]
    put(tmp_path, "one", "corporate_actions", pa.Table.from_pylist(rows, schema=RAW["corporate_actions"]))
    build(tmp_path)
    views = {day: [(row["symbol"], row["cash_usd"]) for row in known(tmp_path, "corporate_actions", day)] for day in (early, late)}
    assert views == {early: [("AAA", 0.5), ("BBB", 0.1)], late: [("AAA", 0.75), ("BBB", 0.1)]}
    assert known(tmp_path, "corporate_actions", early - timedelta(days=1)) == []
    assert {row["flags"] for row in restated(tmp_path, "corporate_actions").to_pylist()} == {"restated"}


def test_a_level_and_a_surface_read_as_they_were_known_then(tmp_path: Path) -> None:
    market = true_market()
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    day, later = market.sessions[5].astype(object), market.sessions[9].astype(object)
    level = {"session": day, "series": "SPX", "unit": "level", "payload": "p"}
    levels = [
        {**level, "value": 1100.0, "known_on": day, "payload_row": 0},
        {**level, "value": 1101.0, "known_on": later, "payload_row": 1},
    ]
    put(tmp_path, "one", "index_level", pa.Table.from_pylist(levels, schema=RAW["index_level"]))
    node = {"session": day, "symbol": "AAA", "tenor_days": 30.0, "side": "M", "delta": 0.5, "payload": "s"}
    nodes = [{**node, "iv": 0.2, "known_on": day, "payload_row": 0}, {**node, "iv": 0.3, "known_on": later, "payload_row": 1}]
    put(tmp_path, "one", "options_surface", pa.Table.from_pylist(nodes, schema=RAW["options_surface"]))
    build(tmp_path)
    for domain, column, values in (("index_level", "value", (1100.0, 1101.0)), ("options_surface", "iv", (0.2, 0.3))):
        assert [row[column] for row in canonical(tmp_path, domain).to_pylist()] == [values[1]]
        for when, value in zip((day, later - timedelta(days=1), later), (values[0], *values), strict=True):
            assert [row[column] for row in known(tmp_path, domain, when)] == [value]


def test_a_version_of_a_level_that_was_not_chosen_is_no_history(tmp_path: Path) -> None:
    market = true_market()
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    for vendor, versions in (("one", 1), ("two", 2)):
        rows = [
            {"session": session.astype(object), "series": "SPX", "value": 1100.0, "unit": "level", "payload": vendor, "payload_row": at,
             "known_on": session.astype(object) + timedelta(days=version)}
            for version in range(versions) for at, session in enumerate(market.sessions)
        ]  # fmt: skip
        put(tmp_path, vendor, "index_level", pa.Table.from_pylist(rows, schema=RAW["index_level"]))
    build(tmp_path)
    assert len(restated(tmp_path, "index_level")) == 0


def test_a_bar_that_was_told_again_unchanged_was_known_from_the_first_day(tmp_path: Path) -> None:
    market = true_market()
    table = raw_bars(market)
    rows = table.to_pylist()
    again = {**rows[4], "known_on": rows[4]["known_on"] + timedelta(days=10), "payload_row": 900}
    put(tmp_path, "one", "equity_ohlcv", pa.Table.from_pylist([*rows, again], schema=table.schema))
    build(tmp_path)
    found = [row for row in known(tmp_path, "equity_ohlcv", rows[4]["known_on"]) if row["session"] == rows[4]["session"]]
    assert [row["close"] for row in found if row["symbol"] == rows[4]["symbol"]] == [rows[4]["close"]]
