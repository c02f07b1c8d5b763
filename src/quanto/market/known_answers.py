"""Markets whose best policy is known: generators, the true expected growth of any weights, and independent optima.

In all of them what is observed at the close of session t decides the distribution of the session t+1, opens equal the
close before, and a policy is scored by its *expected* growth given what was observed, not by its luck. Two kinds cover
the families of the trainer's evidence:

- `RegimeMarket`: a Markov chain of observed states, each with its own normal log returns. One state and one asset is
  Kelly and Merton's problem; several assets, a persistent single asset at a high cost, and fast states whose edge is
  smaller than the cost are others.
- `CrossSection`: many names, each with a signal that explains a small share of its next return.

Optima come from convex optimisation where trading is free and from dynamic programming over a grid of weights where it
is not (`optimum`); neither knows anything about policies or environments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from quanto.core.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

QUADRATURE_NODES = 7
START_PRICE = 100.0
LARGEST_LOG_LEVEL = 600
BASE_LOG_DOLLAR_VOLUME = 18.0

# Relative value iteration stops when the gain of one pass varies by less than this over all states, per session.
DYNAMIC_TOLERANCE = 1e-7
DYNAMIC_PASSES = 20_000


@dataclass(frozen=True)
class Sample:
    """A drawn history.

    Attributes
    ----------
    close
        Shape (n_sessions, n_symbols), USD; the open of a session is the close before.
    asset_signal
        Shape (n_sessions, n_symbols, n_columns): observed at each close, standardised.
    market_signal
        Shape (n_sessions, n_columns): observed at each close.
    states
        Shape (n_sessions,): the observed state, 0 in a cross-section.
    growth
        (weights of shape (n_sessions, n_symbols)) -> shape (n_sessions,): expected log growth over the session after
        each observation, of what is held then. Weights of the last session count too.
    """

    close: FloatArray
    asset_signal: FloatArray
    market_signal: FloatArray
    states: IntArray
    growth: Callable[[FloatArray], FloatArray]

    @property
    def open(self) -> FloatArray:
        """USD; shape (n_sessions, n_symbols)."""
        return np.vstack([self.close[:1], self.close[:-1]])

    @property
    def dollar_volume(self) -> FloatArray:
        """Traded value in USD, which shows each name's first signal: log dollar volume = 18 + signal."""
        return np.exp(BASE_LOG_DOLLAR_VOLUME + self.asset_signal[..., 0])


@dataclass(frozen=True)
class RegimeMarket:
    """Observed Markov states, each with its own joint normal log returns; cash earns nothing.

    Attributes
    ----------
    transition
        Shape (n_states, n_states): row s holds the probabilities of the next state.
    mean, deviation
        Shape (n_states, n_symbols): of the log returns per session.
    correlation
        Between any two names, in every state.
    foresight
        Whether the asset signal is the next session's return itself: a leak, which a learner must exploit.
    """

    transition: tuple[tuple[float, ...], ...]
    mean: tuple[tuple[float, ...], ...]
    deviation: tuple[tuple[float, ...], ...]
    correlation: float = 0.0
    foresight: bool = False

    def __post_init__(self) -> None:
        """Refuse tables that are no chain of states."""
        states = len(self.transition)
        rows = np.asarray(self.transition, dtype=np.float64)
        if rows.shape != (states, states) or (rows < 0).any() or not np.allclose(rows.sum(axis=1), 1):
            raise ConfigError(f"transition needs {states} rows of {states} probabilities that add to 1; found {self.transition}")
        if np.shape(self.mean) != np.shape(self.deviation) or len(self.mean) != states:
            raise ConfigError(f"mean and deviation need one row per state and one number per name; found {self.mean}, {self.deviation}")

    @property
    def n_symbols(self) -> int:
        """How many names there are."""
        return len(self.mean[0])

    @property
    def stationary(self) -> FloatArray:
        """The long-run share of each state; shape (n_states,)."""
        rows = np.asarray(self.transition)
        system = np.vstack([rows.T - np.eye(len(rows)), np.ones(len(rows))])
        return np.asarray(np.linalg.lstsq(system, np.append(np.zeros(len(rows)), 1.0), rcond=None)[0])

    @cached_property
    def scenarios(self) -> tuple[FloatArray, FloatArray]:
        """Probabilities (n_scenarios,) and simple returns (n_states, n_scenarios, n_symbols) by Gauss-Hermite quadrature.

        Raises
        ------
        ConfigError
            With more than 4 names: the grid grows as 7^names.
        """
        if self.n_symbols > 4:
            raise ConfigError(f"the optimum of a regime market is computed for up to 4 names; found {self.n_symbols}")
        nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE_NODES)
        grid = np.array(list(product(nodes, repeat=self.n_symbols)))
        probability = np.array([np.prod(item) for item in product(weights / weights.sum(), repeat=self.n_symbols)])
        draws = grid @ self._mixing().T
        log_returns = np.asarray(self.mean)[:, None, :] + np.asarray(self.deviation)[:, None, :] * draws
        return probability, np.expm1(log_returns)

    def growth(self, state: int, weights: FloatArray) -> FloatArray:
        """Return the expected log growth of weights (..., n_symbols) held over a session that follows `state`."""
        probability, returns = self.scenarios
        return np.asarray(np.log1p(weights @ returns[state].T) @ probability)

    def sample(self, rng: np.random.Generator, sessions: int) -> Sample:
        """Return a history of `sessions` sessions."""
        states = self._states(rng, sessions)
        draws = rng.normal(size=(sessions, self.n_symbols)) @ self._mixing().T
        # What is observed at t decides the return of t+1; the first session has none.
        after = np.asarray(self.mean)[states] + np.asarray(self.deviation)[states] * draws
        log_returns = np.vstack([np.zeros((1, self.n_symbols)), after[:-1]])
        close = _prices(log_returns)
        known = after / np.asarray(self.deviation)[states] if self.foresight else log_returns / np.asarray(self.deviation).max()
        level = np.eye(len(self.transition))[states][:, 1:] * 2 - 1
        realised = np.expm1(after)

        def growth(weights: FloatArray) -> FloatArray:
            if self.foresight:
                return np.asarray(np.log1p((weights * realised).sum(axis=1)))
            out = np.empty(len(weights))
            for state in range(len(self.transition)):
                out[states == state] = self.growth(state, weights[states == state])
            return out

        return Sample(close, known[..., None], level, states, growth)

    def _mixing(self) -> FloatArray:
        n = self.n_symbols
        return np.asarray(np.linalg.cholesky(np.full((n, n), self.correlation) + (1 - self.correlation) * np.eye(n)))

    def _states(self, rng: np.random.Generator, sessions: int) -> IntArray:
        ladder = np.cumsum(np.asarray(self.transition), axis=1)
        uniform = rng.random(sessions)
        states = np.empty(sessions, dtype=np.int64)
        states[0] = int(np.searchsorted(np.cumsum(self.stationary), uniform[0]))
        for t in range(1, sessions):
            states[t] = min(int(np.searchsorted(ladder[states[t - 1]], uniform[t])), len(ladder) - 1)
        return states


@dataclass(frozen=True)
class CrossSection:
    """Many independent names whose next return correlates with an observed signal.

    Attributes
    ----------
    information
        Correlation of the signal with the next session's log return (the IC).
    deviation
        Of each name's log return per session.
    drift
        Mean log return of every name per session.
    memory
        Autocorrelation of each signal from session to session.
    """

    names: int
    information: float
    deviation: float
    drift: float = 0.0
    memory: float = 0.0

    @property
    def n_symbols(self) -> int:
        """How many names there are."""
        return self.names

    def sample(self, rng: np.random.Generator, sessions: int) -> Sample:
        """Return a history of `sessions` sessions."""
        shocks = rng.normal(size=(sessions, self.names))
        signal = shocks.copy()
        for t in range(1, sessions):
            signal[t] = self.memory * signal[t - 1] + np.sqrt(1 - self.memory**2) * shocks[t]
        noise = rng.normal(size=(sessions, self.names))
        after = self.drift + self.deviation * (self.information * signal + np.sqrt(1 - self.information**2) * noise)
        close = _prices(np.vstack([np.zeros((1, self.names)), after[:-1]]))
        states = np.zeros(sessions, dtype=np.int64)
        return Sample(close, signal[..., None], np.empty((sessions, 0)), states, lambda weights: self.growth(signal, weights))

    def moments(self, signal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and variance of the simple returns after `signal`; shapes as `signal`."""
        variance = self.deviation**2 * (1 - self.information**2)
        mean = np.expm1(self.drift + self.deviation * self.information * signal + variance / 2)
        return mean, (1 + mean) ** 2 * np.expm1(variance)

    def growth(self, signal: FloatArray, weights: FloatArray) -> FloatArray:
        """Return the expected log growth of weights (n_sessions, n_symbols), exact to the second moment."""
        mean, variance = self.moments(signal)
        level = 1 + (weights * mean).sum(axis=1)
        return np.asarray(np.log(level) - (weights**2 * variance).sum(axis=1) / (2 * level**2))

    def best_weights(self, signal: FloatArray, max_weight: float = 1.0) -> FloatArray:
        """Return the weights of the highest expected growth, long only, sum at most 1; shape as `signal`.

        For independent names mean - level x variance x weight is equal for all that are held and below the cap
        (Kuhn-Tucker), so the weights are found by bisection of that one number per session.
        """
        mean, variance = self.moments(signal)

        def weights(price: FloatArray) -> FloatArray:
            return np.clip((mean - price[:, None]) / variance, 0.0, max_weight)

        low, high = np.zeros(len(mean)), np.maximum(mean.max(axis=1), 0.0)
        for _ in range(80):
            middle = (low + high) / 2
            over = weights(middle).sum(axis=1) > 1
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        return np.where((weights(np.zeros(len(mean))).sum(axis=1) <= 1)[:, None], weights(np.zeros(len(mean))), weights(high))


@dataclass(frozen=True)
class Optimum:
    """The best policy of a regime market: what to hold after trading, by state and by what was held before.

    Attributes
    ----------
    grid
        Shape (n_points, n_symbols): the weights that the policy knows.
    choice
        Shape (n_states, n_points): the index of what to hold, by what is held now.
    growth
        Its long-run growth per session, net of costs.
    """

    grid: FloatArray
    choice: IntArray
    growth: float

    def walk(self, states: IntArray) -> FloatArray:
        """Return what the policy holds along a path of states, from cash; shape (n_sessions, n_symbols)."""
        held = int(np.flatnonzero((self.grid == 0).all(axis=1))[0])
        path = np.empty(len(states), dtype=np.int64)
        for t, state in enumerate(states.tolist()):
            held = int(self.choice[state, held])
            path[t] = held
        return np.asarray(self.grid[path])


def optimum(market: RegimeMarket, cost: float = 0.0, steps: int = 20) -> Optimum:
    """Return the policy of the highest long-run growth: long only, sum at most 1.

    Free trading decouples the sessions: one convex problem per state. At a proportional cost per side it is the gain
    of a Markov decision problem over (state, weights on a grid of 1/steps), solved by relative value iteration
    (Puterman 1994, section 8.5.5); drift between sessions is left out, which only a policy that keeps interior
    weights would pay for.

    Raises
    ------
    ConfigError
        If the market has foresight: there the best weights depend on the drawn returns.
    DataError
        If the iteration does not settle.
    """
    if market.foresight:
        raise ConfigError("with foresight the optimum depends on the drawn returns; benchmark_growth knows it")
    states = range(len(market.transition))
    if cost == 0.0:
        grid = np.vstack([np.zeros(market.n_symbols), *(best_weights(market, state) for state in states)])
        choice = np.array([[state + 1] * len(grid) for state in states])
        growth = sum(share * float(market.growth(state, grid[state + 1])) for state, share in enumerate(market.stationary))
        return Optimum(grid, choice, growth)
    grid = _simplex(market.n_symbols, steps)
    gain = np.stack([market.growth(state, grid) for state in states])
    trade = trading_loss(grid[:, None, :], grid[None, :, :], cost)
    rows = np.asarray(market.transition)
    value = np.zeros_like(gain)
    for _ in range(DYNAMIC_PASSES):
        ahead = gain + rows @ value
        options = [ahead[state][None, :] - trade for state in states]
        change = np.stack([option.max(axis=1) for option in options]) - value
        if np.ptp(change) < DYNAMIC_TOLERANCE:
            return Optimum(grid, np.stack([option.argmax(axis=1) for option in options]), float(change.mean()))
        value = value + change - (value + change).min()
    raise DataError(f"the optimum did not settle in {DYNAMIC_PASSES} passes: the states hardly ever change")


def benchmark_growth(market: RegimeMarket | CrossSection, sample: Sample, cost: float = 0.0) -> tuple[float, float]:
    """Return the growth per session of the best policy and of equal weights on a drawn sample's observations.

    On the same observations as the policy that is judged: luck in which states came up enters on both sides. Equal
    weights pay nothing to stay equal.

    Raises
    ------
    ConfigError
        For a cross-section at a cost, whose optimum no solver here knows.
    """
    equal = sample.growth(np.full(sample.close.shape, 1 / sample.close.shape[1]))[:-1].mean()
    if isinstance(market, CrossSection):
        if cost:
            raise ConfigError("the optimum of a cross-section is known where trading is free")
        held = market.best_weights(sample.asset_signal[..., 0])
    elif market.foresight:
        ahead = np.vstack([sample.close[1:] / sample.close[:-1] - 1, np.zeros((1, sample.close.shape[1]))])
        held = np.eye(ahead.shape[1])[ahead.argmax(axis=1)] * (ahead.max(axis=1) > 0)[:, None]
    else:
        held = optimum(market, cost).walk(sample.states)
    before = np.vstack([np.zeros((1, held.shape[1])), held[:-1]])
    growth = sample.growth(held) - trading_loss(before, held, cost)
    return float(growth[:-1].mean()), float(equal)


def trading_loss(before: FloatArray, after: FloatArray, cost: float) -> FloatArray:
    """Return the log growth that trading between weights (..., n_symbols) costs: sales pay from their proceeds, purchases from cash."""
    move = after - before
    return np.asarray(np.log1p(cost * np.maximum(move, 0.0).sum(axis=-1)) - np.log1p(-cost * np.maximum(-move, 0.0).sum(axis=-1)))


def best_weights(market: RegimeMarket, state: int) -> FloatArray:
    """Return the weights of the highest expected growth after a state, long only, sum at most 1; shape (n_symbols,)."""
    n = market.n_symbols
    corners = [np.zeros(n), *np.eye(n), np.full(n, 1 / n)]
    start = max(corners, key=lambda weights: float(market.growth(state, weights)))
    probability, returns = market.scenarios

    def loss(weights: FloatArray) -> float:
        return -1e4 * float(market.growth(state, weights))

    def gradient(weights: FloatArray) -> FloatArray:
        return np.asarray(-1e4 * (probability / (1 + returns[state] @ weights)) @ returns[state])

    room = {"type": "ineq", "fun": lambda weights: 1 - weights.sum(), "jac": lambda _: -np.ones(n)}
    inner = 0.98 * start + 0.02 / (n + 1)
    found = minimize(loss, inner, jac=gradient, bounds=[(0, 1)] * n, constraints=[room], method="SLSQP", options={"ftol": 1e-12})
    candidates = [np.clip(found.x, 0, 1), *corners]
    return max(candidates, key=lambda weights: float(market.growth(state, weights)) if weights.sum() <= 1 + 1e-9 else -np.inf)


def _prices(log_returns: FloatArray) -> FloatArray:
    level = np.cumsum(log_returns, axis=0)
    if np.abs(level).max() > LARGEST_LOG_LEVEL:
        raise ConfigError(
            f"over {len(level)} sessions the price level leaves e^+-{LARGEST_LOG_LEVEL}; draw fewer sessions or lower the drift"
        )
    return np.asarray(START_PRICE * np.exp(level))


def _simplex(n: int, steps: int) -> FloatArray:
    points = [point for point in product(range(steps + 1), repeat=n) if sum(point) <= steps]
    return np.array(points, dtype=np.float64) / steps


# The families of the trainer's evidence; per session, the numbers of a lively but believable market.
KELLY = RegimeMarket(((1.0,),), ((-0.00016,),), ((0.04,),))
REGIMES = RegimeMarket(
    ((0.95, 0.05), (0.05, 0.95)),
    ((0.0012, 0.0002, -0.0010), (-0.0010, 0.0000, 0.0014)),
    ((0.010, 0.008, 0.010), (0.012, 0.009, 0.012)),
    correlation=0.3,
)
HOLDING = RegimeMarket(((0.98, 0.02), (0.02, 0.98)), ((0.0020,), (-0.0020,)), ((0.010,), (0.014,)))
COST_ABOVE_EDGE = RegimeMarket(((0.5, 0.5), (0.5, 0.5)), ((0.0006,), (-0.0004,)), ((0.01,), (0.01,)))
FORESIGHT = RegimeMarket(((1.0,),), ((0.0, 0.0, 0.0),), ((0.01, 0.01, 0.01),), foresight=True)
PLANTED = CrossSection(names=30, information=0.05, deviation=0.02, drift=0.0003)
