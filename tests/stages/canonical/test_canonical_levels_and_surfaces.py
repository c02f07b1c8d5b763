"""Index levels value by value, option surfaces whole."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from quanto.core.errors import ConfigError
from quanto.market.calendar import sessions_between
from quanto.market.schema import RAW
from quanto.stages.canonical.config import DomainSources, Fallback
from quanto.stages.canonical.rows import RowsResult, reconcile_rows
from tests.stages.canonical.vendor_tables import build, canonical, canonical_config, put, quarantine, raw_bars, true_market

DAYS = [day.astype(object) for day in sessions_between(date(2010, 1, 4), date(2010, 6, 30))]
SPX = 1100 + np.cumsum(np.random.default_rng(1).normal(0, 8, len(DAYS)))


def levels(values: dict[int, float], series: str = "SPX", unit: str = "level", payload: str = "p", days: list[date] = DAYS) -> pa.Table:
    rows = [
        {"session": days[at], "series": series, "value": value, "unit": unit, "known_on": days[at], "payload": payload, "payload_row": i}
        for i, (at, value) in enumerate(values.items())
    ]
    return pa.Table.from_pylist(rows, schema=RAW["index_level"])


def truth(first: int = 0, last: int = len(DAYS), factor: float = 1.0) -> dict[int, float]:
    return {at: float(SPX[at]) * factor for at in range(first, last)}


def settle(domain: str = "index_level", policy: str = "priority", **tables: pa.Table) -> RowsResult:
    sources = DomainSources(policy=policy, priority=("one", "two", "three"), overrides=())  # type: ignore[arg-type]
    return reconcile_rows(domain, tables, sources, 0.0005, Fallback(overlap_sessions=5, tolerance=0.01, agreement=0.9))


def without(values: dict[int, float], *gone: int) -> dict[int, float]:
    return {at: value for at, value in values.items() if at not in gone}


def test_a_gap_is_filled_by_a_vendor_that_agrees() -> None:
    result = settle(one=levels(without(truth(), 50, 51)), two=levels(truth()))
    assert len(result.table) == len(DAYS)
    assert result.table["method"].to_pylist()[49:53] == ["priority", "fallback", "fallback", "priority"]
    assert result.compared == len(DAYS) - 2
    assert not result.differences


def test_another_kind_of_index_never_fills_a_gap() -> None:
    result = settle(one=levels(without(truth(), 50, 51)), two=levels(truth(factor=1.7)))
    assert len(result.table) == len(DAYS) - 2
    assert result.quarantine["reason"].to_pylist() == ["fallback_disagrees"] * 2
    third = settle(one=levels(without(truth(), 50)), two=levels(truth(factor=1.7)), three=levels(truth()))
    assert third.table["vendor"].to_pylist()[50] == "three"


def test_a_series_that_only_continues_another_is_refused_without_overlap() -> None:
    result = settle(one=levels(truth(0, 60)), two=levels(truth(60)))
    assert len(result.table) == 60
    assert set(result.quarantine["reason"].to_pylist()) == {"fallback_without_overlap"}


@pytest.mark.parametrize(
    ("value", "unit", "reason"),
    [
        (float("nan"), "level", "missing_field"),
        (0.0, "level", "out_of_range"),
        (-1.0, "fraction", "out_of_range"),
        (3.0, "percent", "unknown_unit"),
        (float("inf"), "level", "out_of_range"),
    ],
)
def test_an_impossible_value_is_quarantined(value: float, unit: str, reason: str) -> None:
    result = settle(one=levels({5: value}, unit=unit))
    assert result.quarantine["reason"].to_pylist() == [reason]
    assert result.quarantined == {"one": 1}


def test_a_value_in_another_unit_than_the_series_is_not_mixed_in() -> None:
    result = settle(one=levels(without(truth(), 7)), two=levels({7: 0.04}, unit="fraction"))
    assert result.quarantine["reason"].to_pylist() == ["unit_mismatch"]
    assert len(result.table) == len(DAYS) - 1


def test_a_monthly_rate_keeps_its_calendar_day_and_a_daily_series_needs_sessions() -> None:
    ends = [date(2010, 1, 31), date(2010, 2, 28)]
    monthly = levels({0: 0.0001, 1: 0.0002}, "TBILL_1M", "fraction_per_month", days=ends)
    result = settle(one=pa.concat_tables([monthly, levels({0: 1100.0}, days=[date(2010, 1, 31)])]))
    assert result.table["session"].to_pylist() == ends
    assert result.quarantine["reason"].to_pylist() == ["not_a_session"]


def test_the_majority_decides_an_index_value_under_consensus() -> None:
    odd = {**truth(), 9: float(SPX[9]) * 1.02}
    result = settle(policy="consensus", one=levels(odd), two=levels(truth()), three=levels(truth()))
    row = result.table.to_pylist()[9]
    assert row["vendor"] == "two"
    assert row["method"] == "consensus"
    assert row["value"] == SPX[9]
    assert result.table["vendor"].to_pylist().count("one") == len(DAYS) - 1


def test_a_difference_beyond_tolerance_is_reported_and_flagged() -> None:
    result = settle(one=levels(truth()), two=levels({**truth(), 9: float(SPX[9]) * 1.01}))
    assert [(item["session"], item["class"]) for item in result.differences] == [(DAYS[9], "bad_tick")]
    assert [row["session"] for row in result.table.to_pylist() if row["flags"]] == [DAYS[9]]


def surface(*nodes: dict[str, Any], payload: str = "p") -> pa.Table:
    plain = {"session": DAYS[0], "symbol": "AAA", "tenor_days": 30.0, "side": "C", "delta": 0.5, "strike": None, "iv": 0.3, "bid": None,
             "ask": None, "open_interest": None, "volume": None, "known_on": DAYS[0], "payload": payload}  # fmt: skip
    return pa.Table.from_pylist([{**plain, **node, "payload_row": i} for i, node in enumerate(nodes)], schema=RAW["options_surface"])


def test_a_surface_is_taken_whole_from_one_vendor() -> None:
    one = surface({"delta": 0.5}, {"delta": 0.25})
    two = surface({"delta": 0.5, "iv": 0.31}, {"delta": 0.75}, {"session": DAYS[1], "known_on": DAYS[1]})
    result = settle("options_surface", one=one, two=two)
    assert [(row["session"], row["vendor"], row["delta"]) for row in result.table.to_pylist()] == [
        (DAYS[0], "one", 0.25),
        (DAYS[0], "one", 0.5),
        (DAYS[1], "two", 0.5),
    ]
    assert result.superseded == {"one": 0, "two": 2}
    assert result.compared == 1


@pytest.mark.parametrize(
    ("node", "reason"),
    [({"iv": None}, "missing_field"), ({"iv": 34.0}, "out_of_range"), ({"iv": -0.1}, "out_of_range"), ({"delta": 1.5}, "out_of_range"),
     ({"bid": 2.0, "ask": 1.0}, "out_of_range"), ({"tenor_days": -1.0}, "out_of_range"), ({"side": "X"}, "out_of_range"),
     ({"session": date(2010, 1, 9)}, "not_a_session")],
)  # fmt: skip
def test_an_impossible_node_is_quarantined(node: dict[str, Any], reason: str) -> None:
    result = settle("options_surface", one=surface(node, {"delta": 0.25}))
    assert result.quarantine["reason"].to_pylist() == [reason]
    assert len(result.table) == 1


def test_equal_nodes_are_merged_and_contradictions_are_quarantined() -> None:
    result = settle("options_surface", one=surface({}, {}, {"delta": 0.25}, {"delta": 0.25, "iv": 0.4}))
    assert len(result.table) == 1
    assert result.superseded == {"one": 1}
    assert result.quarantine["reason"].to_pylist() == ["conflicting_duplicate"] * 2


def test_surfaces_are_never_mixed_by_vote() -> None:
    with pytest.raises(ConfigError, match="surfaces of several vendors are never mixed"):
        canonical_config(sources__options_surface__policy="consensus")


def test_levels_and_surfaces_pass_through_the_stage(tmp_path: Path) -> None:
    put(tmp_path, "one", "equity_ohlcv", raw_bars(true_market()))
    put(tmp_path, "one", "index_level", levels(truth()))
    put(tmp_path, "two", "options_surface", surface({"delta": 0.5}, {"delta": 0.25, "iv": 99.0}))
    build(tmp_path)
    assert len(canonical(tmp_path, "index_level")) == len(DAYS)
    assert canonical(tmp_path, "options_surface")["delta"].to_pylist() == [0.5]
    assert [(row["domain"], row["reason"]) for row in quarantine(tmp_path)] == [("options_surface", "out_of_range")]
