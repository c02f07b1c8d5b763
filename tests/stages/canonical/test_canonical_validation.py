"""What is unbelievable goes to the quarantine, with its reason and its way back."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from quanto.market.schema import RAW
from tests.stages.canonical.vendor_tables import action_row, build, canonical_config, cells, put, quarantine, raw_bars, true_market

NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"close": NAN}, "missing_field"),
        ({"volume": NAN}, "missing_field"),
        ({"open": 0.0}, "not_positive"),
        ({"low": -3.0}, "not_positive"),
        ({"close": float("inf")}, "not_positive"),
        ({"volume": -1.0}, "negative_volume"),
        ({"high": 0.5}, "inconsistent_bar"),
        ({"close": 100000.0}, "inconsistent_bar"),
        ({"open": 0.01}, "inconsistent_bar"),
    ],
)
def test_an_impossible_bar_is_quarantined_and_the_next_vendor_takes_its_place(
    tmp_path: Path, changes: dict[str, float], reason: str
) -> None:
    market = true_market()
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, changes={("BBB", 30, name): value for name, value in changes.items()}))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market))
    table = build(tmp_path)
    key = (str(market.sessions[30]), "BBB")
    assert {k: v for k, v in cells(table, "vendor").items() if v == "two"} == {key: "two"}
    rows = quarantine(tmp_path)
    assert [row["key"] for row in rows] == ["/".join(key)]
    assert reason in rows[0]["reason"].split("|")
    assert rows[0]["payload"] == "p"
    assert json.loads(rows[0]["row"])["symbol"] == "BBB"


def test_a_bar_on_a_day_without_trading_is_quarantined(tmp_path: Path) -> None:
    table = raw_bars(true_market(start=date(2010, 11, 1)))
    rows = table.to_pylist()
    rows[0]["session"] = date(2010, 11, 25)  # Thanksgiving
    rows[1]["session"] = date(2010, 11, 27)  # a Saturday
    put(tmp_path, "one", "equity_ohlcv", pa.Table.from_pylist(rows, schema=table.schema))
    build(tmp_path)
    assert [row["reason"] for row in quarantine(tmp_path)] == ["not_a_session"] * 2


def test_a_price_that_jumps_and_reverts_is_a_bad_tick_unless_another_vendor_has_it_too(tmp_path: Path) -> None:
    market = true_market()
    spike = {(symbol, 30, name): float(market.bars[name][30, market.column(symbol)]) * 1.6 for symbol in ("AAA", "BBB")
             for name in ("open", "high", "low", "close")}  # fmt: skip
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, changes=spike))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, changes={key: value for key, value in spike.items() if key[0] == "BBB"}))
    table = build(tmp_path)
    assert [(row["key"], row["reason"]) for row in quarantine(tmp_path)] == [(f"{market.sessions[30]}/AAA", "bad_tick")]
    assert "spike_confirmed" in cells(table, "flags")[str(market.sessions[30]), "BBB"].split("|")


@pytest.mark.parametrize(("name", "factor"), [("high", 30.0), ("low", 0.1)])
def test_an_extreme_out_of_all_proportion_is_a_bad_tick_and_a_wide_day_is_not(tmp_path: Path, name: str, factor: float) -> None:
    market = true_market()
    wild = {("AAA", 30, name): float(market.bars[name][30, 0]) * factor}
    wide = {("BBB", 30, name): float(market.bars[name][30, 1]) * (1.25 if factor > 1 else 0.8)}
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, changes=wild | wide))
    build(tmp_path)
    assert [(row["key"], row["reason"]) for row in quarantine(tmp_path)] == [(f"{market.sessions[30]}/AAA", "bad_tick")]


def test_a_price_that_jumps_and_stays_is_no_bad_tick(tmp_path: Path) -> None:
    market = true_market()
    crash = {("AAA", at, name): float(market.bars[name][at, 0]) * 0.5 for at in range(30, 60) for name in ("open", "high", "low", "close")}
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, changes=crash))
    build(tmp_path)
    assert quarantine(tmp_path) == []


def test_a_vendor_that_repeats_a_bar_for_days_is_stale(tmp_path: Path) -> None:
    market = true_market()
    frozen = {("CCC", at, name): float(values[20, 2]) for at in range(21, 28) for name, values in market.bars.items()}
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, changes=frozen))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market))
    table = build(tmp_path, canonical_config(validation__stale_sessions=3))
    assert [row["reason"] for row in quarantine(tmp_path)] == ["stale_fill"] * 5
    flags = cells(table, "flags")
    assert all("repeated" in flags[str(day), "CCC"] for day in market.sessions[21:23])
    assert [cells(table, "vendor")[str(day), "CCC"] for day in market.sessions[23:28]] == ["two"] * 5


def test_equal_duplicates_are_merged_and_contradictions_are_quarantined(tmp_path: Path) -> None:
    market = true_market()
    table = raw_bars(market)
    rows = table.to_pylist()
    same = {**rows[0], "payload_row": 900}
    other = {**rows[4], "close": rows[4]["close"] * 1.0001, "payload_row": 901}
    put(tmp_path, "one", "equity_ohlcv", pa.Table.from_pylist([*rows, same, other], schema=table.schema))
    built = build(tmp_path)
    assert len(built) == 179
    assert [row["reason"] for row in quarantine(tmp_path)] == ["conflicting_duplicate"] * 2


def test_a_later_version_of_a_row_replaces_the_earlier_one(tmp_path: Path) -> None:
    market = true_market()
    table = raw_bars(market)
    rows = table.to_pylist()
    known = rows[4]["known_on"] + timedelta(days=3)
    later = {**rows[4], "volume": 12345.0, "known_on": known, "payload": "restated"}
    put(tmp_path, "one", "equity_ohlcv", pa.Table.from_pylist([later, *rows], schema=table.schema))
    built = build(tmp_path)
    key = (str(rows[4]["session"]), rows[4]["symbol"])
    assert cells(built, "volume")[key] == 12345.0
    assert cells(built, "known_on")[key] == known
    assert quarantine(tmp_path) == []
    assert len(built) == 180


def test_an_action_that_nobody_understands_quarantines_its_symbol_from_its_date_on(tmp_path: Path) -> None:
    market = true_market()
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    day = market.sessions[45].astype(object)
    put(
        tmp_path,
        "one",
        "corporate_actions",
        pa.Table.from_pylist([action_row("BBB", day, "unknown", None)], schema=RAW["corporate_actions"]),
    )
    table = build(tmp_path)
    assert {key for key in cells(table, "close") if key[1] == "BBB"} == {(str(day), "BBB") for day in market.sessions[:45]}
    rows = quarantine(tmp_path)
    assert [row["reason"] for row in rows] == ["unknown_kind", *["unknown_action"] * 15]
