"""From market data and the configuration to one task per seed, and from their results to the policy's specification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quanto.core.errors import ConfigError
from quanto.env.books import Market
from quanto.market.split import Split, resolve_split
from quanto.policy.decision import observe
from quanto.policy.market_data import MarketData, select
from quanto.policy.observation import Scaler, fit_scaler
from quanto.stages.train.config import TrainConfig, YardstickConfig
from quanto.stages.train.task import TrainTask

# Decide, trade, next open: the shortest window that gives a reward.
MINIMUM_SESSIONS = 3


@dataclass(frozen=True)
class TrainPlan:
    """What training will do: the windows, the scaler fitted on the train window, and one task per seed."""

    split: Split
    scaler: Scaler
    tasks: tuple[TrainTask, ...]


def plan_training(config: TrainConfig, data: MarketData, sources: str) -> TrainPlan:
    """Return the plan; nothing in it depends on a session after the train window.

    Raises
    ------
    ConfigError
        If a window is too short, or as `resolve_split` and `fit_scaler`.
    DataError
        If an observed column is missing.
    """
    split = resolve_split(data.sessions, config.split)
    start, stop = split.train_range(data.sessions)
    scaler = train_scaler(config, data, start, stop)
    seen = observe(scaler, config.shield, data)
    whole = Market(data.tape, seen.asset.astype(np.float32), seen.market.astype(np.float32), seen.exposure_cap)
    fraction = config.validation.fraction
    kept = round((stop - start) * fraction)
    learn_stop = stop - kept
    if learn_stop - start < MINIMUM_SESSIONS or (fraction > 0 and kept < MINIMUM_SESSIONS):
        found = f"leaves {learn_stop - start} sessions to train and {kept} to validate"
        raise ConfigError(f"train.validation.fraction {fraction} {found}; each needs {MINIMUM_SESSIONS} or more")
    # The validation book decides after the close of the last training session for the first one of its own.
    validation = whole.window(learn_stop - 1, stop) if kept else None
    columns = observation_columns(data.symbols, scaler)
    market = whole.window(start, learn_stop)
    tasks = tuple(TrainTask(config, member, market, validation, columns, sources) for member in sorted(config.seeds))
    return TrainPlan(split, scaler, tasks)


def yardstick_config(config: TrainConfig, yardstick: YardstickConfig) -> TrainConfig:
    """Return the configuration of the yardstick: the same window, seeds, network and limits, learned by the exact gradient.

    It needs no validation window, so its gradient sees the whole train window; its reward is the growth with the same
    penalties and no reference, for there is no noise to reduce.
    """
    changes = {
        "algorithm": "direct",
        "ppo": None,
        "sac": None,
        "direct": yardstick.direct,
        "yardstick": None,
        "reward": config.reward.model_copy(update={"variance_reduction": "none"}),
        "optimizer": config.optimizer.model_copy(update={"learning_rate": yardstick.learning_rate}),
        "validation": config.validation.model_copy(update={"fraction": 0.0}),
    }
    return config.model_copy(update=changes)


def train_scaler(config: TrainConfig, data: MarketData, start: int, stop: int) -> Scaler:
    """Return the scaler of the observed columns, fitted on the sessions start..stop-1."""
    asset_columns = config.asset_columns or data.asset_columns
    market_columns = data.market_columns if config.market_columns is None else config.market_columns
    features = select(data.features, data.asset_columns, asset_columns, "data/features/features.parquet")
    market = select(data.market, data.market_columns, market_columns, "data/features/regime.parquet")
    return fit_scaler(features[start:stop], market[start:stop], data.eligible[start:stop], asset_columns, market_columns, config.clip)


def observation_columns(symbols: Sequence[str], scaler: Scaler) -> tuple[str, ...]:
    """Return the names of the numbers of the flat observation, in order."""
    own = (*scaler.asset_columns, "available", "weight")
    return (*(f"{symbol}.{name}" for symbol in symbols for name in own), *scaler.market_columns, "drawdown")


def policy_spec(config: TrainConfig, data: MarketData, plan: TrainPlan) -> dict[str, Any]:
    """Return the fields of `policy.artefact.PolicySpec` without its members."""
    return {
        "schema_version": "policy_v1",
        "algorithm": config.algorithm,
        "architecture": config.architecture.model_dump(mode="json"),
        "observation": {
            "version": "observation_v1",
            "feature_set": config.feature_set,
            "regime_feature_set": config.regime_feature_set,
            "symbols": list(data.symbols),
            "scaler": plan.scaler.to_dict(),
        },
        "action_map": config.action_map.model_dump(mode="json"),
        "shield": config.shield.model_dump(mode="json"),
        "constraints": config.constraints.model_dump(mode="json"),
        "train_start": plan.split.train_start.isoformat(),
        "train_end": plan.split.train_end.isoformat(),
        "training": config.model_dump(mode="json"),
    }
