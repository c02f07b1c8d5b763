"""The policies as stable-baselines3 sees them: an ActorCriticPolicy whose networks are those of `policy.network`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from quanto.policy.network import Architecture, Sizes

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)

# SB3's own initial gains: hidden layers sqrt(2), a nearly neutral first action, a critic of unit gain.
HIDDEN_GAIN = 2**0.5
ACTION_GAIN = 0.01
VALUE_GAIN = 1.0


def chain(widths: tuple[int, ...], activation: str, last_gain: float) -> nn.Sequential:
    """Return linear layers with activations between them, orthogonally initialised."""
    layers: list[nn.Module] = []
    for index in range(len(widths) - 1):
        linear = nn.Linear(widths[index], widths[index + 1])
        last = index == len(widths) - 2
        nn.init.orthogonal_(linear.weight, gain=last_gain if last else HIDDEN_GAIN)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class Actor(nn.Module):
    """Flat observation -> raw action, as `policy.network.act` does it."""

    actor: nn.Sequential
    cash: nn.Sequential | None

    def __init__(self, architecture: Architecture, sizes: Sizes) -> None:
        super().__init__()
        self.kind, self.sizes = architecture.kind, sizes
        inputs, outputs = {
            "mlp": (sizes.observation, sizes.actions),
            "per_asset": (sizes.asset + sizes.market, 1),
            "exposure": (sizes.market + 1, 1),
        }[architecture.kind]
        self.actor = chain((inputs, *architecture.hidden, outputs), architecture.activation, ACTION_GAIN)
        self.cash = None
        if architecture.kind == "per_asset" and sizes.cash_logit:
            self.cash = chain((sizes.market, *architecture.hidden, 1), architecture.activation, ACTION_GAIN)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        if self.kind == "mlp":
            return self._run(observation)
        asset = observation[:, : self.sizes.symbols * self.sizes.asset].view(-1, self.sizes.symbols, self.sizes.asset)
        market = observation[:, self.sizes.symbols * self.sizes.asset :]
        if self.kind == "exposure":
            return self._run(torch.cat([market, asset[:, :, -1].sum(dim=1, keepdim=True)], dim=1))
        # The market's part of the first layer is the same for all names: one product instead of one per name.
        first = cast(nn.Linear, self.actor[0])
        own, shared = first.weight[:, : self.sizes.asset], first.weight[:, self.sizes.asset :]
        hidden = asset @ own.T + nn.functional.linear(market, shared, first.bias)[:, None, :]
        logits = self.actor[1:](hidden)[:, :, 0]
        return logits if self.cash is None else torch.cat([logits, self.cash(market)], dim=1)

    def _run(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.actor(inputs)
        return out


class ActorCritic(nn.Module):
    """What SB3 calls the extractor: actor and critic from one flat observation."""

    policy_net: Actor
    value_net: nn.Sequential

    def __init__(self, architecture: Architecture, sizes: Sizes, critic_hidden: tuple[int, ...], critic_inputs: str) -> None:
        super().__init__()
        self.policy_net = Actor(architecture, sizes)
        self.critic_from = 0 if critic_inputs == "all" else sizes.symbols * sizes.asset
        widths = (sizes.observation - self.critic_from, *critic_hidden, 1)
        self.value_net = chain(widths, architecture.activation, VALUE_GAIN)
        self.latent_dim_pi, self.latent_dim_vf = sizes.actions, 1

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.policy_net(features)
        return out

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.value_net(features[:, self.critic_from :])
        return out


def _log_probability(noise: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Return the log density of a diagonal normal at mean + exp(log_std) x noise; shape (n,)."""
    return -0.5 * (noise * noise).sum(dim=1) - log_std.sum() - noise.shape[1] * HALF_LOG_TWO_PI


class PortfolioPolicy(ActorCriticPolicy):
    """SB3's actor-critic policy over our networks."""

    def __init__(
        self, *args: Any, architecture: Architecture, sizes: Sizes, critic_hidden: tuple[int, ...], critic_inputs: str, **kwargs: Any
    ) -> None:
        self._networks = (architecture, sizes, critic_hidden, critic_inputs)
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.mlp_extractor = ActorCritic(*self._networks)  # type: ignore[assignment]  # SB3 names its own class, needs the interface
        # The networks end in the action and in the value: nothing is left for SB3's own last layers to do.
        self.action_net, self.value_net = nn.Identity(), nn.Identity()  # type: ignore[assignment]  # as above
        self.log_std = nn.Parameter(torch.full((self._networks[1].actions,), float(self.log_std_init)))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]  # every optimiser has lr

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return actions, values (n, 1) and log probabilities, as the base class does without its distribution objects."""
        mean, values = self.mlp_extractor(obs)
        if deterministic:
            return mean, values, _log_probability(torch.zeros_like(mean), self.log_std)
        noise = torch.randn_like(mean)
        return mean + self.log_std.exp() * noise, values, _log_probability(noise, self.log_std)

    def evaluate_actions(self, obs: PyTorchObs, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return values (n, 1), log probabilities and entropies of given actions, as the base class does."""
        mean, values = self.mlp_extractor(obs)
        log_probability = _log_probability((actions - mean) * (-self.log_std).exp(), self.log_std)
        entropy = (self.log_std.sum() + self._networks[1].actions * (0.5 + HALF_LOG_TWO_PI)).expand(len(actions))
        return values, log_probability, entropy

    def set_training_mode(self, mode: bool) -> None:
        """Note the mode; no layer of ours behaves differently in it, so none is visited."""
        self.training = mode

    def predict_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Return the values (n, 1) of observations."""
        return self.mlp_extractor.forward_critic(cast(torch.Tensor, obs))

    def mean_actions(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what the policy does without exploring; shape (n_books, n_actions)."""
        with torch.no_grad():
            out: npt.NDArray[np.float32] = self.mlp_extractor.forward_actor(torch.from_numpy(observations)).numpy()
        return out


def export(policy: PortfolioPolicy) -> dict[str, npt.NDArray[np.float32]]:
    """Return the parameters under the names of `policy.network`, weights as (inputs, outputs), and the critic's beside."""
    nets = cast(ActorCritic, policy.mlp_extractor)
    parts = {"actor": nets.policy_net.actor, "critic": nets.value_net}
    if nets.policy_net.cash is not None:
        parts["cash"] = nets.policy_net.cash
    out: dict[str, npt.NDArray[np.float32]] = {"log_std": policy.log_std.detach().numpy().copy()}
    for name, part in parts.items():
        out |= linear_parameters(name, part)
    return out


def linear_parameters(name: str, layers: Iterable[nn.Module]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the weights (inputs x outputs) and biases of the linear layers among `layers`, numbered from 0."""
    out: dict[str, npt.NDArray[np.float32]] = {}
    for index, layer in enumerate(layer for layer in layers if isinstance(layer, nn.Linear)):
        out[f"{name}.{index}.weight"] = layer.weight.detach().numpy().T.copy()
        out[f"{name}.{index}.bias"] = layer.bias.detach().numpy().copy()
    return out
