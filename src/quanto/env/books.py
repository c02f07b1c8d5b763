"""Many books stepped together through one market: what the VecEnv and the Gymnasium shell both are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from pydantic import Field

from quanto.core.config import Section
from quanto.core.errors import ConfigError, DataError
from quanto.env.action_map import ActionMap, wanted_weights
from quanto.env.kernel import Books, Outcome, open_books, step
from quanto.env.reference import allowed, equal_weights, open_to_open, reference_growth
from quanto.env.rewards import RewardConfig, SessionResult, reward_components
from quanto.env.tape import Tape
from quanto.portfolio.constraints import Limits, constrain

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Actions = Float32Array | FloatArray

# Columns that the environment adds: to each asset its own weight, to the market the drawdown of the book.
OWN_WEIGHT = 1
DRAWDOWN = 1

START_NAV = 1e6


@dataclass(frozen=True)
class Market:
    """A window of sessions as the environment reads it; nothing outside the window can enter a reward.

    Attributes
    ----------
    asset
        Shape (n_sessions, n_symbols, n_asset_columns): scaled, 0 where missing, availability as its last column.
    market
        Shape (n_sessions, n_market_columns): scaled, 0 where missing.
    exposure_cap
        Shape (n_sessions,): the cap that the decision of each session must keep, in [0, 1].
    """

    tape: Tape
    asset: Float32Array
    market: Float32Array
    exposure_cap: FloatArray

    def __post_init__(self) -> None:
        """Refuse windows too short for one reward, arrays that do not fit, and values that are not finite."""
        shape = self.tape.close.shape
        if shape[0] < 3:
            raise DataError(f"the environment needs 3 sessions (decide, trade, next open); found {shape[0]}")
        if self.asset.shape[:2] != shape or self.market.shape[:1] != shape[:1] or self.exposure_cap.shape != shape[:1]:
            found = f"asset {self.asset.shape}, market {self.market.shape}, exposure cap {self.exposure_cap.shape}"
            raise DataError(f"observation blocks do not fit the tape of shape {shape}: {found}")
        if not (np.isfinite(self.asset).all() and np.isfinite(self.market).all() and np.isfinite(self.exposure_cap).all()):
            raise DataError("observation blocks and exposure cap must be finite; scale and mask them first (policy.observation)")

    @property
    def n_symbols(self) -> int:
        """How many names there are."""
        return int(self.asset.shape[1])

    def window(self, start: int, stop: int) -> Market:
        """Return the sessions start..stop-1, sharing memory."""
        part = slice(start, stop)
        return Market(self.tape.window(start, stop), self.asset[part], self.market[part], self.exposure_cap[part])


class EpisodeConfig(Section):
    """How books begin, how long they live, and over which share of training costs grow from nothing to their size."""

    books: int = Field(ge=1)
    sessions: int = Field(ge=1)
    random_weights: bool
    cost_warm_up: float = Field(ge=0, lt=1)


@dataclass(frozen=True)
class Rules:
    """What holds in every session: the action map, the limits and the reward."""

    action_map: ActionMap
    limits: Limits
    reward: RewardConfig


class Transition(NamedTuple):
    """What one step gave each book; shapes (n_books,) and (n_books, n_components)."""

    reward: FloatArray
    components: FloatArray
    growth: FloatArray
    turnover: FloatArray
    cost: FloatArray
    exposure: FloatArray
    terminated: BoolArray
    truncated: BoolArray


class BookSet:
    """The mutable state of n books: their session, their age in sessions and their holdings.

    The step is that of `env.kernel`; books share nothing but the market.
    """

    def __init__(self, market: Market, rules: Rules, episode_sessions: int, books: int) -> None:
        self.market = market
        self.rules = rules
        self.episode_sessions = episode_sessions
        self.full_costs, self.cost_factor = (market.tape.linear_cost, market.tape.impact), 1.0
        self.t = np.zeros(books, dtype=np.int64)
        self.age = np.zeros(books, dtype=np.int64)
        symbols = market.n_symbols
        self.books = Books(
            np.zeros((books, symbols)), np.zeros(books), np.ones(books), np.ones(books), np.zeros((books, symbols)), np.ones(books)
        )  # fmt: skip
        self.relatives = open_to_open(market.tape)
        equal = equal_weights(market.tape.eligible)
        held = allowed(equal, market.tape.eligible, rules.limits, market.exposure_cap)
        self.equal_weight_growth = reference_growth(market.tape, self.relatives, np.arange(len(equal)), held)
        self._flat = np.ones(books)

    @property
    def last_start(self) -> int:
        """The last session whose action still sees its reward inside the window."""
        return len(self.market.tape.close) - 3

    @property
    def observation_size(self) -> int:
        """The length of one flat observation."""
        _, symbols, columns = self.market.asset.shape
        return int(symbols * (columns + OWN_WEIGHT) + self.market.market.shape[1] + DRAWDOWN)

    def scale_costs(self, factor: float) -> None:
        """Trade at this multiple of the market's costs: a curriculum begins where trading is free."""
        if factor == self.cost_factor:
            return
        self.cost_factor = factor
        linear, impact = (cost * factor for cost in self.full_costs)
        self.market = replace(self.market, tape=self.market.tape._replace(linear_cost=linear, impact=impact))

    def open(self, which: IntArray, t: IntArray, weights: FloatArray) -> None:
        """Restart the books `which` at the close of sessions `t` with `weights`, shape (n_restarted, n_symbols).

        Raises
        ------
        ConfigError
            If a start leaves no room for a reward.
        """
        if len(t) and not (t.min() >= 0 and t.max() <= self.last_start):
            raise ConfigError(f"a book can start on sessions 0 to {self.last_start} of the window; found {t.min()} to {t.max()}")
        start = constrain(weights, weights, self.market.tape.eligible[t], self.rules.limits, self.market.exposure_cap[t])
        fresh = open_books(self.market.tape, t, np.full(len(t), START_NAV), start)
        for mine, new in zip(self.books, fresh, strict=True):
            mine[which] = new
        self.t[which] = t
        self.age[which] = 0

    def step(self, actions: Actions, neutral_actions: Actions | None = None) -> Transition:
        """Trade raw actions, shape (n_books, n_actions), and move each book one session on.

        The self-critical reward needs `neutral_actions`: what the policy would do, without exploring, for the books of
        `observe_neutral`.

        Raises
        ------
        ConfigError
            If the reward is self-critical and no neutral actions were given.
        """
        before = self.books
        after, outcome = self._trade(actions)
        result = SessionResult(
            growth=outcome.log_growth,
            reference=self._reference(neutral_actions),
            turnover=outcome.turnover,
            drawdown_before=before.nav_close / before.peak - 1,
            drawdown_after=after.nav_close / after.peak - 1,
        )
        components = reward_components(self.rules.reward, result)
        self.books = after
        self.t = self.t + 1
        self.age = self.age + 1
        over = (self.age >= self.episode_sessions) | (self.t > self.last_start)
        return Transition(
            reward=components.sum(axis=1),
            components=components,
            growth=outcome.log_growth,
            turnover=outcome.turnover,
            cost=outcome.cost / before.nav_open,
            exposure=after.weights.sum(axis=1),
            terminated=outcome.ruined,
            truncated=over & ~outcome.ruined,
        )

    def observe(self, out: Float32Array) -> None:
        """Write the flat observation of every book into `out`, shape (n_books, observation_size).

        Per name its scaled features, its availability and its own weight; then the market's features and the drawdown.
        """
        _observe(out, self.market.asset, self.market.market, self.t, self.books.weights, self.books.nav_close, self.books.peak)

    def observe_neutral(self, out: Float32Array) -> None:
        """Write what books would see that hold equal weights and have no drawdown: the market alone, as `observe` lays it out."""
        equal = equal_weights(self.market.tape.eligible[self.t])
        _observe(out, self.market.asset, self.market.market, self.t, equal, self._flat, self._flat)

    def _trade(self, actions: Actions) -> tuple[Books, Outcome]:
        eligible = self.market.tape.eligible[self.t]
        wanted = wanted_weights(self.rules.action_map, actions, eligible)
        limits = self.rules.limits
        targets = constrain(wanted, self.books.weights, eligible, limits, self.market.exposure_cap[self.t])
        return step(self.market.tape, self.t, self.books, targets, limits.minimum_cash)

    def _reference(self, neutral_actions: Actions | None) -> FloatArray:
        kind = self.rules.reward.variance_reduction
        if kind == "none":
            return np.zeros(len(self.t))
        if kind == "equal_weight":
            return self.equal_weight_growth[self.t]
        if neutral_actions is None:
            raise ConfigError("variance_reduction self_critical needs a policy to ask each session: train with ppo, or choose another")
        eligible = self.market.tape.eligible[self.t]
        wanted = wanted_weights(self.rules.action_map, neutral_actions, eligible)
        held = allowed(wanted, eligible, self.rules.limits, self.market.exposure_cap[self.t])
        return reference_growth(self.market.tape, self.relatives, self.t, held)


def random_weights(rng: np.random.Generator, eligible: BoolArray) -> FloatArray:
    """Return weights drawn uniformly from the simplex of the eligible names and cash; shape as `eligible`."""
    draws = rng.exponential(size=(eligible.shape[0], eligible.shape[1] + 1))
    draws[:, :-1] *= eligible
    return np.asarray((draws / draws.sum(axis=1, keepdims=True))[:, :-1])


@njit(cache=True)
def _observe(out, asset, market, t, weights, nav, peak):  # type: ignore[no-untyped-def]  # numba infers the types
    symbols, columns = asset.shape[1:]
    for b in range(out.shape[0]):
        at = 0
        for i in range(symbols):
            for k in range(columns):
                out[b, at + k] = asset[t[b], i, k]
            out[b, at + columns] = weights[b, i]
            at += columns + OWN_WEIGHT
        for k in range(market.shape[1]):
            out[b, at + k] = market[t[b], k]
        out[b, at + market.shape[1]] = nav[b] / peak[b] - 1.0
