"""Factors, views as of a day, and what an adjusted close reveals; golden numbers from outside the code."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import DataError
from quanto.market.calendar import sessions_between
from quanto.market.corporate_actions import (
    adjusted_view,
    adjustment_factors,
    delisting_returns,
    implied_actions,
    simple_fraction,
    split_history,
)
from quanto.market.panel import Panel
from quanto.market.schema import CANONICAL

DAYS = sessions_between(date(2010, 1, 4), date(2010, 3, 31))


def panel(close: list[float], split: list[float], dividend: list[float]) -> Panel:
    price = np.array(close)[:, None]
    return Panel(
        DAYS[: len(close)], ("AAA",), price, price, price, price, np.full(price.shape, 1000.0), np.array(split)[:, None],
        np.array(dividend)[:, None],
    )  # fmt: skip


def bars(close: list[float], known: list[date] | None = None) -> pa.Table:
    rows = [
        {"session": day, "symbol": "AAA", **dict.fromkeys(("open", "high", "low", "close"), value), "volume": 1000.0, "vendor": "v",
         "vendors_seen": "v", "method": "only", "flags": "", "known_on": known[i] if known else day, "payload": "p", "payload_row": i}
        for i, (day, value) in enumerate(zip(DAYS.astype(object), close, strict=False))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=CANONICAL["equity_ohlcv"])


def actions(*rows: tuple[int, str, float, int]) -> pa.Table:
    """(session of the ex-date, kind, number, session when it was known)."""
    found = [
        {"symbol": "AAA", "ex_date": DAYS[at].astype(object), "kind": kind, "ratio": number if kind == "split" else None,
         "cash_usd": None if kind == "split" else number, "other_symbol": None, "vendor": "v", "vendors_seen": "v", "method": "only",
         "flags": "", "known_on": DAYS[known].astype(object), "payload": "p", "payload_row": 0}
        for at, kind, number, known in rows
    ]  # fmt: skip
    return pa.Table.from_pylist(found, schema=CANONICAL["corporate_actions"])


def test_the_worked_example_of_the_vendor_sheet() -> None:
    # Raw 400.00, 101.00 (4:1 effective), 100.60 (ex 0.50): split 100.00, 101.00, 100.60; total 99.504950, 100.500000, 100.60.
    example = panel([400.0, 101.0, 100.6], [1, 4, 1], [0, 0, 0.5])
    split, shares = adjustment_factors(example, dividends=False)
    np.testing.assert_allclose((example.close * split)[:, 0], [100.0, 101.0, 100.6], rtol=1e-12)
    np.testing.assert_allclose(shares[:, 0], [4.0, 1.0, 1.0])
    total, _ = adjustment_factors(example, dividends=True)
    np.testing.assert_allclose((example.close * total)[:, 0], [99.504950495, 100.5, 100.6], rtol=1e-9)


def test_a_dividend_before_a_split_of_the_same_day_counts_per_old_share() -> None:
    # 100 held, ex 2.00 and 2:1 on one day: the holder has 2 x 49 + 2 = 100, so the total return is zero.
    example = panel([100.0, 49.0], [1, 2], [0, 2.0])
    total, _ = adjustment_factors(example, dividends=True)
    adjusted = (example.close * total)[:, 0]
    assert adjusted[1] / adjusted[0] == pytest.approx(1.0)


def test_a_later_action_never_changes_an_earlier_view() -> None:
    close = [100.0] * 10 + [50.0] * 10 + [49.5] * 10
    early, late = actions((10, "split", 2.0, 5)), actions((10, "split", 2.0, 5), (20, "cash_dividend", 0.5, 18), (25, "split", 3.0, 24))
    for basis in ("raw", "split", "total"):
        for at in (3, 9, 12, 17):
            day = DAYS[at].astype(object)
            one, other = (adjusted_view(bars(close), table, ("AAA",), day, basis) for table in (early, late))
            np.testing.assert_array_equal(one.close, other.close)
    today = adjusted_view(bars(close), late, ("AAA",), DAYS[24].astype(object), "split")
    np.testing.assert_allclose(today.close[:20, 0], 50.0)
    np.testing.assert_allclose(today.volume[:10, 0], 2000.0)


def test_an_action_counts_from_the_day_it_was_known_on() -> None:
    table = actions((10, "split", 2.0, 14))
    close = [100.0] * 10 + [50.0] * 20
    before, after = (adjusted_view(bars(close), table, ("AAA",), DAYS[at].astype(object), "split") for at in (13, 14))
    assert before.close[0, 0] == 100.0
    assert after.close[0, 0] == 50.0


def test_a_view_begins_when_something_was_known_and_has_a_basis() -> None:
    with pytest.raises(DataError, match="no bar was known on 2009-12-31"):
        adjusted_view(bars([1.0]), actions(), ("AAA",), date(2009, 12, 31), "raw")
    with pytest.raises(DataError, match="raw, split or total; found 'adjusted'"):
        adjusted_view(bars([1.0]), actions(), ("AAA",), date(2010, 1, 4), "adjusted")


def test_split_ratios_between_days_are_products_and_other_symbols_do_not_mix() -> None:
    rows = actions((10, "split", 2.0, 0), (20, "split", 1.5, 0)).to_pylist()
    table = pa.Table.from_pylist([*rows, {**rows[0], "symbol": "AAB", "ratio": 7.0}], schema=CANONICAL["corporate_actions"])
    history = split_history(table)
    codes = history.codes(["AAA", "AAB", "ZZZ"])
    assert codes.tolist() == [0, 1, -1]
    days = DAYS[[9, 9, 9]]
    np.testing.assert_allclose(history.ratio_between(codes, days, DAYS[[30, 30, 30]]), [3.0, 7.0, 1.0])
    np.testing.assert_allclose(history.ratio_between(codes, DAYS[[10, 10, 10]], DAYS[[30, 30, 30]]), [1.5, 1.0, 1.0])


def test_a_split_without_a_ratio_is_named() -> None:
    with pytest.raises(DataError, match="found none at AAA 2010-01-19"):
        split_history(actions((10, "split", float("nan"), 0)))


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (2.00001, 2.0),
        (0.1, 0.1),
        (1.5, 1.5),
        (4 / 3, 4 / 3),
        (1 / 15, 1 / 15),
        (20.0, 20.0),
        (1.01, None),
        (1.1125, None),
        (0.0, None),
        (float("nan"), None),
    ],
)
def test_only_ratios_that_companies_use_are_splits(ratio: float, expected: float | None) -> None:
    found = simple_fraction(ratio)
    assert found == (pytest.approx(expected) if expected is not None else None)


def walk(n: int, seed: int, events: dict[int, float], splits: dict[int, float]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = 60 * np.exp(np.cumsum(rng.normal(0, 0.012, n)))
    for at, cash in events.items():
        level[at:] -= cash
    for at, ratio in splits.items():
        level[at:] /= ratio
    return np.round(level, 2)


def adjusted(close: np.ndarray, events: dict[int, float], splits: dict[int, float], convention: str, digits: int) -> np.ndarray:
    factor = np.ones(len(close))
    for at in range(len(close) - 1, 0, -1):
        step = 1 / splits.get(at, 1.0)
        cash, ratio = events.get(at, 0.0), splits.get(at, 1.0)
        step *= 1 - cash / close[at - 1] if convention == "previous_close" else close[at] / (close[at] + cash / ratio)
        factor[at - 1] = factor[at] * step
    return np.round(close * factor, digits)


@pytest.mark.parametrize("convention", ["previous_close", "ex_close"])
@pytest.mark.parametrize("known", [True, False])
def test_dividends_come_back_to_the_cent_under_both_rules(convention: str, known: bool) -> None:
    events = {40: 0.55, 103: 0.55, 166: 0.60, 200: 3.08, 229: 0.60}
    splits = {120: 2.0}
    close = walk(260, 5, events, splits)
    listed = np.array([splits.get(at, 1.0) if known else 1.0 for at in range(260)])
    found = implied_actions(close, adjusted(close, events, splits, convention, 6), listed)
    assert found.convention == convention
    cash = {int(at): float(value) for at, value in zip(found.position, found.dividend_usd, strict=True) if value}
    assert cash == events
    ratios = {int(at): float(value) for at, value in zip(found.position, found.split_ratio, strict=True) if value != 1}
    assert ratios == ({} if known else splits)


def test_a_dividend_in_fractions_of_a_cent_keeps_them() -> None:
    events = {20: 0.0975, 50: 0.075}
    close = walk(80, 2, events, {})
    found = implied_actions(close, adjusted(close, events, {}, "previous_close", 9), np.ones(80))
    assert dict(zip(found.position.tolist(), found.dividend_usd.tolist(), strict=True)) == events


def test_rounding_of_the_adjusted_close_is_no_dividend() -> None:
    close = walk(200, 3, {}, {})
    series = np.round(close * 0.0013, 4)  # four digits of a price of 8 cents: steps of a thousandth
    found = implied_actions(close, series, np.ones(200))
    assert len(found.position) == 0


def test_one_bad_adjusted_close_is_refused_not_paid_out() -> None:
    close = walk(100, 4, {}, {})
    series = close.copy()
    series[50] *= 0.97
    found = implied_actions(close, series, np.ones(100))
    assert len(found.position) == 0
    assert 50 in found.refused.tolist()


def test_a_special_dividend_with_a_price_drop_is_no_split() -> None:
    events = {30: 7.5}  # an eighth of the price: 8/7 is no ratio that this step shows to a ten-thousandth
    close = walk(60, 9, events, {})
    found = implied_actions(close, adjusted(close, events, {}, "previous_close", 6), np.ones(60))
    assert found.split_ratio.tolist() == [1.0]
    assert found.dividend_usd.tolist() == [7.5]


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.integers(15, 110), st.integers(5, 250), max_size=5), st.integers(0, 10_000))
def test_whatever_is_paid_is_found_once_and_nothing_else(cents: dict[int, int], seed: int) -> None:
    events = {at: value / 100 for at, value in cents.items()}
    close = walk(130, seed, events, {})
    found = implied_actions(close, adjusted(close, events, {}, "previous_close", 8), np.ones(130))
    assert {int(at): round(float(value), 4) for at, value in zip(found.position, found.dividend_usd, strict=True)} == events


def test_the_last_return_of_a_delisted_symbol_is_its_payment_over_its_last_close() -> None:
    ends = actions((20, "cash_merger", 31.5, 20))
    assert delisting_returns(bars([30.0] * 20), ends) == {"AAA": (DAYS[20].astype(object), pytest.approx(0.05))}
    unknown = pa.Table.from_pylist([{**ends.to_pylist()[0], "kind": "delisting", "cash_usd": None}], schema=ends.schema)
    assert delisting_returns(bars([30.0] * 20), unknown) == {"AAA": (DAYS[20].astype(object), None)}
