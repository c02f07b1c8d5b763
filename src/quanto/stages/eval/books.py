"""The books of an evaluation: the candidate and its ablations, its members, the baselines, and books that do harm.

The harmful books exist for the gates: an admissible book that fails a gate proves that the gate is not vacuous.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from quanto.env.simulation import Decide, Simulation
from quanto.policy.artefact import Policy
from quanto.policy.baselines import BASELINES, Baseline, matched
from quanto.policy.decision import Prepared, decide, prepare
from quanto.portfolio.constraints import breaches
from quanto.stages.eval.arena import UNLIMITED, Arena

FloatArray = npt.NDArray[np.float64]

CANDIDATE = "candidate"
UNSHIELDED = "candidate_unshielded"
MEMBER = "member_"
MATCHED = "matched_"
SABOTEUR = "saboteur_"

# A fill below this fraction of NAV is rounding, no trade.
SMALLEST_TRADE = 1e-6
# Cash is a difference of large numbers; a breach of the floor is more than this fraction of NAV.
CASH_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Checks:
    """What the candidate's book did against its limits, counted apart from the code that keeps them."""

    decisions: int
    violations: int
    first_violation: str | None
    cash_breaches: int
    passive_breaches: int
    trades: int


def policy_book(arena: Arena, policy: Policy, prepared: Prepared | None = None) -> Simulation:
    """Run a policy: the mean of its members' targets, under the constraints and its shield's cap."""
    seen = prepare(policy, arena.data) if prepared is None else prepared

    def wanted(t: int, weights: FloatArray, drawdown: float) -> FloatArray:
        return decide(policy, seen, t, weights, drawdown)

    return arena.run(wanted, seen.exposure_cap)


def candidate_books(arena: Arena, policy: Policy) -> dict[str, Simulation]:
    """Run the ensemble, each member alone and, where the policy has a shield, the ensemble without it."""
    books = {CANDIDATE: policy_book(arena, policy)}
    if policy.spec.shield.kind != "none":
        books[UNSHIELDED] = policy_book(arena, policy.without_shield())
    for index, member in enumerate(policy.spec.members):
        books[f"{MEMBER}{member.seed}"] = policy_book(arena, policy.member(index))
    return books


def baseline_book(arena: Arena, baseline: Baseline) -> Simulation:
    """Run one baseline of the registry."""
    return arena.run(baseline.make(arena.baselines), limits=None if baseline.limited else UNLIMITED)


def baseline_books(arena: Arena, candidate: Simulation) -> dict[str, Simulation]:
    """Run every baseline, and its mix at the candidate's own mean gross exposure (cash has no mix)."""
    exposure = float(candidate.exposure.mean())
    books: dict[str, Simulation] = {}
    for name, baseline in BASELINES.items():
        books[name] = baseline_book(arena, baseline)
        if name != "cash_v1":
            books[f"{MATCHED}{name}"] = arena.run(matched(books[name], exposure), limits=None if baseline.limited else UNLIMITED)
    return books


def saboteur_books(arena: Arena) -> dict[str, Simulation]:
    """Run admissible books that see the future and use it for harm: the worst names, the wildest, always fully invested."""
    tape, limits = arena.tape, arena.limits
    last = len(tape.open) - 1

    def chosen(score: FloatArray, t: int) -> FloatArray:
        order = np.argsort(-score, kind="stable")
        weights = np.zeros(len(score))
        for column in order[tape.eligible[t][order]]:
            weights[column] = min(limits.max_weight, max(limits.max_exposure - weights.sum(), 0.0))
        return weights

    def ahead(t: int) -> FloatArray:
        after = tape.open[t + 2] * tape.split[t + 2] + tape.dividend[t + 2] if t + 2 <= last else tape.close[t + 1]
        return np.where(tape.open[t + 1] > 0, after / np.where(tape.open[t + 1] > 0, tape.open[t + 1], 1.0) - 1, 0.0)

    def wildest(returns: FloatArray, t: int) -> FloatArray:
        up, down = chosen(returns, t), chosen(-returns, t)
        return up if abs(up @ returns) > abs(down @ returns) else down

    # Sorted by name, the most harmful stand first: the gates stop at the first that they catch.
    rules: dict[str, Decide] = {
        "ruinous": lambda t, _weights, _drawdown: chosen(-ahead(t), t),
        "reckless": lambda t, _weights, _drawdown: wildest(ahead(t), t),
        "unmoved": lambda t, _weights, _drawdown: chosen(np.zeros(tape.open.shape[1]), t),
    }
    return {f"{SABOTEUR}{name}": arena.run(rule) for name, rule in rules.items()}


def check_book(arena: Arena, book: Simulation, exposure_cap: FloatArray) -> Checks:
    """Return the breaches of a book's decisions, its cash below the floor, passive drifts over the limits, and its fills."""
    found: list[str] = []
    violations = passive = 0
    everything = np.ones(book.weights.shape[1], dtype=bool)
    for row, t in enumerate(range(book.start - 1, book.stop - 1)):
        broken = breaches(book.targets[row], arena.tape.eligible[t], arena.limits, float(exposure_cap[t]))
        violations += len(broken)
        found += [f"{arena.data.sessions[t]}: {sentence}" for sentence in broken[:1]]
        passive += bool(breaches(book.weights[row], everything, arena.limits))
    held = (book.shares * arena.tape.open[book.start : book.stop]).sum(axis=1)
    cash = book.nav_open - book.cost - held
    floor = arena.limits.minimum_cash * book.nav_open
    return Checks(
        decisions=len(book.targets),
        violations=violations,
        first_violation=found[0] if found else None,
        cash_breaches=int((~(cash >= floor - CASH_TOLERANCE * book.nav_open)).sum()),
        passive_breaches=passive,
        trades=int(np.count_nonzero(fills(book))),
    )


def fills(book: Simulation) -> FloatArray:
    """Return the signed value of each fill in USD, rounding left out; shape (n_sessions, n_symbols)."""
    return np.where(np.abs(book.traded) > SMALLEST_TRADE * book.nav_open[:, None], book.traded, 0.0)


def lagged(prepared: Prepared) -> Prepared:
    """Return what the policy sees one session late, eligibility excepted: what lives from same-bar execution dies here."""
    return replace(
        prepared,
        asset=np.concatenate([prepared.asset[:1], prepared.asset[:-1]]),
        market=np.concatenate([prepared.market[:1], prepared.market[:-1]]),
        exposure_cap=np.concatenate([prepared.exposure_cap[:1], prepared.exposure_cap[:-1]]),
    )


def permuted(prepared: Prepared) -> Prepared:
    """Return what the policy sees with every name's features given to the next name; eligibility stays."""
    asset = np.roll(prepared.asset, 1, axis=1)
    # The availability column belongs to the name, not to the features.
    asset[..., -1] = prepared.asset[..., -1]
    return replace(prepared, asset=asset)
