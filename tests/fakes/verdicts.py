"""A record that passes every gate of every tier, for tests that break one thing at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fakes.evaluation import qualify_config

from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.evidence import Book, Evidence, Labels, Trials
from quanto.stages.qualify.worlds import clean_facts, saboteurs

SESSIONS = 600
THRESHOLDS: Thresholds = qualify_config().thresholds


def thresholds(**changes: object) -> Thresholds:
    """Return the default thresholds with few draws and some changes."""
    return Thresholds(**{**THRESHOLDS.model_dump(), **changes})


def good_evidence(seed: int = 3) -> Evidence:
    """Return a protected candidate with an information ratio far above what the gates need."""
    rng = np.random.default_rng(seed)
    high = (np.arange(SESSIONS) // 30) % 5 == 4
    market = np.where(high, 0.02, 0.008) * rng.standard_normal((SESSIONS,))
    names = market[:, None] + 0.01 * rng.standard_normal((SESSIONS, 6))
    cash = np.full(SESSIONS, 1e-5)
    baseline = names.mean(axis=1)
    exposure = np.where(high, 0.5, 1.0)
    mean = float(exposure.mean())
    edge = 0.0012 + 0.003 * rng.standard_normal(SESSIONS)
    returns = exposure * baseline + (1 - exposure) * cash + edge
    flat, moved = np.ones(SESSIONS), np.full(SESSIONS, 0.02)
    own = Book(returns, exposure, moved)
    members = returns + 0.001 * rng.standard_normal((5, SESSIONS))
    return Evidence(
        candidate=own,
        baseline=Book(baseline, flat, 0.1 * moved),
        matched=Book(mean * baseline + (1 - mean) * cash, mean * flat, 0.1 * moved),
        cash=cash,
        labels=Labels(high, np.ones(SESSIONS, dtype=bool)),
        members=members,
        doubled=np.array([returns - 2e-5, baseline - 1e-6]),
        trials=Trials(1),
        facts=clean_facts(SESSIONS, THRESHOLDS),
        champion=None,
        saboteurs=saboteurs(names),
        seed=7,
    )


def with_candidate(evidence: Evidence, **changes: np.ndarray) -> Evidence:
    """Return the evidence with other arrays in the candidate's book."""
    return replace(evidence, candidate=replace(evidence.candidate, **changes))


def with_facts(evidence: Evidence, **changes: object) -> Evidence:
    """Return the evidence with other facts."""
    return replace(evidence, facts=replace(evidence.facts, **changes))
