"""Paper trading of a workspace's policy: what shadow replays, on a real account and for the session of today."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from quanto.core.errors import GovernanceError
from quanto.core.store import data_root, read_json
from quanto.env.tape import build_tape
from quanto.execution.broker import Broker
from quanto.execution.brokers.alpaca import AlpacaBroker
from quanto.execution.clock import Clock
from quanto.execution.desk import Terms
from quanto.execution.feed import Feed, build_feed
from quanto.execution.paper import PaperConfig, PaperRun, run_paper_session
from quanto.market.calendar import as_date, next_session
from quanto.market.panel import build_panel
from quanto.market.point_in_time import cash_rate, index_series
from quanto.policy.artefact import load_policy
from quanto.policy.decision import prepare
from quanto.policy.market_data import MarketData
from quanto.stages.shadow.config import ShadowConfig
from quanto.stages.shadow.gate import blocked
from quanto.stages.shadow.shadowing import strategy_of
from quanto.stages.shadow.stage import read_market


def run_paper(config: ShadowConfig, paper: PaperConfig, workspace: Path, clock: Clock, broker: Broker | None = None) -> PaperRun:
    """Trade today's session with the policy of `models/` on the paper account.

    Raises
    ------
    GovernanceError
        If the promotion record does not make the policy eligible.
    ConfigError
        If an environment variable with a key is missing.
    """
    policy = load_policy(workspace / "models")
    reason = blocked(read_json(workspace / "reports/promotion/promotion_record.json"), policy)
    if reason:
        raise GovernanceError(f"paper trading is blocked: {reason}")
    data, tables, _ = read_market(config, workspace)
    feed = feed_with_next(data, tables, config)
    terms = Terms(config.constraints.limits(), paper.orders, config.risk)
    connected = AlpacaBroker(paper.broker, clock) if broker is None else broker
    return run_paper_session(account_folder(paper), feed, strategy_of(policy, prepare(policy, data), data), connected, terms, paper, clock)


def account_folder(paper: PaperConfig) -> Path:
    """Return where an account's journal, log and summaries live: outside every checkout."""
    return data_root() / "paper" / paper.account


def feed_with_next(data: MarketData, tables: dict[str, pa.Table], config: ShadowConfig) -> Feed:
    """Return the feed of a market with one row more: the next session, of which only what is announced is known."""
    following = next_session(_last(data))
    sessions = np.append(data.sessions, np.datetime64(following, "D"))
    panel = build_panel(tables["equity_ohlcv"], tables["corporate_actions"], sessions, data.symbols)
    eligible = np.vstack([data.eligible, np.zeros((1, len(data.symbols)), dtype=np.bool_)])
    tape = build_tape(panel, eligible, cash_rate(sessions, tables["index_level"]), config.costs, tables["corporate_actions"])
    level = None if config.index_series is None else index_series(tables["index_level"], config.index_series, sessions)
    return build_feed(panel, tape, config.risk.beta_sessions, level)


def _last(data: MarketData) -> date:
    return as_date(data.sessions[-1])
