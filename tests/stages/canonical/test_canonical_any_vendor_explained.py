"""Defects planted anywhere in markets that nobody tuned to: found where they are, and called what they are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.stages.canonical.test_canonical_disagreement_classes import PRICES, classes
from tests.stages.canonical.vendor_tables import Market, true_market

SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
Found = dict[tuple[str, str, str], str]
Changes = dict[tuple[str, int, str], float]

seeds = st.integers(0, 10**6)
positions = st.integers(12, 48)
symbols = st.sampled_from(SYMBOLS)


def found_in(market: Market, changes: Changes, volume_basis: str = "raw") -> Found:
    """Build in a folder of its own, without anything remembered, and return the classes."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTO_DATA_ROOT", folder + "/root")
        return classes(Path(folder), market, changes=changes, volume_basis=volume_basis)


def prices(market: Market, symbol: str, at: int, factor: float) -> Changes:
    return {(symbol, at, name): float(market.bars[name][at, market.column(symbol)]) * factor for name in PRICES}


@settings(deadline=None, max_examples=6)
@given(seeds, symbols, positions, st.integers(20, 150))
def test_a_close_short_of_the_dividend_before_any_ex_date(seed: int, symbol: str, at: int, cents: int) -> None:
    market = true_market(SYMBOLS, seed=seed, events=((symbol, at, "dividend", cents / 100),))
    column = market.column(symbol)
    close = float(market.bars["close"][at - 1, column])
    assume(cents / 100 / close > 0.002)
    low = min(float(market.bars["low"][at - 1, column]), close - cents / 100)
    found = found_in(market, {(symbol, at - 1, "close"): round(close - cents / 100, 2), (symbol, at - 1, "low"): low - 0.01})
    assert {key: kind for key, kind in found.items() if key[2] == "close"} == {
        (str(market.sessions[at - 1]), symbol, "close"): "dividend_basis"
    }


@settings(deadline=None, max_examples=6)
@given(seeds, symbols, positions, st.sampled_from([1.5, 2.0, 3.0, 7.0, 20.0, 0.1]))
def test_volumes_on_the_basis_after_any_split(seed: int, symbol: str, at: int, ratio: float) -> None:
    market = true_market(SYMBOLS, seed=seed, events=((symbol, at, "split", ratio),))
    column = market.column(symbol)
    changes = {(symbol, row, "volume"): float(market.bars["volume"][row, column]) * ratio for row in range(at)}
    found = found_in(market, changes)
    assert found == {(str(market.sessions[row]), symbol, "volume"): "volume_basis" for row in range(at)}


@settings(deadline=None, max_examples=6)
@given(seeds, symbols, positions, st.sampled_from([1.5, 2.0, 3.0, 7.0, 20.0]))
def test_prices_that_missed_any_split(seed: int, symbol: str, at: int, ratio: float) -> None:
    market = true_market(SYMBOLS, seed=seed, events=((symbol, at, "split", ratio),))
    changes: Changes = {}
    for row in range(at):
        changes |= prices(market, symbol, row, 1 / ratio)
    found = found_in(market, changes)
    assert {key for key in found if key[2] == "close"} == {(str(market.sessions[row]), symbol, "close") for row in range(at)}
    assert set(found.values()) == {"split_basis"}


@settings(deadline=None, max_examples=6)
@given(seeds, positions)
def test_any_session_that_a_vendor_has_wrong_for_everybody(seed: int, at: int) -> None:
    market = true_market(SYMBOLS, seed=seed)
    rng = np.random.default_rng(seed)
    changes: Changes = {}
    for symbol in SYMBOLS:
        changes |= prices(market, symbol, at, 1 + float(rng.uniform(0.012, 0.03)))
    found = found_in(market, changes)
    closes = {key: kind for key, kind in found.items() if key[2] == "close"}
    assert closes == {(str(market.sessions[at]), symbol, "close"): "bad_session" for symbol in SYMBOLS}


@settings(deadline=None, max_examples=6)
@given(seeds, symbols, positions, st.integers(2, 6), st.sampled_from([100.0, 1000.0, 0.01]))
def test_any_stretch_in_another_unit(seed: int, symbol: str, at: int, length: int, factor: float) -> None:
    market = true_market(SYMBOLS, seed=seed)
    changes: Changes = {}
    for row in range(at, at + length):
        changes |= prices(market, symbol, row, factor)
    found = found_in(market, changes)
    assert {key for key in found if key[2] == "close"} == {(str(market.sessions[row]), symbol, "close") for row in range(at, at + length)}
    assert set(found.values()) == {"unit_error"}


@settings(deadline=None, max_examples=6)
@given(seeds, symbols, positions, st.integers(4, 10))
def test_any_stretch_told_a_session_late(seed: int, symbol: str, at: int, length: int) -> None:
    market = true_market(SYMBOLS, seed=seed)
    column = market.column(symbol)
    rows = range(at, at + length)
    # A close that truly repeats looks, told late, like a stale one.
    assume((np.diff(market.bars["close"][at - 2 : at + length, column]) != 0).all())
    changes = {(symbol, row, name): float(market.bars[name][row - 1, column]) for row in rows for name in (*PRICES, "volume")}
    found = found_in(market, changes)
    shifted = {key: kind for key, kind in found.items() if key[2] == "close"}
    assert shifted
    # At its beginning a shifted stretch repeats the last true bar: that is a stale fill.
    assert set(shifted.values()) <= {"one_day_shift", "stale_fill"}
    assert list(shifted.values()).count("one_day_shift") >= len(shifted) - 1
