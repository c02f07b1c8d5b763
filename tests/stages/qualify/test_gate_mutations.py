"""The mutation score of the gates, by mutmut: of the changes that it makes to their code, at least 90 % fail a test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.evaluation import ROOT

GATE_FILES = ("hard", "regime", "inferiority", "edge", "gate", "verdict", "evidence")
TESTS = (
    "tests/contracts/test_gate_registry.py",
    "tests/contracts/test_gate_lines.py",
    "tests/stages/qualify/test_verdicts.py",
)
SETTINGS = """
[tool.pytest.ini_options]
addopts = "-q -x --import-mode=importlib -p no:cacheprovider"
pythonpath = ["src", ".", "tests"]
markers = ["slow: more than ten seconds", "acceptance: long evidence"]

[tool.mutmut]
source_paths = ["src/quanto"]
only_mutate = [{files}]
also_copy = ["conf"]
pytest_add_cli_args_test_selection = [{tests}]
use_git_change_detection = false
use_setproctitle = false
"""


def quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


@pytest.mark.acceptance
def test_nine_of_ten_changes_to_the_gates_fail_a_test(tmp_path: Path) -> None:
    for folder in ("src", "conf", "tests/fakes", "tests/golden"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in TESTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    files = quoted([f"src/quanto/stages/qualify/{name}.py" for name in GATE_FILES])
    (tmp_path / "pyproject.toml").write_text(SETTINGS.format(files=files, tests=quoted(list(TESTS))))
    mutmut = Path(sys.executable).with_name("mutmut")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    subprocess.run([mutmut, "run", "--max-children", "2"], cwd=tmp_path, env=environment, check=False, stdout=subprocess.DEVNULL)
    lines = subprocess.run(
        [mutmut, "results", "--all", "true"], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r"^\s*(\S+__mutmut_\d+): (.+)$", lines, re.MULTILINE)
    survived = sorted(name for name, state in found if state in ("survived", "suspicious"))
    killed = sum(state in ("killed", "timeout") for _, state in found)
    score = killed / (killed + len(survived))
    report = "\n".join([f"mutmut: {killed} killed, {len(survived)} survived, score {score:.1%}", *survived])
    (tmp_path / "mutations.txt").write_text(report + "\n")
    assert score >= 0.9, report
