"""A small market and a full training configuration, for tests of training and acting."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fakes.books import fuzzed_tape
from omegaconf import OmegaConf

from quanto.core.config import load_section
from quanto.market.calendar import sessions_between
from quanto.market.panel import Panel
from quanto.policy.market_data import MarketData
from quanto.stages.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
ASSET_COLUMNS = ("return_1", "volatility_21", "volume_zscore_20")
MARKET_COLUMNS = ("index_volatility_21", "index_trend_20")


def small_market(seed: int = 0, symbols: int = 3, end: date = date(2002, 6, 28)) -> MarketData:
    """Return a fuzzed market of a year and a half with random features, a tenth of them missing."""
    sessions = sessions_between(date(2001, 1, 2), end)
    tape = fuzzed_tape(seed, len(sessions), symbols)
    rng = np.random.default_rng([seed, 7])
    shape = tape.close.shape
    nothing = np.full(shape, np.nan)
    names = tuple(f"S{index}" for index in range(symbols))
    panel = Panel(sessions, names, nothing, nothing, nothing, nothing, nothing, tape.split, tape.dividend)
    features = rng.normal(size=(*shape, len(ASSET_COLUMNS)))
    features[rng.random(features.shape) < 0.1] = np.nan
    market = np.stack([rng.uniform(0.1, 0.6, shape[0]), rng.normal(size=shape[0])], axis=1)
    return MarketData(panel, tape, ASSET_COLUMNS, MARKET_COLUMNS, features, market, tape.eligible)


def train_config(preset: str = "default", **changes: Any) -> TrainConfig:
    """Return the composed section `train`; `changes` are dotted keys with `__` for the dot."""
    base = OmegaConf.create(yaml.safe_load((ROOT / "conf/config.yaml").read_text()))
    base.train = _preset(preset)
    for key, value in changes.items():
        dotted = key.replace("__", ".")
        # Sections that the whole experiment shares are changed where they stand.
        shared = dotted.split(".")[0] in ("split", "costs", "constraints")
        OmegaConf.update(base, dotted if shared else f"train.{dotted}", value)
    resolved: Any = OmegaConf.to_container(base, resolve=True)
    return load_section("train", resolved["train"], TrainConfig)


def _preset(name: str) -> Any:
    own = OmegaConf.load(ROOT / f"conf/train/{name}.yaml")
    parents = [parent for parent in own.pop("defaults", []) if parent != "_self_"]
    return OmegaConf.merge(*(_preset(parent) for parent in parents), own)


def quick_config(**changes: Any) -> TrainConfig:
    """Return a configuration that trains in a blink: few books, few steps, three members."""
    small: dict[str, Any] = {
        "timesteps": 512, "seeds": [0, 1, 2], "episodes__books": 8, "ppo__n_steps": 8, "ppo__batch_size": 32, "ppo__n_epochs": 2,
        "yardstick": None,
    }  # fmt: skip
    return train_config(**{**small, **changes})
