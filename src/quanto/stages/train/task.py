"""One seed as one task: everything a worker needs, as a picklable value, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from quanto.core.digest import digest_bytes, digest_value
from quanto.core.errors import TrainingError
from quanto.core.rng import generator
from quanto.env.books import Market, Rules
from quanto.policy.network import Sizes
from quanto.stages.train.config import TrainConfig

Parameters = dict[str, npt.NDArray[np.float32]]
Row = dict[str, float | int | None]


@dataclass(frozen=True)
class TrainTask:
    """Training of one member.

    Attributes
    ----------
    market
        The sessions of the gradient: rewards see nothing beyond its end.
    validation
        The sessions after it that choose the checkpoint, with the last training session in front as the first
        decision; None where no validation window is configured.
    columns
        Names of the numbers of the flat observation, for messages.
    sources
        Digest of the code that trains: a checkpoint of other code is not continued.
    """

    config: TrainConfig
    member: int
    market: Market
    validation: Market | None
    columns: tuple[str, ...]
    sources: str

    @property
    def rules(self) -> Rules:
        """Action map, limits and reward."""
        return Rules(self.config.action_map, self.config.constraints.limits(), self.config.reward)

    @property
    def sizes(self) -> Sizes:
        """Sizes of observation and action."""
        symbols = self.market.n_symbols
        return Sizes(symbols, self.market.asset.shape[2] - 1, self.market.market.shape[1], self.config.action_map.size(symbols))

    @property
    def torch_seed(self) -> int:
        """The seed of the member's torch and SB3 streams: a function of the root seed and the member."""
        return int(generator(self.config.seed, "train", self.member).integers(2**31))

    def cost_factor(self, steps: int, total: int) -> float:
        """Return the share of its size that a cost has after `steps` of `total`: what pays is found before what it costs."""
        warm_up = self.config.episodes.cost_warm_up * total
        return min(1.0, steps / warm_up) if warm_up > 0 else 1.0

    @cached_property
    def key(self) -> str:
        """A digest of all that the result depends on: names the checkpoint."""
        arrays = {name: _array_digest(array) for name, array in self._arrays().items()}
        return digest_value(
            {"member": self.member, "config": self.config.model_dump(mode="json"), "arrays": arrays, "sources": self.sources}
        )  # fmt: skip

    def _arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for name, market in (("market", self.market), ("validation", self.validation)):
            if market is not None:
                parts: dict[str, npt.NDArray[np.generic]] = {"asset": market.asset, "market": market.market, "cap": market.exposure_cap}
                parts |= market.tape._asdict()
                arrays |= {f"{name}.{part}": array for part, array in parts.items()}
        return arrays


@dataclass(frozen=True)
class TrainResult:
    """One trained member: its parameters, its curves (one row per rollout) and a few numbers about the run."""

    member: int
    parameters: Parameters
    curves: tuple[Row, ...]
    summary: Row


def refuse_broken(parameters: Parameters, steps: int, advice: str) -> None:
    """Raise where a parameter is not finite.

    Raises
    ------
    TrainingError
        Names the step, the parameters and what to do.
    """
    broken = [name for name, value in parameters.items() if not np.isfinite(value).all()]
    if broken:
        raise TrainingError(f"after {steps} steps {', '.join(broken)} are not finite; {advice}")


def _array_digest(array: npt.NDArray[np.generic]) -> str:
    return digest_bytes(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
