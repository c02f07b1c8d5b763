"""What the seeds of one configuration say together: the alpha of every member, and how far it depends on seed and days."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy import stats

from quanto.core.rng import generator
from quanto.env.simulation import Simulation
from quanto.portfolio.bootstrap import block_length, stationary_indices
from quanto.portfolio.multiplicity import seed_spread
from quanto.portfolio.series import SESSIONS_PER_YEAR
from quanto.portfolio.significance import alpha_test
from quanto.stages.eval.arena import Arena
from quanto.stages.eval.books import MEMBER
from quanto.stages.eval.config import EvalConfig

FloatArray = npt.NDArray[np.float64]


def seeds(arena: Arena, books: Mapping[str, Simulation], config: EvalConfig) -> dict[str, object]:
    """Return the alpha of every member against the baseline, how they spread, and an interval of their interquartile mean."""
    against = books[config.baseline].returns - arena.cash
    members = {name: book.returns - arena.cash for name, book in books.items() if name.startswith(MEMBER)}
    alphas = {name: alpha_test(returns, against).alpha for name, returns in members.items()}
    known = [alpha for alpha in alphas.values() if alpha is not None]
    interval = None
    if len(known) == len(members) > 0:
        low, high = interquartile_interval(np.stack(list(members.values())), against, config)
        interval = {"level": config.interval_level, "low": low, "high": high, "draws": config.bootstrap_draws}
    return {"alpha": alphas, "spread": dataclasses.asdict(seed_spread(known)), "interquartile_mean_interval": interval}


def interquartile_interval(members: FloatArray, baseline: FloatArray, config: EvalConfig) -> tuple[float, float]:
    """Return the percentile interval of the interquartile mean over seeds of the annual alpha, by drawing days for all seeds at once.

    Days are drawn in blocks by the stationary bootstrap, the same for every seed, so that what the seeds have in common
    stays in common; seeds are not drawn: they are the ensemble. Agarwal et al. (2021) for the interquartile mean.

    Parameters
    ----------
    members
        Excess returns per session, shape (n_members, n_sessions).
    baseline
        Those of the baseline, shape (n_sessions,).
    """
    block = block_length(*members, baseline)
    draws = stationary_indices(len(baseline), block, config.bootstrap_draws, generator(config.seed, "seeds"))
    x = baseline[draws]
    deviation = x - x.mean(axis=1, keepdims=True)
    variance = (deviation**2).mean(axis=1)
    alphas = np.empty((len(members), len(draws)))
    for row, member in enumerate(members):
        y = member[draws]
        slope = (deviation * y).mean(axis=1) / np.where(variance > 0, variance, np.inf)
        alphas[row] = y.mean(axis=1) - slope * x.mean(axis=1)
    middle = SESSIONS_PER_YEAR * stats.trim_mean(alphas, 0.25, axis=0)
    tail = (1 - config.interval_level) / 2
    low, high = np.quantile(middle, [tail, 1 - tail])
    return float(low), float(high)
