from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from quanto.runtime.pipeline import STAGES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_each_dependency_and_output_once(stage: str) -> None:
    section = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    listed = [
        next(iter(item)) if isinstance(item, dict) else item
        for kind in ("deps", "outs", "metrics", "plots")
        for item in section.get(kind, [])
    ]
    assert sorted(listed) == sorted(set(listed))
