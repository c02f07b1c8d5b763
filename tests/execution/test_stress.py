"""Stress: shocks are what they say, losses are what the account would have lost, and gates fail closed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes.execution_worlds import World
from pydantic import ValidationError

from quanto.execution.evidence import SessionRow, session_rows
from quanto.execution.replay import Plan
from quanto.execution.stress import SCENARIOS, StressConfig, historical_windows, instant_losses, window_losses

CONFIG: dict[str, Any] = {
    "market_gaps": (0.05, 0.2),
    "name_gap": 0.5,
    "max_instant_loss": 0.3,
    "max_session_loss": 0.2,
    "max_drawdown": 0.5,
}


def config(**changes: Any) -> StressConfig:
    return StressConfig(**{**CONFIG, **changes})


def row(session: str, before: float, nav: float) -> SessionRow:
    return SessionRow(session=session, nav_before=before, nav=nav, gross=0.5)


def test_a_window_is_measured_inside_itself() -> None:
    rows = [row("a", 100.0, 80.0), row("b", 80.0, 120.0), row("c", 120.0, 60.0)]
    found = window_losses(rows, config())
    assert found["return"] == pytest.approx(-0.4)
    assert found["worst_session_return"] == pytest.approx(-0.5)
    assert found["max_drawdown"] == pytest.approx(-0.5)
    assert found["passed"] is False
    assert window_losses(rows[:1], config(max_session_loss=0.2000001))["passed"] is True
    assert window_losses(rows[:1], config(max_session_loss=0.19))["passed"] is False
    assert window_losses(rows[:1], config(max_drawdown=0.19))["passed"] is False


def test_an_unknown_nav_fails_the_gate() -> None:
    assert window_losses([row("a", 100.0, np.nan)], config())["passed"] is False


def test_windows_are_the_stretches_of_one_regime() -> None:
    rows = [row(str(index), 100.0, 100.0) for index in range(5)]
    found = historical_windows(rows, ["other", "high", "high", "other", "other"], config())
    assert [(window["regime"], window["first_session"], window["sessions"]) for window in found] == [
        ("other", "0", 1),
        ("high", "1", 2),
        ("other", "3", 2),
    ]


def test_instant_shocks_are_measured_on_the_worst_closing_portfolio() -> None:
    world = World(3, sessions=20, symbols=3, quiet=True)
    _, journal = world.replay(Plan(1, 20, 1e6))
    found = {item["shock"]: item for item in instant_losses(journal.replay(), world.feed, config())}
    expected = []
    for event in journal.replay():
        if event["kind"] == "mark" and event["values"]:
            t = list(world.feed.sessions.astype(str)).index(event["session"])
            weights = np.array([event["values"].get(symbol, 0.0) for symbol in world.feed.symbols]) / event["nav"]
            expected.append((float(weights @ world.feed.beta[t]), float(weights.max()), event["session"]))
    beta, name = max(expected), max(expected, key=lambda item: item[1])
    assert found["market_gap_0.2"]["loss"] == pytest.approx(0.2 * beta[0])
    assert found["market_gap_0.2"]["session"] == beta[2]
    assert found["name_gap_0.5"]["loss"] == pytest.approx(0.5 * name[1])
    assert found["name_gap_0.5"]["passed"] is bool(0.5 * name[1] <= 0.3)


def closes(rng: np.random.Generator, sessions: int = 80) -> np.ndarray:
    return np.asarray(50 * np.exp(np.cumsum(rng.normal(0, 0.01, (sessions, 3)), axis=0)))


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_shock_changes_nothing_before_it_begins(name: str) -> None:
    table = closes(np.random.default_rng(1))
    factors = SCENARIOS[name].factors(table, 20)
    assert factors.shape == table.shape
    assert (factors[:20] == 1.0).all()
    assert (factors != 1.0).any()
    assert (factors > 0).all()
    assert SCENARIOS[name].sentence.endswith(".")


def test_the_shocks_are_what_their_sentences_say() -> None:
    table = closes(np.random.default_rng(2))
    factors = {name: scenario.factors(table, 20) for name, scenario in SCENARIOS.items()}
    assert (factors["gap_20_v1"][20:] == 0.8).all()
    assert factors["crash_40_v1"][39:] == pytest.approx(0.6)
    assert factors["flash_crash_v1"][20] == pytest.approx(0.85)
    assert factors["flash_crash_v1"][30:] == pytest.approx(1.0)
    assert (factors["name_gap_50_v1"][20:, 0] == 0.5).all()
    assert (factors["name_gap_50_v1"][:, 1:] == 1.0).all()
    wild = np.diff(np.log(table * factors["volatility_x2_v1"]), axis=0)
    calm = np.diff(np.log(table), axis=0)
    np.testing.assert_allclose(wild[19:79], 2 * calm[19:79], atol=1e-12)
    np.testing.assert_allclose(wild[:19], calm[:19], atol=1e-12)


def test_doubled_volatility_leaves_splits_alone() -> None:
    table = np.array([[100.0], [50.0], [51.0]])
    factors = SCENARIOS["volatility_x2_v1"].factors(table, 1)
    assert factors[1, 0] == 1.0
    assert factors[2, 0] == pytest.approx(51.0 / 50.0)


@pytest.mark.parametrize(
    "changes", [{"name_gap": 0.0}, {"max_drawdown": 1.5}, {"max_session_loss": np.nan}, {"market_gaps": 0.1}, {"extra": 1}]
)
def test_stress_settings_that_mean_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**changes)


def test_rows_of_a_replay_pass_or_fail_as_a_whole_window() -> None:
    world = World(3, sessions=20, symbols=3, quiet=True)
    _, journal = world.replay(Plan(1, 20, 1e6))
    rows = session_rows(journal.replay(), world.feed)
    found = window_losses(rows, config(max_session_loss=1.0, max_drawdown=1.0))
    assert found["passed"] is True
    assert found["return"] == pytest.approx(rows[-1].nav / 1e6 - 1)
