"""A finished run written by hand: the files that reports, comparisons and MLflow read, with values that a test can name."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from quanto.core.manifest import Manifest, OutputFile
from quanto.core.store import write_bytes, write_json
from quanto.runtime.pipeline import STAGES, manifest_path

SESSIONS = [f"2010-01-{day:02d}" for day in (4, 5, 6, 7, 8, 11, 12, 13)]
BOOKS = ("candidate", "equal_weight_v1", "matched_equal_weight_v1", "cash_v1")


def write_finished(folder: Path, name: str = "tiny", sharpe: float = 0.5, edge: str = "failed", symbol: str = "AAA", seed: int = 1) -> Path:
    """Write a finished run into a folder; `sharpe`, the edge gate, a symbol and the seed may differ between runs."""
    params = {"name": name, **{stage: {"setting": 1} for stage in STAGES}, "train": {"seed": seed}}
    write_bytes(folder / "params.yaml", yaml.safe_dump(params).encode())
    for stage in STAGES:
        outputs = {f"data/{stage}/part.parquet": OutputFile("ab" * 32, 10, 3)}
        if stage == "train":
            outputs["models/policy.json"] = OutputFile("ab" * 32, 10)
        inputs = {"data/raw": "cd" * 32}
        manifest = Manifest(stage, {"setting": 1, "seed": seed}, inputs, {f"src/quanto/stages/{stage}": "ef" * 32}, outputs)
        write_bytes(folder / manifest_path(stage), manifest.to_json())
    write_json(folder / "models/policy.json", {"policy": "tiny"})
    for path, value in _reports(sharpe, edge, symbol).items():
        write_json(folder / "reports" / path, value)
    _tables(folder, symbol)
    return folder


def _reports(sharpe: float, edge: str, symbol: str) -> dict[str, Any]:
    own = {
        "annual_return": 0.11,
        "sharpe": sharpe,
        "annual_volatility": 0.2,
        "max_drawdown": -0.25,
        "alpha": 0.0123456789,
        "exposure_mean": 0.8,
    }
    books = [{"book": book, **own, "cvar": 0.03, "turnover_annual": 2.0, "gross_mean": 0.9} for book in BOOKS]
    interval = {"estimate": sharpe, "low": sharpe - 0.4, "high": sharpe + 0.4, "level": 0.95}
    gates = [
        {"name": "finite_v1", "tier": "research", "status": "passed", "value": 0, "threshold": 0, "sample": 8, "reason": "no NaN"},
        {"name": "edge_v1", "tier": "production", "status": edge, "value": 0.28, "threshold": 0.04, "sample": 8, "reason": "p is 0.28"},
        {
            "name": "sealed_block_v1",
            "tier": "production",
            "status": "insufficient",
            "value": None,
            "threshold": 0.05,
            "sample": 0,
            "reason": "",
        },
    ]
    decision = {"research": "promote", "candidate": "promote", "production": "reject" if edge == "failed" else "insufficient evidence"}
    slices = {
        part: {
            "sessions": 4,
            "episodes": [{"first": SESSIONS[0]}],
            "books": {book: {**own, "drawdown_within_episodes": -0.1} for book in BOOKS},
        }
        for part in ("all", "high_volatility")
    }
    comparison = {"passed": True, "comparisons": 12345, "mismatches": 0, "sessions": 4, "sessions_available": 8}
    coverage = {
        "present": 7,
        "expected": 8,
        "first": SESSIONS[0],
        "last": SESSIONS[-1],
        "missing": 1,
        "missing_ranges": [[SESSIONS[3], SESSIONS[3]]],
    }
    vendor = {"rows": 8, "selected": 7, "superseded": 0, "quarantined": 1, "conserved": True}
    return {
        "evaluation/metrics.json": {**own, "baseline_sharpe": 0.4, "cvar": 0.03, "sessions": 8, "turnover_annual": 2.0, "books": books},
        "evaluation/evaluation.json": {
            "baseline": "equal_weight_v1",
            "selection": "hindsight",
            "intervals": {"equal_weight_v1": {"intervals": {"sharpe": interval}}},
            "costs": {"break_even_bps": 3.5, "linear_cost_bps": 5.0, "runs": [{"factor": 2.0, **own}]},
            "walk_forward": {"books": {"candidate": own}, "folds": [{"test_start": SESSIONS[0], "test_end": SESSIONS[3], **own}]},
            "stress": {"lagged_signals": own, "leave_one_out": {symbol: own}},
            "seeds": {"alpha": {"member_0": 0.01, "member_1": None}, "spread": {"seeds": 2, "share_positive": 1.0}},
            "attribution": {
                "symbols": {symbol: {"cash": 0.0, "cost": -10.0, "dividend": 1.0, "intraday": 5.0, "overnight": 7.0}},
                "total": {},
            },
        },
        "evaluation/regime_slices.json": {"slices": slices, "labels": {"sessions": SESSIONS, "high_volatility": [0, 1, 1, 0, 0, 0, 1, 1]}},
        "evaluation/trial.json": {"trial_id": "77" * 32},
        "promotion/qualification_report.json": {
            "gates": gates,
            "verdicts": {tier: {"decision": value, "reasons": []} for tier, value in decision.items()},
            "trials": {"count": 3},
            "selection": "hindsight",
            "beside": [{"book": "cash_v1", "t_statistic": 1.7, "sentence": "cash_v1 does not do as well"}],
        },
        "promotion/promotion_record.json": {
            "verdicts": decision,
            "eligible_tiers": ["research"],
            "blocked_by": ["no calibration was measured"],
        },
        "canonical/canonical_report.json": {
            "passed": True,
            "conserved": True,
            "domains": {"equity_ohlcv": {"canonical_rows": 7, "coverage": {symbol: coverage}, "vendors": {"first_vendor": vendor}}},
            "disagreement": {"classes": [{"vendor": "a", "other": "b", "field": "close", "class": "bad_tick", "rows": 2, "largest": 0.05}]},
            "quarantine": [{"reason": "high below low", "domain": "equity_ohlcv", "rows": 1}],
        },
        "ingest/ingest_report.json": {
            "as_of": "2026-11-01",
            "payloads": [
                {"vendor": "first_vendor", "domain": "equity_ohlcv", "sha256": "12" * 32, "bytes": 99, "shard": "2010", "request": {}}
            ],
            "coverage": {"equity_ohlcv": {symbol: {"wanted": 8, "covered": 7, "gaps": [{"first": SESSIONS[3], "last": SESSIONS[3]}]}}},
        },
        "features/features.json": {
            "columns": {"return_1": {"formula": "ln(close(t) / close(t-1))", "coverage": 0.9, **_shape()}},
            "correlation": {"names": ["return_1"], "matrix": [[1.0]]},
        },
        "features/leak_proof.json": {**comparison, "columns": {"return_1": comparison}},
        "shadow/metrics.json": {
            "status": "completed",
            "sessions": 3,
            "fill_rate": 0.975,
            "halts": [],
            "regimes": {"high_volatility": {"sessions": 1, "limits_hit": {"turnover": 2}}},
            "parity": {"max_relative_difference": 1.25e-12},
            "journal": {"events": 42, "head": "34" * 32},
        },
        "training/summary.json": {
            "algorithm": "ppo",
            "members": [{"member": 0, "steps": 200, "chosen_step": 200, "validation_growth": 0.001}],
        },
    }


def _shape() -> dict[str, Any]:
    quantiles = {"0.01": -0.05, "0.25": -0.01, "0.5": 0.0, "0.75": 0.01, "0.99": 0.05}
    return {"mean": 0.001, "std": 0.02, "quantiles": quantiles, "drift": {"stability_index": 0.3, "mean_shift": 0.4}}


def _tables(folder: Path, symbol: str) -> None:
    wide = pd.DataFrame({"session": SESSIONS, **{book: [1.0 + 0.01 * index for index in range(8)] for book in BOOKS}})
    for name in ("equity", "drawdown", "exposure"):
        write_bytes(folder / f"reports/evaluation/{name}.csv", wide.to_csv(index=False).encode())
    bars = {"slice": ["all", "high_volatility"], "annual_return": [0.11, 0.05], "drawdown_within_episodes": [-0.1, -0.1]}
    write_bytes(folder / "reports/evaluation/regimes.csv", pd.DataFrame({**bars, "book": "candidate"}).to_csv(index=False).encode())
    held = pd.DataFrame({"session": SESSIONS, "symbol": symbol, "weight": 0.5})
    write_bytes(folder / "reports/evaluation/weights.csv", held.to_csv(index=False).encode())
    write_bytes(folder / "reports/canonical/quality.html", b"<!doctype html><h1>Quality of the canonical data</h1><p class='good'>kept</p>")
    curves = pd.DataFrame(
        {
            "seed": [0, 0, 1, 1],
            "step": [100, 200, 100, 200],
            "entropy": [1.0, 0.9, 1.0, 0.9],
            "growth": [0.1, 0.2, 0.3, 0.4],
            "validation_growth": [None, 0.5, None, 0.6],
        }
    )
    write_bytes(folder / "reports/training/curves.csv", curves.to_csv(index=False).encode())
    long = pd.DataFrame({"book": "candidate", "session": SESSIONS, "turnover": 0.1, "symbol": symbol, "weight": 0.5})
    for path in ("evaluation/returns", "evaluation/weights"):
        _write_parquet(folder / f"reports/{path}.parquet", long)
    _write_parquet(
        folder / "reports/shadow/sessions.parquet",
        pd.DataFrame({"session": SESSIONS[:3], "nav": [1e6, 1.1e6, 1e6], "drawdown": [0.0, 0.0, -0.09]}),
    )


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    stream = io.BytesIO()
    table.to_parquet(stream, index=False)
    write_bytes(path, stream.getvalue())


def edit_json(path: Path, **changes: object) -> None:
    """Replace top-level keys of a JSON file."""
    write_json(path, {**json.loads(path.read_text()), **changes})
