"""A small seeded market through all eight stages, once a session, each stage in a process of its own as DVC runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from quanto.runtime.composition import check_params, compose_params, write_params
from quanto.runtime.pipeline import STAGES

ROOT = Path(__file__).parents[2]
SMALL = (
    "experiment=planted_edge",
    "symbols=[AAA,BBB,CCC]",
    "start_date='2001-01-02'",
    "end_date='2004-12-31'",
    "split.train_start='2001-06-01'",
    "split.train_end='2002-12-31'",
    "split.test_start='2003-01-02'",
    "policy_params.timesteps=2048",
    "train.seeds=[0,1]",
    "eval.bootstrap_draws=100",
    "eval.stress=[lagged_signals]",
    "qualify.thresholds.bootstrap_draws=100",
)


def make_workspace(folder: Path, overrides: tuple[str, ...] = SMALL) -> Path:
    """Return a folder that looks like a checkout: configuration, graph, sources, committed reports."""
    for name in ("conf", "reports/ledger", "reports/champion"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("dvc.yaml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "reports/promotion").mkdir()
    shutil.copy(ROOT / "reports/promotion/calibration.json", folder / "reports/promotion/calibration.json")
    (folder / "src").symlink_to(ROOT / "src")
    params = compose_params(folder, list(overrides))
    check_params(params)
    write_params(folder, params)
    return folder


def run(workspace: Path, stage: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one stage as DVC does; the data root lies beside the workspace unless the environment names one."""
    variables = {
        **os.environ,
        "PYTHONPATH": "src",
        "QUANTO_DATA_ROOT": str(workspace.parent / "root"),
        "QUANTO_WORKERS": "2",
        **(environment or {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "quanto", stage], cwd=workspace, env=variables, capture_output=True, text=True, check=False
    )


def run_all(workspace: Path, environment: Mapping[str, str] | None = None, stages: tuple[str, ...] = STAGES) -> None:
    for stage in stages:
        done = run(workspace, stage, environment)
        assert done.returncode == 0, f"{stage}: {done.stderr}"


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("small") / "checkout"
    workspace.mkdir()
    make_workspace(workspace)
    run_all(workspace)
    return workspace


@pytest.fixture
def copy_of_small_run(small_run: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    workspace = tmp_path / "checkout"
    shutil.copytree(small_run, workspace, symlinks=True)
    return workspace
