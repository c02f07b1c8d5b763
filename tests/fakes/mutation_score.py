"""The mutation score of modules by cosmic-ray: how many changes to their code some test notices, and where the others are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
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
test-command = "mutate_in_forks.py runs {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [{excluded}]
"""
PYTEST = """[pytest]
addopts = -q --import-mode=importlib -p no:cacheprovider
pythonpath = src . tests
markers =
    slow: more than ten seconds
    acceptance: long evidence
"""


@dataclass(frozen=True)
class Subject:
    """What is mutated and who must notice: dotted modules, test files (the quickest killers first), and what may be loaded before."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    preload: tuple[str, ...]
    examples: int = 20
    # (module, part of the source line, start of the operator): why such a mutant cannot be told from the original.
    equivalents: tuple[tuple[str, str, str, str], ...] = ()

    def why_equivalent(self, module: str, source: str, operator: str) -> str | None:
        """Return why a surviving mutant says nothing, or None if it does."""
        fits = (
            why for name, part, start, why in self.equivalents if name in ("", module) and part in source and operator.startswith(start)
        )
        return next(fits, None)


def mutation_score(place: Path, subject: Subject) -> dict[str, Any]:
    """Return the share of mutants killed, in all and per module, and where the others are."""
    if not (place / "session.sqlite").exists():  # a run that was cut off goes on
        _prepare(place, subject)
        _run(place, subject, "cosmic-ray", "init", "mutation.toml", "session.sqlite")
        _run(place, subject, "cr-filter-operators", "session.sqlite", "mutation.toml")
    for path in map(_path, subject.modules):  # a run that was killed leaves its mutant behind
        shutil.copy(place / "pristine" / path, place / path)
    _run(place, subject, "python", "mutate_in_forks.py", "session.sqlite", "subject.json")
    outcomes: Counter[tuple[str, str]] = Counter()
    survivors: list[dict[str, Any]] = []
    equivalents: list[dict[str, Any]] = []
    for line in _run(place, subject, "cosmic-ray", "dump", "session.sqlite").splitlines():
        work, result = json.loads(line)
        if result["worker_outcome"] == "skipped":
            continue
        mutation = work["mutations"][0]
        module = Path(mutation["module_path"]).stem
        outcomes[module, result["test_outcome"]] += 1
        if result["test_outcome"] == "survived":
            row, column = mutation["start_pos"]
            source = (place / mutation["module_path"]).read_text().splitlines()[row - 1].strip()
            operator = mutation["operator_name"].removeprefix("core/")
            why = subject.why_equivalent(module, source, operator)
            found = {"module": module, "line": row, "column": column, "source": source, "operator": operator}
            (survivors if why is None else equivalents).append(found if why is None else {**found, "equivalent": why})
    total, killed = sum(outcomes.values()), sum(count for (_, outcome), count in outcomes.items() if outcome == "killed")
    names = [name.rsplit(".", 1)[1] for name in subject.modules]
    return {
        "tool": "cosmic-ray",
        "mutants": total,
        "killed": killed,
        "score_of_all": round(killed / total, 4),
        "score": round(killed / (total - len(equivalents)), 4),
        "modules": {name: {outcome: count for (module, outcome), count in sorted(outcomes.items()) if module == name} for name in names},
        "survivors": sorted(survivors, key=_place),
        "equivalents": sorted(equivalents, key=_place),
    }


def _place(item: dict[str, Any]) -> tuple[str, int, int, str]:
    return item["module"], item["line"], item["column"], item["operator"]


def _path(module: str) -> Path:
    return Path("src", *module.split(".")).with_suffix(".py")


def _prepare(place: Path, subject: Subject) -> None:
    """Copy sources and tests: cosmic-ray changes sources where they stand."""
    for folder in ("src", "conf", "tests/fakes", "tests/golden"):
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in subject.tests:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place / name)
    for path in map(_path, subject.modules):
        (place / "pristine" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, place / "pristine" / path)
    shutil.copy(Path(__file__).with_name("mutate_in_forks.py"), place)
    (place / "pytest.ini").write_text(PYTEST)
    (place / "subject.json").write_text(json.dumps(asdict(subject)))
    modules = ", ".join(f'"{_path(name)}"' for name in subject.modules)
    excluded = ", ".join(f'"{pattern}"' for pattern in EXCLUDED)
    (place / "mutation.toml").write_text(CONFIG.format(modules=modules, tests=" ".join(subject.tests), excluded=excluded))


def _run(place: Path, subject: Subject, *arguments: str) -> str:
    # One numba cache for all forks: what is compiled once is read by the others.
    numba = str(place / "numba")
    environment = {**os.environ, "QUANTO_EXAMPLES": str(subject.examples), "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": numba}
    tool = Path(sys.executable).parent / arguments[0]
    done = subprocess.run([str(tool), *arguments[1:]], cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
