"""The README's lines that read and show, as they are written, on a small finished run; the whole walk is an acceptance test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.readme import fenced_blocks, script_of

from quanto.cli.registry import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [line for block in fenced_blocks(README, "The first hour") for line in block.splitlines()]
READING = (
    "quanto doctor",
    "quanto ingest --dry-run",
    "quanto report",
    "dvc metrics show",
    "dvc plots show",
    "quanto compare workspace HEAD",
)
# Verbs that no line of the walk runs, and where they run instead.
ELSEWHERE = {
    "audit-leakage": "tests/stages/features",
    "calibrate-gates": "half an hour; its committed result is checked by the gates that refuse an uncalibrated verdict",
    "completion": "tests/cli",
    "risk": "tests/execution",
    "run-paper": "tests/stages/shadow, against a broker on loopback",
    "stress": "tests/stages/shadow",
    "ui": "a server until it is stopped",
}


def test_every_verb_of_the_workflow_is_run_by_a_line_of_the_readme() -> None:
    run = {line.split()[1] for line in LINES if line.startswith("quanto ")}
    assert set(COMMANDS) - run == set(ELSEWHERE)


@pytest.mark.slow
def test_the_lines_that_show_something_run_as_they_are_written(copy_of_small_run: Path, tmp_path: Path) -> None:
    lines = [line for line in LINES if line.startswith(READING)]
    assert {next(start for start in READING if line.startswith(start)) for line in lines} == set(READING)
    shutil.copytree(ROOT / ".dvc/plots", copy_of_small_run / ".dvc/plots")
    shutil.copy(ROOT / ".dvc/config", copy_of_small_run / ".dvc/config")
    shutil.copy(ROOT / ".gitignore", copy_of_small_run / ".gitignore")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("QUANTO_", "DVC_", "MLFLOW_", "GIT_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "src",
        "QUANTO_DATA_ROOT": str(tmp_path / "root"),
    }
    commit = "git init -q . && git add --all && git -c user.name=a -c user.email=a@b.example commit -q -m small"
    done = subprocess.run(
        ["bash", "-c", script_of("\n".join([commit, *lines]))],
        cwd=copy_of_small_run,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert (copy_of_small_run / "reports/html/comparison.html").is_file()
    assert (copy_of_small_run / "dvc_plots/index.html").is_file()
