"""Walk-forward as one life through all test segments, and a sealed block that only its opening sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.evaluation import eval_config, make_data, make_policy

from quanto.core.errors import DataError, GovernanceError
from quanto.market.folds import walk_forward_folds
from quanto.market.split import FoldsConfig
from quanto.policy.decision import decide, prepare
from quanto.stages.eval.arena import build_arena
from quanto.stages.eval.books import policy_book
from quanto.stages.eval.evaluation import evaluate
from quanto.stages.eval.sealed import open_sealed_block
from quanto.stages.eval.walk_forward import FoldPolicy, walk_forward

WINDOW: dict[str, Any] = {
    "split__train_start": None, "split__train_end": None, "split__test_start": None, "split__holdout_fraction": 0.4, "stress": [],
    "constraints__max_weight": 0.4, "cost_factors": [1.0, 2.0],
}  # fmt: skip
FOLDS = FoldsConfig(train_sessions=200, test_sessions=100, purge_sessions=2, embargo_sessions=0, expanding=False)
CONFIG = eval_config(**{**WINDOW, "split__walk_forward": FOLDS.model_dump()})


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Any, Any, list[FoldPolicy]]:
    data, index = make_data()
    folds = walk_forward_folds(data.sessions, FOLDS)
    return data, index, [FoldPolicy(fold, make_policy(tmp_path / str(fold.number), data, seed=fold.number)) for fold in folds]


def test_segments_become_one_series_and_positions_cross_the_borders(trained: tuple[Any, Any, list[FoldPolicy]]) -> None:
    data, index, items = trained
    arena = build_arena(data, index, CONFIG)
    found = walk_forward(arena, CONFIG, items)
    assert len(found["returns"]) == 100 * len(items) == len(found["sessions"])  # type: ignore[arg-type]
    first = replace(arena, start=202, stop=302)
    assert found["returns"][:100] == pytest.approx(policy_book(first, items[0].policy).returns.tolist(), abs=1e-15)  # type: ignore[index]
    alone = policy_book(replace(arena, start=302, stop=402), items[1].policy)
    # From cash the first session pays for entering; carried positions do not.
    assert found["returns"][100] != pytest.approx(alone.returns[0], abs=1e-9)  # type: ignore[index]
    assert [fold["number"] for fold in found["folds"]] == list(range(len(items)))  # type: ignore[union-attr, attr-defined]


def test_the_decision_before_a_border_belongs_to_the_fold_that_trades_it(trained: tuple[Any, Any, list[FoldPolicy]]) -> None:
    data, index, items = trained
    arena = build_arena(data, index, CONFIG)
    prepared = [prepare(item.policy, data) for item in items[:2]]

    def wanted(t: int, weights: np.ndarray, drawdown: float) -> np.ndarray:
        number = 0 if t < 301 else 1
        return decide(items[number].policy, prepared[number], t, weights, drawdown)

    cap = np.where(np.arange(700) < 301, prepared[0].exposure_cap, prepared[1].exposure_cap)
    by_hand = replace(arena, start=202, stop=402).run(wanted, cap)
    assert walk_forward(arena, CONFIG, items[:2])["returns"] == by_hand.returns.tolist()


def test_a_missing_or_misplaced_fold_is_refused(trained: tuple[Any, Any, list[FoldPolicy]]) -> None:
    data, index, items = trained
    arena = build_arena(data, index, CONFIG)
    with pytest.raises(DataError, match="no fold"):
        walk_forward(arena, CONFIG, [])
    with pytest.raises(DataError, match="does not follow"):
        walk_forward(arena, CONFIG, [items[0], items[2]])


def test_the_evaluation_holds_the_walk_forward_where_it_is_configured(trained: tuple[Any, Any, list[FoldPolicy]]) -> None:
    data, index, items = trained
    assert evaluate(items[0].policy, data, index, CONFIG, {}, items).evaluation["walk_forward"] is not None
    assert evaluate(items[0].policy, data, index, eval_config(**WINDOW), {}).evaluation["walk_forward"] is None


SEALED = eval_config(**{**WINDOW, "split__sealed_sessions": 63})


def test_nothing_of_the_sealed_block_reaches_the_evaluation(tmp_path: Path) -> None:
    data, index = make_data()
    policy = make_policy(tmp_path, data)
    tape = data.tape
    burnt = {name: np.concatenate([getattr(tape, name)[:637], 0.01 * getattr(tape, name)[637:]]) for name in ("open", "close")}
    own = evaluate(policy, data, index, SEALED, {})
    other = evaluate(policy, replace(data, tape=tape._replace(**burnt)), index, SEALED, {})
    assert own.metrics == other.metrics
    assert own.trial == other.trial
    assert own.evaluation == other.evaluation
    assert len(own.trial["sessions"]) == 280 - 63  # type: ignore[arg-type]


def test_opening_the_block_sees_exactly_its_sessions(tmp_path: Path) -> None:
    data, index = make_data()
    policy = make_policy(tmp_path, data)
    found = open_sealed_block(policy, data, index, SEALED)
    assert found["sessions"] == 63
    assert found["first_session"] == str(data.sessions[-63])
    assert found["last_session"] == str(data.sessions[-1])
    assert found["violations"] == 0
    arena = replace(build_arena(data, index, SEALED), start=637, stop=700)
    assert found["drawdown"] == pytest.approx(
        float((policy_book(arena, policy).nav / np.maximum.accumulate(np.append(1e6, policy_book(arena, policy).nav))[1:]).min() - 1)
    )


def test_without_a_sealed_block_there_is_nothing_to_open(tmp_path: Path) -> None:
    data, index = make_data()
    with pytest.raises(GovernanceError, match="keeps no sealed block"):
        open_sealed_block(make_policy(tmp_path, data), data, index, eval_config(**WINDOW))
