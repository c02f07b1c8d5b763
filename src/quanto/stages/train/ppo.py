"""PPO of stable-baselines3 on the batched environment."""

from __future__ import annotations

import math
import warnings
from typing import Any, cast

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from quanto.core.errors import ConfigError
from quanto.env.vector import PortfolioVecEnv
from quanto.stages.train.config import PpoConfig
from quanto.stages.train.networks import PortfolioPolicy
from quanto.stages.train.task import TrainTask


def build_ppo(task: TrainTask) -> PPO:
    """Return the model of a task, ready to learn; all its randomness follows from the task's seeds."""
    config, ppo = task.config, ppo_section(task)
    env = PortfolioVecEnv(task.market, task.rules, config.episodes, task.torch_seed)
    with warnings.catch_warnings():
        # SB3 warns about rollouts that batches do not divide; the configuration refuses those.
        warnings.simplefilter("error")
        model = PPO(
            PortfolioPolicy,
            env,
            learning_rate=config.optimizer.learning_rate.at,
            clip_range=ppo.clip_range.at,
            policy_kwargs=policy_arguments(task),
            seed=task.torch_seed,
            device="cpu",
            **ppo.model_dump(exclude={"clip_range", "critic_hidden", "critic_inputs", "log_std_init"}),
        )
    if config.reward.variance_reduction == "self_critical":
        env.policy = cast(PortfolioPolicy, model.policy).mean_actions
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def policy_arguments(task: TrainTask) -> dict[str, Any]:
    """Return what the policy class is built with."""
    ppo, optimizer = ppo_section(task), task.config.optimizer
    return {
        "architecture": task.config.architecture,
        "sizes": task.sizes,
        "critic_hidden": ppo.critic_hidden,
        "critic_inputs": ppo.critic_inputs,
        "log_std_init": ppo.log_std_init,
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"weight_decay": optimizer.weight_decay, "eps": optimizer.epsilon, "fused": True},
    }


def rollouts(task: TrainTask) -> int:
    """Return how many rollouts reach the configured number of steps (the last one is never cut short)."""
    return math.ceil(task.config.timesteps / (task.config.episodes.books * ppo_section(task).n_steps))


def ppo_section(task: TrainTask) -> PpoConfig:
    """Return the section `ppo` of a task.

    Raises
    ------
    ConfigError
        If the task is for another algorithm.
    """
    if task.config.ppo is None:
        raise ConfigError(f"a task of {task.config.algorithm} was given to ppo")
    return task.config.ppo
