"""Regime gates: in high-volatility sessions the candidate must not hold more, swing more or fall deeper than its match.

The match is the baseline's mix at the candidate's own mean gross exposure, so "it only held less" earns nothing. A
drawdown ratio of 1.00 would fail a neutral candidate half of the time, hence 1.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.portfolio.bootstrap import Interval, volatility_ratio
from quanto.portfolio.drawdowns import drawdown_within
from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.evidence import Evidence
from quanto.stages.qualify.gate import Finding, Gate, at_least, at_most, insufficient


def saboteurs(evidence: Evidence) -> Iterator[Evidence]:
    """Yield the evidence with each admissible harmful book in the candidate's place."""
    for book in evidence.saboteurs:
        yield replace(evidence, candidate=book)


def _thin(evidence: Evidence, thresholds: Thresholds) -> Finding | None:
    """Return the finding that high volatility was not seen often enough, or None."""
    sessions, found = int(evidence.labels.turbulent.sum()), evidence.labels.episode_count
    if sessions >= thresholds.high_volatility_sessions and found >= thresholds.high_volatility_episodes:
        return None
    reason = (
        f"{sessions} high-volatility sessions in {found} episodes; "
        f"{thresholds.high_volatility_sessions} in {thresholds.high_volatility_episodes} are needed"
    )
    return insufficient(sessions, thresholds.high_volatility_sessions, sessions, reason, "evaluate on a window with more turbulence")


def _exposure(evidence: Evidence, thresholds: Thresholds) -> Finding:
    thin = _thin(evidence, thresholds)
    if thin is not None:
        return thin
    high = evidence.labels.turbulent
    own, other = float(evidence.candidate.exposure[high].mean()), float(evidence.matched.exposure[high].mean())
    what = f"mean gross exposure in high volatility (exposure-matched baseline {other:.4g})"
    return at_most(own, other + thresholds.exposure_margin, int(high.sum()), what, "hold less in high volatility")


def _bound(evidence: Evidence, thresholds: Thresholds) -> Interval:
    high = evidence.labels.turbulent
    rows = (evidence.candidate.returns, evidence.matched.returns)
    key = tuple(np.ascontiguousarray(values, dtype=np.float64).tobytes() for values in rows)
    return _bootstrap_bound(*key, high.tobytes(), evidence.seed, thresholds.bootstrap_draws, thresholds.volatility_ratio_confidence)


@lru_cache(maxsize=32)
def _bootstrap_bound(candidate: bytes, matched: bytes, high: bytes, seed: int, draws: int, level: float) -> Interval:
    """Return the bound from the content of the arrays: two gates ask for the same one."""
    own, other, mask = np.frombuffer(candidate), np.frombuffer(matched), np.frombuffer(high, dtype=np.bool_)
    # The stream depends on the seed alone: a candidate cannot choose its draws.
    return volatility_ratio(own, other, mask, generator(seed, "volatility_ratio"), draws, level)


def _volatility(evidence: Evidence, thresholds: Thresholds, limit: float) -> Finding:
    thin = _thin(evidence, thresholds)
    if thin is not None:
        return thin
    high = evidence.labels.turbulent
    sample = int(high.sum())
    own, other = float(evidence.candidate.returns[high].std()), float(evidence.matched.returns[high].std())
    if other == 0:
        return insufficient(None, limit, sample, "no evidence: the exposure-matched baseline did not move in high volatility", "hold more")
    if own / other > limit:
        # The bound lies above the estimate, so it need not be drawn.
        what = "the volatility ratio to the exposure-matched baseline itself, without its bound,"
        return at_most(own / other, limit, sample, what, "swing less in high volatility")
    ratio = _bound(evidence, thresholds)
    if ratio.high is None:
        raise DataError("the bootstrap bound of the volatility ratio is not finite")
    confidence = f"{thresholds.volatility_ratio_confidence:.0%}"
    what = f"the {confidence} upper bound of the volatility ratio to the exposure-matched baseline (estimate {own / other:.4g})"
    return at_most(ratio.high, limit, sample, what, "swing less in high volatility")


def _volatility_ratio(evidence: Evidence, thresholds: Thresholds) -> Finding:
    return _volatility(evidence, thresholds, thresholds.volatility_ratio)


def _drawdown(evidence: Evidence, thresholds: Thresholds) -> Finding:
    thin = _thin(evidence, thresholds)
    if thin is not None:
        return thin
    high = evidence.labels.turbulent
    falls = [drawdown_within(book.returns, high) for book in (evidence.candidate, evidence.matched)]
    own, other = (abs(fall) for fall in falls if fall is not None)
    limit = min(thresholds.drawdown_ratio * other, thresholds.drawdown_limit)
    what = f"the deepest fall inside a high-volatility episode (exposure-matched baseline {other:.4g})"
    return at_most(own, limit, int(high.sum()), what, "fall less in high volatility")


def _protection_exposure(evidence: Evidence, thresholds: Thresholds) -> Finding:
    if thresholds.protection == "none":
        return at_least(0.0, 0.0, evidence.sessions, "protection is not required; the difference", "")
    thin = _thin(evidence, thresholds)
    if thin is not None:
        return thin
    calm, high = evidence.labels.calm, evidence.labels.turbulent
    if not calm.any():
        return insufficient(None, thresholds.protection_exposure, 0, "no session outside high volatility to compare with", "wait")
    own = float(evidence.candidate.exposure[calm].mean() - evidence.candidate.exposure[high].mean())
    what = "mean gross exposure of the other sessions minus that of high volatility"
    return at_least(own, thresholds.protection_exposure, int(high.sum()), what, "cut exposure when volatility is high")


def _protection_volatility(evidence: Evidence, thresholds: Thresholds) -> Finding:
    if thresholds.protection == "none":
        return at_most(0.0, 0.0, evidence.sessions, "protection is not required; the excess", "")
    return _volatility(evidence, thresholds, thresholds.protection_volatility_ratio)


REGIME_GATES = (
    Gate(
        "regime_exposure_v1",
        "regime",
        "candidate",
        "In high volatility, does the candidate hold no more than its exposure-matched baseline?",
        "lower",
        _exposure,
        saboteurs,
    ),
    Gate(
        "regime_volatility_v1",
        "regime",
        "candidate",
        "In high volatility, does it swing no more than its exposure-matched baseline?",
        "lower",
        _volatility_ratio,
        saboteurs,
    ),
    Gate(
        "regime_drawdown_v1",
        "regime",
        "candidate",
        "In high volatility, does it fall no deeper than its exposure-matched baseline?",
        "lower",
        _drawdown,
        saboteurs,
    ),
    Gate(
        "protection_exposure_v1",
        "regime",
        "candidate",
        "Does it hold less in high volatility than otherwise?",
        "higher",
        _protection_exposure,
        saboteurs,
    ),
    Gate(
        "protection_volatility_v1",
        "regime",
        "candidate",
        "Is it calmer in high volatility than its exposure-matched baseline?",
        "lower",
        _protection_volatility,
        saboteurs,
    ),
)
