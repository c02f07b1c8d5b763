"""Experiments side by side: directions, differences, intervals, gates, and the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.finished import write_finished

from quanto.runtime.comparison import HIGHER_IS_BETTER, LOWER_IS_BETTER, Row, compare, direction
from quanto.runtime.reporting.versus import render_comparison
from quanto.runtime.revisions import Revision


@pytest.fixture
def two(tmp_path: Path) -> list[Revision]:
    first = write_finished(tmp_path / "a", sharpe=0.5, edge="failed", seed=1)
    second = write_finished(tmp_path / "b", sharpe=0.7, edge="passed", seed=2)
    return [Revision(first, None, "first"), Revision(second, None, "second")]


def row_of(rows: list[Row], section: str, name: str) -> Row:
    return next(row for row in rows if (row.section, row.name) == (section, name))


def test_a_metric_has_its_difference_its_better_side_and_its_intervals(two: list[Revision]) -> None:
    row = row_of(compare(two), "metrics", "sharpe")
    assert row.best == 1
    assert row.differences == (0.0, pytest.approx(0.2))
    assert row.intervals[0] == (pytest.approx(0.1), pytest.approx(0.9))


def test_equal_values_have_no_better_side(two: list[Revision]) -> None:
    assert row_of(compare(two), "metrics", "annual_return").best is None
    assert row_of(compare(two), "metrics", "sessions").best is None


def test_regimes_and_gates_are_compared_one_by_one(two: list[Revision]) -> None:
    rows = compare(two)
    assert row_of(rows, "regimes", "high_volatility.sharpe").best == 1
    gate = row_of(rows, "gates", "edge_v1")
    assert (gate.values, gate.best) == (("failed", "passed"), 1)
    assert row_of(rows, "gates", "tier production").values == ("reject", "insufficient evidence")


def test_settings_are_listed_only_where_they_differ(two: list[Revision]) -> None:
    assert [(row.name, row.values) for row in compare(two) if row.section == "configuration"] == [("train.seed", (1, 2))]


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("sharpe", 1),
        ("max_drawdown", 1),
        ("all.drawdown_within_episodes", 1),
        ("annual_volatility", -1),
        ("cvar", -1),
        ("turnover_annual", -1),
        ("sessions", 0),
        ("beta", 0),
        ("exposure_mean", 0),
        ("baseline_sharpe", 0),
        ("a_metric_of_tomorrow", 0),
    ],
)
def test_only_a_known_metric_has_a_direction(name: str, sign: int) -> None:
    assert direction(name) == sign
    assert not HIGHER_IS_BETTER & LOWER_IS_BETTER


def test_a_missing_value_is_no_difference_and_never_better() -> None:
    assert Row("metrics", "sharpe", (None, 0.5)).differences == (None, None)
    assert Row("metrics", "sharpe", (0.5, float("nan"))).differences == (0.0, None)


def test_the_page_escapes_labels_and_marks_the_better_side(two: list[Revision]) -> None:
    named = [two[0], Revision(two[1].workspace, None, "<b>second</b>")]
    html = render_comparison(named).decode()
    assert "<b>second</b>" not in html.split("const figures")[0].split("</script>")[1]
    assert 'class="good number"' in html
    assert "0.70 [0.30, 1.10]" in html
    assert "train.seed" in html
