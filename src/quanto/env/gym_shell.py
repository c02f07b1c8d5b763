"""One book as a Gymnasium environment, registered as `quanto/Portfolio-v0`: the same step as the batched one, bit for bit."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from quanto.env.action_map import ACTION_BOUND
from quanto.env.books import BookSet, EpisodeConfig, Market, Rules, random_weights

ENVIRONMENT_ID = "quanto/Portfolio-v0"

Float32Array = npt.NDArray[np.float32]

# A scaled feature is clipped far inside of this, a weight and a drawdown are at most 1.
OBSERVATION_BOUND = 1e3


class PortfolioEnv(gymnasium.Env[Float32Array, Float32Array]):
    """A single book; actions live in the unit box and are the raw actions divided by `ACTION_BOUND`.

    `reset(options={"session": t, "weights": w})` starts where asked, else on a random session. The episode length is
    that of `episodes`; `episodes.books` is not read: this is one book.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # the base class declares it as a plain attribute

    def __init__(self, market: Market, rules: Rules, episodes: EpisodeConfig) -> None:
        self.books = BookSet(market, rules, episodes.sessions, 1)
        self.random_weights = episodes.random_weights
        size = (self.books.observation_size,)
        self.observation_space = spaces.Box(-OBSERVATION_BOUND, OBSERVATION_BOUND, size, np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (rules.action_map.size(market.n_symbols),), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float32Array, dict[str, Any]]:
        """Start an episode; return the observation and the session index."""
        super().reset(seed=seed)
        asked = options or {}
        tape = self.books.market.tape
        t = np.array([asked.get("session", self.np_random.integers(0, self.books.last_start + 1))])
        drawn = random_weights(self.np_random, tape.eligible[t]) if self.random_weights else np.zeros((1, tape.close.shape[1]))
        weights = np.asarray(asked["weights"], dtype=np.float64)[None, :] if "weights" in asked else drawn
        self.books.open(np.array([0]), t, weights)
        return self._observe(), {"session": int(t[0])}

    def step(self, action: Float32Array) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        """Trade one action; return observation, reward, terminated, truncated and what the session did."""
        raw = np.asarray(action, dtype=np.float32)[None, :] * np.float32(ACTION_BOUND)
        result = self.books.step(raw)
        info = {name: float(getattr(result, name)[0]) for name in ("growth", "turnover", "cost", "exposure")}
        reward = float(np.float32(result.reward[0]))
        return self._observe(), reward, bool(result.terminated[0]), bool(result.truncated[0]), info

    def _observe(self) -> Float32Array:
        out = np.empty((1, self.books.observation_size), dtype=np.float32)
        self.books.observe(out)
        row: Float32Array = out[0]
        return row


gymnasium.register(id=ENVIRONMENT_ID, entry_point="quanto.env.gym_shell:PortfolioEnv")
