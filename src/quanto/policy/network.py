"""The networks of a policy as NumPy: shapes, parameter names and the forward pass of all ensemble members at once.

Training builds the same networks in torch and exports their parameters under these names: `actor.<layer>.weight`
(inputs x outputs) and `.bias`, and the same with `cash`. Inputs by architecture:

- `mlp`: the whole flat observation;
- `per_asset`: one scorer for every name, of its own columns, the market's columns and the drawdown; the cash logit, if
  there is one, comes from a second network of the market's columns and the drawdown;
- `exposure`: the market's columns, the drawdown and the book's own exposure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from quanto.core.config import Section
from quanto.core.errors import IntegrityError
from quanto.env.action_map import ACTION_BOUND

FloatArray = npt.NDArray[np.float64]

# Columns of the observation that are no features: availability and own weight of a name, drawdown of the book.
ASSET_EXTRA = 2
MARKET_EXTRA = 1

Layers = tuple[tuple[FloatArray, FloatArray], ...]


class Architecture(Section):
    """Which network scores the names, its hidden layers, and whether its output is squashed into the bounds of an action."""

    kind: Literal["mlp", "per_asset", "exposure"]
    hidden: tuple[int, ...] = Field(min_length=1)
    activation: Literal["tanh", "relu"]
    squash: bool


@dataclass(frozen=True)
class Sizes:
    """What observation and action consist of: names, feature columns per name and of the market, numbers in an action."""

    symbols: int
    asset_columns: int
    market_columns: int
    actions: int

    @property
    def asset(self) -> int:
        """Columns of one name in the observation."""
        return self.asset_columns + ASSET_EXTRA

    @property
    def market(self) -> int:
        """Columns of the market in the observation, the drawdown included."""
        return self.market_columns + MARKET_EXTRA

    @property
    def cash_logit(self) -> bool:
        """Whether a scorer needs a second network: an action has one number more than there are names."""
        return self.actions == self.symbols + 1

    @property
    def observation(self) -> int:
        """The length of the flat observation."""
        return self.symbols * self.asset + self.market


@dataclass(frozen=True)
class Networks:
    """The parameters of K members, stacked: weights (K, inputs, outputs), biases (K, 1, outputs); float64."""

    architecture: Architecture
    sizes: Sizes
    actor: Layers
    cash: Layers


def layer_shapes(architecture: Architecture, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter that acting needs, by name."""
    inputs, outputs = {
        "mlp": (sizes.observation, sizes.actions),
        "per_asset": (sizes.asset + sizes.market, 1),
        "exposure": (sizes.market + 1, 1),
    }[architecture.kind]
    shapes = _chain("actor", (inputs, *architecture.hidden, outputs))
    if architecture.kind == "per_asset" and sizes.cash_logit:
        shapes |= _chain("cash", (sizes.market, *architecture.hidden, 1))
    return shapes


def stack(architecture: Architecture, sizes: Sizes, members: Sequence[Mapping[str, npt.NDArray[np.float32]]]) -> Networks:
    """Return the members' parameters as one stack.

    Raises
    ------
    IntegrityError
        If a parameter is missing, has another shape than the architecture gives it, or is not finite; lists all.
    """
    shapes = layer_shapes(architecture, sizes)
    faults = []
    for index, member in enumerate(members):
        for name, shape in shapes.items():
            if name not in member:
                faults.append(f"member {index} lacks {name}")
            elif member[name].shape != shape:
                faults.append(f"{name} of member {index} has shape {member[name].shape}, the architecture needs {shape}")
            elif not np.isfinite(member[name]).all():
                faults.append(f"{name} of member {index} is not finite")
    if faults:
        raise IntegrityError(f"the weights do not fit policy.json: {'; '.join(faults)}")
    stacked = {name: np.stack([member[name].astype(np.float64) for member in members]) for name in shapes}
    return Networks(architecture, sizes, _layers(stacked, "actor"), _layers(stacked, "cash"))


def act(networks: Networks, asset: FloatArray, market: FloatArray) -> FloatArray:
    """Return the raw action of every member for one session; shape (n_members, n_actions).

    Parameters
    ----------
    asset
        Shape (n_symbols, sizes.asset): scaled features, availability, own weight. Finite.
    market
        Shape (sizes.market,): scaled market features, drawdown. Finite.
    """
    actions = _raw_actions(networks, asset, market)
    return ACTION_BOUND * np.tanh(actions) if networks.architecture.squash else actions


def _raw_actions(networks: Networks, asset: FloatArray, market: FloatArray) -> FloatArray:
    kind = networks.architecture.kind
    if kind == "per_asset":
        return _score(networks, asset, market)
    inputs = np.concatenate((asset.ravel(), market) if kind == "mlp" else (market, (asset[:, -1].sum(),)))
    return _forward(networks.actor, inputs[None, :], networks.architecture.activation)[:, 0, :]


def _score(networks: Networks, asset: FloatArray, market: FloatArray) -> FloatArray:
    activation = networks.architecture.activation
    inputs = np.empty((networks.sizes.symbols, networks.sizes.asset + networks.sizes.market))
    inputs[:, : networks.sizes.asset] = asset
    inputs[:, networks.sizes.asset :] = market
    logits = _forward(networks.actor, inputs, activation)[:, :, 0]
    if networks.cash:
        logits = np.concatenate([logits, _forward(networks.cash, market[None, :], activation)[:, :, 0]], axis=1)
    return logits


def _forward(layers: Layers, x: FloatArray, activation: str) -> FloatArray:
    for index, (weight, bias) in enumerate(layers):
        x = np.matmul(x, weight) + bias
        if index < len(layers) - 1:
            x = np.tanh(x) if activation == "tanh" else np.maximum(x, 0.0)
    return x


def _chain(name: str, widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes[f"{name}.{index}.weight"] = (inputs, outputs)
        shapes[f"{name}.{index}.bias"] = (outputs,)
    return shapes


def _layers(stacked: Mapping[str, FloatArray], name: str) -> Layers:
    count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in stacked)
    return tuple((stacked[f"{name}.{index}.weight"], stacked[f"{name}.{index}.bias"][:, None, :]) for index in range(count))
