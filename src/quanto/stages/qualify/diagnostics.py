"""What is reported and never gates: Sharpe inference, overfitting, what this window could detect, and how often noise passes."""

from __future__ import annotations

import dataclasses

import numpy as np

from quanto.core.errors import DataError
from quanto.portfolio.multiplicity import overfitting
from quanto.portfolio.sharpe import deflated_sharpe, minimum_track_record, probabilistic_sharpe, sharpe_moments
from quanto.portfolio.significance import alpha_test, alpha_test_power, detectable_ratio
from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.edge import trial_correlation
from quanto.stages.qualify.evidence import Evidence

# The annual information ratio whose power is printed.
GOOD_RATIO = 2.0


def diagnostics(evidence: Evidence, thresholds: Thresholds) -> dict[str, object]:
    """Return the diagnostics of a record; a number that is not defined is None, with the reason where it is a fault."""
    try:
        return _diagnostics(evidence, thresholds)
    except DataError as error:
        return {"undefined": str(error)}


def _diagnostics(evidence: Evidence, thresholds: Thresholds) -> dict[str, object]:
    excess = evidence.excess(evidence.candidate)
    trials = evidence.trials.count or 1
    moments = sharpe_moments(excess)
    test = alpha_test(excess, evidence.excess(evidence.baseline))
    enough = evidence.sessions >= 3
    return {
        "alpha_against_baseline": dataclasses.asdict(test),
        "alpha_against_matched": dataclasses.asdict(alpha_test(excess, evidence.excess(evidence.matched))),
        "trials": trials,
        "trial_correlation": trial_correlation(evidence),
        "probabilistic_sharpe": None if moments is None else probabilistic_sharpe(moments),
        "deflated_sharpe": _deflated(evidence),
        "minimum_track_record_sessions": None if moments is None else minimum_track_record(moments),
        "probability_of_overfitting": _overfitting(evidence),
        "detectable_information_ratio": detectable_ratio(evidence.sessions, trials, thresholds.evidence_level) if enough else None,
        "power_at_information_ratio_2": alpha_test_power(GOOD_RATIO, evidence.sessions, trials, thresholds.evidence_level)
        if enough
        else None,
    }


def _deflated(evidence: Evidence) -> float | None:
    """Return the DSR against the spread of the trials' own Sharpe ratios; None with fewer than two trial vectors."""
    rows = evidence.trials.candidates
    moments = sharpe_moments(evidence.excess(evidence.candidate))
    if rows is None or len(rows) < 2 or moments is None:
        return None
    ratios = [found.sharpe for found in map(sharpe_moments, rows) if found is not None]
    return deflated_sharpe(moments, float(np.var(ratios, ddof=1)), evidence.trials.count or len(rows)) if len(ratios) > 1 else None


def _overfitting(evidence: Evidence) -> dict[str, object] | None:
    rows = evidence.trials.candidates
    if rows is None or len(rows) < 2 or evidence.sessions < 32:
        return None
    return dataclasses.asdict(overfitting(rows))
