"""Evidence gates of the production tier: an edge that the number of looks, the seeds and the costs do not explain away.

Test A is the alpha test at the Sidak level of K trials; test B, where every trial's returns are there and the trials
are near copies of each other, bootstraps the best of them (Hansen's SPA on pseudo-alphas).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.portfolio.bootstrap import IntArray, stationary_indices
from quanto.portfolio.metrics import log_growth
from quanto.portfolio.multiplicity import SPA_BLOCK, seed_spread, superior_ability
from quanto.portfolio.significance import alpha_test, alpha_tests, pseudo_alphas, sidak_level
from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.evidence import Evidence, FloatArray
from quanto.stages.qualify.gate import Finding, Gate, above, at_least, at_most, insufficient
from quanto.stages.qualify.hard import known
from quanto.stages.qualify.regime import saboteurs


def trial_correlation(evidence: Evidence) -> float | None:
    """Return the mean correlation of the trials' alpha scores over all pairs; None where vectors are missing or alone."""
    trials = evidence.trials
    if trials.candidates is None or trials.baselines is None or trials.count is None:
        return None
    if len(trials.candidates) < 2 or len(trials.candidates) != trials.count:
        return None
    scores = pseudo_alphas(trials.candidates, trials.baselines)
    scores = scores - scores.mean(axis=1, keepdims=True)
    size = np.sqrt((scores * scores).sum(axis=1, keepdims=True))
    if not (size > 0).all():
        return None
    unit = scores / size
    count = len(unit)
    return float((np.square(unit.sum(axis=0)).sum() - count) / (count * (count - 1)))


def information_ratio_upper(evidence: Evidence) -> float | None:
    """Return the upper 95 % bound of the annual information ratio of the alpha test; None where it is not defined."""
    try:
        return alpha_test(evidence.excess(evidence.candidate), evidence.excess(evidence.baseline)).information_ratio_upper
    except DataError:
        return None


def _edge(evidence: Evidence, thresholds: Thresholds) -> Finding:
    trials = known(evidence.trials.count, "the number of trials on this holdout")
    correlation = trial_correlation(evidence)
    if correlation is not None and correlation >= thresholds.near_copies_correlation:
        return _bootstrap_test(evidence, thresholds, correlation)
    test = alpha_tests(evidence.excess(evidence.candidate)[None], evidence.excess(evidence.baseline))
    level = sidak_level(thresholds.evidence_level, trials)
    what = (
        f"p of test A (alpha {float(test.alpha[0]):+.2%} a year against the baseline, t {float(test.t_statistic[0]):.2f}, K = {trials}); "
        f"nominal {thresholds.evidence_level:g}"
    )
    change = "more out-of-sample sessions, a larger edge, or fewer looks at this holdout"
    return at_most(float(test.p_superior[0]), level, evidence.sessions, what, change)


def _bootstrap_test(evidence: Evidence, thresholds: Thresholds, correlation: float) -> Finding:
    candidates, baselines = evidence.trials.candidates, evidence.trials.baselines
    if candidates is None or baselines is None:
        raise DataError("test B needs the daily returns of every trial")
    draws = _draws(evidence.sessions, thresholds.bootstrap_draws, evidence.seed)
    # The candidate asks, in row 0, not whoever happens to be the best.
    p = float(superior_ability(pseudo_alphas(candidates, baselines), draws)[0])
    what = f"p of test B (bootstrap of the best of K = {len(candidates)} near copies, mean correlation {correlation:.2f})"
    return at_most(p, thresholds.evidence_level, evidence.sessions, what, "more out-of-sample sessions or a larger edge")


@lru_cache(maxsize=2)
def _draws(sessions: int, draws: int, seed: int) -> IntArray:
    """Return the bootstrap's sessions: they depend on the seed alone, so a candidate cannot choose them."""
    return stationary_indices(sessions, SPA_BLOCK, draws, generator(seed, "superior_ability"))


def _seeds(evidence: Evidence, thresholds: Thresholds) -> Finding:
    count = len(evidence.members)
    if count < thresholds.minimum_seeds:
        reason = f"{count} seeds; {thresholds.minimum_seeds} are needed"
        return insufficient(count, thresholds.minimum_seeds, count, reason, "train more seeds")
    alphas = alpha_tests(evidence.members - evidence.cash, evidence.excess(evidence.baseline)).alpha
    spread = seed_spread(alphas)
    middle, share = spread.interquartile_mean, spread.share_positive
    if middle is None or share is None:
        raise DataError("no seed has an alpha")
    if share < thresholds.seed_share:
        return at_least(share, thresholds.seed_share, count, "the share of seeds with alpha above 0", "an edge that does not need luck")
    what = f"the interquartile mean of the seeds' alphas ({share:.0%} of them above 0)"
    return above(middle, 0.0, count, what, "an edge that does not need luck")


def _bad_seeds(evidence: Evidence) -> Iterator[Evidence]:
    for book in evidence.saboteurs:
        yield replace(evidence, members=np.tile(book.returns, (max(len(evidence.members), 1), 1)))


def _growth(evidence: Evidence, thresholds: Thresholds) -> Finding:
    own, other = log_growth(evidence.candidate.returns), log_growth(evidence.matched.returns)
    if own is None or other is None:
        raise DataError("log growth is not defined for an empty or ruined book")
    what = "annual log growth minus that of the exposure-matched baseline"
    return at_least(own - other, -thresholds.growth_margin, evidence.sessions, what, "grow no slower than the same exposure would")


def _costs(evidence: Evidence, _thresholds: Thresholds) -> Finding:
    doubled = _doubled(evidence)
    alpha = float(alpha_tests((doubled[0] - evidence.cash)[None], doubled[1] - evidence.cash).alpha[0])
    what = "annual alpha against the baseline at twice the costs"
    return above(alpha, 0.0, evidence.sessions, what, "trade less for the same edge")


def _doubled(evidence: Evidence) -> FloatArray:
    if evidence.doubled is None:
        raise DataError("the returns at twice the costs are missing")
    return evidence.doubled


def _dear(evidence: Evidence) -> Iterator[Evidence]:
    for book in evidence.saboteurs:
        if evidence.doubled is not None:
            yield replace(evidence, doubled=np.array([book.returns, evidence.doubled[1]]))


def _universe(evidence: Evidence, _thresholds: Thresholds) -> Finding:
    if evidence.facts.selection is None:
        raise DataError("how the universe was selected is missing")
    hindsight = float(evidence.facts.selection != "point_in_time")
    what = f"1 if the universe was chosen with hindsight (selection: {evidence.facts.selection})"
    return at_most(hindsight, 0.0, evidence.sessions, what, "use membership as it was known on each session")


def _hindsight(evidence: Evidence) -> Iterator[Evidence]:
    yield replace(evidence, facts=replace(evidence.facts, selection="hindsight"))


def _fresh(evidence: Evidence, thresholds: Thresholds) -> Finding:
    fresh = evidence.facts.fresh_sessions
    if fresh is None or fresh < thresholds.minimum_fresh_sessions:
        reason = f"{fresh or 0} shadow or paper sessions newer than the candidate's lineage; {thresholds.minimum_fresh_sessions} are needed"
        return Finding("insufficient", fresh, thresholds.minimum_fresh_sessions, fresh or 0, reason, "run shadow or paper on new sessions")
    return at_least(fresh, thresholds.minimum_fresh_sessions, fresh, "the count of fresh shadow or paper sessions", "")


def _stale(evidence: Evidence) -> Iterator[Evidence]:
    yield replace(evidence, facts=replace(evidence.facts, fresh_sessions=0))


def _sealed(evidence: Evidence, thresholds: Thresholds) -> Finding:
    block = evidence.facts.sealed
    if block is None:
        reason = "the sealed final block was not opened; a production request opens it once"
        return insufficient(None, thresholds.inferiority_level, 0, reason, "request production with `quanto promote-experiment`")
    if block.violations or not -block.drawdown <= thresholds.drawdown_limit:
        worst = f"{block.violations} breaches and a drawdown of {-block.drawdown:.4g}"
        reason = f"the sealed block shows {worst}; none and {thresholds.drawdown_limit:g} are allowed"
        return Finding(
            "failed", -block.drawdown, thresholds.drawdown_limit, block.sessions, reason, "the block is spent; wait for new data"
        )
    what = "p of an alpha this low in the sealed block"
    return at_least(block.p_inferior, thresholds.inferiority_level, block.sessions, what, "the block is spent; wait for new data")


def _broken_seal(evidence: Evidence) -> Iterator[Evidence]:
    block = evidence.facts.sealed
    if block is not None:
        yield replace(evidence, facts=replace(evidence.facts, sealed=replace(block, p_inferior=0.0)))


def _harmful(evidence: Evidence) -> Iterator[Evidence]:
    """Yield the harmful books as candidate and as the trial that asks."""
    for harmed in saboteurs(evidence):
        trials = evidence.trials
        if trials.candidates is not None:
            rows = trials.candidates.copy()
            rows[0] = harmed.excess(harmed.candidate)
            harmed = replace(harmed, trials=replace(trials, candidates=rows))
        yield harmed


EDGE_GATES = (
    Gate("edge_v1", "evidence", "production", "Is there an alpha that the number of looks does not explain?", "lower", _edge, _harmful),
    Gate("seeds_agree_v1", "evidence", "production", "Do the seeds agree that the alpha is positive?", "higher", _seeds, _bad_seeds),
    Gate(
        "matched_growth_v1",
        "evidence",
        "production",
        "Does it grow no slower than the same exposure in the baseline?",
        "higher",
        _growth,
        saboteurs,
    ),
    Gate("double_costs_v1", "evidence", "production", "Is the alpha still positive at twice the costs?", "higher", _costs, _dear),
    Gate("universe_v1", "evidence", "production", "Was the universe chosen point in time?", "lower", _universe, _hindsight),
    Gate("fresh_evidence_v1", "evidence", "production", "Did it run on sessions newer than its lineage?", "higher", _fresh, _stale),
    Gate("sealed_block_v1", "evidence", "production", "Does the sealed final block raise no veto?", "higher", _sealed, _broken_seal),
)
