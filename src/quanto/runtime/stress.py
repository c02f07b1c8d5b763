"""`quanto stress`: an experiment's policy on shocked markets, with features, decisions and orders computed anew."""

from __future__ import annotations

from pathlib import Path

from quanto.core.config import load_section, read_yaml
from quanto.core.store import write_table
from quanto.execution.stress import SCENARIOS
from quanto.stages.features.compute import compute
from quanto.stages.features.config import FeaturesConfig, select_columns
from quanto.stages.features.stage import read_view
from quanto.stages.features.tables import feature_table, regime_table
from quanto.stages.shadow.config import ShadowConfig
from quanto.stages.shadow.stress import stress_replays


def stress(place: Path) -> dict[str, object]:
    """Return what the policy of a materialised experiment loses in every scenario, and whether the gates of `shadow.stress` hold.

    Raises
    ------
    ConfigError
        If a section of its params.yaml is at fault.
    """
    params = read_yaml(place / "params.yaml")
    features = load_section("features", params.get("features"), FeaturesConfig)
    config = load_section("shadow", params.get("shadow"), ShadowConfig)
    found = stress_replays(config, place, lambda shocked: _build_features(features, shocked), SCENARIOS)
    passed = all(isinstance(item, dict) and item["passed"] is True for item in found.values())
    return {"passed": passed, "gates": config.stress.model_dump(mode="json"), "scenarios": found}


def _build_features(config: FeaturesConfig, place: Path) -> None:
    """Write the tables that the policy sees, as the features stage does; the shocked market is proof of nothing else."""
    view, _ = read_view(config, place)
    features = compute(view, select_columns(config))
    write_table(place / "data/features/features.parquet", feature_table(features, config.start_date))
    write_table(place / "data/features/regime.parquet", regime_table(features, config.start_date))
