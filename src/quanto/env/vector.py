"""The batched environment of stable-baselines3: all books in one process, in two observation buffers that alternate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from quanto.core.errors import ConfigError
from quanto.core.rng import generator
from quanto.env.action_map import ACTION_BOUND
from quanto.env.books import BookSet, EpisodeConfig, Market, Rules, Transition, random_weights
from quanto.env.rewards import REWARDS

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]


class PortfolioVecEnv(VecEnv):
    """B books in one market; every episode starts on a random session with random weights.

    A finished book restarts at once; its last observation is in `terminal_observation`, and windows end by
    truncation. The observation that `step` returns stays valid until the step after the next: SB3 keeps the last one
    while the environment writes the new one.
    """

    render_mode = None

    def __init__(self, market: Market, rules: Rules, episodes: EpisodeConfig, seed: int) -> None:
        self.books = BookSet(market, rules, episodes.sessions, episodes.books)
        self.episodes = episodes
        self.rng = generator(seed, "environment")
        # Observations of neutral books to mean actions; the self-critical reward asks it every session.
        self.policy: Callable[[Float32Array], Float32Array] | None = None
        size = self.books.observation_size
        actions = rules.action_map.size(market.n_symbols)
        self._buffers = [np.zeros((episodes.books, size), dtype=np.float32) for _ in range(2)]
        self._neutral = np.zeros((episodes.books, size), dtype=np.float32)
        self._turn = 0
        self._actions: Float32Array = np.zeros((episodes.books, actions), dtype=np.float32)
        # SB3 only reads the infos of books that are done; the others share one empty dictionary.
        self._no_infos: list[dict[str, Any]] = [{} for _ in range(episodes.books)]
        # Since the last look at the statistics; a learner looks after every rollout.
        self._seen: list[Transition] = []
        super().__init__(
            episodes.books,
            spaces.Box(-np.inf, np.inf, (size,), np.float32),
            spaces.Box(-ACTION_BOUND, ACTION_BOUND, (actions,), np.float32),
        )

    def reset(self) -> Float32Array:
        """Start all books anew and return their observations; shape (n_books, observation_size)."""
        self._restart(np.arange(self.num_envs))
        return self._observe()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Float32Array, Float32Array, npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Step all books; return observations, rewards, dones and infos as SB3 expects them."""
        result = self.books.step(self._actions, self._neutral_actions())
        self._seen.append(result)
        done = result.terminated | result.truncated
        infos = self._no_infos
        if done.any():
            finished = np.flatnonzero(done)
            last = self._observe()
            self._turn = 1 - self._turn  # the same buffer again: the observation that SB3 holds must survive
            infos = list(self._no_infos)
            for book in finished:
                truncated = bool(result.truncated[book])
                infos[book] = {"terminal_observation": last[book].copy(), "TimeLimit.truncated": truncated}
            self._restart(finished)
        return self._observe(), result.reward.astype(np.float32), done, infos

    def scale_costs(self, factor: float) -> None:
        """Trade at this multiple of the market's costs from the next step on."""
        self.books.scale_costs(factor)

    def pop_statistics(self) -> dict[str, float]:
        """Return the means per step since the last call (empty before the first step): reward components and raw growth."""
        if not self._seen:
            return {}
        names = REWARDS[self.books.rules.reward.version].components
        components = np.concatenate([seen.components for seen in self._seen]).mean(axis=0)
        means = {f"reward_{name}": float(value) for name, value in zip(names, components, strict=True)}
        for name in ("growth", "turnover", "cost", "exposure"):
            means[name] = float(np.concatenate([getattr(seen, name) for seen in self._seen]).mean())
        self._seen = []
        return means

    def _neutral_actions(self) -> Float32Array | None:
        if self.policy is None:
            return None
        self.books.observe_neutral(self._neutral)
        return self.policy(self._neutral)

    def _restart(self, which: npt.NDArray[np.int64]) -> None:
        tape = self.books.market.tape
        t = self.rng.integers(0, self.books.last_start + 1, size=len(which))
        weights = np.zeros((len(which), tape.close.shape[1]))
        if self.episodes.random_weights:
            weights = random_weights(self.rng, tape.eligible[t])
        self.books.open(which, t, weights)

    def _observe(self) -> Float32Array:
        buffer = self._buffers[self._turn]
        self._turn = 1 - self._turn
        self.books.observe(buffer)
        return buffer

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Restart the stream of episode starts from `seed`; None keeps it."""
        if seed is not None:
            self.rng = generator(seed, "environment")
        return [seed] * self.num_envs

    def close(self) -> None:
        """Do nothing: there are no processes to end."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute that all books share.

        Raises
        ------
        ConfigError
            If only some books are named: they share one environment.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ConfigError("the books share one environment: an attribute is set for all of them or for none")
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        return [getattr(self, method_name)(*method_args, **method_kwargs)] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:  # noqa: ARG002  # SB3's signature
        return [False] * len(list(self._get_indices(indices)))
