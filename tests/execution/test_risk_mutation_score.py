"""The mutation score of the risk module: how many of cosmic-ray's mutants the tests of the risk checks kill."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fakes.mutation_score import Subject, mutation_score

from quanto.core.store import write_json

RISK = Subject(
    modules=("quanto.execution.limits", "quanto.execution.measures", "quanto.execution.risk"),
    tests=("tests/execution/test_risk_checks.py",),
    preload=("hypothesis.extra.numpy", "numpy", "yaml"),
)


@pytest.mark.acceptance
def test_mutating_the_risk_module_makes_a_test_fail(tmp_path: Path) -> None:
    score = mutation_score(tmp_path / "copy", RISK)
    write_json(Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "risk_mutation_score.json", score)
    assert score["mutants"] > 500
    assert score["score"] >= 0.9, score["survivors"]


if __name__ == "__main__":
    write_json(Path(sys.argv[2]), mutation_score(Path(sys.argv[1]), RISK))
