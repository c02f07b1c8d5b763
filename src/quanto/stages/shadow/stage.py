"""Replay what the promotion record makes eligible, write the journal and what it proves; otherwise write why not."""

from __future__ import annotations

import sys
from concurrent.futures import Executor
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from quanto.core.store import read_json, read_table, write_bytes, write_json, write_table
from quanto.execution.evidence import SessionRow
from quanto.execution.journal import Journal
from quanto.market.schema import CANONICAL
from quanto.policy.artefact import load_policy
from quanto.policy.market_data import MarketData, market_data
from quanto.stages.shadow.config import ShadowConfig
from quanto.stages.shadow.gate import blocked, blocked_metrics
from quanto.stages.shadow.shadowing import build_stand, evidence, sessions_table

DOMAINS = ("equity_ohlcv", "corporate_actions", "index_level")


def run(config: ShadowConfig, workspace: Path, executor: Executor) -> None:  # noqa: ARG001  # every stage is called alike; one account is one line of events
    """Replay the policy of `models/` on the test window into `reports/shadow/`."""
    out = workspace / "reports/shadow"
    replay_into(out, config, workspace, reset=True)


def replay_into(out: Path, config: ShadowConfig, workspace: Path, reset: bool = False) -> dict[str, object]:
    """Replay a workspace's policy into a folder (journal.jsonl, metrics.json, sessions.parquet); return the metrics.

    Parameters
    ----------
    reset
        Begin anew; otherwise a journal that holds a part of the same replay is continued.

    Raises
    ------
    ExecutionError
        If the journal was begun under other terms.
    IntegrityError
        If a byte of the journal was changed.
    """
    policy = load_policy(workspace / "models")
    reason = blocked(read_json(workspace / "reports/promotion/promotion_record.json"), policy)
    if reason:
        metrics = blocked_metrics(reason, policy, config)
        write_bytes(out / "journal.jsonl", b"")
        rows: list[SessionRow] = []
    else:
        data, tables, regime = read_market(config, workspace)
        stand = build_stand(policy, data, tables, config)
        if reset:
            (out / "journal.jsonl").unlink(missing_ok=True)
        plan = stand.setting.plan
        with (
            Journal(out / "journal.jsonl") as journal,
            tqdm(total=plan.stop - plan.start, desc="shadow", disable=not sys.stderr.isatty()) as bar,
        ):
            book = stand.run(stand.setting, journal, lambda _: bar.update())
            metrics, rows = evidence(stand, book, journal, regime, config.stress)
    write_json(out / "metrics.json", metrics)
    write_table(out / "sessions.parquet", sessions_table(rows))
    return metrics


def read_market(config: ShadowConfig, workspace: Path) -> tuple[MarketData, dict[str, pa.Table], pa.Table]:
    """Return the market of a workspace as arrays, its canonical tables by domain, and the regime table."""
    tables = {name: read_table(workspace / "data/canonical" / name, CANONICAL[name]) for name in DOMAINS}
    features, regime = (read_table(workspace / f"data/features/{name}.parquet") for name in ("features", "regime"))
    bars, actions, index_level = tables.values()
    return market_data(bars, actions, index_level, features, regime, config.costs), tables, regime
