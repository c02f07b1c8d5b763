"""The whole evaluation as one pure function: from a policy and a market to everything that the stage writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from quanto.env.simulation import Simulation
from quanto.policy.artefact import YARDSTICK, Policy
from quanto.policy.baselines import BASELINES
from quanto.policy.decision import prepare
from quanto.policy.market_data import MarketData
from quanto.stages.eval import summary
from quanto.stages.eval.arena import Arena, build_arena
from quanto.stages.eval.books import (
    CANDIDATE,
    MATCHED,
    MEMBER,
    SABOTEUR,
    baseline_book,
    baseline_books,
    candidate_books,
    check_book,
    policy_book,
    saboteur_books,
)
from quanto.stages.eval.config import EvalConfig
from quanto.stages.eval.governed import governed
from quanto.stages.eval.seeds import seeds
from quanto.stages.eval.slices import record, regime_slices
from quanto.stages.eval.stress import stress
from quanto.stages.eval.trial import trial
from quanto.stages.eval.walk_forward import FoldPolicy, walk_forward

DOUBLED = "_double_costs"


@dataclass(frozen=True)
class Evaluation:
    """Everything that was computed, ready to be written.

    Attributes
    ----------
    books
        By name: candidate, ablations, members, baselines, matched baselines, harmful books, and twins at twice the costs.
    """

    arena: Arena
    books: dict[str, Simulation]
    metrics: dict[str, object]
    evaluation: dict[str, object]
    slices: dict[str, object]
    trial: dict[str, object]


def evaluate(
    policy: Policy,
    data: MarketData,
    index_level: pa.Table,
    config: EvalConfig,
    digests: Mapping[str, str],
    folds: Sequence[FoldPolicy] = (),
    yardstick: Policy | None = None,
) -> Evaluation:
    """Return the evaluation of a policy on its test window; pure.

    Parameters
    ----------
    digests
        The content of the tables that `data` was made from, by name.
    folds
        The policies of the walk-forward folds, where `config.split.walk_forward` asks for them.
    yardstick
        The policy of the exact gradient, trained on the same window: one more book beside the baselines.

    Raises
    ------
    DataError
        If the market lacks what the policy observes.
    ConfigError
        If the window does not fit the data.
    """
    arena = build_arena(data, index_level, config)
    books = candidate_books(arena, policy)
    books |= baseline_books(arena, books[CANDIDATE])
    books |= saboteur_books(arena)
    if yardstick is not None:
        books[YARDSTICK] = policy_book(arena, yardstick)
    compared = dict(books)
    runs = {factor: _at_costs(arena, policy, config, factor, books) for factor in config.cost_factors}
    books[f"{CANDIDATE}{DOUBLED}"], books[f"{config.baseline}{DOUBLED}"] = runs[2.0]
    checks = check_book(arena, books[CANDIDATE], prepare(policy, data).exposure_cap)
    evaluation: dict[str, object] = {
        "window": _window(arena),
        "selection": config.selection,
        "baseline": config.baseline,
        "symbols": list(data.symbols),
        "conditions": dict.fromkeys(sorted(compared), arena.conditions()),
        "checks": dataclasses.asdict(checks),
        "comparisons": summary.comparisons(arena, compared),
        "seeds": seeds(arena, compared, config),
        "intervals": summary.intervals(arena, compared, config),
        "sharpe": summary.sharpe_evidence(arena, books[CANDIDATE]),
        "attribution": summary.attribution(arena, books[CANDIDATE]),
        "costs": summary.cost_sensitivity(arena, runs),
        "risk": governed(arena, policy, config, books[CANDIDATE]),
        "stress": stress(arena, policy, config, books),
        "walk_forward": None if config.split.walk_forward is None else walk_forward(arena, config, folds),
        "data": dict(digests),
        "policy": policy.digest,
    }
    sliced = {name: record(book) for name, book in compared.items() if _sliced(name, config.baseline)}
    return Evaluation(
        arena=arena,
        books=books,
        metrics=summary.metrics(arena, compared, config),
        evaluation=evaluation,
        slices=regime_slices(arena, sliced, config.baseline),
        trial=trial(arena, policy, config, digests, books[CANDIDATE], books[config.baseline]),
    )


def _sliced(name: str, baseline: str) -> bool:
    return not name.startswith((SABOTEUR, MEMBER)) and (not name.startswith(MATCHED) or name == f"{MATCHED}{baseline}")


def _at_costs(
    arena: Arena, policy: Policy, config: EvalConfig, factor: float, books: Mapping[str, Simulation]
) -> tuple[Simulation, Simulation]:
    if factor == 1.0:
        return books[CANDIDATE], books[config.baseline]
    dearer = arena.at_costs(factor)
    return policy_book(dearer, policy), baseline_book(dearer, BASELINES[config.baseline])


def _window(arena: Arena) -> dict[str, object]:
    return {"first_session": str(arena.sessions[0]), "last_session": str(arena.sessions[-1]), "sessions": len(arena.sessions)}
