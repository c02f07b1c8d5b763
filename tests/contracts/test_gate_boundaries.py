"""Gates at their edges: exactly on a threshold, just beyond it, and what a record must not allow."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from fakes.verdicts import SESSIONS, THRESHOLDS, good_evidence, thresholds, with_candidate, with_facts

from quanto.stages.qualify import edge, evidence, gate, verdict
from quanto.stages.qualify.evidence import SealedBlock, Trials
from quanto.stages.qualify.gate import evaluate
from quanto.stages.qualify.registry import GATES

GOOD = good_evidence()
LIMIT = THRESHOLDS.drawdown_limit
LEVEL = THRESHOLDS.inferiority_level


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (SealedBlock(63, 0, -LIMIT, LEVEL), "passed"),
        (SealedBlock(63, 0, np.nextafter(-LIMIT, -1), 0.5), "failed"),
        (SealedBlock(63, 1, -0.01, 0.5), "failed"),
        (SealedBlock(63, 0, -0.01, np.nextafter(LEVEL, 0)), "failed"),
        (SealedBlock(63, 0, float("nan"), 0.5), "failed"),
    ],
)
def test_the_sealed_block_vetoes_a_breach_a_fall_beyond_the_limit_and_inferiority(block: SealedBlock, status: str) -> None:
    result = evaluate(GATES["sealed_block_v1"], with_facts(GOOD, sealed=block), THRESHOLDS)
    assert result.status == status
    if status == "failed":
        assert result.change == "the block is spent; wait for new data"


def test_a_fall_in_the_sealed_block_is_told_as_a_positive_number() -> None:
    result = evaluate(GATES["sealed_block_v1"], with_facts(GOOD, sealed=SealedBlock(63, 0, -0.75, 0.5)), THRESHOLDS)
    assert (result.value, result.threshold, result.sample) == (0.75, LIMIT, 63)
    assert "a drawdown of 0.75" in result.reason


@pytest.mark.parametrize("loss", [-1.0, -1.5])
def test_a_return_of_all_or_more_than_all_is_ruin(loss: float) -> None:
    returns = GOOD.candidate.returns.copy()
    returns[5] = loss
    result = evaluate(GATES["finite_v1"], with_candidate(GOOD, returns=returns), THRESHOLDS)
    assert (result.status, result.value) == ("failed", 1.0)


def test_every_number_of_every_series_is_counted_when_missing() -> None:
    lost = np.full(SESSIONS, np.nan)
    result = evaluate(GATES["finite_v1"], with_candidate(GOOD, returns=lost, exposure=lost, turnover=lost), THRESHOLDS)
    assert result.value == 3 * SESSIONS
    result = evaluate(GATES["finite_v1"], replace(GOOD, champion=replace(GOOD.baseline, turnover=lost), cash=lost), THRESHOLDS)
    assert result.value == 2 * SESSIONS


def copies(count: int, scale: float = 2e-5) -> Trials:
    own, other = GOOD.excess(GOOD.candidate), GOOD.excess(GOOD.baseline)
    rows = np.tile(own, (count, 1)) + scale * np.random.default_rng(0).standard_normal((count, SESSIONS))
    return Trials(count, (), (), rows, np.tile(other, (count, 1)))


def test_two_trials_have_a_correlation_and_one_has_none() -> None:
    two = edge.trial_correlation(replace(GOOD, trials=copies(2)))
    assert two is not None
    assert 0.99 < two < 1
    assert edge.trial_correlation(replace(GOOD, trials=copies(1))) is None


def test_trials_that_are_not_all_there_or_do_not_move_have_no_correlation() -> None:
    trials = copies(3)
    assert edge.trial_correlation(replace(GOOD, trials=replace(trials, count=4))) is None
    assert trials.candidates is not None
    assert trials.baselines is not None
    still = trials.candidates.copy()
    still[1] = 0.0
    assert edge.trial_correlation(replace(GOOD, trials=replace(trials, candidates=still))) is None


@pytest.mark.parametrize("count", [3, 5, 20])
def test_the_correlation_of_trials_is_the_mean_over_their_pairs(count: int) -> None:
    trials = copies(count, scale=2e-3)
    assert trials.candidates is not None
    assert trials.baselines is not None
    scores = edge.pseudo_alphas(trials.candidates, trials.baselines)
    pairs = np.corrcoef(scores)[np.triu_indices(count, 1)]
    assert edge.trial_correlation(replace(GOOD, trials=trials)) == pytest.approx(pairs.mean(), abs=1e-12)


def test_the_harmful_seeds_are_as_many_as_the_real_ones_and_all_alike() -> None:
    harmed = list(GATES["seeds_agree_v1"].sabotage(GOOD))
    assert len(harmed) == len(GOOD.saboteurs)
    for found, book in zip(harmed, GOOD.saboteurs, strict=True):
        assert found.members.shape == GOOD.members.shape
        assert all(np.array_equal(row, book.returns) for row in found.members)


@pytest.mark.parametrize("name", ["protection_exposure_v1", "protection_volatility_v1"])
def test_protection_that_is_not_required_is_a_zero_against_zero(name: str) -> None:
    result = evaluate(GATES[name], GOOD, thresholds(protection="none"))
    assert (result.value, result.threshold, result.sample) == (0.0, 0.0, SESSIONS)


def test_a_record_of_one_session_is_judged_and_one_of_none_is_not() -> None:
    def cut(sessions: int) -> evidence.Evidence:
        def book(item: evidence.Book) -> evidence.Book:
            return evidence.Book(item.returns[:sessions], item.exposure[:sessions], item.turnover[:sessions])

        return replace(
            GOOD,
            candidate=book(GOOD.candidate),
            baseline=book(GOOD.baseline),
            matched=book(GOOD.matched),
            cash=GOOD.cash[:sessions],
            labels=evidence.Labels(GOOD.labels.high[:sessions], GOOD.labels.known[:sessions]),
            members=GOOD.members[:, :sessions],
            doubled=None if GOOD.doubled is None else GOOD.doubled[:, :sessions],
            saboteurs=tuple(book(item) for item in GOOD.saboteurs),
        )

    assert evaluate(GATES["finite_v1"], cut(1), THRESHOLDS).sample == 1
    none = evaluate(GATES["finite_v1"], cut(0), THRESHOLDS)
    assert none.status == "failed"
    assert "there is no session" in none.reason


@pytest.mark.parametrize("module", [evidence, gate, verdict])
def test_what_gates_see_and_say_cannot_be_changed_afterwards(module: ModuleType) -> None:
    found = [item for _, item in inspect.getmembers(module, dataclasses.is_dataclass) if item.__module__ == module.__name__]
    assert found
    assert all(item.__dataclass_params__.frozen for item in found)


def test_a_gate_looks_at_the_record_itself_unless_it_says_otherwise() -> None:
    plain = gate.Gate("x", "hard", "research", "?", "lower", lambda *_: gate.insufficient(None, None, 0, "", ""), lambda _: ())
    assert (plain.look_back, plain.lag) == (0, 0)


def spells(length: int, count: int) -> evidence.Labels:
    """Return labels with `count` spells of high volatility of `length` sessions each."""
    high = np.zeros(SESSIONS, dtype=bool)
    for number in range(count):
        start = 5 + number * (SESSIONS // (count + 1))
        high[start : start + length] = True
    return evidence.Labels(high, np.ones(SESSIONS, dtype=bool))


@pytest.mark.parametrize(
    ("length", "count", "enough"),
    [
        (THRESHOLDS.high_volatility_sessions // 10, 9, False),
        (THRESHOLDS.high_volatility_sessions, THRESHOLDS.high_volatility_episodes - 1, False),
        (THRESHOLDS.high_volatility_sessions // THRESHOLDS.high_volatility_episodes + 1, THRESHOLDS.high_volatility_episodes, True),
    ],
)
def test_high_volatility_is_judged_by_enough_sessions_in_enough_episodes(length: int, count: int, enough: bool) -> None:
    result = evaluate(GATES["protection_exposure_v1"], replace(GOOD, labels=spells(length, count)), THRESHOLDS)
    assert (result.status != "insufficient") == enough


def test_as_many_seeds_as_are_needed_are_enough_and_one_fewer_is_not() -> None:
    least = THRESHOLDS.minimum_seeds
    enough, few = (
        evaluate(GATES["seeds_agree_v1"], replace(GOOD, members=GOOD.members[:count]), THRESHOLDS) for count in (least, least - 1)
    )
    assert (enough.status, few.status) == ("passed", "insufficient")
    assert few.value == least - 1


def test_draws_follow_from_seed_zero_where_no_other_is_given() -> None:
    fields = {item.name: item.default for item in dataclasses.fields(evidence.Evidence)}
    assert fields["seed"] == 0


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_series_that_is_shorter_or_longer_than_the_candidates_is_ragged(extra: int) -> None:
    def fit(values: np.ndarray) -> np.ndarray:
        return values[:extra] if extra < 0 else np.append(values, values[-1])

    cash = replace(GOOD, cash=fit(GOOD.cash))
    assert cash.ragged
    other = replace(GOOD, baseline=replace(GOOD.baseline, turnover=fit(GOOD.baseline.turnover)))
    assert other.ragged
    for record in (cash, other):
        assert evaluate(GATES["finite_v1"], record, THRESHOLDS).status == "failed"


@pytest.mark.parametrize("change", ["~ after all letters", "! before all letters"])
def test_conditions_that_differ_in_either_direction_are_odd(change: str) -> None:
    own = {name: dict(values) for name, values in GOOD.facts.conditions.items()}
    key = next(iter(own["candidate"]))
    own["baseline"][key] = change
    result = evaluate(GATES["same_conditions_v1"], with_facts(GOOD, conditions=own), THRESHOLDS)
    assert (result.status, result.value) == ("failed", 1.0)


def test_more_decisions_than_sessions_are_enough() -> None:
    name = next(name for name in GATES if "constraint" in name or "violation" in name)
    assert evaluate(GATES[name], with_facts(GOOD, decisions=SESSIONS + 1), THRESHOLDS).status == "passed"
    assert evaluate(GATES[name], with_facts(GOOD, decisions=SESSIONS), THRESHOLDS).status == "passed"


def test_what_is_invested_is_measured_against_the_baselines_own_exposure() -> None:
    half = replace(GOOD, baseline=replace(GOOD.baseline, exposure=np.full(SESSIONS, 0.5)))
    result = evaluate(GATES["invested_v1"], half, THRESHOLDS)
    assert result.threshold == pytest.approx(THRESHOLDS.minimum_exposure_share * 0.5)


def test_above_is_not_at_least() -> None:
    assert gate.above(0.0, 0.0, 1, "x", "").status == "failed"
    assert gate.at_least(0.0, 0.0, 1, "x", "").status == "passed"
    assert gate.at_most(0.0, 0.0, 1, "x", "").status == "passed"


def test_trials_of_which_fewer_are_counted_than_are_there_have_no_correlation() -> None:
    assert edge.trial_correlation(replace(GOOD, trials=replace(copies(3), count=2))) is None
