from __future__ import annotations

import re

import numpy as np
import pytest
from fakes.books import fuzzed_tape

from quanto.core.errors import UnknownNameError
from quanto.env.simulation import simulate
from quanto.policy.baselines import BASELINES, baseline_market
from quanto.portfolio.constraints import Limits

LIMITS = Limits(0.5, 1.0, 0.0, 1.0)
WIDE = Limits(1.0, 1.0, 0.0, 2.0)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_carries_its_version_a_sentence_and_its_look_back(name: str) -> None:
    baseline = BASELINES[name]
    assert re.fullmatch(r"[a-z0-9_]+_v\d+", baseline.name)
    assert len(baseline.summary.split()) >= 3
    assert baseline.look_back >= 0
    assert baseline.lag == 0


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_baseline_survives_everything_that_happens_to_a_share(name: str, seed: int) -> None:
    tape = fuzzed_tape(seed, 400, 5)
    days = np.arange("2001-01-01", "2003-01-01", dtype="datetime64[D]")[:400]
    market = baseline_market(tape, days, LIMITS, None)
    book = simulate(tape, 300, 400, BASELINES[name].make(market), LIMITS if BASELINES[name].limited else WIDE)
    assert np.isfinite(book.nav).all()
    assert (book.targets >= -1e-12).all()
    assert (book.targets.sum(axis=1) <= 1 + 1e-9).all()
    assert not book.targets[~tape.eligible[299:399]].any()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_decides_the_same_twice(name: str) -> None:
    tape = fuzzed_tape(4, 300, 5)
    days = np.arange("2001-01-01", "2002-01-01", dtype="datetime64[D]")[:300]
    market = baseline_market(tape, days, LIMITS, None)
    one, two = (simulate(tape, 260, 300, BASELINES[name].make(market), WIDE) for _ in range(2))
    assert np.array_equal(one.nav, two.nav)


def test_an_unknown_baseline_is_answered_with_the_closest_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'equal_weight_v1'"):
        BASELINES["equal_weight"]
