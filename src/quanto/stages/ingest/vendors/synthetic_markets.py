"""Seeded markets with known answers: families of pure generators.

All families share one anatomy. A market factor with two volatility states (a Markov chain) moves every symbol by its
beta; each symbol adds its own noise. A session's log return has an overnight leg (30 % of the variance) and an
intraday leg. Streams are named by (seed, family, symbol) and drawn session by session, so a longer market begins with
the shorter one, and a symbol's own noise does not depend on its neighbours.

Drifts are set through lambda, the ratio of expected excess return to covariance with the equal-weight portfolio:
with lambda = 1 in every state the equal-weight portfolio is growth-optimal (Kelly), so nothing can be learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.core.registry import Registry
from quanto.core.rng import generator
from quanto.market.calendar import DateArray
from quanto.market.known_answers import (
    COST_ABOVE_EDGE,
    FORESIGHT,
    HOLDING,
    KELLY,
    PLANTED,
    REGIMES,
    CrossSection,
    RegimeMarket,
)

FloatArray = npt.NDArray[np.float64]

SESSIONS_PER_YEAR = 252
OVERNIGHT_VARIANCE = 0.3
HORIZON_SESSIONS = 13_000  # more than the calendar has
BILL_PER_MONTH = 0.0015
CASH_PER_SESSION = 12 * np.log1p(BILL_PER_MONTH) / SESSIONS_PER_YEAR


@dataclass(frozen=True)
class Market:
    """Bars of a total-return market: arrays (n_sessions, n_symbols); index level and state (n_sessions,)."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    index: FloatArray
    state: FloatArray | None = None  # what is known of the market's state at each close, where the family shows it


@dataclass(frozen=True)
class Family:
    """A frozen recipe of markets: `generate(seed, symbols, sessions)`.

    `symbols` fixes how many it takes, if it does; `bill_per_month` is what cash earns.
    """

    name: str
    summary: str
    answer: str
    generate: Callable[[int, tuple[str, ...], DateArray], Market]
    symbols: int | None = None
    bill_per_month: float = BILL_PER_MONTH


@dataclass(frozen=True)
class Anatomy:
    """The parameters of a family; volatilities per year, persistence as the mean stay in sessions.

    `calm_lambda` and `stressed_lambda` are expected excess return over covariance with the equal-weight portfolio.
    `edge` is the standard deviation of each symbol's persistent hidden drift per session, `half_life` its memory.
    """

    calm_volatility: float = 0.11
    stressed_volatility: float = 0.30
    calm_stay: float = 200.0
    stressed_stay: float = 45.0
    calm_lambda: float = 1.0
    stressed_lambda: float = 1.0
    own_volatility: tuple[float, float] = (0.16, 0.24)
    betas: tuple[float, float] = (0.85, 1.15)
    edge: float = 0.0
    half_life: float = 40.0


def simulate(family: str, anatomy: Anatomy, seed: int, symbols: tuple[str, ...], sessions: DateArray) -> Market:
    """Return the market of an anatomy; deterministic in its arguments, and stable under a later last session."""
    count = len(sessions)
    stressed = _states(generator(seed, family, "state").random(count), anatomy)
    factor_sd = np.where(stressed, anatomy.stressed_volatility, anatomy.calm_volatility) / np.sqrt(SESSIONS_PER_YEAR)
    price_of_risk = np.where(stressed, anatomy.stressed_lambda, anatomy.calm_lambda)
    beta, own_sd = _loadings(family, anatomy, seed, symbols)
    covariance = np.outer(factor_sd**2, beta * beta.mean()) + own_sd**2 / len(symbols)
    variance = np.outer(factor_sd**2, beta**2) + own_sd**2
    drift = CASH_PER_SESSION + price_of_risk[:, None] * covariance - variance / 2 + _hidden_drift(family, anatomy, seed, symbols, count)
    factor = generator(seed, family, "factor").standard_normal((count, 2)) * factor_sd[:, None]
    own = np.stack([generator(seed, family, symbol, "own").standard_normal((count, 2)) for symbol in symbols], axis=2) * own_sd
    shares = np.array([OVERNIGHT_VARIANCE, 1 - OVERNIGHT_VARIANCE])[None, :, None]
    moves = np.sqrt(shares) * (factor[:, :, None] * beta + own) + shares * drift[:, None, :]
    index_drift = CASH_PER_SESSION + price_of_risk * factor_sd**2 * beta.mean() - factor_sd**2 / 2
    index = 1000.0 * np.exp(np.cumsum((np.sqrt(shares[:, :, 0]) * factor).sum(axis=1) + index_drift))
    typical = np.sqrt(anatomy.calm_volatility**2 / SESSIONS_PER_YEAR * beta**2 + own_sd**2)
    return _bars(family, seed, symbols, moves, typical, index)


def _states(uniform: FloatArray, anatomy: Anatomy) -> npt.NDArray[np.bool_]:
    stressed = np.zeros(len(uniform), dtype=bool)
    for t in range(1, len(uniform)):
        stay = anatomy.stressed_stay if stressed[t - 1] else anatomy.calm_stay
        stressed[t] = stressed[t - 1] != (uniform[t] < 1 / stay)
    return stressed


def _loadings(family: str, anatomy: Anatomy, seed: int, symbols: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """Return each symbol's beta and own volatility per session."""
    draws = np.array([generator(seed, family, symbol, "loading").random(2) for symbol in symbols])
    low, high = np.array([anatomy.betas, anatomy.own_volatility]).T
    loading: FloatArray = low + draws * (high - low)
    return loading[:, 0], loading[:, 1] / np.sqrt(SESSIONS_PER_YEAR)


def _hidden_drift(family: str, anatomy: Anatomy, seed: int, symbols: tuple[str, ...], count: int) -> FloatArray:
    """Return a persistent drift per session and symbol that sums to zero over symbols; past returns show it."""
    if anatomy.edge == 0:
        return np.zeros((count, len(symbols)))
    memory = 0.5 ** (1 / anatomy.half_life)
    shocks = np.stack([generator(seed, family, symbol, "edge").standard_normal(count) for symbol in symbols], axis=1)
    hidden = np.empty_like(shocks)
    state = np.zeros(len(symbols))
    for t in range(count):
        state = shocks[t] if t == 0 else memory * state + np.sqrt(1 - memory**2) * shocks[t]
        hidden[t] = state
    relative: FloatArray = hidden - hidden.mean(axis=1, keepdims=True)
    return anatomy.edge * relative


def _bars(family: str, seed: int, symbols: tuple[str, ...], moves: FloatArray, typical: FloatArray, index: FloatArray) -> Market:
    """Return bars from the overnight and intraday log returns, shape (n_sessions, 2, n_symbols).

    `typical` is each symbol's volatility per session in calm markets: the scale of its range and of its volume.
    """
    count = len(moves)
    first = np.array([20 + 80 * generator(seed, family, symbol, "price").random() for symbol in symbols])
    close = first * np.exp(np.cumsum(moves.sum(axis=1), axis=0))
    opened = close / np.exp(moves[:, 1])
    shapes = np.stack([generator(seed, family, symbol, "shape").standard_normal((count, 3)) for symbol in symbols], axis=2)
    reach = np.abs(shapes[:, :2]) * 0.4 * typical
    high = np.maximum(opened, close) * np.exp(reach[:, 0])
    low = np.minimum(opened, close) * np.exp(-reach[:, 1])
    activity = np.abs(moves).sum(axis=1) / typical
    volume = np.rint(2e8 / first * np.exp(0.3 * shapes[:, 2]) * (0.5 + 0.5 * activity))
    return Market(opened, high, low, close, volume, index)


NOISE = Anatomy()
PLANTED_EDGE = Anatomy(edge=0.0020)
REGIME_SWITCHING = Anatomy(calm_lambda=6.0, stressed_lambda=-3.0, stressed_volatility=0.34, calm_stay=160.0, stressed_stay=50.0)
SINGLE_ASSET = Anatomy(
    calm_volatility=0.20, stressed_volatility=0.20, calm_lambda=0.5, stressed_lambda=0.5, own_volatility=(0.0, 0.0), betas=(1.0, 1.0)
)


def _family(name: str, anatomy: Anatomy, summary: str, answer: str, symbols: int | None = None) -> Family:
    def generate(seed: int, names: tuple[str, ...], sessions: DateArray) -> Market:
        return simulate(name, anatomy, seed, names, sessions)

    return Family(name, summary, answer, generate, symbols)


def _known(name: str, market: RegimeMarket | CrossSection, summary: str, answer: str) -> Family:
    """Return a family of `quanto.market.known_answers`, which has its optimum; cash earns nothing there."""

    def generate(seed: int, names: tuple[str, ...], sessions: DateArray) -> Market:
        if len(sessions) > HORIZON_SESSIONS or len(names) != market.n_symbols:
            raise DataError(
                f"{name} has {market.n_symbols} symbols and {HORIZON_SESSIONS} sessions; found {len(names)} and {len(sessions)}"
            )
        # Always drawn to the same horizon, so that a longer market begins with the shorter one.
        drawn = market.sample(generator(seed, name), HORIZON_SESSIONS)
        opened, close, traded = (item[: len(sessions)] for item in (drawn.open, drawn.close, drawn.dollar_volume))
        index = 1000.0 * np.exp(np.log(close / close[0]).mean(axis=1))
        state = drawn.market_signal[: len(sessions), 0] if drawn.market_signal.shape[1] else None
        return Market(opened, np.maximum(opened, close), np.minimum(opened, close), close, traded / close, index, state)

    return Family(name, summary, answer, generate, market.n_symbols, bill_per_month=0.0)


FAMILIES: Registry[Family] = Registry(
    "market family",
    _family(
        "noise_v1",
        NOISE,
        "volatility regimes and a fair premium for risk, nothing else",
        "equal weight is growth-optimal in every state: no policy has an edge over it",
    ),
    _family(
        "planted_edge_v1",
        PLANTED_EDGE,
        "noise_v1 plus a hidden drift per symbol (20 bps a session, half-life 40 sessions) that past returns show",
        "hold the symbols with the best last month or two: some 15 % a year over equal weight before costs",
    ),
    _family(
        "regime_switching_v1",
        REGIME_SWITCHING,
        "a high premium in calm markets, a loss in stressed ones; trailing volatility tells the state",
        "be invested in calm markets and in cash in stressed ones",
    ),
    _family(
        "single_asset_v1",
        SINGLE_ASSET,
        "one symbol, constant volatility of 20 % a year, expected excess return of half its variance",
        "hold half of the wealth in the symbol at all times (Kelly, Merton)",
        symbols=1,
    ),
    _known("kelly_v1", KELLY, "one symbol with constant moments", "one exposure, found by convex optimisation"),
    _known("regimes_v1", REGIMES, "three symbols in two observed states", "one mix for each state, found by convex optimisation"),
    _known("holding_v1", HOLDING, "one symbol in two lasting states", "hold through small signs at 50 bps a trade (dynamic programming)"),
    _known("cost_above_edge_v1", COST_ABOVE_EDGE, "one symbol whose edge is smaller than a trade's cost", "do nothing"),
    _known("foresight_v1", FORESIGHT, "three symbols whose volume shows the next return: a leak", "hold what rises next"),
    _known("cross_section_v1", PLANTED, "thirty symbols whose volume tells 5 % of the next return", "hold the highest signals, capped"),
)
