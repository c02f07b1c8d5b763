"""Hard gates: deterministic, fail closed. They ask whether the record is whole, kept its limits, and is a record at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from quanto.core.errors import DataError
from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.evidence import Book, Evidence, FloatArray, Labels, Trials
from quanto.stages.qualify.gate import Finding, Gate, at_least, at_most, insufficient

# Returns below this lose more than all there is.
RUIN = -1.0


def known(value: int | None, what: str) -> int:
    """Return a fact that must be there.

    Raises
    ------
    DataError
        If it is missing.
    """
    if value is None:
        raise DataError(f"{what} is missing")
    return value


def listed(items: Sequence[str]) -> str:
    """Return the items in brackets behind a blank, or nothing of none."""
    return f" ({'; '.join(items)})" if items else ""


def calm_sessions(evidence: Evidence) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return the sessions outside high volatility: the labelled ones, or all where none is labelled so."""
    calm = evidence.labels.calm
    return calm if calm.any() else np.ones(evidence.sessions, dtype=np.bool_)


def _one_violation(evidence: Evidence) -> Iterator[Evidence]:
    yield replace(evidence, facts=replace(evidence.facts, violations=1))


def _one_cash_breach(evidence: Evidence) -> Iterator[Evidence]:
    yield replace(evidence, facts=replace(evidence.facts, cash_breaches=1))


def _one_leak(evidence: Evidence) -> Iterator[Evidence]:
    yield replace(evidence, facts=replace(evidence.facts, leak_mismatches=1))


def _one_lost_row(evidence: Evidence) -> Iterator[Evidence]:
    yield replace(evidence, facts=replace(evidence.facts, data_faults=("a row was lost",)))


def _finite(evidence: Evidence, _thresholds: Thresholds) -> Finding:
    books = [evidence.candidate, evidence.baseline, evidence.matched]
    books += [] if evidence.champion is None else [evidence.champion]
    bad = 0
    for book in books:
        bad += sum(int((~np.isfinite(array)).sum()) for array in (book.returns, book.exposure, book.turnover))
        bad += int((book.returns <= RUIN).sum())
    others: list[FloatArray] = [evidence.cash, *evidence.members, *([] if evidence.doubled is None else evidence.doubled)]
    bad += sum(int((~np.isfinite(array)).sum()) for array in others)
    change = "find the first session whose number is missing; nothing is judged before"
    return at_most(bad, 0, evidence.sessions, "the count of NaN, infinite or ruined values in all series", change)


def _with_nan(evidence: Evidence) -> Iterator[Evidence]:
    returns = evidence.candidate.returns.copy()
    returns[:1] = np.nan
    yield replace(evidence, candidate=replace(evidence.candidate, returns=returns))


def _violations(evidence: Evidence, _thresholds: Thresholds) -> Finding:
    decisions = known(evidence.facts.decisions, "the number of decisions compared with the limits")
    if decisions < evidence.sessions:
        raise DataError(f"only {decisions} decisions of {evidence.sessions} sessions were compared with the limits")
    violations = known(evidence.facts.violations, "the number of constraint violations")
    return at_most(violations, 0, decisions, "the count of breached limits over all decisions", "put the constraints around the policy")


def _cash(evidence: Evidence, _thresholds: Thresholds) -> Finding:
    breaches = known(evidence.facts.cash_breaches, "the number of sessions below the cash floor")
    return at_most(
        breaches, 0, evidence.sessions, "the count of sessions with cash below its floor after costs", "raise minimum_cash or trade less"
    )


def _conditions(evidence: Evidence, _thresholds: Thresholds) -> Finding:
    wanted = {"candidate", "baseline", "matched"} | ({"champion"} if evidence.champion is not None else set())
    missing = sorted(wanted - set(evidence.facts.conditions))
    if missing:
        raise DataError(f"the conditions of {', '.join(missing)} are missing (sessions, costs, cash, eligibility)")
    own = evidence.facts.conditions["candidate"]
    if not own:
        raise DataError("the candidate's conditions are empty")
    odd = sorted(f"{name}.{key}" for name in wanted for key in own if evidence.facts.conditions[name].get(key) != own[key])
    what = f"the count of conditions that differ from the candidate's{listed(odd)}"
    return at_most(len(odd), 0, evidence.sessions, what, "run all books over the same sessions, costs, cash and eligibility")


def _other_conditions(evidence: Evidence) -> Iterator[Evidence]:
    own = {name: dict(values) for name, values in evidence.facts.conditions.items()}
    own["baseline"] = {key: f"not {value}" for key, value in own.get("candidate", {}).items()}
    yield replace(evidence, facts=replace(evidence.facts, conditions=own))


def _leak_proof(evidence: Evidence, thresholds: Thresholds) -> Finding:
    mismatches = known(evidence.facts.leak_mismatches, "the leak proof's count of mismatches")
    sessions = known(evidence.facts.leak_sessions, "the leak proof's count of sessions")
    if sessions < thresholds.proof_sessions:
        reason = f"the leak proof compared {sessions} sessions; it must compare {thresholds.proof_sessions}"
        return Finding("failed", sessions, thresholds.proof_sessions, sessions, reason, "raise features.proof_sessions")
    return at_most(mismatches, 0, sessions, "the count of feature values that changed with the future", "mend the feature that leaks")


def _data(evidence: Evidence, _thresholds: Thresholds) -> Finding:
    if evidence.facts.data_faults is None:
        raise DataError("the canonical report is missing")
    faults = evidence.facts.data_faults
    what = f"the count of faults in the canonical report{listed(faults)}"
    return at_most(len(faults), 0, evidence.sessions, what, "mend the data; quarantine is no fault, lost rows are")


def _trials(evidence: Evidence, _thresholds: Thresholds) -> Finding:
    count = known(evidence.trials.count, "the number of trials on this holdout")
    if count < 1:
        raise DataError(f"at least one trial, the candidate's own, must be counted; found {count}")
    lost = [*evidence.trials.faults, *(f"no daily returns of trial {name}" for name in evidence.trials.missing)]
    what = f"the count of faults in the trial ledger{listed(lost)}"
    return at_most(len(lost), 0, count, what, "run `quanto ledger sync` and `quanto ledger seal`, and find the lost records")


def _lost_trial(evidence: Evidence) -> Iterator[Evidence]:
    yield replace(evidence, trials=replace(evidence.trials, missing=(*evidence.trials.missing, "lost")))


def _sample(evidence: Evidence, thresholds: Thresholds) -> Finding:
    sessions = evidence.sessions
    if sessions < thresholds.minimum_sessions:
        reason = f"{sessions} out-of-sample sessions; {thresholds.minimum_sessions} are needed"
        return insufficient(sessions, thresholds.minimum_sessions, sessions, reason, "evaluate on a longer window")
    return at_least(sessions, thresholds.minimum_sessions, sessions, "the count of out-of-sample sessions", "")


def _activity(evidence: Evidence, thresholds: Thresholds) -> Finding:
    trades = known(evidence.facts.trades, "the number of trades")
    turnover = float(evidence.candidate.turnover.sum())
    if trades < thresholds.minimum_trades or not turnover >= thresholds.minimum_turnover:
        reason = (
            f"no evidence: {trades} trades and one-way turnover {turnover:.4g} over the window; "
            f"{thresholds.minimum_trades} and {thresholds.minimum_turnover:g} are needed"
        )
        return insufficient(turnover if np.isfinite(turnover) else None, thresholds.minimum_turnover, trades, reason, "trade, or wait")
    return at_least(turnover, thresholds.minimum_turnover, trades, "one-way turnover over the window", "")


def _invested(evidence: Evidence, thresholds: Thresholds) -> Finding:
    calm = calm_sessions(evidence)
    own, other = float(evidence.candidate.exposure[calm].mean()), float(evidence.baseline.exposure[calm].mean())
    sample = int(calm.sum())
    if not (np.isfinite(own) and np.isfinite(other)):
        raise DataError("the exposure outside high volatility is not finite")
    wanted = thresholds.minimum_exposure_share * other
    if own < wanted:
        reason = f"no evidence: mean gross exposure outside high volatility is {own:.4g}; {wanted:.4g} is needed (near-cash proves nothing)"
        return insufficient(own, wanted, sample, reason, "hold more, or compare with a baseline that holds less")
    return at_least(own, wanted, sample, "mean gross exposure outside high volatility", "")


def _idle(evidence: Evidence) -> Iterator[Evidence]:
    """Yield the record of a book that never left cash."""
    nothing = np.zeros(evidence.sessions)
    idle = Book(evidence.cash, nothing, nothing)
    yield replace(evidence, candidate=idle, facts=replace(evidence.facts, trades=0))


def _short(evidence: Evidence) -> Iterator[Evidence]:
    """Yield the same record cut to its first session."""

    def first(book: Book) -> Book:
        return Book(book.returns[:1], book.exposure[:1], book.turnover[:1])

    yield replace(
        evidence,
        candidate=first(evidence.candidate),
        baseline=first(evidence.baseline),
        matched=first(evidence.matched),
        champion=None,
        cash=evidence.cash[:1],
        labels=Labels(evidence.labels.high[:1], evidence.labels.known[:1]),
        members=evidence.members[:, :1],
        doubled=None,
        trials=Trials(evidence.trials.count),
    )


HARD_GATES = (
    Gate("finite_v1", "hard", "research", "Is every number of every series finite and no book ruined?", "lower", _finite, _with_nan),
    Gate(
        "constraint_violations_v1",
        "hard",
        "research",
        "Does every decision keep every limit?",
        "lower",
        _violations,
        _one_violation,
    ),
    Gate(
        "cash_floor_v1",
        "hard",
        "research",
        "Did cash after costs keep its floor?",
        "lower",
        _cash,
        _one_cash_breach,
    ),
    Gate(
        "same_conditions_v1",
        "hard",
        "research",
        "Do candidate and baselines share sessions, costs, cash and eligibility?",
        "lower",
        _conditions,
        _other_conditions,
    ),
    Gate(
        "leak_proof_v1",
        "hard",
        "research",
        "Is no feature made from the future?",
        "lower",
        _leak_proof,
        _one_leak,
    ),
    Gate(
        "data_integrity_v1",
        "hard",
        "research",
        "Is every row of the canonical data accounted for?",
        "lower",
        _data,
        _one_lost_row,
    ),
    Gate(
        "complete_trials_v1", "hard", "candidate", "Is every look at this holdout known, with its returns?", "lower", _trials, _lost_trial
    ),
    Gate("minimum_sessions_v1", "hard", "candidate", "Is the out-of-sample window long enough?", "higher", _sample, _short),
    Gate("activity_v1", "hard", "candidate", "Did the candidate trade at all?", "higher", _activity, _idle),
    Gate("invested_v1", "hard", "candidate", "Was the candidate invested outside high volatility?", "higher", _invested, _idle),
)
