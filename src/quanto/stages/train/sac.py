"""SAC of stable-baselines3 on the batched environment: its stock policy, exported like PPO's.

A killed run starts over: the replay buffer is not checkpointed, and the run is a function of its task all the same.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import TrainFrequencyUnit
from torch import nn
from torch.distributions import Distribution
from tqdm import tqdm

from quanto.core.errors import ConfigError
from quanto.env.vector import PortfolioVecEnv
from quanto.stages.train.networks import ACTIVATIONS, linear_parameters
from quanto.stages.train.task import Parameters, Row, TrainResult, TrainTask, refuse_broken

# SB3 prints every so many episodes; we read its records instead.
NEVER = sys.maxsize

# Steps between two rows of the curves.
CURVE_STEPS = 4096

UPDATE_COLUMNS = {
    "train/actor_loss": "actor_loss",
    "train/critic_loss": "critic_loss",
    "train/ent_coef": "entropy_coefficient",
}


def train_sac(task: TrainTask) -> TrainResult:
    """Return the trained member; the same bytes on any worker.

    Raises
    ------
    TrainingError
        If a parameter is not finite at the end.
    """
    # One thread per task: two are slower for these nets, and change the bits.
    torch.set_num_threads(1)
    Distribution.set_default_validate_args(False)
    model = build_sac(task)
    books = task.config.episodes.books
    total = -(-task.config.timesteps // books) * books
    curves = Curves(task)
    model.learn(total, callback=curves, log_interval=NEVER)
    parameters = export_sac(model)
    refuse_broken(parameters, model.num_timesteps, "lower optimizer.learning_rate")
    summary: Row = {"member": task.member, "steps": total, "chosen_step": total, "validation_growth": None}
    return TrainResult(task.member, parameters, tuple(curves.rows), summary)


def build_sac(task: TrainTask) -> SAC:
    """Return the model of a task, ready to learn.

    Raises
    ------
    ConfigError
        If the task is for another algorithm.
    """
    config, sac = task.config, task.config.sac
    if sac is None:
        raise ConfigError(f"a task of {config.algorithm} was given to sac")
    own = sac.model_dump(exclude={"critic_hidden", "ent_coef", "train_freq"})
    model = SAC(
        "MlpPolicy",
        PortfolioVecEnv(task.market, task.rules, config.episodes, task.torch_seed),
        learning_rate=config.optimizer.learning_rate.at,
        train_freq=(sac.train_freq, TrainFrequencyUnit.STEP.value),
        ent_coef="auto" if sac.ent_coef is None else sac.ent_coef,
        policy_kwargs={
            "net_arch": {"pi": list(config.network.hidden), "qf": list(sac.critic_hidden)},
            "activation_fn": ACTIVATIONS[config.network.activation],
            "optimizer_class": torch.optim.AdamW,
            "optimizer_kwargs": {"weight_decay": config.optimizer.weight_decay, "eps": config.optimizer.epsilon, "fused": True},
        },
        seed=task.torch_seed,
        device="cpu",
        **own,
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def export_sac(model: SAC) -> Parameters:
    """Return the actor's parameters under the names of `policy.network`."""
    return linear_parameters("actor", [*model.actor.latent_pi, cast(nn.Linear, model.actor.mu)])


class Curves(BaseCallback):
    """Collects a row of the curves every so many steps, lets costs grow, and shows progress."""

    def __init__(self, task: TrainTask) -> None:
        super().__init__()
        self.task = task
        self.rows: list[Row] = []
        self._bar: Any = None

    def _on_training_start(self) -> None:
        total = self.model._total_timesteps
        self._bar = tqdm(total=total, desc=f"seed {self.task.member}", unit="step", disable=not sys.stderr.isatty())

    def _on_step(self) -> bool:
        factor = self.task.cost_factor(self.num_timesteps, self.model._total_timesteps)
        self.training_env.env_method("scale_costs", factor, indices=[0])
        if self.num_timesteps % CURVE_STEPS < self.training_env.num_envs:
            self._row()
        return True

    def _row(self) -> None:
        statistics = self.training_env.env_method("pop_statistics", indices=[0])[0]
        row: Row = {"seed": self.task.member, "step": self.num_timesteps, **statistics}
        recorded = self.logger.name_to_value
        row |= {ours: float(recorded[theirs]) if theirs in recorded else None for theirs, ours in UPDATE_COLUMNS.items()}
        self.rows.append(row)
        self._bar.update(self.num_timesteps - self._bar.n)

    def _on_training_end(self) -> None:
        self._bar.close()
