"""The stage `train`: tables in, one policy out, one task per seed."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from pathlib import Path

import quanto
from quanto.core.digest import digest_tree, digest_value
from quanto.core.store import read_table, write_bytes, write_json
from quanto.market.schema import CANONICAL
from quanto.policy.artefact import YARDSTICK, save_policy
from quanto.policy.market_data import MarketData, market_data
from quanto.portfolio.costs import CostConfig
from quanto.stages.train.algorithms import ALGORITHMS
from quanto.stages.train.checkpoint import forget
from quanto.stages.train.config import TrainConfig
from quanto.stages.train.curves import curves_csv
from quanto.stages.train.folds import train_folds
from quanto.stages.train.plan import plan_training, policy_spec, yardstick_config

# The layers whose code decides what a checkpoint means.
SOURCES = ("core", "market", "portfolio", "env", "policy", "stages/train")


def run(config: TrainConfig, workspace: Path, executor: Executor) -> None:
    """Train every seed, every fold and the yardstick; write `models/`, `reports/training/curves.csv` and `summary.json`."""
    data = read_market(workspace, config.costs)
    plan = plan_training(config, data, source_digest())
    results = list(executor.map(ALGORITHMS[config.algorithm].train, plan.tasks))
    tasks = list(plan.tasks)
    if config.split.walk_forward is not None:
        tasks += train_folds(config, config.split.walk_forward, data, workspace / "models", source_digest(), executor)
    if config.yardstick is not None:
        train_yardstick(yardstick_config(config, config.yardstick), data, workspace / "models", executor)
    policy = save_policy(workspace / "models", policy_spec(config, data, plan), {item.member: item.parameters for item in results})
    write_bytes(workspace / "reports/training/curves.csv", curves_csv(results))
    summary = {"policy": policy.digest, "algorithm": config.algorithm, "members": [item.summary for item in results]}
    write_json(workspace / "reports/training/summary.json", summary)
    forget(tasks)


def train_yardstick(config: TrainConfig, data: MarketData, models: Path, executor: Executor) -> None:
    """Train the yardstick on the same window and seeds and write `models/yardstick/`."""
    plan = plan_training(config, data, source_digest())
    results = executor.map(ALGORITHMS[config.algorithm].train, plan.tasks)
    save_policy(models / YARDSTICK, policy_spec(config, data, plan), {item.member: item.parameters for item in results})


def read_market(workspace: Path, costs: CostConfig) -> MarketData:
    """Return canonical tables and features of a workspace as market data."""
    domains = ("equity_ohlcv", "corporate_actions", "index_level")
    bars, actions, index_level = (read_table(workspace / "data/canonical" / name, CANONICAL[name]) for name in domains)
    features = read_table(workspace / "data/features/features.parquet")
    regime = read_table(workspace / "data/features/regime.parquet")
    return market_data(bars, actions, index_level, features, regime, costs)


def source_digest() -> str:
    """Return one digest of the code that training runs on."""
    root = Path(os.fspath(next(iter(quanto.__path__))))
    return digest_value({name: digest_tree(root / name) for name in SOURCES})
