"""What a gate is, and how one is evaluated: NaN and missing evidence fail, and a gate that nothing can fail is vacuous."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from quanto.core.errors import DataError
from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.evidence import Evidence

Kind = Literal["hard", "regime", "inferiority", "evidence"]
Tier = Literal["research", "candidate", "production"]
Status = Literal["passed", "failed", "vacuous", "insufficient"]

# Lowest first; a tier includes the gates of those before it.
TIERS: tuple[Tier, ...] = ("research", "candidate", "production")


class Finding(NamedTuple):
    """What a gate measured; `sample` counts sessions, decisions, members or trials, as the reason says."""

    status: Literal["passed", "failed", "insufficient"]
    value: float | None
    threshold: float | None
    sample: int
    reason: str
    change: str


@dataclass(frozen=True)
class Gate:
    """A named question about the evidence; a name never changes its meaning.

    Attributes
    ----------
    tier
        The lowest tier at which the gate binds.
    better
        Whether a larger or a smaller value is better.
    measure
        Pure; raises DataError where the evidence is missing or not finite.
    sabotage
        From evidence to versions of it that an admissible policy, or a fault of the pipeline, could have produced and
        the gate exists to stop.
    """

    name: str
    kind: Kind
    tier: Tier
    question: str
    better: Literal["higher", "lower"]
    measure: Callable[[Evidence, Thresholds], Finding]
    sabotage: Callable[[Evidence], Iterable[Evidence]]
    look_back: int = 0
    lag: int = 0


@dataclass(frozen=True)
class GateResult:
    """A gate's line of the report; `value` None means that there is no finite number."""

    name: str
    kind: Kind
    tier: Tier
    question: str
    status: Status
    value: float | None
    threshold: float | None
    sample: int
    reason: str
    change: str


def evaluate(gate: Gate, evidence: Evidence, thresholds: Thresholds) -> GateResult:
    """Return the result of one gate; what is missing or not finite fails, with the reason."""
    finding = _measure(gate, evidence, thresholds)
    status: Status = finding.status
    reason, change = finding.reason, finding.change
    if status == "passed" and all(_measure(gate, harmed, thresholds).status == "passed" for harmed in gate.sabotage(evidence)):
        status = "vacuous"
        reason = f"nothing that the limits admit could fail this gate, so it proves nothing ({reason})"
        change = "set the threshold or the limits so that a bad policy would fail it"
    return GateResult(
        gate.name, gate.kind, gate.tier, gate.question, status, finding.value, finding.threshold, finding.sample, reason, change
    )


def at_most(value: float, threshold: float, sample: int, what: str, change: str) -> Finding:
    """Return the finding that `value` must not exceed `threshold`; NaN and infinity fail."""
    return _compare(value <= threshold, value, threshold, sample, what, "at most", change)


def at_least(value: float, threshold: float, sample: int, what: str, change: str) -> Finding:
    """Return the finding that `value` must reach `threshold`; NaN and infinity fail."""
    return _compare(value >= threshold, value, threshold, sample, what, "at least", change)


def above(value: float, threshold: float, sample: int, what: str, change: str) -> Finding:
    """Return the finding that `value` must lie above `threshold`; NaN and infinity fail."""
    return _compare(value > threshold, value, threshold, sample, what, "above", change)


def insufficient(value: float | None, threshold: float | None, sample: int, reason: str, change: str) -> Finding:
    """Return the finding that there is too little to judge by."""
    return Finding("insufficient", value, threshold, sample, reason, change)


def _compare(passed: bool, value: float, threshold: float, sample: int, what: str, relation: str, change: str) -> Finding:
    if not math.isfinite(value):
        return Finding("failed", None, threshold, sample, f"{what} is {value}, which proves nothing", "find out why the number is missing")
    reason = f"{what} is {value:.6g}; it must be {relation} {threshold:.6g}"
    return Finding("passed" if passed else "failed", float(value), threshold, sample, reason, change)


def _measure(gate: Gate, evidence: Evidence, thresholds: Thresholds) -> Finding:
    if evidence.ragged or evidence.sessions == 0:
        odd = ", ".join(evidence.ragged) or "all of them: there is no session"
        reason = f"the evidence cannot be judged: every series must cover the candidate's {evidence.sessions} sessions; others: {odd}"
        return Finding("failed", None, None, 0, reason, "evaluate all books on the same sessions")
    try:
        return gate.measure(evidence, thresholds)
    except DataError as error:
        return Finding("failed", None, None, 0, f"the evidence cannot be judged: {error}", "produce the missing or finite evidence")
