"""The sealed final block: what its one opening shows. A veto on limits and inferiority, never evidence for an edge.

Nothing in the graph calls this: a production request does, once, and writes what it found beside the promotion record.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from quanto.core.digest import JsonValue, digest_value
from quanto.core.errors import GovernanceError
from quanto.market.split import resolve_split
from quanto.policy.artefact import Policy
from quanto.policy.baselines import BASELINES
from quanto.policy.decision import prepare
from quanto.policy.market_data import MarketData
from quanto.portfolio.drawdowns import drawdowns
from quanto.portfolio.significance import alpha_test
from quanto.stages.eval.arena import build_arena
from quanto.stages.eval.books import baseline_book, check_book, policy_book
from quanto.stages.eval.config import EvalConfig

SCHEMA_VERSION = 1


def open_sealed_block(policy: Policy, data: MarketData, index_level: pa.Table, config: EvalConfig) -> dict[str, JsonValue]:
    """Return the opening record of the sealed block: its sessions, breaches, drawdown and the inferiority test.

    The book starts from cash at the close before the block.

    Raises
    ------
    GovernanceError
        If the experiment keeps no sealed block.
    """
    split = resolve_split(data.sessions, config.split)
    if split.sealed_start is None:
        raise GovernanceError("the experiment keeps no sealed block; set split.sealed_sessions before the first look at its sessions")
    inside = build_arena(data, index_level, config)
    arena = replace(inside, start=inside.stop, stop=inside.stop + config.split.sealed_sessions)
    prepared = prepare(policy, data)
    book = policy_book(arena, policy, prepared)
    baseline = baseline_book(arena, BASELINES[config.baseline])
    checks = check_book(arena, book, prepared.exposure_cap)
    test = alpha_test(book.returns - arena.cash, baseline.returns - arena.cash)
    sessions: list[JsonValue] = [str(day) for day in arena.sessions]
    returns: list[JsonValue] = [float(value) for value in book.returns]
    return {
        "schema_version": SCHEMA_VERSION,
        "policy": policy.digest,
        "first_session": str(arena.sessions[0]),
        "last_session": str(arena.sessions[-1]),
        "sessions": len(arena.sessions),
        "violations": checks.violations + checks.cash_breaches,
        "drawdown": float(drawdowns(book.returns).min()),
        "p_inferior": test.p_inferior,
        "alpha": test.alpha,
        "alpha_t_statistic": test.t_statistic,
        # A look like any other for whoever tests on these sessions later.
        "trial": {
            "schema_version": SCHEMA_VERSION,
            "sealed": True,
            "trial_id": digest_value({"sealed": policy.digest, "holdout": sessions}),
            "returns_digest": digest_value(returns),
            "policy": policy.digest,
            "sessions": sessions,
            "returns": returns,
            "baseline": config.baseline,
            "baseline_returns": [float(value) for value in baseline.returns],
            "cash_returns": [float(value) for value in arena.cash],
        },
    }
