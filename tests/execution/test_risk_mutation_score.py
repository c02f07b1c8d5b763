"""The mutation score of the risk module: how many of cosmic-ray's mutants the tests of the risk checks kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from quanto.core.store import write_json

ROOT = Path(__file__).parents[2]
MODULES = ("limits", "measures", "risk")
GOAL = 0.9
# Operators whose mutants say nothing: types written with `|`, masks joined by `&`, powers and shifts of prices, identity
# of numbers.
EXCLUDED = (
    "core/ReplaceBinaryOperator_Bit(Or|And)_.*",
    "core/ReplaceBinaryOperator_.*_(FloorDiv|Mod|Pow|RShift|LShift|BitOr|BitAnd|BitXor)",
    "core/ReplaceComparisonOperator_.*_(Is|IsNot|In|NotIn)",
)
CONFIG = """
[cosmic-ray]
module-path = [{modules}]
timeout = 120.0
excluded-modules = []
test-command = "fork_mutants.py runs tests/execution/test_risk_checks.py"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [{excluded}]
"""
PYTEST = "[pytest]\naddopts = -q --import-mode=importlib -p no:cacheprovider\npythonpath = src . tests\n"


def prepare(place: Path) -> None:
    """Copy what the tests of the risk checks need: cosmic-ray changes sources where they stand."""
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (place / "tests/execution").mkdir(parents=True)
    (place / "tests/fakes").mkdir()
    shutil.copy(ROOT / "tests/execution/test_risk_checks.py", place / "tests/execution")
    shutil.copy(ROOT / "tests/fakes/risk_policies.py", place / "tests/fakes")
    shutil.copy(ROOT / "tests/fakes/fork_mutants.py", place)
    (place / "pytest.ini").write_text(PYTEST)
    modules = ", ".join(f'"src/quanto/execution/{name}.py"' for name in MODULES)
    excluded = ", ".join(f'"{pattern}"' for pattern in EXCLUDED)
    (place / "mutation.toml").write_text(CONFIG.format(modules=modules, excluded=excluded))


def run(place: Path, *arguments: str) -> str:
    environment = {**os.environ, "QUANTO_EXAMPLES": "20", "OMP_NUM_THREADS": "1"}
    tool = Path(sys.executable).parent / arguments[0]
    done = subprocess.run([str(tool), *arguments[1:]], cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def mutation_score(place: Path) -> dict[str, Any]:
    """Try every mutant that a session at `place` has not tried yet, and return the score."""
    if not (place / "session.sqlite").exists():  # a run that was cut off goes on
        prepare(place)
        run(place, "cosmic-ray", "init", "mutation.toml", "session.sqlite")
        run(place, "cr-filter-operators", "session.sqlite", "mutation.toml")
    run(place, "python", "fork_mutants.py", "session.sqlite")
    return score_of(place)


def score_of(place: Path) -> dict[str, Any]:
    """Return the share of mutants killed, in all and per module, and where the others are."""
    outcomes: Counter[tuple[str, str]] = Counter()
    survivors = []
    for line in run(place, "cosmic-ray", "dump", "session.sqlite").splitlines():
        work, result = json.loads(line)
        if result is None or result["worker_outcome"] == "skipped":
            continue
        mutation = work["mutations"][0]
        module = Path(mutation["module_path"]).stem
        outcomes[module, result["test_outcome"]] += 1
        if result["test_outcome"] == "survived":
            row, column = mutation["start_pos"]
            source = (place / mutation["module_path"]).read_text().splitlines()[row - 1]
            where = {"module": module, "line": row, "column": column, "source": source.strip()}
            survivors.append({**where, "operator": mutation["operator_name"].removeprefix("core/"), "occurrence": mutation["occurrence"]})
    total, killed = sum(outcomes.values()), sum(count for (_, outcome), count in outcomes.items() if outcome == "killed")
    return {
        "tool": "cosmic-ray",
        "mutants": total,
        "killed": killed,
        "score": killed / total,
        "modules": {name: {outcome: count for (module, outcome), count in sorted(outcomes.items()) if module == name} for name in MODULES},
        "survivors": sorted(
            survivors, key=lambda item: (item["module"], item["line"], item["column"], item["operator"], item["occurrence"])
        ),
    }


@pytest.mark.acceptance
def test_mutating_the_risk_module_makes_a_test_fail(tmp_path: Path) -> None:
    score = mutation_score(tmp_path / "copy")
    write_json(Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "risk_mutation_score.json", score)
    assert score["mutants"] > 500
    assert score["score"] >= GOAL, score["survivors"]


if __name__ == "__main__":
    write_json(Path(sys.argv[2]), mutation_score(Path(sys.argv[1])))
