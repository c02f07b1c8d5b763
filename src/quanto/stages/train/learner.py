"""Training of one seed by PPO: learn, look after each update, guard, checkpoint, resume."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from torch.distributions import Distribution
from tqdm import tqdm

from quanto.core.errors import TrainingError
from quanto.stages.train.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from quanto.stages.train.networks import export
from quanto.stages.train.ppo import build_ppo, ppo_section, rollouts
from quanto.stages.train.task import Parameters, Row, TrainResult, TrainTask, refuse_broken
from quanto.stages.train.validation import validation_growth

# A checkpoint costs about as much as one rollout; at most this many rollouts are done twice after a kill.
CHECKPOINT_ROLLOUTS = 20

# SB3 prints every so many rollouts; we read its records instead.
NEVER = sys.maxsize

# What SB3's update records, and what we call it.
UPDATE_COLUMNS = {
    "train/entropy_loss": "entropy",
    "train/approx_kl": "approximate_kl",
    "train/clip_fraction": "clip_fraction",
    "train/explained_variance": "explained_variance",
    "train/value_loss": "value_loss",
    "train/policy_gradient_loss": "policy_loss",
    "train/std": "action_std",
}


def train_ppo(task: TrainTask) -> TrainResult:
    """Return the trained member: the same bytes on any worker, and after a kill and resume.

    The last checkpoint stays: a stage that is killed while other members train finds this one nearly done.

    Raises
    ------
    TrainingError
        If an observation, a reward or a parameter stops being finite; names the step, the column, the checkpoint.
    """
    # One thread per task: two are slower for these nets, and change the bits.
    torch.set_num_threads(1)
    Distribution.set_default_validate_args(False)
    path = checkpoint_path(task.key)
    model = build_ppo(task)
    watch = Watch(task, path)
    watch.resume(model)
    total = rollouts(task) * task.config.episodes.books * ppo_section(task).n_steps
    if not watch.stopped and model.num_timesteps < total:
        # SB3 adds the steps already done to what it is asked for; its schedules then run over the whole.
        model.learn(total - model.num_timesteps, watch, log_interval=NEVER, reset_num_timesteps=False)
    chosen = watch.best if watch.best is not None else export(model.policy)  # type: ignore[arg-type]  # SB3's type is the base class
    summary: Row = {
        "member": task.member,
        "steps": watch.rows[-1]["step"],
        "chosen_step": watch.best_step if watch.best is not None else watch.rows[-1]["step"],
        "validation_growth": watch.best_growth if watch.best is not None else None,
    }
    return TrainResult(task.member, chosen, tuple(watch.rows), summary)


class Watch(BaseCallback):
    """Looks at the model after each update: curves, validation, guard against NaN, checkpoints, progress."""

    def __init__(self, task: TrainTask, path: Path) -> None:
        super().__init__()
        self.task = task
        self.path = path
        self.rows: list[Row] = []
        self.best: Parameters | None = None
        self.best_growth: float = -math.inf
        self.best_step = 0
        self.looks_without_better = 0
        self.stopped = False
        self._updated = False
        self._statistics: dict[str, float] = {}
        self._bar: Any = None
        self._parameters: list[torch.nn.Parameter] = []

    def resume(self, model: PPO) -> None:
        """Continue from the task's checkpoint, if there is one."""
        found = load_checkpoint(self.path, model)
        if found is None:
            return
        notes, extra = found
        self.rows = notes["rows"]
        self.best_step, self.looks_without_better, self.stopped = notes["best_step"], notes["looks"], notes["stopped"]
        if extra:
            self.best = {name: value.numpy().copy() for name, value in extra.items()}
            self.best_growth = notes["best_growth"]

    def _on_training_start(self) -> None:
        self._parameters = list(self.model.policy.parameters())
        total = self.model._total_timesteps
        self._bar = tqdm(
            total=total, initial=self.num_timesteps, desc=f"seed {self.task.member}", unit="step", disable=not sys.stderr.isatty()
        )  # fmt: skip

    def _on_rollout_start(self) -> None:
        if self._updated:
            self._look()
            if len(self.rows) % CHECKPOINT_ROLLOUTS == 0:
                self._save()
        self._warm_up()

    def _warm_up(self) -> None:
        factor = self.task.cost_factor(self.num_timesteps, self.model._total_timesteps)
        self.training_env.env_method("scale_costs", factor, indices=[0])

    def _on_step(self) -> bool:
        self._guard("observation", self.locals["new_obs"])
        self._guard("reward", self.locals["rewards"][:, None])
        return not self.stopped

    def _on_rollout_end(self) -> None:
        self._updated = True
        self._statistics = self.training_env.env_method("pop_statistics", indices=[0])[0]
        self._bar.update(self.num_timesteps - self._bar.n)

    def _on_training_end(self) -> None:
        if self._updated:
            self._look()
        self._bar.close()

    def _look(self) -> None:
        self._updated = False
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self._parameters):
            refuse_broken(self._export(), self.num_timesteps, self._advice())
        recorded = self.logger.name_to_value
        row: Row = {"seed": self.task.member, "step": self.num_timesteps, **self._statistics}
        row |= {ours: float(recorded[theirs]) for theirs, ours in UPDATE_COLUMNS.items()}
        row["entropy"] = -float(recorded["train/entropy_loss"])
        row["validation_growth"] = self._validate()
        self.rows.append(row)

    def _export(self) -> Parameters:
        return export(self.model.policy)  # type: ignore[arg-type]  # SB3's type is the base class

    def _validate(self) -> float | None:
        settings = self.task.config.validation
        if self.task.validation is None or (len(self.rows) + 1) % settings.every_rollouts:
            return None
        parameters = self._export()
        growth = validation_growth(
            self.task.validation, self.task.rules, self.task.config.architecture, self.task.sizes, parameters
        )  # fmt: skip
        if growth > self.best_growth:
            self.best, self.best_growth, self.best_step, self.looks_without_better = parameters, growth, self.num_timesteps, 0
        else:
            self.looks_without_better += 1
            self.stopped = settings.patience is not None and self.looks_without_better >= settings.patience
        return growth

    def _guard(self, what: str, values: np.ndarray[Any, Any]) -> None:
        if np.isfinite(values).all():
            return
        book, column = np.argwhere(~np.isfinite(values))[0]
        name = self.task.columns[column] if what == "observation" else "reward"
        found = f"{what} {name!r} of book {book} is {values[book, column]}"
        raise TrainingError(f"after {self.num_timesteps} steps {found}; {self._advice()}")

    def _advice(self) -> str:
        last = f"the last good checkpoint is {self.path}" if self.path.exists() else "there is no checkpoint yet"
        return f"{last}; lower optimizer.learning_rate or look at the features of these sessions"

    def _save(self) -> None:
        best = {name: torch.from_numpy(value) for name, value in (self.best or {}).items()}
        notes = {"rows": self.rows, "best_step": self.best_step, "looks": self.looks_without_better, "stopped": self.stopped}
        if self.best is not None:
            notes["best_growth"] = self.best_growth
        save_checkpoint(self.path, self.model, notes, best)  # type: ignore[arg-type]  # SB3's type is the base class
