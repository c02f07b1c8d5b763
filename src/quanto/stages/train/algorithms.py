"""The closed table of algorithms: each turns a task into a trained member, as a function of the task alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quanto.core.registry import Registry
from quanto.stages.train.direct import train_direct
from quanto.stages.train.learner import train_ppo
from quanto.stages.train.sac import train_sac
from quanto.stages.train.task import TrainResult, TrainTask


@dataclass(frozen=True)
class Algorithm:
    """One entry: its name is also the name of its section; `train` is picklable and runs in one thread."""

    name: str
    sentence: str
    train: Callable[[TrainTask], TrainResult]


ALGORITHMS: Registry[Algorithm] = Registry(
    "algorithm",
    Algorithm("ppo", "Proximal policy optimisation of stable-baselines3 (Schulman et al. 2017).", train_ppo),
    Algorithm("sac", "Soft actor-critic of stable-baselines3 (Haarnoja et al. 2018).", train_sac),
    Algorithm("direct", "The exact gradient of growth through the known prices: the yardstick, no reinforcement learning.", train_direct),
)
