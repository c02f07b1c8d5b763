"""Rewards: frozen, versioned entries; none sees beyond the outcome of its own session.

A reward is the sum of its components. The growth component is log nav_open(t+2) / nav_open(t+1), net of costs, for
the action of session t; variance reduction subtracts from it what the action could not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.registry import Registry

FloatArray = npt.NDArray[np.float64]


class Penalties(NamedTuple):
    """The sizes of the shaping terms, in the unit of the log growth (before `scale`)."""

    turnover: float
    drawdown: float


class SessionResult(NamedTuple):
    """What one session did, as a reward may see it; all of shape (n_books,).

    `growth` is the net log growth, `reference` the growth that variance reduction subtracts (0 for none),
    `turnover` one-way, the drawdowns (0 or below) belong to the closes before and after the session.
    """

    growth: FloatArray
    reference: FloatArray
    turnover: FloatArray
    drawdown_before: FloatArray
    drawdown_after: FloatArray


@dataclass(frozen=True)
class Reward:
    """One entry: a name that never changes its meaning, a sentence, its components and their default sizes."""

    name: str
    sentence: str
    components: tuple[str, ...]
    defaults: Penalties | None
    function: Callable[[SessionResult, Penalties], tuple[FloatArray, ...]]


def _growth(result: SessionResult, _: Penalties) -> tuple[FloatArray, ...]:
    return (result.growth - result.reference,)


def _penalised_growth(result: SessionResult, penalties: Penalties) -> tuple[FloatArray, ...]:
    fall = np.maximum(result.drawdown_before - result.drawdown_after, 0.0)
    return (result.growth - result.reference, -penalties.turnover * result.turnover, -penalties.drawdown * fall)


REWARDS: Registry[Reward] = Registry(
    "reward",
    Reward(
        name="reward_v1",
        sentence="Log growth net of costs, from the open that fills the action to the next open.",
        components=("growth",),
        defaults=None,
        function=_growth,
    ),
    Reward(
        name="reward_v2",
        sentence="reward_v1 minus a share of the one-way turnover and of the session's increase of the drawdown.",
        components=("growth", "turnover", "drawdown"),
        defaults=Penalties(turnover=1e-3, drawdown=0.05),
        function=_penalised_growth,
    ),
)


class RewardConfig(Section):
    """Which reward, its scale and shaping. A penalty of null takes the size of the reward's own version."""

    version: str
    scale: float = Field(gt=0)
    variance_reduction: Literal["none", "equal_weight", "self_critical"]
    turnover_penalty: float | None = Field(ge=0)
    drawdown_penalty: float | None = Field(ge=0)

    @model_validator(mode="after")
    def _known(self) -> Self:
        entry = REWARDS[self.version]
        given = [name for name in ("turnover_penalty", "drawdown_penalty") if getattr(self, name) is not None]
        if given and entry.defaults is None:
            raise ValueError(f"{self.version} has no penalties, so {' and '.join(given)} must be null; reward_v2 has both")
        return self

    def penalties(self) -> Penalties:
        """Return the sizes that apply: those given, else those of the version."""
        default = REWARDS[self.version].defaults or Penalties(0.0, 0.0)
        given = (self.turnover_penalty, self.drawdown_penalty)
        return Penalties(*(own if own is not None else usual for own, usual in zip(given, default, strict=True)))


def reward_components(config: RewardConfig, result: SessionResult) -> FloatArray:
    """Return the scaled components of a reward; shape (n_books, n_components); the reward is their sum."""
    values = REWARDS[config.version].function(result, config.penalties())
    return np.stack(values, axis=1) * config.scale
