"""The README's first hour, line by line, in a fresh clone: default run, sweep, comparison, promotion, second clone, revocation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fakes import team
from fakes.readme import fenced_blocks, script_of

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
BUCKET = "quanto-desk"
LOOK, TRY, DECIDE, SHARE, REVOKE = range(5)


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    found = fenced_blocks((ROOT / "README.md").read_text(encoding="utf-8"), "The first hour")
    assert len(found) == REVOKE + 1
    return found


def make_desk(folder: Path) -> None:
    """Write a home with a signing key, a bare origin, and a clone of it, as a new user has them."""
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "risk", "-f", str(home / ".ssh/id_ed25519")], check=True)
    (home / ".gitconfig").write_text("[user]\n\tname = risk\n\temail = risk@desk.example\n")
    subprocess.run(["git", "clone", "-q", "--bare", str(ROOT), str(folder / "origin.git")], check=True)
    subprocess.run(["git", "clone", "-q", str(folder / "origin.git"), str(folder / "first")], check=True)


def walk(desk: Path, block: str, place: str = "first", **variables: str) -> str:
    """Run a block of the README in a clone, without a data root of its own, and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("QUANTO_", "DVC_", "MLFLOW_", "GIT_", "AWS_"))}
    environment |= {
        "HOME": str(desk / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "src",  # the clone's own sources, wherever the packages of this environment were installed from
        **variables,
    }
    done = subprocess.run(["bash", "-c", script_of(block)], cwd=desk / place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, blocks: list[str]) -> Path:
    """Return a desk that has walked through the default run, the sweep and the comparison."""
    desk = tmp_path_factory.mktemp("readme") / "desk"
    desk.mkdir()
    make_desk(desk)
    (desk / "looked.txt").write_text(walk(desk, blocks[LOOK]))
    (desk / "tried.txt").write_text(walk(desk, blocks[TRY]))
    return desk


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    with team.bucket(BUCKET) as variables:
        yield variables


def copy_of(desk: Path, folder: Path) -> Path:
    shutil.copytree(desk, folder, symlinks=True)
    subprocess.run(["git", "remote", "set-url", "origin", str(folder / "origin.git")], cwd=folder / "first", check=True)
    walk(folder, "make setup")
    return folder


def test_the_default_run_says_where_to_look(tried: Path) -> None:
    text = (tried / "looked.txt").read_text()
    pages = re.findall(r"^report: (\S+)$", text, re.MULTILINE)
    assert pages
    assert all((tried / "first" / page).is_file() for page in pages)
    assert re.search(r"tier candidate: \w+", text)
    assert (tried / "first/dvc_plots/index.html").is_file()


def test_the_sweep_and_the_comparison_show_every_experiment(tried: Path) -> None:
    text = (tried / "tried.txt").read_text()
    assert "sharpe of 4 experiments:" in text
    assert len(re.findall(r"^  reward_and_cash-[0-9a-f]{8} +done", text, re.MULTILINE)) == 4
    assert "two-seeds" in text
    assert "train.seeds" in text
    assert (tried / "first/reports/html/comparison.html").is_file()


@pytest.mark.parametrize("remote", ["folder", "s3"])
def test_the_promoted_policy_is_verified_from_a_second_clone_until_it_is_revoked(
    remote: str, tried: Path, blocks: list[str], bucket: dict[str, str], tmp_path: Path
) -> None:
    desk = copy_of(tried, tmp_path / "desk")
    variables = bucket if remote == "s3" else {}
    decide = blocks[DECIDE].replace("../storage", f"s3://{BUCKET}/store") if remote == "s3" else blocks[DECIDE]
    assert "links hold" in walk(desk, decide, **variables)
    ledger = (desk / "first/reports/ledger/snapshot.jsonl").read_text().splitlines()
    trials = [json.loads(line) for line in ledger]
    assert len([item for item in trials if "trial_id" in json.dumps(item)]) >= 5, "the default run, the sweep and two seeds count"
    shared = walk(desk, blocks[SHARE], **variables)
    assert "params.yaml equals the composition of conf/" in shared
    assert "links hold" in shared
    assert "shadow complete" in shared
    second = yaml.safe_load((desk / "second/dvc.lock").read_text())
    assert second == yaml.safe_load((desk / "first/dvc.lock").read_text())
    assert "revoked" in walk(desk, blocks[REVOKE], **variables)
