"""A vendor of lower rank fills gaps only where it proved to be on the same basis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.stages.canonical.vendor_tables import Market, build, canonical_config, cells, put, quarantine, raw_bars, true_market


@pytest.fixture
def market() -> Market:
    return true_market(("AAA", "BBB"), sessions=320)


def gap(market: Market, first: int, last: int, column: int = 0) -> np.ndarray:
    keep = np.ones(market.bars["close"].shape, dtype=bool)
    keep[first:last, column] = False
    return keep


def scaled(market: Market, factor: float, first: int = 0, last: int | None = None) -> dict[tuple[str, int, str], float]:
    stop = len(market.sessions) if last is None else last
    return {("AAA", at, n): float(market.bars[n][at, 0]) * factor for at in range(first, stop) for n in ("open", "high", "low", "close")}


def test_a_vendor_that_agrees_where_both_have_rows_fills_the_gap(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=gap(market, 100, 120)))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market))
    table = build(tmp_path)
    filled = {key for key, method in cells(table, "method").items() if method == "fallback"}
    assert filled == {(str(day), "AAA") for day in market.sessions[100:120]}


def test_a_vendor_on_another_undeclared_basis_fills_nothing_so_no_return_is_invented(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=gap(market, 100, 120)))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, changes=scaled(market, 0.5)))
    table = build(tmp_path)
    assert set(table["vendor"].to_pylist()) == {"one"}
    assert len(table) == 620
    assert [row["reason"] for row in quarantine(tmp_path)] == ["fallback_disagrees"] * 20
    close = [value for key, value in cells(table, "close").items() if key[1] == "AAA"]
    assert max(abs(np.diff(np.log(close)))) < 0.4


def test_a_segment_that_changes_its_basis_between_years_is_used_in_the_good_years_only(tmp_path: Path, market: Market) -> None:
    january = int(np.searchsorted(market.sessions, np.datetime64("2011-12-01")))
    keep = gap(market, 20, 25) & gap(market, january + 5, january + 8)
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=keep))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, changes=scaled(market, 0.5, 0, 43)))
    table = build(tmp_path)
    filled = sorted(key[0] for key, method in cells(table, "method").items() if method == "fallback")
    assert filled == [str(day) for day in market.sessions[january + 5 : january + 8]]


def test_a_vendor_that_never_overlaps_and_joins_seamlessly_is_refused(tmp_path: Path, market: Market) -> None:
    first = np.zeros(market.bars["close"].shape, dtype=bool)
    first[:150] = True
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=first))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, keep=~first))
    table = build(tmp_path)
    assert set(table["vendor"].to_pylist()) == {"one"}
    assert {row["reason"] for row in quarantine(tmp_path)} == {"fallback_without_overlap"}


def test_a_segment_of_its_own_far_from_the_others_stands(tmp_path: Path, market: Market) -> None:
    early, late = (np.zeros(market.bars["close"].shape, dtype=bool) for _ in range(2))
    early[:100], late[160:] = True, True
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=late))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, keep=early))
    table = build(tmp_path)
    assert len(table) == 2 * (100 + 160)
    assert quarantine(tmp_path) == []


def test_a_chain_of_vendors_bridges_a_history_where_neighbours_overlap(tmp_path: Path, market: Market) -> None:
    spans = {"one": (200, 320), "two": (100, 220), "three": (0, 120)}
    for vendor, (first, last) in spans.items():
        keep = np.zeros(market.bars["close"].shape, dtype=bool)
        keep[first:last] = True
        put(tmp_path, vendor, "equity_ohlcv", raw_bars(market, keep=keep))
    table = build(tmp_path)
    assert len(table) == 640
    assert quarantine(tmp_path) == []


def test_the_overlap_that_is_asked_for_is_the_overlap_that_decides(tmp_path: Path, market: Market) -> None:
    first, second = (np.zeros(market.bars["close"].shape, dtype=bool) for _ in range(2))
    first[:150], second[140:] = True, True
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=first))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, keep=second))
    assert len(build(tmp_path, canonical_config(fallback__overlap_sessions=10))) == 640
    assert len(build(tmp_path, canonical_config(fallback__overlap_sessions=11))) == 300


def test_a_vendor_whose_every_row_is_unbelievable_does_not_bar_the_others(tmp_path: Path, market: Market) -> None:
    table = raw_bars(market, basis="unknown")
    put(tmp_path, "one", "equity_ohlcv", table)
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market))
    built = build(tmp_path)
    assert set(built["method"].to_pylist()) == {"only"}
    assert len(built) == 640
    assert isinstance(table, pa.Table)
