"""One bar per cell: whose it is, who was seen, and how far they differ."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quanto.core.errors import ConfigError
from tests.stages.canonical.vendor_tables import build, canonical_config, cells, put, raw_bars, true_market


def test_the_first_vendor_with_a_bar_is_chosen_and_every_bar_says_who_else_was_seen(tmp_path: Path) -> None:
    market = true_market()
    keep = np.ones(market.bars["close"].shape, dtype=bool)
    keep[20, 1] = False
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=keep))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, payload="q"))
    table = build(tmp_path)
    assert len(table) == 180
    gap = (str(market.sessions[20]), "BBB")
    vendors, methods, payloads = (cells(table, name) for name in ("vendor", "method", "payload"))
    assert vendors[gap] == "two"
    assert methods[gap] == "fallback"
    assert payloads[gap] == "q"
    assert cells(table, "vendors_seen")[gap] == "two"
    del vendors[gap], methods[gap]
    assert set(vendors.values()) == {"one"}
    assert set(methods.values()) == {"priority"}


def test_a_bar_that_one_vendor_alone_has_is_marked_and_has_no_disagreement(tmp_path: Path) -> None:
    put(tmp_path, "two", "equity_ohlcv", raw_bars(true_market()))
    table = build(tmp_path)
    assert set(table["method"].to_pylist()) == {"only"}
    assert table["disagreement_close"].null_count == len(table)


def test_the_disagreement_is_the_largest_relative_difference_to_any_other_vendor(tmp_path: Path) -> None:
    market = true_market()
    close = float(market.bars["close"][10, 0])
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, changes={("AAA", 10, "close"): close * 1.001}))
    put(tmp_path, "three", "equity_ohlcv", raw_bars(market, changes={("AAA", 10, "close"): close * 0.998}))
    table = build(tmp_path)
    key = (str(market.sessions[10]), "AAA")
    assert cells(table, "disagreement_close")[key] == pytest.approx(0.002, abs=1e-12)
    assert "disagreement" in cells(table, "flags")[key].split("|")
    assert sum(value > 0 for value in cells(table, "disagreement_close").values()) == 1


def test_an_override_by_symbol_and_date_changes_the_order_there_and_nowhere_else(tmp_path: Path) -> None:
    market = true_market()
    for vendor in ("one", "two"):
        put(tmp_path, vendor, "equity_ohlcv", raw_bars(market))
    first, last = market.sessions[5].astype(object), market.sessions[9].astype(object)
    rule = {"symbols": ["BBB"], "start": first, "end": last, "priority": ["two"]}
    table = build(tmp_path, canonical_config(sources__equity_ohlcv__overrides=[rule]))
    chosen = {key for key, vendor in cells(table, "vendor").items() if vendor == "two"}
    assert chosen == {(str(day), "BBB") for day in market.sessions[5:10]}
    assert {cells(table, "method")[key] for key in chosen} == {"priority"}


def test_the_vote_of_two_outweighs_the_first_vendor_and_a_tie_goes_to_it(tmp_path: Path) -> None:
    market = true_market()
    wrong = {("AAA", 7, "close"): float(market.bars["close"][7, 0]) * 1.003}
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, changes=wrong))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market))
    put(tmp_path, "three", "equity_ohlcv", raw_bars(market, symbols=["AAA"]))
    table = build(tmp_path, canonical_config(sources__equity_ohlcv__policy="consensus"))
    key = (str(market.sessions[7]), "AAA")
    assert cells(table, "vendor")[key] == "two"
    assert cells(table, "method")[key] == "consensus"
    assert {vendor for cell, vendor in cells(table, "vendor").items() if cell != key} == {"one"}


def test_two_vendors_that_differ_are_a_tie_under_consensus(tmp_path: Path) -> None:
    market = true_market()
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, changes={("AAA", 7, "close"): float(market.bars["low"][7, 0])}))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market))
    table = build(tmp_path, canonical_config(sources__equity_ohlcv__policy="consensus"))
    assert set(table["vendor"].to_pylist()) == {"one"}


def test_a_vendor_that_no_list_names_is_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(true_market()))
    put(tmp_path, "stranger", "equity_ohlcv", raw_bars(true_market()))
    with pytest.raises(ConfigError, match=r"data_sources\.equity_ohlcv\.priority does not list stranger"):
        build(tmp_path)


def test_the_ticker_of_a_renamed_company_joins_its_entity(tmp_path: Path) -> None:
    market = true_market(("META",))
    old = raw_bars(market)
    at = old.column_names.index("symbol")
    early = old.slice(0, 30)
    put(
        tmp_path,
        "one",
        "equity_ohlcv",
        pa.concat_tables([early.set_column(at, old.schema.field("symbol"), pa.array(["FB"] * 30)), old.slice(30)]),
    )
    rule = {"symbol": "FB", "start": None, "end": date(2022, 6, 8), "entity": "META"}
    table = build(tmp_path, canonical_config(sources__identity=[rule]))
    assert set(table["symbol"].to_pylist()) == {"META"}
    assert len(table) == 60
    assert [flags == "renamed" for flags in table["flags"].to_pylist()] == [True] * 30 + [False] * 30


def test_a_ticker_used_again_by_another_company_does_not_join_the_first(tmp_path: Path) -> None:
    market = true_market(("AAA",))
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    end = market.sessions[24].astype(object)
    rule = {"symbol": "AAA", "start": None, "end": end, "entity": "AAA.old"}
    table = build(tmp_path, canonical_config(sources__identity=[rule]))
    assert [sum(name == wanted for name in table["symbol"].to_pylist()) for wanted in ("AAA.old", "AAA")] == [25, 35]
