"""From market data to wanted weights: the one path on which evaluation, shadow replay and paper trading decide.

`prepare` scales and masks a whole market once; `decide` runs the networks for one session with NumPy, session by
session, in float64: equal inputs give equal bits wherever it is called.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.env.action_map import wanted_weights
from quanto.policy.artefact import Policy, Shield
from quanto.policy.market_data import MarketData, select
from quanto.policy.network import act
from quanto.policy.observation import Scaler, assemble

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prepared:
    """A market as one policy sees it.

    Attributes
    ----------
    asset
        Shape (n_sessions, n_symbols, n_asset_columns + 1): scaled, 0 where missing, availability last.
    market
        Shape (n_sessions, n_market_columns): scaled, 0 where missing.
    eligible
        Shape (n_sessions, n_symbols).
    exposure_cap
        Shape (n_sessions,), in [0, 1]: the shield's cap on the decision of each session.
    """

    asset: FloatArray
    market: FloatArray
    eligible: BoolArray
    exposure_cap: FloatArray


def prepare(policy: Policy, data: MarketData) -> Prepared:
    """Return the market scaled and masked as the policy was trained to see it, and its shield's exposure cap.

    Raises
    ------
    DataError
        If the symbols differ from the policy's, or a column it observes is missing.
    """
    symbols = policy.spec.observation.symbols
    if data.symbols != symbols:
        raise DataError(f"the policy was trained on {', '.join(symbols)}; found {', '.join(data.symbols)}. Train on these symbols first")
    return observe(policy.scaler, policy.spec.shield, data)


def observe(scaler: Scaler, shield: Shield, data: MarketData) -> Prepared:
    """Return the market as a policy with this scaler and shield sees it; raises DataError if a column is missing."""
    features = select(data.features, data.asset_columns, scaler.asset_columns, "data/features/features.parquet")
    market = select(data.market, data.market_columns, scaler.market_columns, "data/features/regime.parquet")
    seen = assemble(features, market, data.eligible, scaler)
    asset = np.concatenate([seen.asset, seen.mask[..., None]], axis=-1)
    return Prepared(asset, seen.market, data.eligible, exposure_cap(shield, data))


def decide(policy: Policy, prepared: Prepared, t: int, weights: FloatArray, drawdown: float) -> FloatArray:
    """Return the weights wanted after the close of session t: the mean of the members' targets, before constraints.

    Shape (n_symbols,). The caller constrains them, with `prepared.exposure_cap[t]`.

    Parameters
    ----------
    weights, drawdown
        Of the book at the close of t: shape (n_symbols,), fractions of NAV; the drawdown is 0 or below.

    Raises
    ------
    DataError
        If weights or drawdown are not finite.
    """
    targets = member_targets(policy, prepared, t, weights, drawdown)
    # The mean, without the three microseconds of `mean`.
    return np.asarray(np.add.reduce(targets, axis=0) / len(targets))


def member_targets(policy: Policy, prepared: Prepared, t: int, weights: FloatArray, drawdown: float) -> FloatArray:
    """Return the weights that each member wants; shape (n_members, n_symbols); otherwise as `decide`."""
    if not math.isfinite(float(weights.sum()) + drawdown):
        raise DataError(f"a decision needs finite weights and drawdown; found {weights.tolist()} and {drawdown}")
    asset = np.concatenate([prepared.asset[t], weights[:, None]], axis=1)
    market = np.concatenate((prepared.market[t], (drawdown,)))
    actions = act(policy.networks, asset, market)
    return wanted_weights(policy.spec.action_map, actions, prepared.eligible[t : t + 1])


def exposure_cap(shield: Shield, data: MarketData) -> FloatArray:
    """Return the shield's cap of every session, in [0, 1]; shape (n_sessions,).

    A missing, zero or negative volatility caps at 0: what is not known is not risked.

    Raises
    ------
    DataError
        If the market has no column of that name.
    """
    if shield.kind == "none":
        return np.ones(len(data.sessions))
    volatility = data.market_column(shield.column)
    known = np.isfinite(volatility) & (volatility > 0)
    cap = np.minimum(1.0, shield.target_volatility / np.where(known, volatility, 1.0))
    return np.where(known, cap, 0.0)
