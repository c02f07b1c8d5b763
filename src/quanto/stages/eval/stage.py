"""Read the market and the policy, evaluate out of sample, write what was found."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

from quanto.core.errors import DataError
from quanto.core.store import read_json, read_table, write_bytes, write_json, write_table
from quanto.market.folds import fold_from
from quanto.market.schema import CANONICAL
from quanto.policy.artefact import YARDSTICK, load_policy
from quanto.policy.market_data import market_data
from quanto.stages.eval.books import CANDIDATE, UNSHIELDED
from quanto.stages.eval.config import EvalConfig
from quanto.stages.eval.evaluation import evaluate
from quanto.stages.eval.tables import CURVES, curve_csv, regimes_csv, returns_table, weights_csv, weights_table
from quanto.stages.eval.trial import data_digests
from quanto.stages.eval.walk_forward import FoldPolicy

DOMAINS = ("equity_ohlcv", "corporate_actions", "index_level")


def run(config: EvalConfig, workspace: Path, executor: Executor) -> None:  # noqa: ARG001  # every stage is called alike; the books of one policy take seconds
    """Evaluate the policy of `models/` on the test window and write `reports/evaluation/`."""
    tables = {name: read_table(workspace / "data/canonical" / name, CANONICAL[name]) for name in DOMAINS}
    tables |= {name: read_table(workspace / f"data/features/{name}.parquet") for name in ("features", "regime")}
    policy = load_policy(workspace / "models")
    bars, actions, index_level, features, regime = tables.values()
    data = market_data(bars, actions, index_level, features, regime, config.costs)

    folds = () if config.split.walk_forward is None else read_folds(workspace / "models")
    yardstick = None if policy.spec.training["yardstick"] is None else load_policy(workspace / "models" / YARDSTICK)
    found = evaluate(policy, data, index_level, config, data_digests(tables), folds, yardstick)

    out = workspace / "reports/evaluation"
    write_json(out / "metrics.json", found.metrics)
    write_json(out / "evaluation.json", found.evaluation)
    write_json(out / "regime_slices.json", found.slices)
    write_json(out / "trial.json", found.trial)
    write_table(out / "returns.parquet", returns_table(found.arena.sessions, found.books))
    kept = {name: found.books[name] for name in (CANDIDATE, UNSHIELDED, config.baseline) if name in found.books}
    write_table(out / "weights.parquet", weights_table(found.arena, kept))
    write_bytes(out / "weights.csv", weights_csv(found.arena, found.books[CANDIDATE]))
    write_bytes(out / "regimes.csv", regimes_csv(found.slices, tuple(kept)))
    for kind in CURVES:
        write_bytes(out / f"{kind}.csv", curve_csv(found.arena.sessions, found.books, kind))


def read_folds(models: Path) -> tuple[FoldPolicy, ...]:
    """Return the policies of the walk-forward folds in order.

    Raises
    ------
    MissingDataError
        If models/ holds no folds.
    DataError
        If folds.json is not a list of folds.
    """
    value = read_json(models / "folds.json")
    if not isinstance(value, list):
        raise DataError(f"{models / 'folds.json'} must hold a list of folds; run the train stage again")
    return tuple(FoldPolicy(fold, load_policy(models / f"fold-{fold.number:03d}")) for fold in map(fold_from, value))
