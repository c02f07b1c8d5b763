"""Each kind of difference between vendors gets its own name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.stages.canonical.vendor_tables import Market, build, canonical_config, put, raw_actions, raw_bars, true_market

PRICES = ("open", "high", "low", "close")
EVENTS = (("AAA", 30, "split", 2.0), ("BBB", 30, "dividend", 0.55))


@pytest.fixture
def market() -> Market:
    return true_market(events=EVENTS)


def classes(workspace: Path, market: Market, **vendors: object) -> dict[tuple[str, str, str], str]:
    """Build and return the class by (session, symbol, field)."""
    put(workspace, "one", "equity_ohlcv", raw_bars(market))
    put(workspace, "two", "equity_ohlcv", raw_bars(market, **vendors))  # type: ignore[arg-type]
    put(workspace, "one", "corporate_actions", raw_actions(market))
    build(workspace, canonical_config(validation__spike_move=5.0))
    with (workspace / "reports/canonical/disagreements.csv").open() as stream:
        return {(row["session"], row["symbol"], row["field"]): row["class"] for row in csv.DictReader(stream)}


def bar(market: Market, symbol: str, at: int, factor: float = 1.0, fields: tuple[str, ...] = PRICES) -> dict[tuple[str, int, str], float]:
    return {(symbol, at, name): float(market.bars[name][at, market.column(symbol)]) * factor for name in fields}


def day(market: Market, at: int) -> str:
    return str(market.sessions[at])


def test_a_split_that_one_vendor_missed_is_a_split_basis(tmp_path: Path, market: Market) -> None:
    changes = {key: value for at in range(30) for key, value in bar(market, "AAA", at, 0.5).items()}
    found = classes(tmp_path, market, changes=changes)
    assert set(found) == {(day(market, at), "AAA", name) for at in range(30) for name in PRICES}
    assert set(found.values()) == {"split_basis"}


def test_a_volume_on_another_split_basis_is_a_volume_basis(tmp_path: Path, market: Market) -> None:
    changes = {("AAA", at, "volume"): float(market.bars["volume"][at, 0]) * 2 for at in range(30)}
    assert set(classes(tmp_path, market, changes=changes).values()) == {"volume_basis"}


def test_prices_lowered_by_later_dividends_are_a_dividend_basis(tmp_path: Path, market: Market) -> None:
    changes = {key: value for at in range(30) for key, value in bar(market, "BBB", at, 1 - 0.55 / 60).items()}
    assert set(classes(tmp_path, market, changes=changes).values()) == {"dividend_basis"}


def test_a_close_short_of_exactly_the_dividend_before_the_ex_date_is_a_dividend_basis(tmp_path: Path, market: Market) -> None:
    close = float(market.bars["close"][29, 1])
    changes = {("BBB", 29, "close"): close - 0.55, ("BBB", 29, "low"): close - 0.60}
    assert classes(tmp_path, market, changes=changes)[day(market, 29), "BBB", "close"] == "dividend_basis"


def test_prices_in_cents_are_a_unit_error(tmp_path: Path, market: Market) -> None:
    assert set(classes(tmp_path, market, changes=bar(market, "CCC", 20, 100.0)).values()) == {"unit_error"}


def test_a_vendor_that_is_a_day_late_is_shifted(tmp_path: Path, market: Market) -> None:
    changes = {("CCC", at, name): float(market.bars[name][at - 1, 2]) for at in range(10, 50) for name in (*PRICES, "volume")}
    found = classes(tmp_path, market, changes=changes)
    closes = [kind for (_, _, name), kind in found.items() if name == "close"]
    assert len(closes) >= 38
    assert closes.count("one_day_shift") >= 0.95 * len(closes)


def test_a_vendor_that_repeats_its_last_close_fills_stale(tmp_path: Path, market: Market) -> None:
    changes = {("CCC", 20, name): float(market.bars[name][19, 2]) for name in (*PRICES, "volume")}
    assert classes(tmp_path, market, changes=changes)[day(market, 20), "CCC", "close"] == "stale_fill"


def test_one_tick_is_rounding(tmp_path: Path) -> None:
    market = true_market()
    market.bars["close"][20, 0], market.bars["open"][20, 0] = 8.00, 8.02
    market.bars["high"][20, 0], market.bars["low"][20, 0] = 8.10, 7.90
    assert classes(tmp_path, market, changes={("AAA", 20, "close"): 8.01}) == {(day(market, 20), "AAA", "close"): "rounding"}


def test_the_rounding_of_a_vendor_that_adjusts_in_cents_grows_with_its_factor(tmp_path: Path) -> None:
    market = true_market(("AAA",), events=(("AAA", 50, "split", 20.0),))
    adjusted = raw_bars(market, basis="split", volume_basis="split").to_pylist()
    rounded = {
        ("AAA", int(np.searchsorted(market.sessions, np.datetime64(row["session"]))), name): round(row[name], 2)
        for row in adjusted for name in PRICES
    }  # fmt: skip
    found = classes(tmp_path, market, basis="split", volume_basis="split", changes=rounded)
    assert found
    assert set(found.values()) <= {"rounding", "open_auction", "range_rules"}
    assert {kind for (_, _, name), kind in found.items() if name == "close"} == {"rounding"}


def test_another_first_trade_is_an_auction_difference_and_another_extreme_a_range_rule(tmp_path: Path, market: Market) -> None:
    changes = bar(market, "CCC", 20, 1.006, ("high",)) | {("CCC", 21, "open"): float(market.bars["low"][21, 2])}
    found = classes(tmp_path, market, changes=changes)
    assert found == {(day(market, 20), "CCC", "high"): "range_rules", (day(market, 21), "CCC", "open"): "open_auction"}


def test_a_lone_odd_close_is_a_bad_tick_and_one_in_most_symbols_a_bad_session(tmp_path: Path, market: Market) -> None:
    middle = {(symbol, 25, "close"): float(market.bars["low"][25, market.column(symbol)]) for symbol in market.symbols}
    alone = {("CCC", 40, "close"): float(market.bars["low"][40, 2]) + 0.011}
    found = classes(tmp_path, market, changes=middle | alone)
    assert {kind for (when, _, _), kind in found.items() if when == day(market, 25)} == {"bad_session"}
    assert found[day(market, 40), "CCC", "close"] == "bad_tick"


def test_another_volume_is_a_volume_difference(tmp_path: Path, market: Market) -> None:
    changes = {("CCC", 20, "volume"): float(market.bars["volume"][20, 2]) * 1.13}
    assert classes(tmp_path, market, changes=changes) == {(day(market, 20), "CCC", "volume"): "volume_difference"}


def test_the_report_counts_every_difference_by_pair_field_and_class(tmp_path: Path, market: Market) -> None:
    classes(tmp_path, market, changes=bar(market, "CCC", 20, 100.0))
    report = json.loads((tmp_path / "reports/canonical/canonical_report.json").read_text())["disagreement"]
    assert {(row["vendor"], row["other"], row["field"], row["class"], row["rows"]) for row in report["classes"]} == {
        ("one", "two", name, "unit_error", 1) for name in PRICES
    }
    assert all(row["cells"] == 180 for row in report["compared"])
