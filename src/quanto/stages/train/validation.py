"""Growth of a policy on a validation window: its mean actions, one book, the same step as everywhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quanto.env.action_map import wanted_weights
from quanto.env.books import Market, Rules
from quanto.env.simulation import simulate
from quanto.policy.network import Architecture, Sizes, act, stack

FloatArray = npt.NDArray[np.float64]


def validation_growth(
    market: Market, rules: Rules, architecture: Architecture, sizes: Sizes, parameters: dict[str, npt.NDArray[np.float32]]
) -> float:
    """Return the mean log growth per session of a book that starts in cash and follows the policy without exploring.

    The first session of `market` only decides; every other one counts.
    """
    networks = stack(architecture, sizes, [parameters])
    asset, regime = market.asset.astype(np.float64), market.market.astype(np.float64)

    def decide(t: int, weights: FloatArray, drawdown: float) -> FloatArray:
        seen = np.concatenate([asset[t], weights[:, None]], axis=1)
        action = act(networks, seen, np.append(regime[t], drawdown))
        return np.asarray(wanted_weights(rules.action_map, action, market.tape.eligible[t : t + 1])[0])

    sessions = len(market.tape.close)
    result = simulate(market.tape, 1, sessions, decide, rules.limits, market.exposure_cap)
    return float(np.log(result.nav[-1] / result.nav_before) / (sessions - 1))
