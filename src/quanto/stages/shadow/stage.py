"""Replay what the promotion record makes eligible, write the journal and what it proves; otherwise write why not."""

from __future__ import annotations

import sys
from concurrent.futures import Executor
from pathlib import Path

from tqdm import tqdm

from quanto.core.store import read_json, read_table, write_bytes, write_json, write_table
from quanto.execution.journal import Journal
from quanto.market.schema import CANONICAL
from quanto.policy.artefact import load_policy
from quanto.policy.market_data import market_data
from quanto.stages.shadow.config import ShadowConfig
from quanto.stages.shadow.gate import blocked, blocked_metrics
from quanto.stages.shadow.shadowing import build_stand, evidence, sessions_table

DOMAINS = ("equity_ohlcv", "corporate_actions", "index_level")


def run(config: ShadowConfig, workspace: Path, executor: Executor) -> None:  # noqa: ARG001  # every stage is called alike; one account is one line of events
    """Replay the policy of `models/` on the test window into `reports/shadow/`."""
    out = workspace / "reports/shadow"
    policy = load_policy(workspace / "models")
    reason = blocked(read_json(workspace / "reports/promotion/promotion_record.json"), policy)
    if reason:
        write_json(out / "metrics.json", blocked_metrics(reason, policy, config))
        write_bytes(out / "journal.jsonl", b"")
        write_table(out / "sessions.parquet", sessions_table([]))
        return
    bars, actions, index_level = (read_table(workspace / "data/canonical" / name, CANONICAL[name]) for name in DOMAINS)
    features, regime = (read_table(workspace / f"data/features/{name}.parquet") for name in ("features", "regime"))
    stand = build_stand(policy, market_data(bars, actions, index_level, features, regime, config.costs), index_level, config)

    path = out / "journal.jsonl"
    path.unlink(missing_ok=True)  # a stage begins anew; `quanto run-shadow` resumes
    plan = stand.setting.plan
    with Journal(path) as journal, tqdm(total=plan.stop - plan.start, desc="shadow", disable=not sys.stderr.isatty()) as bar:
        book = stand.run(stand.setting, journal, lambda _: bar.update())
        metrics, rows = evidence(stand, book, journal, regime)
    write_json(out / "metrics.json", metrics)
    write_table(out / "sessions.parquet", sessions_table(rows))
