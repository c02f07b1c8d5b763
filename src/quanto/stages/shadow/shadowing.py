"""The shadow replay as a value: which sessions, with what, and what the journal proves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.core.errors import ConfigError
from quanto.env.simulation import Simulation, simulate
from quanto.execution.attribution import Setting, attribute
from quanto.execution.book import Book, Entry
from quanto.execution.brokers.sim import SimMarket
from quanto.execution.desk import Terms
from quanto.execution.engine import Strategy, observation_faults
from quanto.execution.evidence import SessionRow, session_rows, summarise
from quanto.execution.feed import Feed, build_feed
from quanto.execution.journal import Journal
from quanto.execution.replay import Plan, replay
from quanto.execution.stress import StressConfig, historical_windows, instant_losses
from quanto.market.point_in_time import index_series
from quanto.market.split import resolve_split
from quanto.policy.artefact import Policy
from quanto.policy.decision import Prepared, decide, prepare
from quanto.policy.market_data import MarketData
from quanto.stages.shadow.config import ShadowConfig

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stand:
    """Everything that a replay of one policy needs, on one session axis."""

    data: MarketData
    feed: Feed
    market: SimMarket
    strategy: Strategy
    setting: Setting
    seed: int

    def run(self, setting: Setting, journal: Journal, on_session: Callable[[int], None] = lambda _: None) -> Book:
        """Replay a setting into a journal."""
        return replay(self.feed, self.market, self.strategy, setting.terms, setting.sim, self.seed, setting.plan, journal, on_session)

    def final_nav(self, setting: Setting) -> float:
        """Return the last NAV of a setting's replay, USD."""
        return self.run(setting, Journal(None)).nav

    def simulate(self) -> Simulation:
        """Return what evaluation makes of the same decisions on the same sessions."""
        plan, strategy = self.setting.plan, self.strategy
        limits = self.setting.terms.limits
        return simulate(self.data.tape, plan.start, plan.stop, strategy.decide, limits, strategy.exposure_cap, plan.cash)


def build_stand(policy: Policy, data: MarketData, tables: Mapping[str, pa.Table], config: ShadowConfig) -> Stand:
    """Return the stand of a policy on a market.

    Raises
    ------
    ConfigError
        If the replay's dates lie outside the test window, there is no session before them, or a late session is none.
    """
    prepared = prepare(policy, data)
    level = None if config.index_series is None else index_series(tables["index_level"], config.index_series, data.sessions)
    feed = build_feed(data.panel, data.tape, config.risk.beta_sessions, level)
    terms = Terms(config.constraints.limits(), config.orders, config.risk)
    return Stand(
        data=data,
        feed=feed,
        market=SimMarket(data.tape, data.sessions, data.symbols, data.panel.volume),
        strategy=strategy_of(policy, prepared, data),
        setting=Setting(terms, config.broker, plan_of(data, config)),
        seed=config.seed,
    )


def strategy_of(policy: Policy, prepared: Prepared, data: MarketData) -> Strategy:
    """Return a policy as the engine runs it; its identity is the digest of the policy."""

    def choose(t: int, weights: FloatArray, drawdown: float) -> FloatArray:
        return decide(policy, prepared, t, weights, drawdown)

    def observation(t: int) -> bytes:
        return b"".join(block[t].tobytes() for block in (prepared.asset, prepared.market, prepared.eligible))

    trained = int(np.searchsorted(data.sessions, np.datetime64(policy.spec.train_end, "D"), side="right")) - 1
    age = np.arange(len(data.sessions), dtype=np.float64) - trained
    return Strategy(policy.digest, choose, observation, prepared.exposure_cap, age)


def plan_of(data: MarketData, config: ShadowConfig) -> Plan:
    """Return which sessions of the market are replayed; raises ConfigError if the dates do not fit."""
    sessions = data.sessions
    first, stop = resolve_split(sessions, config.split).test_range(sessions)
    start = first if config.start_date is None else int(np.searchsorted(sessions, np.datetime64(config.start_date, "D")))
    if config.end_date is not None:
        stop = min(stop, int(np.searchsorted(sessions, np.datetime64(config.end_date, "D"), side="right")))
    faults: list[str] = []
    if start < first:
        faults.append(f"start_date {config.start_date} lies before the test window, which begins {sessions[first]}: the policy has seen it")
    if not 1 <= start < stop:
        faults.append(f"no session from start_date {config.start_date} to end_date {config.end_date} in the test window, or none before it")
    late = {day: int(np.searchsorted(sessions, np.datetime64(day, "D"))) for day in config.late_sessions}
    unknown = [str(day) for day, row in late.items() if not (start <= row < stop and sessions[row] == np.datetime64(day, "D"))]
    if unknown:
        faults.append(f"late_sessions {', '.join(unknown)} are no sessions of the replay")
    if faults:
        raise ConfigError(f"shadow: {'; '.join(faults)}")
    return Plan(start, stop, config.nav_usd, frozenset(late.values()))


def evidence(
    stand: Stand, book: Book, journal: Journal, regimes: pa.Table, stress: StressConfig
) -> tuple[dict[str, object], list[SessionRow]]:
    """Return the metrics of a finished replay, and its rows."""
    events: list[Entry] = list(journal.replay())
    rows = session_rows(events, stand.feed)
    expected = stand.simulate()
    navs = np.array([row.nav for row in rows])
    found = attribute(float(expected.nav[-1]), stand.setting, stand.final_nav, book.nav)
    overall = summarise(rows)
    labels = regime_labels(rows, regimes)
    windows = historical_windows(rows, labels, stress)
    shocks = instant_losses(events, stand.feed, stress)
    halts = [event["reason"] for event in events if event["kind"] == "halt"]
    metrics: dict[str, object] = {
        "status": status_of(overall, halts),
        "first_session": rows[0].session,
        "last_session": rows[-1].session,
        "nav_usd": book.nav,
        "total_return": book.nav / stand.setting.plan.cash - 1.0,
        **overall,
        "halts": halts,
        "regimes": {name: summarise([row for row, label in zip(rows, labels, strict=True) if label == name]) for name in sorted({*labels})},
        "stress": {
            "passed": all(bool(item["passed"]) for item in (*windows, *shocks)),
            "instant_shocks": shocks,
            "historical_windows": windows,
        },
        "parity": {
            "evaluation_nav_usd": float(expected.nav[-1]),
            "max_relative_difference": float(np.abs(navs / expected.nav - 1.0).max()),
            "difference_usd": found.difference,
            "attribution_usd": found.causes,
            "attribution_residual_usd": found.residual,
        },
        "observations_that_differ": observation_faults(events, stand.feed, stand.strategy),
        "policy": stand.strategy.experiment,
        "risk_policy": stand.setting.terms.risk.digest(),
        "journal": {"events": journal.count, "head": journal.head},
    }
    return metrics, rows


def status_of(overall: dict[str, object], halts: list[str]) -> str:
    """Return what the replay amounts to: nothing submitted is no evidence, however well nothing was filled."""
    if not overall["orders_submitted"]:
        return "no_evidence"
    return "halted" if halts else "complete"


def regime_labels(rows: list[SessionRow], regimes: pa.Table) -> list[str]:
    """Return the causal label of each row's session: high_volatility, other, or unlabelled."""
    days = [day.isoformat() for day in regimes["session"].to_pylist()]
    labels = dict(zip(days, regimes["high_volatility"].to_pylist(), strict=True))
    names = {True: "high_volatility", False: "other", None: "unlabelled"}
    return [names[labels.get(row.session)] for row in rows]


_COLUMNS = (
    "nav", "cash", "gross", "drawdown", "turnover", "bought", "sold", "fees", "dividends", "interest", "cash_in_lieu", "other_flows",
    "slippage_usd", "shortfall_usd", "orders", "denied", "submitted", "rejected", "filled", "partial", "unfilled", "missed", "halted",
)  # fmt: skip


def sessions_table(rows: list[SessionRow]) -> pa.Table:
    """Return one row per session: USD, fractions of NAV, and counts of orders."""
    session = pa.array([np.datetime64(row.session, "D").astype(object) for row in rows], pa.date32())
    empty = SessionRow(session="", nav_before=1.0)
    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    columns = {name: pa.array([getattr(row, name) for row in rows], kinds[type(getattr(empty, name))]) for name in _COLUMNS}
    return pa.table({"session": session, **columns})
