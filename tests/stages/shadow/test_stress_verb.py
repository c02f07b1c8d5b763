"""`quanto stress` on a folder: every scenario is replayed with features computed anew, and one failed gate fails the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.evaluation import ROOT, feature_tables, write_workspace
from fakes.shadow import shadow_config

from quanto.core.store import read_table, write_bytes, write_table
from quanto.execution.stress import SCENARIOS
from quanto.market.schema import CANONICAL
from quanto.runtime import stress as verb
from quanto.runtime.composition import compose_params
from quanto.stages.features.config import FeaturesConfig


def build_features(config: FeaturesConfig, place: Path) -> None:
    """Stand in for the feature stage, whose sets the small market has no data for."""
    assert config.index_series == "SPX"
    names = ("equity_ohlcv", "corporate_actions", "index_level")
    features, regime = feature_tables({name: read_table(place / "data/canonical" / name, CANONICAL[name]) for name in names})
    write_table(place / "data/features/features.parquet", features)
    write_table(place / "data/features/regime.parquet", regime)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stress")
    write_workspace(folder)
    return folder


@pytest.mark.parametrize(("max_drawdown", "passed"), [(0.99, True), (0.3, False)])
def test_one_scenario_beyond_a_gate_fails_the_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch, max_drawdown: float, passed: bool
) -> None:
    shadow = shadow_config(stress__max_drawdown=max_drawdown, stress__max_session_loss=0.3).model_dump(mode="json")
    params = {"features": compose_params(ROOT, [])["features"], "shadow": shadow}
    write_bytes(place / "params.yaml", yaml.safe_dump(params).encode())
    monkeypatch.setattr(verb, "_build_features", build_features)
    found = verb.stress(place)
    scenarios: Any = found["scenarios"]
    assert list(scenarios) == list(SCENARIOS)
    assert found["passed"] is passed
    for item in scenarios.values():
        assert item["passed"] is (item["worst_session_return"] >= -0.3 and item["max_drawdown"] >= -max_drawdown)
    assert all(item["orders_submitted"] > 0 for item in scenarios.values())
