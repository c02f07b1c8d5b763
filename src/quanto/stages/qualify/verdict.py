"""All gates over one record, and one verdict per tier: promote, reject, or insufficient evidence. Only promote promotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.edge import information_ratio_upper
from quanto.stages.qualify.evidence import Evidence
from quanto.stages.qualify.gate import TIERS, GateResult, Tier, evaluate
from quanto.stages.qualify.registry import GATES

Decision = Literal["promote", "reject", "insufficient evidence"]

# A book that hardly traded or held anything shows nothing, for or against: what else it fails is no finding.
NO_EVIDENCE = ("activity_v1", "invested_v1")

# With protection required these must prove something; without, they are vacuous and do not bind.
PROTECTION = ("protection_exposure_v1", "protection_volatility_v1")


@dataclass(frozen=True)
class Verdict:
    """The answer for one tier and the gates that decided it, one sentence each."""

    tier: Tier
    decision: Decision
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """Every gate's result and every tier's verdict."""

    results: tuple[GateResult, ...]
    verdicts: tuple[Verdict, ...]
    information_ratio_upper: float | None

    def verdict(self, tier: Tier) -> Verdict:
        """Return the verdict of one tier."""
        return next(verdict for verdict in self.verdicts if verdict.tier == tier)


def judge(evidence: Evidence, thresholds: Thresholds) -> Judgement:
    """Return the results of all gates and the verdict of each tier; pure, and the path that the calibration measures."""
    results = tuple(evaluate(gate, evidence, thresholds) for gate in GATES.values())
    upper = information_ratio_upper(evidence)
    verdicts = tuple(decide(results, tier, upper, thresholds) for tier in TIERS)
    return Judgement(results, verdicts, upper)


def decide(results: Sequence[GateResult], tier: Tier, ratio_upper: float | None, thresholds: Thresholds) -> Verdict:
    """Return the verdict of a tier from the gates that bind there.

    1. A hard, regime or inferiority gate failed: reject; unless only regime and inferiority gates failed on a book
       that was idle or near cash, which is no evidence.
    2. Too little to judge by (sample, activity, a protection that proves nothing, a gate without a result):
       insufficient evidence.
    3. Evidence failed: reject if even the upper bound of the information ratio is of no interest, else insufficient.
    4. Otherwise promote.
    """
    binding = [result for result in results if TIERS.index(result.tier) <= TIERS.index(tier)]
    guards = [result for result in binding if result.kind != "evidence"]
    evidence = [result for result in binding if result.kind == "evidence"]
    failed = [result for result in guards if result.status == "failed"]
    idle = any(result.name in NO_EVIDENCE and result.status == "insufficient" for result in guards)
    if any(result.kind == "hard" for result in failed) or (failed and not idle):
        return Verdict(tier, "reject", _reasons(failed))
    thin = [result for result in guards if result.status == "insufficient"]
    gaps = (*_reasons(thin), *_proves_nothing(guards, thresholds), *_absent(results, tier))
    if gaps:
        return Verdict(tier, "insufficient evidence", gaps)
    unproven = [result for result in evidence if result.status != "passed"]
    if not unproven:
        return Verdict(tier, "promote", ())
    hopeless = ratio_upper is not None and ratio_upper < thresholds.interesting_ir
    if hopeless and any(result.status == "failed" for result in unproven):
        bound = f"even the upper 95 % bound of the information ratio, {ratio_upper:.2f}, is below {thresholds.interesting_ir:g}"
        return Verdict(tier, "reject", (*_reasons(unproven), bound))
    return Verdict(tier, "insufficient evidence", _reasons(unproven))


def _proves_nothing(guards: Sequence[GateResult], thresholds: Thresholds) -> tuple[str, ...]:
    """Return what vacuous gates leave open: a hard gate, a required protection, or every regime comparison at once."""
    vacuous = [result for result in guards if result.status == "vacuous"]
    required = [
        result for result in vacuous if result.kind == "hard" or (thresholds.protection == "required" and result.name in PROTECTION)
    ]
    found = list(_reasons(required))
    regime = [result for result in guards if result.kind == "regime" and result.name not in PROTECTION]
    if regime and all(result.status == "vacuous" for result in regime):
        found.append("regime protection: every comparison with the exposure-matched baseline is vacuous")
    return tuple(found)


def _absent(results: Sequence[GateResult], tier: Tier) -> tuple[str, ...]:
    names = {result.name for result in results}
    wanted = [gate.name for gate in GATES.values() if TIERS.index(gate.tier) <= TIERS.index(tier)]
    return tuple(f"{name}: the gate has no result" for name in wanted if name not in names)


def _reasons(results: Sequence[GateResult]) -> tuple[str, ...]:
    return tuple(f"{result.name}: {result.reason}" for result in results)
