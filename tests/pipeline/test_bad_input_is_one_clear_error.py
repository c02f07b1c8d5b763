"""Each fault a user can make: one clear message, exit code 1, nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from quanto.core.digest import digest_tree
from tests.pipeline.conftest import run

pytestmark = pytest.mark.slow


def set_leaf(workspace: Path, path: str, value: Any) -> None:
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    section = params
    *parents, last = path.split(".")
    for key in parents:
        section = section[int(key)] if isinstance(section, list) else section[key]
    section[last] = value
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def fails(workspace: Path, stage: str, *parts: str, environment: dict[str, str] | None = None) -> str:
    watched = [workspace / name for name in ("data", "models", "reports")]
    before = {path: digest_tree(path) for path in watched}
    done = run(workspace, stage, environment)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr
    assert {path: digest_tree(path) for path in watched} == before, "a failing stage changed its outputs"
    return done.stderr


def test_an_unknown_key_is_named_with_its_path(copy_of_small_run: Path) -> None:
    set_leaf(copy_of_small_run, "train.ppo.gama", 0.5)
    fails(copy_of_small_run, "train", "train.ppo.gama: unknown key (found 0.5)")


def test_a_wrong_type_is_named_with_what_was_found(copy_of_small_run: Path) -> None:
    set_leaf(copy_of_small_run, "train.timesteps", "many")
    set_leaf(copy_of_small_run, "train.clip", "five")
    fails(copy_of_small_run, "train", "train.timesteps", "found 'many'", "train.clip", "found 'five'")


def test_an_unknown_registry_name_is_answered_with_the_closest_one(copy_of_small_run: Path) -> None:
    set_leaf(copy_of_small_run, "features.feature_set", "core_v1_regim")
    fails(copy_of_small_run, "features", "core_v1_regim", "core_v1_regime")
    set_leaf(copy_of_small_run, "train.reward.version", "reward_1")
    fails(copy_of_small_run, "train", "reward_1", "reward_v1")


def test_an_end_before_the_start_is_refused(copy_of_small_run: Path) -> None:
    set_leaf(copy_of_small_run, "ingest.end", "1999-01-04")
    fails(copy_of_small_run, "ingest", "1999-01-04")


def test_an_unknown_symbol_is_named_with_its_dates(copy_of_small_run: Path) -> None:
    set_leaf(copy_of_small_run, "ingest.symbols", ["AAPL", "NOPE"])
    set_leaf(copy_of_small_run, "ingest.vendors", [{"name": "wiki", "domains": ["equity_ohlcv"]}])
    set_leaf(copy_of_small_run, "ingest.series", [])
    fails(copy_of_small_run, "ingest", "NOPE", "2001-01-02", "failures")


def test_a_corrupt_parquet_file_is_named(copy_of_small_run: Path) -> None:
    victim = next((copy_of_small_run / "data/canonical/equity_ohlcv").rglob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-50])
    fails(copy_of_small_run, "features", victim.name, "no readable Parquet file")


def test_a_missing_environment_variable_is_named_and_its_value_never_needed(copy_of_small_run: Path) -> None:
    polygon = yaml.safe_load((copy_of_small_run / "conf/ingest/polygon_equity_backfill.yaml").read_text())
    vendors = [entry for entry in polygon["vendors"] if "equity_ohlcv" in entry["domains"]][:1]
    vendors[0]["domains"] = ["equity_ohlcv"]
    set_leaf(copy_of_small_run, "ingest.vendors", vendors)
    set_leaf(copy_of_small_run, "ingest.series", [])
    fails(copy_of_small_run, "ingest", "POLYGON_API_KEY", environment={"POLYGON_API_KEY": ""})


def test_a_missing_input_says_which_stage_writes_it(copy_of_small_run: Path) -> None:
    import shutil

    shutil.rmtree(copy_of_small_run / "models")
    (copy_of_small_run / "models").mkdir()
    fails(copy_of_small_run, "eval", "policy.json")
