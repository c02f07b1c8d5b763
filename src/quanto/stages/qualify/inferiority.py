"""Inferiority gates: the candidate must not be shown to be worse than the baseline or the champion.

The test is on the intercept alpha: the mean difference would punish a lower beta. Not shown is not proven equal, so
the reason says what the test could have seen.
"""

from __future__ import annotations

from quanto.portfolio.significance import alpha_tests, cvar_tests, detectable_ratio
from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.evidence import Book, Evidence
from quanto.stages.qualify.gate import Finding, Gate, at_least
from quanto.stages.qualify.regime import saboteurs


def _alpha(evidence: Evidence, thresholds: Thresholds, other: Book, name: str) -> Finding:
    excess, against = evidence.excess(evidence.candidate), evidence.excess(other)
    p = float(alpha_tests(excess[None], against).p_inferior[0])
    seen = detectable_ratio(evidence.sessions, 1, thresholds.inferiority_level)
    what = f"p of an alpha against {name} as low as this (80 % power for an information ratio of -{seen:.2g})"
    return at_least(p, thresholds.inferiority_level, evidence.sessions, what, "do not lose to what it is compared with")


def _tail(evidence: Evidence, thresholds: Thresholds, other: Book, name: str) -> Finding:
    tests = cvar_tests(evidence.candidate.returns[None], other.returns)
    what = f"p of a 5 % CVaR so far above that of {name} ({float(tests.difference[0]):+.4g} per session)"
    return at_least(float(tests.p_inferior[0]), thresholds.inferiority_level, evidence.sessions, what, "lose less on the worst sessions")


def _baseline_alpha(evidence: Evidence, thresholds: Thresholds) -> Finding:
    return _alpha(evidence, thresholds, evidence.baseline, "the baseline")


def _baseline_tail(evidence: Evidence, thresholds: Thresholds) -> Finding:
    return _tail(evidence, thresholds, evidence.baseline, "the baseline")


def _champion_alpha(evidence: Evidence, thresholds: Thresholds) -> Finding:
    if evidence.champion is None:
        return _no_champion(evidence)
    return _alpha(evidence, thresholds, evidence.champion, "the champion")


def _champion_tail(evidence: Evidence, thresholds: Thresholds) -> Finding:
    if evidence.champion is None:
        return _no_champion(evidence)
    return _tail(evidence, thresholds, evidence.champion, "the champion")


def _no_champion(evidence: Evidence) -> Finding:
    return at_least(1.0, 0.0, evidence.sessions, "there is no champion; p", "promote one first")


INFERIORITY_GATES = (
    Gate(
        "alpha_inferiority_v1",
        "inferiority",
        "candidate",
        "Is its alpha against the baseline not shown to be negative?",
        "higher",
        _baseline_alpha,
        saboteurs,
    ),
    Gate(
        "cvar_inferiority_v1",
        "inferiority",
        "candidate",
        "Is its tail loss not shown to be worse than the baseline's?",
        "higher",
        _baseline_tail,
        saboteurs,
    ),
    Gate(
        "champion_alpha_inferiority_v1",
        "inferiority",
        "candidate",
        "Is its alpha against the champion not shown to be negative?",
        "higher",
        _champion_alpha,
        saboteurs,
    ),
    Gate(
        "champion_cvar_inferiority_v1",
        "inferiority",
        "candidate",
        "Is its tail loss not shown to be worse than the champion's?",
        "higher",
        _champion_tail,
        saboteurs,
    ),
)
