"""Every gate: a negative test that makes exactly it fail, monotone in its value, NaN and missing evidence never pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fakes.verdicts import SESSIONS, THRESHOLDS, good_evidence, thresholds, with_candidate, with_facts
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.stages.qualify.evidence import Book, Evidence, Facts, Labels, SealedBlock, Trials
from quanto.stages.qualify.gate import TIERS, evaluate
from quanto.stages.qualify.registry import GATES
from quanto.stages.qualify.verdict import judge

GOOD = good_evidence()
HIGH = GOOD.labels.high


def champion_of(evidence: Evidence) -> Evidence:
    """Return the evidence with the baseline as champion."""
    conditions = {**evidence.facts.conditions, "champion": evidence.facts.conditions["candidate"]}
    return with_facts(replace(evidence, champion=evidence.baseline), conditions=conditions)


CROWNED = champion_of(GOOD)


def shifted(evidence: Evidence, by: float, where: np.ndarray | None = None) -> Evidence:
    returns = evidence.candidate.returns.copy()
    returns[slice(None) if where is None else where] += by
    return with_candidate(evidence, returns=returns)


def fallen(evidence: Evidence) -> Evidence:
    """Return a record with one steady fall inside a high-volatility episode, given back slowly afterwards."""
    rows = np.flatnonzero(HIGH)[:30]
    returns = evidence.candidate.returns.copy()
    returns[rows] -= 0.03
    calm = np.flatnonzero(~HIGH)
    returns[calm] += 0.03 * 30 / len(calm)
    return with_candidate(evidence, returns=returns)


def wobbling(evidence: Evidence) -> Evidence:
    """Return a record that swings back and forth in high volatility without going anywhere."""
    swing = np.where(np.arange(SESSIONS) % 2 == 0, 1.0, -1.0)
    return with_candidate(evidence, returns=evidence.candidate.returns + np.where(HIGH, 0.025 * swing, 0.0))


def tailed(evidence: Evidence) -> Evidence:
    """Return a record whose worst calm sessions are far worse, and whose others pay for them."""
    returns = evidence.candidate.returns.copy()
    calm = np.flatnonzero(~HIGH)
    bad = calm[::12]
    returns[bad] -= 0.07
    rest = np.setdiff1d(calm, bad)
    returns[rest] += 0.07 * len(bad) / len(rest)
    return with_candidate(evidence, returns=returns)


# What makes exactly one gate fail (or find too little): the evidence, and the gates that may go with it by their nature.
NEGATIVE: dict[str, tuple[Callable[[Evidence], Evidence], set[str]]] = {
    "finite_v1": (lambda e: replace(e, baseline=replace(e.baseline, turnover=np.full(SESSIONS, np.nan))), set()),
    "constraint_violations_v1": (lambda e: with_facts(e, violations=1), set()),
    "cash_floor_v1": (lambda e: with_facts(e, cash_breaches=1), set()),
    "same_conditions_v1": (lambda e: with_facts(e, conditions={**e.facts.conditions, "matched": {"everything": "else"}}), set()),
    "leak_proof_v1": (lambda e: with_facts(e, leak_mismatches=3), set()),
    "data_integrity_v1": (lambda e: with_facts(e, data_faults=("x/y: 3 rows in, 2 accounted for",)), set()),
    "complete_trials_v1": (lambda e: replace(e, trials=replace(e.trials, missing=("abc",))), set()),
    "activity_v1": (lambda e: with_facts(e, trades=0), set()),
    "invested_v1": (
        lambda e: with_candidate(e, exposure=np.where(HIGH, 0.0, 0.2)),
        set(),
    ),
    "regime_exposure_v1": (
        lambda e: with_candidate(e, exposure=np.where(HIGH, 0.99, 1.0)),
        {"protection_exposure_v1"},
    ),
    "regime_volatility_v1": (wobbling, {"protection_volatility_v1", "cvar_inferiority_v1"}),
    "regime_drawdown_v1": (fallen, {"protection_volatility_v1", "regime_volatility_v1", "cvar_inferiority_v1", "edge_v1"}),
    "protection_exposure_v1": (lambda e: with_candidate(e, exposure=np.where(HIGH, 0.93, 1.0)), set()),
    "protection_volatility_v1": (
        lambda e: with_candidate(e, returns=e.candidate.returns + np.where(HIGH, 0.45 * e.baseline.returns, 0.0)),
        set(),
    ),
    "alpha_inferiority_v1": (
        lambda e: shifted(e, -0.0022),
        {"edge_v1", "matched_growth_v1", "regime_drawdown_v1"},
    ),
    "cvar_inferiority_v1": (tailed, {"edge_v1"}),
    "edge_v1": (lambda e: replace(e, trials=Trials(10**30)), set()),
    "seeds_agree_v1": (lambda e: replace(e, members=e.members - np.array([[0.0], [1], [1], [1], [0]]) * 0.01), set()),
    "matched_growth_v1": (
        lambda e: replace(e, matched=replace(e.matched, returns=e.matched.returns + 0.002)),
        {"regime_drawdown_v1"},
    ),
    "double_costs_v1": (lambda e: replace(e, doubled=np.array([e.candidate.returns - 0.002, e.baseline.returns])), set()),
    "universe_v1": (lambda e: with_facts(e, selection="hindsight"), set()),
    "fresh_evidence_v1": (lambda e: with_facts(e, fresh_sessions=0), set()),
    "sealed_block_v1": (lambda e: with_facts(e, sealed=SealedBlock(63, 0, -0.1, 0.001)), set()),
}


def stopped(evidence: Evidence) -> set[str]:
    return {gate.name for gate in GATES.values() if evaluate(gate, evidence, THRESHOLDS).status in ("failed", "insufficient")}


def test_the_good_record_passes_every_gate_and_every_tier() -> None:
    judgement = judge(CROWNED, THRESHOLDS)
    assert {result.name: result.status for result in judgement.results if result.status != "passed"} == {}
    assert [verdict.decision for verdict in judgement.verdicts] == ["promote"] * 3


@pytest.mark.parametrize("name", NEGATIVE)
def test_its_own_fault_stops_a_gate_and_no_unrelated_one(name: str) -> None:
    change, company = NEGATIVE[name]
    found = stopped(change(GOOD))
    assert name in found
    assert found <= {name} | company


def test_every_gate_has_a_negative_test() -> None:
    special = {"minimum_sessions_v1", "champion_alpha_inferiority_v1", "champion_cvar_inferiority_v1"}
    assert set(GATES) == set(NEGATIVE) | special


def test_a_short_window_is_no_evidence() -> None:
    result = evaluate(GATES["minimum_sessions_v1"], GOOD, thresholds(minimum_sessions=SESSIONS + 1))
    assert result.status == "insufficient"


@pytest.mark.parametrize(("name", "change"), [
    ("champion_alpha_inferiority_v1", lambda e: replace(e, champion=replace(e.champion, returns=e.champion.returns + 0.003))),
    ("champion_cvar_inferiority_v1", lambda e: replace(e, champion=replace(e.champion, returns=0.3 * e.champion.returns))),
])  # fmt: skip
def test_a_better_champion_stops_exactly_its_own_gate(name: str, change: Callable[[Evidence], Evidence]) -> None:
    assert stopped(change(CROWNED)) == {name}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_says_what_it_asks_what_it_found_and_what_would_change_it(name: str) -> None:
    gate = GATES[name]
    assert re.fullmatch(r"[a-z_]+_v\d+", gate.name)
    assert gate.question.endswith("?")
    assert gate.kind in ("hard", "regime", "inferiority", "evidence")
    assert gate.tier in TIERS
    change, _ = NEGATIVE.get(name, (lambda e: e, set()))
    result = evaluate(gate, change(GOOD), THRESHOLDS)
    assert result.reason
    assert result.change or result.status == "passed"
    assert result.sample >= 0


# Where a gate's value comes from: what to make better, in steps.
BETTER: dict[str, Callable[[Evidence, float], Evidence]] = {
    "regime_exposure_v1": lambda e, x: with_candidate(e, exposure=np.where(HIGH, 1.5 - x, 1.0)),
    "regime_volatility_v1": lambda e, x: with_candidate(e, returns=np.where(HIGH, (2 - x) * e.baseline.returns, e.candidate.returns)),
    "regime_drawdown_v1": lambda e, x: shifted(e, 0.02 * x - 0.03, HIGH),
    "protection_exposure_v1": lambda e, x: with_candidate(e, exposure=np.where(HIGH, 1 - 0.5 * x, 1.0)),
    "protection_volatility_v1": lambda e, x: with_candidate(e, returns=np.where(HIGH, (2 - x) * e.baseline.returns, e.candidate.returns)),
    "alpha_inferiority_v1": lambda e, x: shifted(e, 0.004 * x - 0.006),
    "cvar_inferiority_v1": lambda e, x: with_candidate(e, returns=(3 - x) * e.baseline.returns),
    "edge_v1": lambda e, x: shifted(e, 0.002 * x - 0.003),
    "matched_growth_v1": lambda e, x: shifted(e, 0.002 * x - 0.003),
    "seeds_agree_v1": lambda e, x: replace(e, members=e.members + 0.002 * x - 0.003),
    "double_costs_v1": lambda e, x: replace(e, doubled=np.array([e.candidate.returns + 0.002 * x - 0.003, e.baseline.returns])),
    "activity_v1": lambda e, x: with_candidate(e, turnover=np.full(SESSIONS, 0.002 * x)),
    "invested_v1": lambda e, x: with_candidate(e, exposure=np.full(SESSIONS, 0.3 * x)),
    "constraint_violations_v1": lambda e, x: with_facts(e, violations=int(4 - 2 * x)),
    "cash_floor_v1": lambda e, x: with_facts(e, cash_breaches=int(4 - 2 * x)),
    "leak_proof_v1": lambda e, x: with_facts(e, leak_mismatches=int(4 - 2 * x)),
    "fresh_evidence_v1": lambda e, x: with_facts(e, fresh_sessions=int(20 * x)),
    "sealed_block_v1": lambda e, x: with_facts(e, sealed=SealedBlock(63, 0, -0.1, 0.04 * x)),
}  # fmt: skip


@pytest.mark.parametrize("name", BETTER)
def test_a_better_record_never_fails_where_a_worse_one_passed(name: str) -> None:
    steps = [BETTER[name](GOOD, float(x)) for x in np.linspace(0, 2, 9)]
    passed = [evaluate(GATES[name], evidence, THRESHOLDS).status == "passed" for evidence in steps]
    assert passed == sorted(passed)
    assert passed[-1]
    assert not passed[0]


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(sorted(GATES)),
    place=st.sampled_from(["returns", "exposure", "turnover"]),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    row=st.integers(0, SESSIONS - 1),
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # infinity minus infinity, on purpose
def test_one_number_that_is_not_finite_rejects_the_record_at_every_tier(name: str, place: str, value: float, row: int) -> None:
    array = getattr(GOOD.candidate, place).copy()
    array[row] = value
    poisoned = with_candidate(GOOD, **{place: array})
    assert evaluate(GATES["finite_v1"], poisoned, THRESHOLDS).status == "failed"
    assert [verdict.decision for verdict in judge(poisoned, THRESHOLDS).verdicts] == ["reject"] * 3
    result = evaluate(GATES[name], poisoned, THRESHOLDS)
    assert result.value is None or np.isfinite(result.value)


READS_RETURNS = [
    "regime_volatility_v1", "regime_drawdown_v1", "protection_volatility_v1", "alpha_inferiority_v1", "cvar_inferiority_v1",
    "champion_alpha_inferiority_v1", "champion_cvar_inferiority_v1", "edge_v1", "matched_growth_v1", "finite_v1",
]  # fmt: skip


@pytest.mark.parametrize("name", READS_RETURNS)
def test_a_gate_that_reads_returns_fails_on_nan(name: str) -> None:
    nothing = np.full(SESSIONS, np.nan)
    assert evaluate(GATES[name], with_candidate(CROWNED, returns=nothing), THRESHOLDS).status == "failed"


@pytest.mark.parametrize("name", ["regime_exposure_v1", "protection_exposure_v1", "invested_v1"])
def test_a_gate_that_reads_exposure_fails_on_nan(name: str) -> None:
    assert evaluate(GATES[name], with_candidate(GOOD, exposure=np.full(SESSIONS, np.nan)), THRESHOLDS).status == "failed"


def test_turnover_that_is_nan_is_no_evidence_and_fails_the_finite_gate() -> None:
    poisoned = with_candidate(GOOD, turnover=np.full(SESSIONS, np.nan))
    assert evaluate(GATES["activity_v1"], poisoned, THRESHOLDS).status == "insufficient"
    assert evaluate(GATES["finite_v1"], poisoned, THRESHOLDS).status == "failed"


MISSING = {
    "constraint_violations_v1", "cash_floor_v1", "same_conditions_v1", "leak_proof_v1", "data_integrity_v1", "complete_trials_v1",
    "activity_v1", "edge_v1", "universe_v1", "fresh_evidence_v1", "sealed_block_v1", "double_costs_v1", "seeds_agree_v1",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MISSING))
def test_missing_evidence_never_passes(name: str) -> None:
    bare = replace(GOOD, facts=Facts(), trials=Trials(None), doubled=None, members=np.empty((0, SESSIONS)))
    assert evaluate(GATES[name], bare, THRESHOLDS).status in ("failed", "insufficient")


def test_decisions_that_nobody_checked_fail() -> None:
    assert evaluate(GATES["constraint_violations_v1"], with_facts(GOOD, decisions=SESSIONS - 1), THRESHOLDS).status == "failed"


def test_a_leak_proof_that_compared_too_little_fails() -> None:
    assert evaluate(GATES["leak_proof_v1"], with_facts(GOOD, leak_sessions=63), THRESHOLDS).status == "failed"


def test_a_book_that_lost_everything_fails() -> None:
    returns = GOOD.candidate.returns.copy()
    returns[10] = -1.0
    assert evaluate(GATES["finite_v1"], with_candidate(GOOD, returns=returns), THRESHOLDS).status == "failed"


@pytest.mark.parametrize(("name", "changes"), [
    ("minimum_sessions_v1", {"minimum_sessions": 1}),
    ("activity_v1", {"minimum_trades": 0, "minimum_turnover": 0.0}),
    ("invested_v1", {"minimum_exposure_share": 0.0}),
    ("regime_exposure_v1", {"exposure_margin": 1.0}),
    ("regime_volatility_v1", {"volatility_ratio": 100.0}),
    ("protection_exposure_v1", {"protection": "none"}),
    ("protection_volatility_v1", {"protection": "none"}),
    ("matched_growth_v1", {"growth_margin": 1e6}),
])  # fmt: skip
def test_a_threshold_that_nothing_could_miss_makes_its_gate_vacuous(name: str, changes: dict[str, object]) -> None:
    assert evaluate(GATES[name], GOOD, thresholds(**changes)).status == "vacuous"


def test_a_drawdown_limit_beyond_what_the_limits_can_lose_is_vacuous() -> None:
    calm = replace(GOOD, saboteurs=(GOOD.matched, GOOD.baseline))
    assert evaluate(GATES["regime_drawdown_v1"], calm, thresholds(drawdown_ratio=1e6, drawdown_limit=1.0)).status == "vacuous"


@pytest.mark.parametrize("name", ["champion_alpha_inferiority_v1", "champion_cvar_inferiority_v1"])
def test_without_a_champion_its_gates_are_vacuous(name: str) -> None:
    assert evaluate(GATES[name], GOOD, THRESHOLDS).status == "vacuous"


def test_an_error_inside_a_gate_fails_it_with_its_reason() -> None:
    baseline = Book(GOOD.baseline.returns * np.nan, GOOD.baseline.exposure, GOOD.baseline.turnover)
    result = evaluate(GATES["edge_v1"], replace(GOOD, baseline=baseline), THRESHOLDS)
    assert result.status == "failed"
    assert "cannot be judged" in result.reason


@pytest.mark.parametrize("name", ["regime_exposure_v1", "regime_volatility_v1", "regime_drawdown_v1", "protection_exposure_v1"])
@pytest.mark.parametrize("labels", [
    Labels(np.zeros(SESSIONS, dtype=bool), np.ones(SESSIONS, dtype=bool)),
    Labels(np.arange(SESSIONS) < 100, np.ones(SESSIONS, dtype=bool)),
    Labels(HIGH, np.zeros(SESSIONS, dtype=bool)),
])  # fmt: skip
def test_too_little_turbulence_is_no_evidence(name: str, labels: Labels) -> None:
    assert evaluate(GATES[name], replace(GOOD, labels=labels), THRESHOLDS).status == "insufficient"
