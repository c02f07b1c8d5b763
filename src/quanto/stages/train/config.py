"""The section `train`: what is observed, how the policy is built and how it learns."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.env.action_map import ActionMap
from quanto.env.books import EpisodeConfig
from quanto.env.rewards import RewardConfig
from quanto.market.split import SplitConfig
from quanto.policy.artefact import Shield
from quanto.policy.network import Architecture
from quanto.portfolio.constraints import ConstraintConfig
from quanto.portfolio.costs import CostConfig

# The names of the experiment spec, and the architecture each stands for.
ARCHITECTURES: dict[str, Literal["mlp", "per_asset", "exposure"]] = {
    "MlpPolicy": "mlp",
    "PerAssetPolicy": "per_asset",
    "ExposurePolicy": "exposure",
}


class Schedule(Section):
    """A value that moves linearly from `start` to `end` over training."""

    start: float = Field(ge=0)
    end: float = Field(ge=0)

    def at(self, remaining: float) -> float:
        """Return the value where `remaining` (1 at the start, 0 at the end) of training lies ahead."""
        return self.end + remaining * (self.start - self.end)


class ActionConfig(Section):
    """How raw actions become weights; an exposure head takes no cash logit."""

    scale: float = Field(gt=0)
    cash: Literal["none", "logit"]


class NetworkConfig(Section):
    """Hidden layers of actor and critic, and the initial spread of exploration."""

    hidden: tuple[int, ...] = Field(min_length=1)
    critic_hidden: tuple[int, ...] = Field(min_length=1)
    critic_inputs: Literal["market", "all"]
    activation: Literal["tanh", "relu"]
    log_std_init: float = Field(ge=-5, le=3)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(*self.hidden, *self.critic_hidden) < 1:
            raise ValueError("a hidden layer needs 1 unit or more")
        return self


class OptimizerConfig(Section):
    """AdamW: the step size over training, the decay of weights, and the term that keeps its division finite."""

    learning_rate: Schedule
    weight_decay: float = Field(ge=0)
    epsilon: float = Field(gt=0)


class PpoConfig(Section):
    """The parameters of stable-baselines3's PPO, under its own names."""

    n_steps: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    n_epochs: int = Field(ge=1)
    gamma: float = Field(ge=0, le=1)
    gae_lambda: float = Field(ge=0, le=1)
    clip_range: Schedule
    clip_range_vf: float | None = Field(gt=0)
    normalize_advantage: bool
    ent_coef: float = Field(ge=0)
    vf_coef: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    target_kl: float | None = Field(gt=0)


class ValidationConfig(Section):
    """The end of the train window that is kept from the gradient; fraction 0 keeps none.

    With a validation window the checkpoint with the highest validation growth is taken, and training stops after
    `patience` looks without a better one (null never stops).
    """

    fraction: float = Field(ge=0, lt=0.9)
    every_rollouts: int = Field(ge=1)
    patience: int | None = Field(ge=1)


class TrainConfig(Section):
    """Everything that training depends on but the data."""

    algorithm: Literal["ppo"]
    policy: Literal["MlpPolicy", "PerAssetPolicy", "ExposurePolicy"]
    timesteps: int = Field(ge=1)
    seed: int = Field(ge=0)
    seeds: tuple[int, ...] = Field(min_length=1)
    feature_set: str
    regime_feature_set: str | None
    asset_columns: tuple[str, ...] | None
    market_columns: tuple[str, ...] | None
    clip: float = Field(gt=0)
    split: SplitConfig
    costs: CostConfig
    constraints: ConstraintConfig
    reward: RewardConfig
    action: ActionConfig
    shield: Shield
    network: NetworkConfig
    episodes: EpisodeConfig
    optimizer: OptimizerConfig
    ppo: PpoConfig
    validation: ValidationConfig

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = []
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            faults.append(f"seeds must be different numbers of 0 or more; found {list(self.seeds)}")
        if self.policy == "ExposurePolicy" and self.action.cash == "logit":
            faults.append("action.cash must be none for ExposurePolicy: its one number is the exposure, cash is the rest")
        rollout = self.episodes.books * self.ppo.n_steps
        if rollout % self.ppo.batch_size:
            faults.append(f"ppo.batch_size {self.ppo.batch_size} must divide episodes.books x ppo.n_steps = {rollout}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def architecture(self) -> Architecture:
        """The network that the policy's name stands for."""
        return Architecture(kind=ARCHITECTURES[self.policy], hidden=self.network.hidden, activation=self.network.activation)

    @property
    def action_map(self) -> ActionMap:
        """The action map that fits the network's output."""
        kind: Literal["softmax", "exposure"] = "exposure" if self.policy == "ExposurePolicy" else "softmax"
        return ActionMap(kind=kind, scale=self.action.scale, cash=self.action.cash)
