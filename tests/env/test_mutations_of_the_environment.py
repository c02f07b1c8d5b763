"""Mutants of the environment that would make every backtest look better: each must make a named test fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from quanto.env import books as module
from quanto.env.books import BookSet


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


reference = load("test_scalar_reference")
vector = load("test_vector_environment")


def tomorrows_observation(monkeypatch):
    observe = BookSet.observe

    def leaking(self, out):
        today, self.t = self.t, self.t + 1
        observe(self, out)
        self.t = today

    monkeypatch.setattr(BookSet, "observe", leaking)


def forgotten_costs(monkeypatch):
    prepare = BookSet.__init__

    def free(self, *args, **kwargs):
        prepare(self, *args, **kwargs)
        self.scale_costs(0.0)

    monkeypatch.setattr(BookSet, "__init__", free)


def forgotten_drift(monkeypatch):
    step = module.step

    def still(tape, t, books, targets, *rest):
        after, outcome = step(tape, t, books, targets, *rest)
        return after._replace(weights=targets.copy()), outcome

    monkeypatch.setattr(module, "step", still)


def shifted_reward(monkeypatch):
    components = module.reward_components
    before = {}

    def late(config, result):
        now = components(config, result)
        last = before.get("reward", np.zeros_like(now))
        before["reward"] = now
        return last

    monkeypatch.setattr(module, "reward_components", late)


MUTANTS = [
    (tomorrows_observation, vector.test_an_observation_shows_the_session_of_the_decision_and_none_after_it),
    (forgotten_costs, lambda: reference.test_books_equal_the_scalar_reference_on_fuzzed_markets(0)),
    (forgotten_drift, lambda: reference.test_books_equal_the_scalar_reference_on_fuzzed_markets(0)),
    (shifted_reward, lambda: reference.test_books_equal_the_scalar_reference_on_fuzzed_markets(0)),
]


@pytest.mark.parametrize(("mutate", "named_test"), MUTANTS, ids=[mutate.__name__ for mutate, _ in MUTANTS])
def test_a_mutant_makes_its_named_test_fail(monkeypatch, mutate, named_test):
    named_test()
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        named_test()
