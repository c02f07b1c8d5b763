"""The simulated broker and the engine against the step kernel: the same book, on every session."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.execution_worlds import OPEN_LIMITS, World, navs, terms

from quanto.execution.replay import Plan
from quanto.portfolio.constraints import Limits

TIGHT = Limits(max_weight=0.35, max_exposure=0.9, minimum_cash=0.05, max_turnover=0.4)


@pytest.mark.parametrize("limits", [OPEN_LIMITS, TIGHT], ids=["open", "tight"])
@pytest.mark.parametrize("costs", [(0.0, 0.0), (5e-4, 0.0), (5e-4, 1e-5)], ids=["free", "linear", "impact"])
@pytest.mark.parametrize("seed", range(8))
def test_without_frictions_shadow_has_the_kernels_nav_on_every_session(seed: int, costs: tuple[float, float], limits: Limits) -> None:
    world = World(seed, linear=costs[0], impact=costs[1])
    expected = world.simulate(1, 40, limits)
    book, journal = world.replay(Plan(1, 40, 1e6), conditions=terms(limits))
    assert book.halted == ""
    np.testing.assert_allclose(navs(journal)[1:], expected.nav, rtol=1e-10)


def test_a_window_inside_the_market_begins_with_the_decision_before_it() -> None:
    world = World(11)
    expected = world.simulate(15, 33)
    _, journal = world.replay(Plan(15, 33, 1e6))
    marks = [event["session"] for event in journal.replay() if event["kind"] == "mark"]
    assert marks[0] == world.feed.day(14).isoformat()
    assert marks[-1] == world.feed.day(32).isoformat()
    np.testing.assert_allclose(navs(journal)[1:], expected.nav, rtol=1e-10)


def test_the_parity_world_holds_splits_dividends_halts_and_endings() -> None:
    worlds = [World(seed) for seed in range(8)]
    assert all((world.tape.split[1:40] != 1).any() and (world.tape.dividend > 0).any() for world in worlds)
    assert all((~world.tape.fillable).any() and np.isfinite(world.tape.payout).any() for world in worlds)
