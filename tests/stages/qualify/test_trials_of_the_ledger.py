"""K and the trials' returns come from the committed snapshot alone, and no understatement passes."""

from __future__ import annotations

import numpy as np
import pytest

from quanto.core.chain import Link, append, chain_bytes
from quanto.stages.qualify.ledger import trials_of

DAYS = [f"2007-01-{day:02d}" for day in range(1, 21)]


def body(name: str, seed: int, days: list[str] = DAYS, **changes: object) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    series = {key: rng.normal(size=len(days)).tolist() for key in ("returns", "baseline_returns", "cash_returns")}
    return {"trial_id": name, "sessions": days, **series, **changes}


def snapshot(*bodies: dict[str, object], kind: str = "trial") -> bytes:
    chain: tuple[Link, ...] = ()
    for item in bodies:
        chain = (*chain, append(chain, kind, item))  # type: ignore[arg-type]
    return chain_bytes(chain)


OWN = body("own", 0)


def test_an_empty_ledger_counts_the_candidate_itself() -> None:
    trials = trials_of(b"", OWN, 0)
    assert trials.count == 1
    assert trials.candidates is not None
    assert trials.candidates[0] == pytest.approx(np.array(OWN["returns"]) - np.array(OWN["cash_returns"]))


def test_the_candidate_is_counted_once_whether_recorded_or_not() -> None:
    assert trials_of(snapshot(OWN, body("b", 1)), OWN, 0).count == 2


def test_a_trial_counts_once_by_its_id_and_once_by_its_returns() -> None:
    twin = {**body("twin", 1), "trial_id": "other name"}
    assert trials_of(snapshot(body("twin", 1), twin, body("twin", 2)), OWN, 0).count == 2


def test_one_common_session_is_an_overlap_and_none_is_not() -> None:
    touching = body("touching", 1, [DAYS[-1], "2007-02-01"])
    apart = body("apart", 2, ["2007-02-01", "2007-02-02"])
    trials = trials_of(snapshot(touching, apart), OWN, 0)
    assert trials.count == 2
    assert trials.candidates is None  # the touching trial does not cover the holdout


def test_looks_made_elsewhere_are_added_and_leave_the_vectors_incomplete() -> None:
    trials = trials_of(snapshot(body("b", 1)), OWN, 7)
    assert trials.count == 9
    assert trials.candidates is None


@pytest.mark.parametrize(
    "broken",
    [{"returns": None}, {"returns": [1.0]}, {"baseline_returns": ["x"] * 20}, {"cash_returns": [True] * 20}, {"cash_returns": "twenty"}],
)
def test_a_trial_without_whole_returns_is_missing(broken: dict[str, object]) -> None:
    assert trials_of(snapshot(body("b", 1, **broken)), OWN, 0).missing == ("b",)


def test_a_trial_that_does_not_say_what_it_saw_counts_and_is_missing() -> None:
    trials = trials_of(snapshot({"trial_id": "mute", "returns": [0.1]}), OWN, 0)
    assert trials.count == 2
    assert trials.missing == ("mute",)


def test_a_look_at_a_trial_that_is_not_recorded_is_a_fault() -> None:
    trials = trials_of(snapshot({"trial_id": "ghost", "verb": "report"}, kind="look"), OWN, 0)
    assert "ghost" in trials.faults[0]


@pytest.mark.parametrize("position", [0, 40, -20])
def test_a_changed_byte_leaves_no_count(position: int) -> None:
    content = bytearray(snapshot(body("b", 1), body("c", 2)))
    content[position] ^= 1
    trials = trials_of(bytes(content), OWN, 0)
    assert trials.count is None
    assert trials.faults


def test_a_record_that_was_cut_out_leaves_no_count() -> None:
    lines = snapshot(body("b", 1), body("c", 2), body("d", 3)).splitlines(keepends=True)
    assert trials_of(b"".join([lines[0], lines[2]]), OWN, 0).count is None


def test_rows_follow_the_candidates_sessions() -> None:
    longer = body("longer", 1, ["2006-12-29", *DAYS, "2007-02-01"])
    trials = trials_of(snapshot(longer), OWN, 0)
    assert trials.candidates is not None
    assert trials.candidates[1] == pytest.approx((np.array(longer["returns"]) - np.array(longer["cash_returns"]))[1:-1])
