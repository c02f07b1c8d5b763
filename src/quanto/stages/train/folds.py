"""Walk-forward training: the same configuration and seeds on every fold, each fold a policy of its own below models/."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from quanto.core.store import write_json
from quanto.market.folds import Fold, walk_forward_folds
from quanto.market.split import FoldsConfig, resolve_split
from quanto.policy.artefact import save_policy
from quanto.policy.market_data import MarketData
from quanto.stages.train.algorithms import ALGORITHMS
from quanto.stages.train.config import TrainConfig
from quanto.stages.train.plan import TrainPlan, plan_training, policy_spec
from quanto.stages.train.task import TrainTask

FOLDS = "folds.json"


def fold_folder(number: int) -> str:
    """Return the name of a fold's folder below models/."""
    return f"fold-{number:03d}"


def fold_config(config: TrainConfig, fold: Fold) -> TrainConfig:
    """Return the configuration whose one split is the fold."""
    dates = {"train_start": fold.train_start, "train_end": fold.train_end, "test_start": fold.test_start, "walk_forward": None}
    return config.model_copy(update={"split": config.split.model_copy(update=dates)})


def train_folds(
    config: TrainConfig, folds: FoldsConfig, data: MarketData, models: Path, sources: str, executor: Executor
) -> list[TrainTask]:
    """Train every fold and seed in parallel, write `models/fold-<n>/` and `folds.json`, and return the finished tasks.

    Raises
    ------
    ConfigError
        If the sessions before the sealed block give no fold.
    """
    _, stop = resolve_split(data.sessions, config.split).test_range(data.sessions)
    found = walk_forward_folds(data.sessions[:stop], folds)
    plans: list[tuple[Fold, TrainConfig, TrainPlan]] = []
    for fold in found:
        own = fold_config(config, fold)
        plans.append((fold, own, plan_training(own, data, sources)))
    tasks = [(row, task) for row, (_, _, plan) in enumerate(plans) for task in plan.tasks]
    results = list(executor.map(ALGORITHMS[config.algorithm].train, [task for _, task in tasks]))
    done = zip([row for row, _ in tasks], results, strict=True)
    for row, items in groupby(done, key=lambda pair: pair[0]):
        fold, own, plan = plans[row]
        members = {result.member: result.parameters for _, result in items}
        save_policy(models / fold_folder(fold.number), policy_spec(own, data, plan), members)
    write_json(models / FOLDS, [asdict(fold) for fold in found])
    return [task for _, task in tasks]
