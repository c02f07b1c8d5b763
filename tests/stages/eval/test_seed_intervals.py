"""The interval of the seeds' interquartile mean: it covers what it says, and what all seeds share does not average away."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.evaluation import eval_config

from quanto.portfolio.series import SESSIONS_PER_YEAR
from quanto.stages.eval.seeds import interquartile_interval

CONFIG = eval_config(bootstrap_draws=500)


def world(rng: np.random.Generator, alpha: float, shared: float, own: float, sessions: int = 500) -> tuple[np.ndarray, np.ndarray]:
    baseline = rng.normal(0.0004, 0.01, sessions)
    common = rng.normal(0, shared, sessions)
    members = alpha + 0.8 * baseline + common + rng.normal(0, own, (5, sessions))
    return members, baseline


@pytest.mark.parametrize(("shared", "own"), [(0.006, 0.001), (0.001, 0.006)])
def test_the_interval_covers_the_true_alpha_nearly_as_often_as_it_says(shared: float, own: float) -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(100):
        low, high = interquartile_interval(*world(rng, 0.0003, shared, own), CONFIG)
        covered += low <= 0.0003 * SESSIONS_PER_YEAR <= high
    assert 87 <= covered <= 100


def test_five_seeds_of_one_edge_are_not_five_observations() -> None:
    rng = np.random.default_rng(6)
    shared = world(rng, 0.0, 0.006, 0.0)
    apart = world(rng, 0.0, 0.0, 0.006)
    width = [np.ptp(interquartile_interval(*found, CONFIG)) for found in (shared, apart)]
    assert width[0] > 1.6 * width[1]


def test_the_interval_is_the_same_twice_and_without_luck_a_point() -> None:
    members, baseline = world(np.random.default_rng(7), 0.0002, 0.004, 0.001)
    assert interquartile_interval(members, baseline, CONFIG) == interquartile_interval(members, baseline, CONFIG)
    low, high = interquartile_interval(np.stack([0.001 + 2 * baseline] * 3), baseline, CONFIG)
    assert (low, high) == pytest.approx((0.001 * SESSIONS_PER_YEAR,) * 2, abs=1e-9)
