"""The candidate under the account's risk policy: the same checks, halts and collars that shadow replay and paper trading run."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import numpy.typing as npt

from quanto.env.simulation import Simulation
from quanto.execution.brokers.sim import SimConfig, SimMarket
from quanto.execution.compiler import OrderRules
from quanto.execution.desk import Terms
from quanto.execution.engine import Strategy
from quanto.execution.evidence import session_rows
from quanto.execution.feed import build_feed
from quanto.execution.journal import Journal
from quanto.execution.replay import Plan, replay
from quanto.policy.artefact import Policy
from quanto.policy.decision import decide, prepare
from quanto.portfolio.metrics import return_metrics
from quanto.stages.eval.arena import Arena
from quanto.stages.eval.config import EvalConfig

FloatArray = npt.NDArray[np.float64]

# Nothing but the risk policy may differ from the step kernel.
FRICTIONLESS = SimConfig(slippage_bps=0.0, fee_bps=0.0, volume_share=None, reject_rate=0.0, whole_shares=False)
PLAIN_ORDERS = OrderRules(
    fractional=True, lot_shares=1, minimum_notional_usd=0.0, worst_case_slippage_bps=0.0, unsettled_proceeds="usable", collar_orders=True
)
SHOWN = ("annual_return", "annual_volatility", "sharpe", "max_drawdown", "cvar")


def governed(arena: Arena, policy: Policy, config: EvalConfig, candidate: Simulation) -> dict[str, object]:
    """Return what the risk policy does to the candidate's book: metrics with and without it, denials, breaches and halts."""
    risk = config.risk
    feed = build_feed(arena.data.panel, arena.tape, risk.beta_sessions, arena.index_level)
    journal = Journal(None)
    terms = Terms(arena.limits, PLAIN_ORDERS, risk)
    market = SimMarket(arena.tape, arena.data.sessions, arena.data.symbols, arena.data.panel.volume)
    plan = Plan(arena.start, arena.stop, candidate.nav_before)
    replay(feed, market, strategy(arena, policy), terms, FRICTIONLESS, config.seed, plan, journal)
    events = list(journal.replay())
    rows = session_rows(events, feed)
    nav = np.array([row.nav for row in rows])
    returns = nav / np.concatenate([[candidate.nav_before], nav[:-1]]) - 1
    breaches: Counter[str] = Counter()
    for row in rows:
        breaches.update(row.limits)
    return {
        "risk_policy": risk.digest(),
        "without": _numbers(arena, candidate.returns),
        "with": _numbers(arena, returns),
        "denied_orders": sum(row.denied for row in rows),
        "breaches": dict(sorted(breaches.items())),
        "halted_sessions": sum(row.halted for row in rows),
        "halts": [str(event["reason"]) for event in events if event["kind"] == "halt"],
        "largest_nav_difference": float(np.abs(nav / candidate.nav - 1).max()),
    }


def strategy(arena: Arena, policy: Policy) -> Strategy:
    """Return the policy as the session engine runs it."""
    prepared = prepare(policy, arena.data)

    def choose(t: int, weights: FloatArray, drawdown: float) -> FloatArray:
        return decide(policy, prepared, t, weights, drawdown)

    def observation(t: int) -> bytes:
        return b"".join(block[t].tobytes() for block in (prepared.asset, prepared.market, prepared.eligible))

    trained = int(np.searchsorted(arena.data.sessions, np.datetime64(policy.spec.train_end, "D"), side="right")) - 1
    age = np.arange(len(arena.data.sessions), dtype=np.float64) - trained
    return Strategy(policy.digest, choose, observation, prepared.exposure_cap, age)


def _numbers(arena: Arena, returns: FloatArray) -> dict[str, object]:
    found = dataclasses.asdict(return_metrics(returns, arena.cash))
    return {name: found[name] for name in SHOWN}
