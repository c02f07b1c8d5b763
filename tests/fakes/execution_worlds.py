"""Small markets with everything that can happen to a book, and wide terms: what the execution tests run on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from fakes.risk_policies import wide_policy

from quanto.env.simulation import Simulation, simulate
from quanto.env.tape import Tape
from quanto.execution.book import Book
from quanto.execution.brokers.sim import SimConfig, SimMarket
from quanto.execution.compiler import OrderRules
from quanto.execution.desk import Terms
from quanto.execution.engine import Strategy
from quanto.execution.feed import Feed, price_age
from quanto.execution.journal import Journal
from quanto.execution.replay import Plan, replay
from quanto.market.calendar import sessions_between
from quanto.portfolio.constraints import Limits

FREE_ORDERS: dict[str, Any] = {
    "fractional": True,
    "lot_shares": 1,
    "minimum_notional_usd": 0.0,
    "worst_case_slippage_bps": 0.0,
    "unsettled_proceeds": "usable",
    "collar_orders": True,
}
FRICTIONLESS: dict[str, Any] = {"slippage_bps": 0.0, "fee_bps": 0.0, "volume_share": None, "reject_rate": 0.0, "whole_shares": False}
OPEN_LIMITS = Limits(max_weight=1.0, max_exposure=1.0, minimum_cash=0.0, max_turnover=1.0)


def terms(limits: Limits = OPEN_LIMITS, rules: dict[str, Any] | None = None, **risk: Any) -> Terms:
    return Terms(limits, OrderRules(**{**FREE_ORDERS, **(rules or {})}), wide_policy(**risk))


def sim_config(**options: Any) -> SimConfig:
    return SimConfig(**{**FRICTIONLESS, **options})


class World:
    """A seeded market of n sessions and m symbols, and a strategy that wants other weights every session."""

    def __init__(
        self,
        seed: int,
        sessions: int = 40,
        symbols: int = 4,
        quiet: bool = False,
        linear: float = 0.0,
        impact: float = 0.0,
        churn: float = 1.0,
        split_ratios: tuple[float, ...] = (2.0, 1.5, 0.1, 7.0),
    ) -> None:
        rng = np.random.default_rng(seed)
        shape = (sessions, symbols)
        day = sessions_between(np.datetime64("2001-01-02").astype(object), np.datetime64("2035-12-31").astype(object))[:sessions]
        names = tuple(f"S{index:02d}" for index in range(symbols))
        split, dividend, payout = np.ones(shape), np.zeros(shape), np.full(shape, np.nan)
        traded = np.ones(shape, dtype=bool)
        if not quiet:
            happens = rng.random(shape)
            split = np.where(happens < 0.04, rng.choice(split_ratios, size=shape), 1.0)
            dividend = np.where((happens > 0.04) & (happens < 0.1), rng.uniform(0.1, 2.0, shape), 0.0)
            traded = rng.random(shape) > 0.06
            traded[: sessions // 4, -1] = False  # listed later
            if sessions > 8:
                payout[sessions - 5, 0] = 21.5  # ends
                traded[sessions - 5 :, 0] = False
        level = 50.0 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0))
        gap = np.exp(rng.normal(0, 0.01, shape))
        factor = np.cumprod(split, axis=0)
        close, opening = level / factor, level * gap / factor
        carried_close, carried_open, last = close.copy(), opening.copy(), np.zeros(symbols)
        for t in range(sessions):
            last = last / split[t]
            carried_open[t] = np.where(traded[t], opening[t], last)
            carried_close[t] = np.where(traded[t], close[t], last)
            last = carried_close[t]
        eligible = (carried_close > 0) & (rng.random(shape) > (0.0 if quiet else 0.05))
        volume = np.where(traded, rng.uniform(1e4, 1e6, shape), np.nan)
        self.tape = Tape(
            open=carried_open,
            close=carried_close,
            fillable=traded,
            eligible=eligible,
            split=split,
            dividend=dividend,
            payout=payout,
            cash_rate=np.full(sessions, 0.0001 if not quiet else 0.0),
            linear_cost=np.full(sessions, linear),
            impact=np.full(shape, impact),
        )
        self.feed = Feed(
            sessions=day,
            symbols=names,
            close=carried_close,
            price_age=price_age(traded),
            adv_usd=np.where(carried_close > 0, carried_close * 1e5, np.nan),
            beta=np.where(carried_close > 0, rng.uniform(0.5, 1.5, shape), np.nan),
            missing_share=1 - traded.mean(axis=1),
            eligible=eligible,
            split=split,
            linear_cost=self.tape.linear_cost,
            impact=self.tape.impact,
        )
        self.market = SimMarket(self.tape, day, names, volume)
        raw = rng.dirichlet(np.full(symbols + 1, 0.7), sessions)[:, :-1]
        self.wishes = raw if churn == 1.0 else churn * raw + (1 - churn) * raw.mean(axis=0)
        self.cap = np.where(rng.random(sessions) < 0.2, 0.5, 1.0)
        self.strategy = Strategy(
            experiment=f"world-{seed}",
            decide=self.decide,
            observation=lambda t: self.wishes[t].tobytes(),
            exposure_cap=self.cap,
            policy_age=np.arange(sessions, dtype=np.float64),
        )

    def decide(self, t: int, weights: Any, drawdown: float) -> Any:
        # The book is fed back: a difference in weights or drawdown must show in what comes next.
        return self.wishes[t] * (1 + 0.3 * drawdown) * 0.9 + 0.1 * np.clip(weights, 0, 1)

    def simulate(self, start: int, stop: int, limits: Limits = OPEN_LIMITS, nav: float = 1e6) -> Simulation:
        return simulate(self.tape, start, stop, self.decide, limits, self.cap, nav)

    def replay(
        self, plan: Plan, journal: Journal | None = None, conditions: Terms | None = None, sim: SimConfig | None = None, seed: int = 1
    ) -> tuple[Book, Journal]:
        journal = Journal(None) if journal is None else journal
        book = replay(self.feed, self.market, self.strategy, conditions or terms(), sim or sim_config(), seed, plan, journal)
        return book, journal


def navs(journal: Journal) -> np.ndarray:
    return np.array([event["nav"] for event in journal.replay() if event["kind"] == "mark"])


def with_risk(conditions: Terms, **limits: Any) -> Terms:
    return replace(conditions, risk=wide_policy(**limits))
