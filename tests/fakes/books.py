"""Fuzzed markets for the environment: splits, dividends, halts, listings, delistings, interest and costs."""

from __future__ import annotations

import numpy as np

from quanto.env.action_map import ActionMap
from quanto.env.books import EpisodeConfig, Market, Rules
from quanto.env.rewards import RewardConfig
from quanto.env.tape import Tape
from quanto.portfolio.constraints import Limits


def fuzzed_tape(seed: int, sessions: int = 60, symbols: int = 4, costs: bool = True) -> Tape:
    """Return a tape on which everything that can happen to a share happens, with the carried prices it promises."""
    rng = np.random.default_rng(seed)
    shape = (sessions, symbols)
    split = np.where(rng.random(shape) < 0.04, rng.choice([2.0, 3.0, 0.1, 1.05], shape), 1.0)
    split[0] = 1.0
    dividend = np.where(rng.random(shape) < 0.06, rng.uniform(0.05, 1.5, shape), 0.0)
    overnight, intraday = rng.normal(0, 0.012, shape), rng.normal(0, 0.018, shape)
    traded = rng.random(shape) > 0.08
    traded[0] = True
    payout = np.full(shape, np.nan)
    opens, closes = np.empty(shape), np.empty(shape)
    last = rng.uniform(20, 120, symbols)
    ended = np.zeros(symbols, dtype=bool)
    for t in range(sessions):
        last = last / split[t]
        dies = (rng.random(symbols) < 0.004) & ~ended & (t > 5)
        payout[t, dies] = last[dies] * rng.uniform(0, 1.2, dies.sum())
        ended |= dies
        traded[t, ended] = False
        opens[t] = np.where(traded[t], last * np.exp(overnight[t]), last)
        closes[t] = np.where(traded[t], opens[t] * np.exp(intraday[t]), last)
        last = closes[t]
    eligible = (rng.random(shape) > 0.05) & ~np.cumsum(np.isfinite(payout), axis=0).astype(bool)
    return Tape(
        open=opens,
        close=closes,
        fillable=traded,
        eligible=eligible,
        split=split,
        dividend=dividend,
        payout=payout,
        cash_rate=rng.uniform(0, 2e-4, sessions),
        linear_cost=np.full(sessions, 5e-4 if costs else 0.0),
        impact=np.full(shape, 1e-7 if costs else 0.0),
    )


def fuzzed_market(seed: int, sessions: int = 60, symbols: int = 4, asset_columns: int = 3, market_columns: int = 2) -> Market:
    """Return a fuzzed tape with random observations; the last asset column is the availability."""
    rng = np.random.default_rng([seed, 1])
    tape = fuzzed_tape(seed, sessions, symbols)
    asset = rng.normal(size=(sessions, symbols, asset_columns + 1)).astype(np.float32)
    asset[..., -1] = tape.eligible
    market = rng.normal(size=(sessions, market_columns)).astype(np.float32)
    return Market(tape, asset, market, rng.uniform(0.3, 1.0, sessions))


def rules(
    version: str = "reward_v1", reduction: str = "none", kind: str = "softmax", cash: str = "logit", limits: Limits | None = None
) -> Rules:  # fmt: skip
    """Return rules with tight limits, so that every one of them binds somewhere."""
    reward = RewardConfig(version=version, scale=100.0, variance_reduction=reduction, turnover_penalty=None, drawdown_penalty=None)
    return Rules(ActionMap(kind=kind, scale=1.0, cash=cash), limits or Limits(0.4, 0.95, 0.03, 0.3), reward)


def episodes(books: int = 8, sessions: int = 20, random_weights: bool = True) -> EpisodeConfig:
    """Return short episodes."""
    return EpisodeConfig(books=books, sessions=sessions, random_weights=random_weights, cost_warm_up=0.0)
