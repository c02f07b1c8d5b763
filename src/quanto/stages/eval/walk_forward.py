"""Walk-forward evaluation: each fold's policy on its own test segment, positions carried across, one series in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.env.simulation import Simulation
from quanto.market.folds import Fold
from quanto.policy.artefact import Policy
from quanto.policy.baselines import BASELINES, matched
from quanto.policy.decision import decide, prepare
from quanto.portfolio.activity import activity_metrics
from quanto.portfolio.metrics import return_metrics
from quanto.portfolio.significance import alpha_test
from quanto.stages.eval.arena import Arena
from quanto.stages.eval.books import MATCHED, baseline_book, fills
from quanto.stages.eval.config import EvalConfig

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FoldPolicy:
    """A fold and the policy that was trained on it."""

    fold: Fold
    policy: Policy


def walk_forward(arena: Arena, config: EvalConfig, trained: Sequence[FoldPolicy]) -> dict[str, object]:
    """Return the concatenated out-of-sample record of all folds, beside the baseline and its match, and each fold alone.

    Raises
    ------
    DataError
        If the trained folds are none, or test segments do not follow each other.
    """
    course = replace(arena, start=_row(arena, trained[0].fold.test_start) if trained else 0, stop=_segments(arena, trained))
    book = _run(course, trained)
    baseline = baseline_book(course, BASELINES[config.baseline])
    match = course.run(matched(baseline, float(book.exposure.mean())))
    against = baseline.returns - course.cash
    return {
        "sessions": [str(day) for day in course.sessions],
        "returns": [float(value) for value in book.returns],
        "books": {
            name: _numbers(course, other, baseline)
            for name, other in (("candidate", book), (config.baseline, baseline), (f"{MATCHED}{config.baseline}", match))
        },
        "alpha_test": dataclasses.asdict(alpha_test(book.returns - course.cash, against)),
        "folds": [_fold(course, item, book, baseline) for item in trained],
    }


def _run(course: Arena, trained: Sequence[FoldPolicy]) -> Simulation:
    """Run one book through all test segments: the policy changes at a border, the positions stay."""
    owner = np.zeros(len(course.data.sessions), dtype=np.int64)
    for number, item in enumerate(trained):
        # The decision of session t is for t+1, which must lie in the fold's test segment.
        owner[_row(course, item.fold.test_start) - 1 :] = number
    prepared = [prepare(item.policy, course.data) for item in trained]
    cap = np.array([prepared[number].exposure_cap[t] for t, number in enumerate(owner)])

    def wanted(t: int, weights: FloatArray, drawdown: float) -> FloatArray:
        number = int(owner[t])
        return decide(trained[number].policy, prepared[number], t, weights, drawdown)

    return course.run(wanted, cap)


def _segments(arena: Arena, trained: Sequence[FoldPolicy]) -> int:
    """Return the session after the last test segment, after checking that they follow each other."""
    if not trained:
        raise DataError("split.walk_forward is configured, and models/ holds no fold; run the train stage")
    stop = _row(arena, trained[0].fold.test_start)
    for item in trained:
        if _row(arena, item.fold.test_start) != stop:
            raise DataError(f"the test segment of fold {item.fold.number} does not follow the one before it; train the folds again")
        stop = _row(arena, item.fold.test_end) + 1
    return stop


def _fold(course: Arena, item: FoldPolicy, book: Simulation, baseline: Simulation) -> dict[str, object]:
    rows = slice(_row(course, item.fold.test_start) - course.start, _row(course, item.fold.test_end) + 1 - course.start)
    own, other, cash = book.returns[rows], baseline.returns[rows], course.cash[rows]
    found = return_metrics(own, cash, other)
    return {
        **dataclasses.asdict(item.fold),
        "policy": item.policy.digest,
        "annual_return": found.annual_return,
        "sharpe": found.sharpe,
        "max_drawdown": found.max_drawdown,
        "alpha": alpha_test(own - cash, other - cash).alpha,
        "exposure_mean": float(book.exposure[rows].mean()),
    }


def _numbers(course: Arena, book: Simulation, baseline: Simulation) -> dict[str, object]:
    performance = dataclasses.asdict(return_metrics(book.returns, course.cash, baseline.returns))
    activity = dataclasses.asdict(activity_metrics(book.weights, book.turnover, fills(book)))
    return {**performance, **{name: value for name, value in activity.items() if name != "sessions"}}


def _row(arena: Arena, day: object) -> int:
    return int(np.searchsorted(arena.data.sessions, np.datetime64(str(day))))
