"""A vendor that missed a split, or applied one twice, is wrong over years: its rows are taken out, others fill in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.store import read_json
from quanto.stages.canonical.splits import Misbased, Step, misbased_spans
from tests.stages.canonical.vendor_tables import Market, build, put, quarantine, raw_actions, raw_bars, true_market

AT = 420  # the split's session; the market runs over four calendar years
BEGINNING = -(1 << 40)


@pytest.fixture(autouse=True)
def _own_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))


@pytest.fixture
def market() -> Market:
    return true_market(sessions=600, events=(("AAA", AT, "split", 2.0),))


def scaled(table: pa.Table, market: Market, symbol: str, until: int, factor: float, since: int = 0) -> pa.Table:
    """Return a vendor's table whose prices of a symbol in sessions since..until - 1 are multiplied."""
    rows = table.to_pylist()
    days = {session.astype(object) for session in market.sessions[since:until]}
    for row in rows:
        if row["symbol"] == symbol and row["session"] in days:
            row |= {name: row[name] * factor for name in ("open", "high", "low", "close")}
    return pa.Table.from_pylist(rows, schema=table.schema)


def assert_true(workspace: Path, market: Market, sessions: Sequence[int] | None = None) -> list[dict[str, object]]:
    """Build; hold every canonical close to the truth; return the rows of AAA."""
    rows = build(workspace).to_pylist()
    order = {session.astype(object): at for at, session in enumerate(market.sessions)}
    for row in rows:
        assert row["close"] == pytest.approx(market.bars["close"][order[row["session"]], market.column(row["symbol"])], rel=1e-9)
    mine = [row for row in rows if row["symbol"] == "AAA"]
    assert [order[row["session"]] for row in mine] == list(range(len(market.sessions)) if sessions is None else sessions)
    return mine


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_the_rows_of_a_vendor_that_missed_or_doubled_a_split_give_way_to_another_vendors(
    tmp_path: Path, market: Market, factor: float
) -> None:
    wrong = scaled(raw_bars(market, basis="split", volume_basis="split"), market, "AAA", AT, factor)
    put(tmp_path, "one", "equity_ohlcv", wrong)
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, payload="q"))
    put(tmp_path, "one", "corporate_actions", raw_actions(market))
    mine = assert_true(tmp_path, market)
    assert [row["vendor"] for row in mine] == ["two"] * AT + ["one"] * (600 - AT)
    assert quarantine(tmp_path) == []
    report = read_json(tmp_path / "reports/canonical/canonical_report.json")
    assert report["suspected_splits"] == []  # type: ignore[index,call-overload]
    classes = report["disagreement"]["classes"]  # type: ignore[index,call-overload]
    assert [(item["class"], item["rows"]) for item in classes if item["field"] == "close"] == [("split_basis", AT)]  # type: ignore[index,call-overload,union-attr]


def test_a_stretch_on_another_basis_is_taken_out_and_no_more(tmp_path: Path, market: Market) -> None:
    wrong = scaled(raw_bars(market), market, "BBB", 300, 0.1, since=100)
    put(tmp_path, "one", "equity_ohlcv", wrong)
    keep = np.ones(market.bars["close"].shape, dtype=bool)
    keep[150:160, 1] = False
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, keep=keep, payload="q"))
    put(tmp_path, "one", "corporate_actions", raw_actions(market))
    assert_true(tmp_path, market)
    assert [(row["vendor"], row["reason"]) for row in quarantine(tmp_path)] == [("one", "split_contradicted")] * 10


def test_prices_that_do_not_have_a_known_split_are_not_believed_before_it(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", scaled(raw_bars(market), market, "AAA", AT, 0.5))  # adjusted, declared raw
    put(tmp_path, "one", "corporate_actions", raw_actions(market))
    assert_true(tmp_path, market, range(AT, 600))
    assert {row["reason"] for row in quarantine(tmp_path)} == {"split_contradicted"}


def test_a_fall_by_half_that_nobody_contradicts_is_news_and_flagged(tmp_path: Path) -> None:
    market = true_market(sessions=60, events=(("AAA", 30, "split", 2.0),))
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, payload="q"))
    mine = assert_true(tmp_path, market)
    assert [at for at, row in enumerate(mine) if "suspected_split" in str(row["flags"])] == [30]
    assert quarantine(tmp_path) == []


def test_a_fall_that_another_vendor_shows_a_session_late_contradicts_nobody(tmp_path: Path) -> None:
    market = true_market(sessions=60, events=(("AAA", 30, "split", 2.0),))
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    put(tmp_path, "two", "equity_ohlcv", scaled(raw_bars(market, payload="q"), market, "AAA", 31, 2.0, since=30))
    assert_true(tmp_path, market)
    assert quarantine(tmp_path) == []


def test_a_split_that_one_vendor_shows_a_session_late_costs_one_row(tmp_path: Path, market: Market) -> None:
    put(tmp_path, "one", "equity_ohlcv", scaled(raw_bars(market), market, "AAA", AT + 1, 2.0, since=AT))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, payload="q"))
    put(tmp_path, "one", "corporate_actions", raw_actions(market))
    mine = assert_true(tmp_path, market)
    assert [at for at, row in enumerate(mine) if row["vendor"] == "two"] == [AT]


def test_bars_missing_around_the_split_do_not_hide_it(tmp_path: Path, market: Market) -> None:
    keep = np.ones(market.bars["close"].shape, dtype=bool)
    keep[AT - 2 : AT + 1, 0] = False
    put(tmp_path, "one", "equity_ohlcv", scaled(raw_bars(market, keep=keep), market, "AAA", AT, 0.5))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, payload="q"))
    put(tmp_path, "one", "corporate_actions", raw_actions(market))
    assert_true(tmp_path, market)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from([-1, 1]), st.sampled_from([2.0, 3.0, 7.0])), unique_by=lambda s: s[0]))
def test_spans_are_where_the_later_steps_do_not_cancel(steps: list[tuple[int, int, float]]) -> None:
    found = misbased_spans(Step(0, "A", day, sign * float(np.log(ratio))) for day, sign, ratio in steps)
    for day in range(52):
        later = sum(sign * np.log(ratio) for at, sign, ratio in steps if at > day)
        assert any(span.first <= day < span.until for span in found) == (abs(later) > 0.06)


def test_spans_are_kept_by_vendor_and_symbol() -> None:
    half = float(np.log(2.0))
    steps = [Step(0, "A", 5, half), Step(1, "A", 7, half), Step(0, "B", 9, -half), Step(0, "A", 3, -half)]
    assert misbased_spans(steps) == (Misbased(0, "A", 3, 5), Misbased(0, "B", BEGINNING, 9), Misbased(1, "A", BEGINNING, 7))
