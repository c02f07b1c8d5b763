"""One verdict per tier: what decides, in which order, and that only promote promotes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes.verdicts import THRESHOLDS, good_evidence, thresholds, with_candidate, with_facts
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.portfolio.significance import alpha_test, pseudo_alphas
from quanto.stages.qualify.edge import trial_correlation
from quanto.stages.qualify.evidence import Book, Trials
from quanto.stages.qualify.gate import TIERS, GateResult
from quanto.stages.qualify.registry import GATES
from quanto.stages.qualify.verdict import PROTECTION, decide, judge

GOOD = good_evidence()


def results(**statuses: str) -> list[GateResult]:
    """Return one result per gate, passed unless named."""
    return [
        GateResult(gate.name, gate.kind, gate.tier, gate.question, statuses.get(gate.name, "passed"), 1.0, 1.0, 1, "why", "what")  # type: ignore[arg-type]
        for gate in GATES.values()
    ]


def decisions(found: list[GateResult], upper: float | None = 2.0, **changes: object) -> list[str]:
    return [decide(found, tier, upper, thresholds(**changes)).decision for tier in TIERS]


def test_everything_passed_promotes_at_every_tier() -> None:
    assert decisions(results()) == ["promote", "promote", "promote"]


@pytest.mark.parametrize("kind", ["regime", "inferiority"])
def test_a_failed_guard_rejects_from_its_tier_on(kind: str) -> None:
    name = next(gate.name for gate in GATES.values() if gate.kind == kind)
    assert decisions(results(**{name: "failed"})) == ["promote", "reject", "reject"]


def test_broken_integrity_rejects_even_research() -> None:
    assert decisions(results(leak_proof_v1="failed")) == ["reject"] * 3


@pytest.mark.parametrize("name", ["activity_v1", "invested_v1"])
def test_an_idle_book_is_no_evidence_against_it_either_unless_its_record_is_broken(name: str) -> None:
    idle = {name: "insufficient", "protection_exposure_v1": "failed"}
    assert decisions(results(**idle))[1] == "insufficient evidence"
    assert decisions(results(**idle, leak_proof_v1="failed"))[1] == "reject"


def test_failure_outranks_lack_of_evidence() -> None:
    assert decisions(results(regime_exposure_v1="insufficient", cvar_inferiority_v1="failed"))[1] == "reject"


@pytest.mark.parametrize("name", ["minimum_sessions_v1", "activity_v1", "regime_volatility_v1"])
def test_too_little_to_judge_by_is_insufficient_evidence(name: str) -> None:
    assert decisions(results(**{name: "insufficient"})) == ["promote", "insufficient evidence", "insufficient evidence"]


@pytest.mark.parametrize(("upper", "expected"), [(0.49, "reject"), (0.5, "insufficient evidence"), (None, "insufficient evidence")])
def test_a_failed_edge_rejects_only_where_even_the_upper_bound_interests_nobody(upper: float | None, expected: str) -> None:
    assert decisions(results(edge_v1="failed"), upper) == ["promote", "promote", expected]


def test_missing_evidence_alone_never_rejects() -> None:
    assert decisions(results(fresh_evidence_v1="insufficient"), -1.0)[2] == "insufficient evidence"


@pytest.mark.parametrize("name", PROTECTION)
def test_a_required_protection_that_proves_nothing_does_not_count(name: str) -> None:
    assert decisions(results(**{name: "vacuous"}))[1] == "insufficient evidence"
    assert decisions(results(**{name: "vacuous"}), protection="none")[1] == "promote"


def test_one_vacuous_comparison_is_borne_and_three_are_not() -> None:
    names = ["regime_exposure_v1", "regime_volatility_v1", "regime_drawdown_v1"]
    assert decisions(results(**{names[0]: "vacuous"}))[1] == "promote"
    assert decisions(results(**dict.fromkeys(names, "vacuous")))[1] == "insufficient evidence"


@pytest.mark.parametrize("name", [gate.name for gate in GATES.values() if gate.kind == "hard"])
def test_a_vacuous_hard_gate_does_not_promote(name: str) -> None:
    assert "promote" not in decisions(results(**{name: "vacuous"}))[TIERS.index(GATES[name].tier) :]


def test_vacuous_evidence_does_not_promote_to_production() -> None:
    assert decisions(results(matched_growth_v1="vacuous"))[2] == "insufficient evidence"


@pytest.mark.parametrize("name", GATES)
def test_a_gate_without_a_result_does_not_promote(name: str) -> None:
    rest = [result for result in results() if result.name != name]
    assert "promote" not in decisions(rest)[TIERS.index(GATES[name].tier) :]


@settings(deadline=None, max_examples=60)
@given(statuses=st.fixed_dictionaries({name: st.sampled_from(["passed", "failed", "vacuous", "insufficient"]) for name in GATES}))
def test_a_higher_tier_is_never_easier_and_every_refusal_has_a_reason(statuses: dict[str, str]) -> None:
    found = results(**statuses)
    verdicts = [decide(found, tier, 1.0, THRESHOLDS) for tier in TIERS]
    promoted = [verdict.decision == "promote" for verdict in verdicts]
    assert promoted == sorted(promoted, reverse=True)
    assert all(verdict.reasons for verdict in verdicts if verdict.decision != "promote")


def test_zero_activity_is_no_evidence() -> None:
    nothing = np.zeros(GOOD.sessions)
    idle = replace(with_facts(GOOD, trades=0), candidate=Book(GOOD.cash, nothing, nothing), matched=Book(GOOD.cash, nothing, nothing))
    judgement = judge(idle, THRESHOLDS)
    assert [verdict.decision for verdict in judgement.verdicts] == ["promote", "insufficient evidence", "insufficient evidence"]
    assert any("no evidence" in reason for reason in judgement.verdict("candidate").reasons)


def test_a_trial_among_many_needs_a_stronger_edge_than_alone() -> None:
    weaker = with_candidate(GOOD, returns=GOOD.candidate.returns - 0.0006)
    alone, crowd = (judge(replace(weaker, trials=Trials(count)), THRESHOLDS) for count in (1, 10_000))
    assert alone.verdict("production").decision == "promote"
    assert crowd.verdict("production").decision == "insufficient evidence"


def test_near_copies_are_judged_by_the_bootstrap_of_the_best() -> None:
    rng = np.random.default_rng(0)
    own = GOOD.excess(GOOD.candidate)
    copies = np.array([own, *(own + 2e-5 * rng.standard_normal(GOOD.sessions) for _ in range(19))])
    trials = Trials(20, (), (), copies, np.tile(GOOD.excess(GOOD.baseline), (20, 1)))
    edge = next(result for result in judge(replace(GOOD, trials=trials), THRESHOLDS).results if result.name == "edge_v1")
    assert "test B" in edge.reason
    assert edge.status == "passed"
    other = next(
        result for result in judge(replace(GOOD, trials=replace(trials, count=21)), THRESHOLDS).results if result.name == "edge_v1"
    )
    assert "test A" in other.reason


def test_a_record_whose_upper_bound_interests_nobody_is_rejected_at_production() -> None:
    dull = with_candidate(GOOD, returns=GOOD.candidate.returns - 0.0013)
    judgement = judge(dull, THRESHOLDS)
    expected = alpha_test(dull.excess(dull.candidate), dull.excess(dull.baseline)).information_ratio_upper
    assert judgement.information_ratio_upper == expected
    assert expected is not None
    assert expected < THRESHOLDS.interesting_ir
    assert [verdict.tier for verdict in judgement.verdicts] == list(TIERS)
    assert judgement.verdict("production").decision == "reject"
    assert any("upper 95 % bound" in reason for reason in judgement.verdict("production").reasons)


def test_every_verdict_names_its_tier_and_every_reason_is_a_sentence() -> None:
    names = ["regime_exposure_v1", "regime_volatility_v1", "regime_drawdown_v1"]
    cases = [results(), results(leak_proof_v1="failed"), results(edge_v1="failed"), results(**dict.fromkeys(names, "vacuous"))]
    for found in cases:
        verdicts = [decide(found, tier, 0.1, THRESHOLDS) for tier in TIERS]
        assert [verdict.tier for verdict in verdicts] == list(TIERS)
        assert all((isinstance(reason, str) and ":" in reason) or "bound" in reason for verdict in verdicts for reason in verdict.reasons)


@pytest.mark.parametrize("missing", ["candidates", "baselines", "count"])
def test_incomplete_vectors_are_never_taken_for_near_copies(missing: str) -> None:
    rows = np.tile(GOOD.excess(GOOD.candidate), (3, 1)) + 1e-5 * np.random.default_rng(1).standard_normal((3, GOOD.sessions))
    whole = Trials(3, (), (), rows, np.tile(GOOD.excess(GOOD.baseline), (3, 1)))
    assert trial_correlation(replace(GOOD, trials=whole)) == pytest.approx(1.0, abs=0.01)
    assert trial_correlation(replace(GOOD, trials=replace(whole, **{missing: None}))) is None


def test_the_correlation_of_trials_is_that_of_their_alpha_scores() -> None:
    rng = np.random.default_rng(2)
    rows = 0.01 * rng.standard_normal((4, GOOD.sessions))
    against = np.tile(GOOD.excess(GOOD.baseline), (4, 1))
    found = trial_correlation(replace(GOOD, trials=Trials(4, (), (), rows, against)))
    scores = np.corrcoef(pseudo_alphas(rows, against))
    assert found == pytest.approx(scores[np.triu_indices(4, 1)].mean())
    assert trial_correlation(replace(GOOD, trials=Trials(1, (), (), rows[:1], against[:1]))) is None
