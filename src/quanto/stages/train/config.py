"""The section `train`: what is observed, how the policy is built and how it learns."""

from __future__ import annotations

from typing import Annotated, Literal, Self

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


# Sections of which exactly the algorithm's own is given.
SECTIONS = ("ppo", "sac", "direct")

Units = Annotated[int, Field(ge=1)]


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
    """The actor: the network that acts, whatever algorithm trains it."""

    hidden: tuple[Units, ...] = Field(min_length=1)
    activation: Literal["tanh", "relu"]


class OptimizerConfig(Section):
    """AdamW: the step size over training, the decay of weights, and the term that keeps its division finite."""

    learning_rate: Schedule
    weight_decay: float = Field(ge=0)
    epsilon: float = Field(gt=0)


class PpoConfig(Section):
    """The parameters of stable-baselines3's PPO, under its own names, and of its critic and its exploration."""

    critic_hidden: tuple[Units, ...] = Field(min_length=1)
    critic_inputs: Literal["market", "all"]
    log_std_init: float = Field(ge=-5, le=3)
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


class SacConfig(Section):
    """The parameters of stable-baselines3's SAC, under its own names, and of its critics.

    One environment step moves all books, so `gradient_steps` are taken every `train_freq` steps of the set. `ent_coef`
    null tunes the entropy coefficient by itself.
    """

    critic_hidden: tuple[Units, ...] = Field(min_length=1)
    buffer_size: int = Field(ge=1)
    learning_starts: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    tau: float = Field(gt=0, le=1)
    gamma: float = Field(ge=0, le=1)
    train_freq: int = Field(ge=1)
    gradient_steps: int = Field(ge=1)
    ent_coef: float | None = Field(ge=0)
    target_update_interval: int = Field(ge=1)


class DirectConfig(Section):
    """The full-information gradient: windows that are unrolled and differentiated through the known prices."""

    windows: int = Field(ge=1)
    unroll_sessions: int = Field(ge=1)
    max_grad_norm: float = Field(gt=0)


class YardstickConfig(Section):
    """The `direct` policy that is trained on the same window, network and seeds, and shown beside every result of learning."""

    learning_rate: Schedule
    direct: DirectConfig


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

    algorithm: Literal["ppo", "sac", "direct"]
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
    ppo: PpoConfig | None
    sac: SacConfig | None
    direct: DirectConfig | None
    validation: ValidationConfig
    yardstick: YardstickConfig | None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = []
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            faults.append(f"seeds must be different numbers of 0 or more; found {list(self.seeds)}")
        if self.policy == "ExposurePolicy" and self.action.cash == "logit":
            faults.append("action.cash must be none for ExposurePolicy: its one number is the exposure, cash is the rest")
        given = [name for name in SECTIONS if getattr(self, name) is not None]
        if given != [self.algorithm]:
            faults.append(
                f"algorithm {self.algorithm} needs the section {self.algorithm} and no other one; found {', '.join(given) or 'none'}"
            )
        faults += self._misfits()
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _misfits(self) -> list[str]:
        """Return what the algorithm would accept without using it, or cannot use."""
        faults = []
        if self.ppo is not None and self.episodes.books * self.ppo.n_steps % self.ppo.batch_size:
            rollout = self.episodes.books * self.ppo.n_steps
            faults.append(f"ppo.batch_size {self.ppo.batch_size} must divide episodes.books x ppo.n_steps = {rollout}")
        if self.sac is not None:
            if self.policy != "MlpPolicy":
                faults.append(f"sac trains MlpPolicy, the actor of stable-baselines3; found {self.policy}")
            if self.reward.variance_reduction == "self_critical":
                faults.append(
                    "reward.variance_reduction must be none or equal_weight for sac: its replayed rewards outlive the policy they refer to"
                )
        if self.direct is not None and self.yardstick is not None:
            faults.append("yardstick must be null for direct, which is the yardstick")
        if self.direct is not None and self.reward.variance_reduction != "none":
            faults.append("reward.variance_reduction must be none for direct: its gradient has no noise to reduce")
        if self.algorithm != "ppo" and self.validation.fraction > 0:
            faults.append("validation.fraction must be 0 for sac and direct: checkpoints are chosen for ppo alone")
        return faults

    @property
    def architecture(self) -> Architecture:
        """The network that the policy's name stands for; SAC's actor squashes its action."""
        network = self.network
        return Architecture(
            kind=ARCHITECTURES[self.policy], hidden=network.hidden, activation=network.activation, squash=self.algorithm == "sac"
        )  # fmt: skip

    @property
    def action_map(self) -> ActionMap:
        """The action map that fits the network's output."""
        kind: Literal["softmax", "exposure"] = "exposure" if self.policy == "ExposurePolicy" else "softmax"
        return ActionMap(kind=kind, scale=self.action.scale, cash=self.action.cash)
