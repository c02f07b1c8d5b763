"""Validation: every row is kept, merged or quarantined with a reason, whatever the order."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import DataError
from quanto.market.schema import QUARANTINE, RAW
from quanto.stages.ingest.validate import validate
from quanto.stages.ingest.vendor import Rejected

BAR: dict[str, Any] = {
    "session": date(2020, 1, 2), "symbol": "AAA", "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 100.0,
    "adj_close": None, "basis": "raw", "volume_basis": "raw", "basis_as_of": None, "known_on": date(2020, 1, 2),
    "provisional": False, "payload": "p", "payload_row": 0,
}  # fmt: skip
ACTION: dict[str, Any] = {
    "symbol": "AAA", "ex_date": date(2020, 1, 2), "kind": "split", "ratio": 2.0, "cash_usd": None, "currency": None,
    "other_symbol": None, "vendor_id": None, "known_on": date(2020, 1, 1), "payload": "p", "payload_row": 0,
}  # fmt: skip
LEVEL: dict[str, Any] = {
    "session": date(2020, 1, 2), "series": "SPX", "value": 3000.0, "unit": "level", "known_on": date(2020, 1, 2),
    "payload": "p", "payload_row": 0,
}  # fmt: skip
QUOTE: dict[str, Any] = {
    "session": date(2020, 1, 2), "symbol": "AAA", "tenor_days": 30.0, "side": "C", "delta": 0.5, "strike": None, "iv": 0.3,
    "bid": 1.0, "ask": 1.1, "open_interest": None, "volume": None, "known_on": date(2020, 1, 2), "payload": "p", "payload_row": 0,
}  # fmt: skip
GOOD = {"equity_ohlcv": BAR, "corporate_actions": ACTION, "index_level": LEVEL, "options_surface": QUOTE}


def table(domain: str, *rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([GOOD[domain] | row for row in rows], schema=RAW[domain])


@pytest.mark.parametrize("domain", sorted(GOOD))
def test_a_sound_row_passes_unchanged(domain: str) -> None:
    found = validate(domain, "v", table(domain, {}))
    assert found.table.equals(table(domain, {}))
    assert len(found.quarantine) == found.merged == 0
    assert found.quarantine.schema.equals(QUARANTINE)


@pytest.mark.parametrize(
    ("domain", "change", "reason"),
    [
        ("equity_ohlcv", {"session": date(2020, 1, 4)}, "not_a_session"),
        ("equity_ohlcv", {"session": date(2020, 1, 1)}, "not_a_session"),
        ("equity_ohlcv", {"session": date(1901, 1, 2)}, "not_a_session"),
        ("equity_ohlcv", {"open": None}, "missing_price"),
        ("equity_ohlcv", {"close": float("nan")}, "missing_price"),
        ("equity_ohlcv", {"high": float("inf")}, "missing_price"),
        ("equity_ohlcv", {"volume": None}, "missing_volume"),
        ("equity_ohlcv", {"low": 0.0}, "not_positive_price"),
        ("equity_ohlcv", {"low": -1.0}, "not_positive_price"),
        ("equity_ohlcv", {"volume": -1.0}, "negative_volume"),
        ("equity_ohlcv", {"high": 8.0}, "high_below_low"),
        ("equity_ohlcv", {"close": 11.01}, "outside_high_low"),
        ("equity_ohlcv", {"open": 8.99}, "outside_high_low"),
        ("corporate_actions", {"kind": "gift"}, "unknown_kind"),
        ("corporate_actions", {"ratio": None}, "missing_ratio"),
        ("corporate_actions", {"ratio": 0.0}, "not_positive_ratio"),
        ("corporate_actions", {"kind": "cash_dividend"}, "missing_cash"),
        ("corporate_actions", {"kind": "cash_dividend", "cash_usd": -0.1}, "negative_cash"),
        ("corporate_actions", {"kind": "cash_dividend", "cash_usd": 0.1, "currency": "CAD"}, "foreign_currency"),
        ("index_level", {"session": date(2020, 1, 4)}, "not_a_session"),
        ("index_level", {"value": None}, "missing_value"),
        ("index_level", {"value": 0.0}, "not_positive_level"),
        ("options_surface", {"session": date(2020, 1, 4)}, "not_a_session"),
        ("options_surface", {"side": "X"}, "unknown_side"),
        ("options_surface", {"tenor_days": 0.0}, "not_positive_tenor"),
        ("options_surface", {"delta": None}, "no_strike_or_delta"),
        ("options_surface", {"delta": 1.5}, "delta_beyond_one"),
        ("options_surface", {"iv": None, "bid": None}, "missing_iv_and_quote"),
        ("options_surface", {"iv": 0.0}, "not_positive_iv"),
        ("options_surface", {"bid": 1.2}, "crossed_quote"),
        ("options_surface", {"bid": -0.1}, "negative_quote"),
    ],
)
def test_an_impossible_row_is_quarantined_with_its_reason_and_its_bytes(domain: str, change: dict[str, Any], reason: str) -> None:
    found = validate(domain, "v", table(domain, change | {"payload_row": 7}))
    (row,) = found.quarantine.to_pylist()
    assert len(found.table) == 0
    assert (row["reason"], row["payload"], row["payload_row"], row["vendor"], row["domain"]) == (reason, "p", 7, "v", domain)
    assert json.loads(row["row"])["payload_row"] == 7


def test_a_close_outside_its_range_by_the_rounding_of_an_adjusted_price_is_kept() -> None:
    assert len(validate("equity_ohlcv", "v", table("equity_ohlcv", {"close": 11.0 * (1 + 5e-7)})).table) == 1


def test_a_bar_without_volume_traded_is_kept() -> None:
    assert len(validate("equity_ohlcv", "v", table("equity_ohlcv", {"volume": 0.0})).table) == 1


def test_a_rate_may_be_negative_and_a_month_may_end_on_a_sunday() -> None:
    rate = {"series": "TBILL_1M", "unit": "fraction_per_month", "session": date(2020, 5, 31), "value": -0.0001}
    assert len(validate("index_level", "v", table("index_level", rate)).table) == 1


def test_equal_duplicates_are_merged_and_counted() -> None:
    found = validate("equity_ohlcv", "v", table("equity_ohlcv", {"payload_row": 5}, {"payload": "q"}, {"payload_row": 3}))
    assert found.merged == 2
    assert found.table["payload_row"].to_pylist() == [3]
    assert len(found.quarantine) == 0


def test_of_conflicting_duplicates_none_is_believed() -> None:
    found = validate("equity_ohlcv", "v", table("equity_ohlcv", {}, {"payload_row": 1}, {"payload_row": 2, "close": 10.6}))
    assert len(found.table) == found.merged == 0
    assert found.quarantine["reason"].to_pylist() == ["conflicting_duplicate"] * 3


def test_an_impossible_duplicate_does_not_take_the_sound_row_with_it() -> None:
    found = validate("equity_ohlcv", "v", table("equity_ohlcv", {}, {"payload_row": 1, "close": -1.0}))
    assert len(found.table) == 1
    assert found.quarantine["reason"].to_pylist() == ["not_positive_price"]


def test_missing_parts_of_a_key_are_equal_to_each_other() -> None:
    split = table("corporate_actions", {}, {"payload_row": 1})
    assert validate("corporate_actions", "v", split).merged == 1
    chain = table("options_surface", {"delta": None, "strike": 5.0}, {"delta": None, "strike": 5.0, "payload_row": 1}, {"delta": 0.4})
    found = validate("options_surface", "v", chain)
    assert (len(found.table), found.merged) == (2, 1)


def test_records_that_the_adapter_rejected_are_in_the_quarantine() -> None:
    item = Rejected("AAA|2020-01-02", "unreadable", {"v": "N/A", "x": float("nan")}, "p", 3)
    (row,) = validate("equity_ohlcv", "v", table("equity_ohlcv"), [item]).quarantine.to_pylist()
    assert (row["key"], row["reason"], row["payload_row"]) == ("AAA|2020-01-02", "unreadable", 3)
    assert json.loads(row["row"]) == {"v": "N/A", "x": "nan"}


def test_a_table_of_another_schema_or_basis_is_the_adapters_fault() -> None:
    with pytest.raises(DataError, match="another schema"):
        validate("equity_ohlcv", "v", table("index_level", {}))
    with pytest.raises(DataError, match="declares basis adjusted"):
        validate("equity_ohlcv", "v", table("equity_ohlcv", {"basis": "adjusted"}))


ROWS = st.fixed_dictionaries(
    {
        "session": st.sampled_from([date(2020, 1, 2), date(2020, 1, 3), date(2020, 1, 4)]),
        "symbol": st.sampled_from(["AAA", "BBB"]),
        "close": st.sampled_from([10.0, 10.5, 12.0, -1.0, None, float("nan")]),
        "payload": st.sampled_from(["p", "q"]),
    }
)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(ROWS, max_size=15), seed=st.integers(0, 1000))
def test_no_row_is_lost_and_no_order_matters(rows: list[dict[str, Any]], seed: int) -> None:
    numbered = [row | {"payload_row": index} for index, row in enumerate(rows)]
    given_rows = table("equity_ohlcv", *numbered)
    found = validate("equity_ohlcv", "v", given_rows)
    assert len(found.table) + len(found.quarantine) + found.merged == len(rows)
    keys = list(zip(found.table["session"].to_pylist(), found.table["symbol"].to_pylist(), strict=True))
    assert keys == sorted(set(keys))
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = validate("equity_ohlcv", "v", given_rows.take(pa.array(order, pa.int64())))
    assert shuffled.table.equals(found.table)
    assert shuffled.quarantine.equals(found.quarantine)
    again = validate("equity_ohlcv", "v", found.table)
    assert again.table.equals(found.table)
    assert (len(again.quarantine), again.merged) == (0, 0)
