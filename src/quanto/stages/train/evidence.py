"""Does training learn what is there to learn? Trains on markets with known answers and scores on fresh samples.

The score is a share: 0 is the growth of equal weights, 1 that of the independent optimum of `market.known_answers`,
both as true expected growth given what was observed, so luck of the fresh sample hardly enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.rng import generator
from quanto.env.action_map import wanted_weights
from quanto.env.books import Market
from quanto.env.simulation import simulate
from quanto.env.tape import Tape
from quanto.market.known_answers import Sample
from quanto.policy.network import Networks, act, stack
from quanto.stages.train.config import TrainConfig
from quanto.stages.train.task import Parameters, TrainTask

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """What an ensemble earned on a fresh sample, per session: expected growth net of costs, and one-way turnover."""

    growth: float
    turnover: float

    def share(self, optimum: float, equal_weight: float) -> float:
        """Return the share of the achievable excess growth: 0 as equal weights, 1 as the optimum."""
        return (self.growth - equal_weight) / (optimum - equal_weight)


def known_market(sample: Sample, cost: float) -> Market:
    """Return a drawn history as the environment reads it, at a proportional cost per side; its signals are observed as they are."""
    shape = sample.close.shape
    yes, zero = np.ones(shape, dtype=np.bool_), np.zeros(shape)
    tape = Tape(
        open=sample.open,
        close=sample.close,
        fillable=yes,
        eligible=yes,
        split=np.ones(shape),
        dividend=zero,
        payout=np.full(shape, np.nan),
        cash_rate=np.zeros(shape[0]),
        linear_cost=np.full(shape[0], cost),
        impact=zero,
    )
    asset = np.concatenate([sample.asset_signal, np.ones((*shape, 1))], axis=-1)
    return Market(tape, asset.astype(np.float32), sample.market_signal.astype(np.float32), np.ones(shape[0]))


def known_tasks(config: TrainConfig, sample: Sample, cost: float) -> tuple[TrainTask, ...]:
    """Return one training task per seed on a drawn history."""
    market = known_market(sample, cost)
    symbols, columns = market.asset.shape[1:]
    names = [f"{symbol}.{column}" for symbol in range(symbols) for column in range(columns + 1)]
    columns_of_all = (*names, *(f"market.{column}" for column in range(market.market.shape[1])), "drawdown")
    return tuple(TrainTask(config, member, market, None, columns_of_all, "evidence") for member in sorted(config.seeds))


def score(tasks: Sequence[TrainTask], members: Sequence[Parameters], fresh: Sample, cost: float) -> Score:
    """Return what the ensemble of the members earns on a fresh sample, deciding as evaluation does."""
    task = tasks[0]
    networks = stack(task.config.architecture, task.sizes, members)
    return score_networks(task.config, networks, fresh, cost)


def score_networks(config: TrainConfig, networks: Networks, fresh: Sample, cost: float) -> Score:
    """Return what the mean of the networks' targets earns on a fresh sample."""
    market = known_market(fresh, cost)
    asset, regime = market.asset.astype(np.float64), market.market.astype(np.float64)

    def decide(t: int, weights: FloatArray, drawdown: float) -> FloatArray:
        actions = act(networks, np.concatenate([asset[t], weights[:, None]], axis=1), np.append(regime[t], drawdown))
        eligible = np.ones((len(actions), len(weights)), dtype=np.bool_)
        return np.asarray(wanted_weights(config.action_map, actions, eligible).mean(axis=0))

    sessions = len(fresh.close)
    run = simulate(market.tape, 1, sessions, decide, config.constraints.limits())
    held = np.vstack([run.targets, np.zeros((1, run.targets.shape[1]))])
    growth = fresh.growth(held)[:-1] + np.log1p(-run.cost / run.nav_open)
    return Score(float(growth.mean()), float(run.turnover[1:].mean()))


def draws(seed: int, name: str) -> np.random.Generator:
    """Return the stream of a named sample: training histories and fresh ones never share numbers."""
    return generator(seed, "known answers", name)
