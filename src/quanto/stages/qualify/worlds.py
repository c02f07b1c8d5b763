"""Markets in which the truth is known: nobody has an edge, or one trial has a planted one. What the gates are measured on.

A world gives session returns of N names and the weights of K trials that could not know them. In the null worlds no
weights have alpha against equal weight: names of one beta share one premium, premia are proportional to beta and to the
conditional variance, drifts change independently of everything that weights depend on. Costs are zero, so that noise is
not turned away by what it pays: the rates are upper bounds. In a planted world trial 0 earns an information ratio.

The trials are the ones that pass the protection gates by rule (exposure cut while volatility is labelled high): what is
measured is how often noise behind a shield is taken for skill, not how often noise has no shield.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.registry import Registry
from quanto.market.regimes import LABELLERS
from quanto.portfolio.series import SESSIONS_PER_YEAR
from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.evidence import Book, Evidence, Facts, Labels, SealedBlock, Trials

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NAMES = 6
MEMBERS = 4
CAP = 0.35
# Sessions before the evaluated window, for the expanding thresholds of the labels.
HISTORY = 504
LABELLER = "volatility_hysteresis_v1"
MARKET_VOLATILITY = 0.011
OWN_VOLATILITY = 0.014
# Of the common factor: a premium of about 6 % a year at its usual variance.
PREMIUM_PER_VARIANCE = 2.0


@dataclass(frozen=True)
class Market:
    """Session returns of the names in excess of cash, history first; shape (HISTORY + n_sessions, n_names)."""

    returns: FloatArray

    @property
    def equal_weight(self) -> FloatArray:
        """The baseline's returns; shape (HISTORY + n_sessions,)."""
        return np.asarray(self.returns.mean(axis=1))


@dataclass(frozen=True)
class Rules:
    """How the trials choose weights.

    Attributes
    ----------
    likeness
        Correlation of the trials' scores with each other: 0 for unrelated trials, near 1 for near copies.
    persistence
        Of the scores from session to session; 1 keeps one tilt for ever.
    sharpness
        How far the weights go from equal.
    timing
        label: exposure is cut in labelled sessions; volatility: exposure is inverse to trailing volatility.
    beta_tilt
        How much of the score is the name's beta (a tilt to leverage).
    """

    likeness: float = 0.0
    persistence: float = 0.97
    sharpness: float = 1.0
    timing: str = "label"
    beta_tilt: float = 0.0


@dataclass(frozen=True)
class Family:
    """A named way to draw markets, and how its trials behave."""

    name: str
    summary: str
    draw: Callable[[int, np.random.Generator, FloatArray], Market]
    rules: Rules = Rules()


def iid(sessions: int, rng: np.random.Generator, _real: FloatArray) -> Market:
    """Return independent normal returns with one common factor."""
    return Market(_factor_returns(np.full(HISTORY + sessions, MARKET_VOLATILITY), rng))


def garch(sessions: int, rng: np.random.Generator, _real: FloatArray) -> Market:
    """Return a GARCH(1,1) factor whose premium is proportional to its variance: timing volatility earns no alpha."""
    return Market(_factor_returns(_garch_path(HISTORY + sessions, rng), rng))


def regime_drift(sessions: int, rng: np.random.Generator, _real: FloatArray) -> Market:
    """Return a GARCH factor whose drift switches between good and bad years, independently of its volatility."""
    total = HISTORY + sessions
    flips = rng.random(total) < 1 / 120
    drift = np.where(np.cumsum(flips) % 2 == rng.integers(2), 8e-4, -8e-4)
    return Market(_factor_returns(_garch_path(total, rng), rng) + drift[:, None])


def leverage(sessions: int, rng: np.random.Generator, _real: FloatArray) -> Market:
    """Return names of different beta with premia proportional to it: a tilt to high beta is leverage, not alpha."""
    betas = np.linspace(0.5, 1.5, NAMES)
    return Market(_factor_returns(_garch_path(HISTORY + sessions, rng), rng, betas))


def bootstrapped(sessions: int, rng: np.random.Generator, real: FloatArray) -> Market:
    """Return blocks of the real returns (mean 63 sessions, joint over names), alphas and timing equalised first."""
    total = HISTORY + sessions
    fresh = rng.random(total) < 1 / 63
    fresh[0] = True
    start = rng.integers(len(real), size=total)
    last = np.maximum.accumulate(np.where(fresh, np.arange(total), 0))
    rows = (start[last] + np.arange(total) - last) % len(real)
    return Market(_some_names(equalised(real), rng)[rows])


def rotated(sessions: int, rng: np.random.Generator, real: FloatArray) -> Market:
    """Return the real returns as they happened from a random session on, joined end to beginning, equalised first."""
    rows = (rng.integers(len(real)) + np.arange(HISTORY + sessions)) % len(real)
    return Market(_some_names(equalised(real), rng)[rows])


def equalised(real: FloatArray) -> FloatArray:
    """Return real returns without alphas: each name's own part has mean zero, and the market's mean is zero at every volatility.

    Real samples carry true alphas (survivors, lucky years), and a null world must not.
    """
    market = real.mean(axis=1)
    centred = market - market.mean()
    betas = centred @ (real - real.mean(axis=0)) / (centred @ centred)
    own = real - market[:, None] * betas
    trailing = np.array([market[max(0, row - 21) : row].std() if row else 0.0 for row in range(len(market))])
    edges = np.quantile(trailing, [0.2, 0.4, 0.6, 0.8])
    bucket = np.searchsorted(edges, trailing)
    level = np.array([market[bucket == number].mean() for number in range(5)])
    quiet = market - level[bucket]
    return np.asarray(own - own.mean(axis=0) + quiet[:, None] * betas)


FAMILIES: Registry[Family] = Registry(
    "null family",
    Family("iid", "independent returns", iid),
    Family("garch", "clustered volatility", garch),
    Family("regime_drift", "good and bad years that nobody can foresee", regime_drift),
    Family("bootstrapped", "blocks of the canonical data", bootstrapped, Rules(sharpness=0.5)),
    Family("rotated", "the canonical data in its own order", rotated, Rules(sharpness=0.5)),
    Family("one_name_tilt", "one name held heavily for ever", garch, Rules(persistence=1.0, sharpness=3.0)),
    Family("volatility_timing", "exposure inverse to trailing volatility", garch, Rules(timing="volatility", sharpness=0.5)),
    Family("leverage_tilt", "names of high beta held heavily", leverage, Rules(sharpness=0.5, beta_tilt=0.7)),
    Family("near_copies", "trials that are variants of one idea", garch, Rules(likeness=0.97)),
)


@dataclass(frozen=True)
class Planting:
    """A true edge: an annual information ratio net of costs, earned by trial 0 alone or by every trial.

    `cost` is the fraction of the traded value that is charged, once in the record and twice at double costs.
    """

    ratio: float = 0.0
    everywhere: bool = False
    cost: float = 0.0


NOTHING = Planting()


@dataclass(frozen=True)
class World:
    """One market with its trials: everything that a record needs.

    Attributes
    ----------
    weights
        Shape (n_trials, n_members, n_sessions, n_names): of each member; the ensemble is their mean.
    """

    market: Market
    labels: Labels
    weights: FloatArray


def draw_world(family: Family, sessions: int, trials: int, rng: np.random.Generator, real: FloatArray) -> World:
    """Return a market and the weights of its trials, drawn without looking at the returns they meet."""
    market = family.draw(sessions, rng, real)
    index = market.equal_weight
    found = LABELLERS[LABELLER].label(index)
    labels = Labels(found.high[HISTORY:], found.known[HISTORY:])
    mixes = _mixes(sessions, trials, family.rules, rng)
    exposure = _exposures(family.rules, labels, index, trials, rng)
    return World(market, labels, mixes * exposure[:, None, :, None])


def record(world: World, trials: int, thresholds: Thresholds, seed: int, planting: Planting = NOTHING) -> Evidence:
    """Return the evidence of one of the first `trials` trials, everything else about it being in order.

    The trial with the highest alpha asks, or trial 0 where it alone has a planted edge.
    """
    held = world.weights[:trials]
    returns = world.market.returns[HISTORY:]
    baseline = world.market.equal_weight[HISTORY:]
    before = np.concatenate([np.zeros_like(held[:, :, :1]), held[:, :, :-1]], axis=2)
    turnover = 0.5 * np.abs(held.mean(axis=1) - before.mean(axis=1)).sum(axis=2)
    charge = 2 * planting.cost * turnover
    member_returns = np.einsum("kstn,tn->kst", held, returns)
    for number in range(trials if planting.everywhere else min(1, trials)):
        member_returns[number] += _planted(member_returns[number].mean(axis=0), baseline, planting.ratio) + charge[number].mean()
    gross = member_returns.mean(axis=1)
    net = gross - charge
    asks = 0 if planting.ratio and not planting.everywhere else int(np.argmax(_alpha_t(net, baseline)))
    exposure = held[asks].mean(axis=0).sum(axis=1)
    mean = float(exposure.mean())
    sessions = len(baseline)
    order = [asks, *(number for number in range(trials) if number != asks)]
    flat, nothing = np.ones(sessions), np.zeros(sessions)
    return Evidence(
        candidate=Book(net[asks], exposure, turnover[asks]),
        baseline=Book(baseline, flat, nothing),
        matched=Book(mean * baseline, mean * flat, nothing),
        cash=nothing,
        labels=world.labels,
        members=member_returns[asks] - charge[asks],
        doubled=np.array([net[asks] - charge[asks], baseline]),
        trials=Trials(trials, (), (), net[order], np.tile(baseline, (trials, 1))),
        facts=clean_facts(sessions, thresholds),
        saboteurs=saboteurs(returns),
        seed=seed,
    )


def clean_facts(sessions: int, thresholds: Thresholds) -> Facts:
    """Return facts in which nothing is wrong: what is left to judge are the returns.

    The sealed block raises no veto and the fresh sessions are there: both can only lower the rates that are measured.
    """
    shared = {"everything": "the same"}
    return Facts(
        decisions=sessions,
        violations=0,
        cash_breaches=0,
        trades=max(thresholds.minimum_trades, 1),
        conditions={"candidate": shared, "baseline": shared, "matched": shared},
        leak_sessions=thresholds.proof_sessions,
        leak_mismatches=0,
        data_faults=(),
        selection="point_in_time",
        fresh_sessions=thresholds.minimum_fresh_sessions,
        sealed=SealedBlock(sessions=63, violations=0, drawdown=0.0, p_inferior=0.5),
    )


def saboteurs(returns: FloatArray) -> tuple[Book, ...]:
    """Return admissible books that see the returns and use them for harm: the wildest names, the worst, always full."""
    sessions, names = returns.shape
    share = np.zeros(names)
    share[: math.ceil(1 / CAP)] = CAP
    share *= 1 / share.sum()

    def held(score: FloatArray) -> FloatArray:
        order = np.argsort(-score, axis=1, kind="stable")
        return np.asarray((np.take_along_axis(returns, order, axis=1) * share).sum(axis=1))

    flat, moved = np.ones(sessions), np.full(sessions, 0.5)
    best, worst = held(returns), held(-returns)
    wildest = np.where(np.abs(best) > np.abs(worst), best, worst)
    return tuple(Book(book, flat, moved) for book in (wildest, worst, returns.mean(axis=1)))


def _some_names(returns: FloatArray, rng: np.random.Generator) -> FloatArray:
    columns = returns.shape[1]
    return returns[:, rng.choice(columns, NAMES, replace=columns < NAMES)]


def _factor_returns(volatility: FloatArray, rng: np.random.Generator, betas: FloatArray | None = None) -> FloatArray:
    slopes = np.ones(NAMES) if betas is None else betas
    total = len(volatility)
    factor = PREMIUM_PER_VARIANCE * volatility**2 + volatility * rng.standard_normal(total)
    own = OWN_VOLATILITY * (volatility / MARKET_VOLATILITY)[:, None] * rng.standard_normal((total, NAMES))
    return np.asarray(factor[:, None] * slopes + own)


def _garch_path(total: int, rng: np.random.Generator) -> FloatArray:
    shocks = rng.standard_normal(total)
    variance, level = np.empty(total), MARKET_VOLATILITY**2
    now = level
    for row in range(total):
        variance[row] = now
        now = 0.04 * level + 0.10 * now * shocks[row] ** 2 + 0.86 * now
    return np.sqrt(variance)


def _mixes(sessions: int, trials: int, rules: Rules, rng: np.random.Generator) -> FloatArray:
    """Return fully invested weights under the cap; shape (trials, MEMBERS, sessions, NAMES)."""
    shape = (trials, MEMBERS, NAMES)
    idea = _walk(sessions, (1, 1, NAMES), rules.persistence, rng)
    trial = _walk(sessions, (trials, 1, NAMES), rules.persistence, rng)
    member = _walk(sessions, shape, rules.persistence, rng)
    score = math.sqrt(rules.likeness) * idea + math.sqrt(1 - rules.likeness) * trial + 0.4 * math.sqrt(1 - rules.likeness) * member
    score = rules.sharpness * score + rules.beta_tilt * np.linspace(-1, 1, NAMES)
    weights = np.exp(np.moveaxis(score, 0, 2))
    weights /= weights.sum(axis=3, keepdims=True)
    for _ in range(3):
        # What the cap cuts goes to the others; after three rounds the rest is below rounding or stays in cash.
        weights = np.minimum(weights, CAP)
        room = np.where(weights < CAP, weights, 0.0)
        missing = 1 - weights.sum(axis=3, keepdims=True)
        weights = weights + room * missing / np.maximum(room.sum(axis=3, keepdims=True), 1e-12)
    return np.minimum(weights, CAP)


def _walk(sessions: int, shape: tuple[int, ...], persistence: float, rng: np.random.Generator) -> FloatArray:
    """Return stationary scores of variance 1 that move slowly; shape (sessions, *shape)."""
    shocks = rng.standard_normal((sessions, *shape))
    if persistence >= 1:
        return np.repeat(shocks[:1], sessions, axis=0)
    spread = math.sqrt(1 - persistence**2)
    out = np.empty_like(shocks)
    out[0] = shocks[0]
    for row in range(1, sessions):
        out[row] = persistence * out[row - 1] + spread * shocks[row]
    return out


def _exposures(rules: Rules, labels: Labels, index: FloatArray, trials: int, rng: np.random.Generator) -> FloatArray:
    """Return the gross exposure of every trial, known before each session; shape (trials, sessions)."""
    level = rng.uniform(0.45, 0.7, trials)
    if rules.timing == "label":
        return np.where(labels.turbulent, level[:, None], 1.0)
    trailing = np.array([index[row - 21 : row].std() for row in range(HISTORY, len(index))])
    usual = np.median([index[row - 21 : row].std() for row in range(21, HISTORY)])
    return np.asarray(np.minimum(1.0, level[:, None] * 1.4 * usual / trailing))


def _planted(returns: FloatArray, baseline: FloatArray, ratio: float) -> float:
    """Return the constant session return that gives returns without alpha this annual information ratio."""
    centred = baseline - baseline.mean()
    beta = centred @ (returns - returns.mean()) / (centred @ centred)
    residual = returns - returns.mean() - beta * centred
    return float(ratio * residual.std(ddof=2) / math.sqrt(SESSIONS_PER_YEAR))


def _alpha_t(net: FloatArray, baseline: FloatArray) -> FloatArray:
    centred = baseline - baseline.mean()
    beta = net @ centred / (centred @ centred)
    alpha = net.mean(axis=1) - beta * baseline.mean()
    residual = net - alpha[:, None] - beta[:, None] * baseline
    return np.asarray(alpha / np.maximum(residual.std(axis=1), 1e-12))
