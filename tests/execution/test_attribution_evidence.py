"""With frictions on, the whole difference between shadow and evaluation has named causes: on whole markets, recorded.

Run on seeded markets with splits, dividends, a listing and regimes, on this checkout's own experiment where it is finished,
and on those of the folders in QUANTO_WORKSPACES (separated by colons).
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.evaluation import write_workspace
from fakes.shadow import shadow_config

from quanto.core.config import load_section, read_yaml
from quanto.core.store import read_table, write_bytes, write_json, write_table
from quanto.execution.attribution import CAUSES
from quanto.execution.journal import Journal
from quanto.policy.artefact import load_policy
from quanto.stages.shadow.config import ShadowConfig
from quanto.stages.shadow.shadowing import build_stand, evidence
from quanto.stages.shadow.stage import read_market

ROOT = Path(__file__).parents[2]
SEEDS = (1, 2, 3)
FRICTIONS = yaml.safe_load((ROOT / "conf/shadow/frictions.yaml").read_text())
# Harder than the frictions group, so that every cause has something to answer for.
HARD = {"broker": {"volume_share": 0.0005, "reject_rate": 0.02, "slippage_bps": 5.0}, "risk": {"max_order_notional_usd": 20_000.0}}
FRICTIONLESS = {"broker": {"slippage_bps": 0.0, "fee_bps": 0.0, "volume_share": None, "reject_rate": 0.0, "whole_shares": False}}


def seeded_market(folder: Path, seed: int) -> Path:
    """Write a small market, a policy with random networks, and the section `shadow` that replays it."""
    write_workspace(folder, seed)
    path = folder / "data/features/regime.parquet"
    regime = read_table(path)
    write_table(path, regime.append_column("high_volatility", [[row % 60 < 20 for row in range(len(regime))]]))
    params = {"name": f"seeded_market_{seed}", "shadow": shadow_config().model_dump(mode="json")}
    write_bytes(folder / "params.yaml", yaml.safe_dump(params).encode())
    return folder


def workspaces(place: Path) -> list[Path]:
    seeded = [seeded_market(place / str(seed), seed) for seed in SEEDS]
    named = [Path(name) for name in os.environ.get("QUANTO_WORKSPACES", "").split(":") if name]
    own = [ROOT] if (ROOT / "models/policy.json").exists() else []
    return [*seeded, *own, *named]


def parity(folder: Path, **changes: dict[str, Any]) -> dict[str, Any]:
    """Replay a finished experiment with some sections of `shadow` changed, and return its parity with what stands around it."""
    section = read_yaml(folder / "params.yaml")["shadow"]
    section |= {name: {**section[name], **values} for name, values in changes.items()}
    config = load_section("shadow", section, ShadowConfig)
    data, tables, regime = read_market(config, folder)
    stand = build_stand(load_policy(folder / "models"), data, tables, config)
    journal = Journal(None)
    metrics, _ = evidence(stand, stand.run(stand.setting, journal), journal, regime, config.stress)
    shown = ("sessions", "orders", "orders_rejected", "orders_denied", "orders_partially_filled", "fill_rate", "halts", "policy")
    return {**{name: metrics[name] for name in shown}, "parity": metrics["parity"]}


@pytest.mark.acceptance
def test_the_difference_of_finished_experiments_has_named_causes_that_sum_to_it(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    for folder in workspaces(tmp_path / "markets"):
        name = str(read_yaml(folder / "params.yaml").get("name", folder.name))
        assert name not in found, f"two workspaces are of the experiment {name}"
        cases = {
            "frictionless": parity(folder, **FRICTIONLESS),
            "frictions": parity(folder, orders=FRICTIONS["orders"], broker=FRICTIONS["broker"]),
            "hard": parity(folder, orders=FRICTIONS["orders"], broker={**FRICTIONS["broker"], **HARD["broker"]}, risk=HARD["risk"]),
        }
        assert cases["frictionless"]["parity"]["max_relative_difference"] < 1e-9
        for case in cases.values():
            causes = case["parity"]["attribution_usd"]
            assert list(causes) == ["engine", *CAUSES]
            # In doubles the neighbours' differences sum to the whole but for rounding in the last places of a NAV.
            assert abs(math.fsum([*causes.values(), -case["parity"]["difference_usd"]])) <= 1e-9 * case["parity"]["evaluation_nav_usd"]
            assert abs(causes["engine"]) <= 1e-9 * case["parity"]["evaluation_nav_usd"]
        assert {cause for cause, value in cases["hard"]["parity"]["attribution_usd"].items() if value} >= {
            "rounding",
            "slippage",
            "fees",
            "partial_fills",
            "rejections",
            "denials",
        }
        found[name] = cases
    write_json(Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "risk_attribution.json", found)
