"""A risk officer's desk: a fresh clone with its own data root and signing key, driven by the commands that a user types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from quanto.stages.qualify.code import gate_digest
from quanto.stages.qualify.config import QualifyConfig

ROOT = Path(__file__).parents[2]


class Desk:
    """A clone with its own data root, signing key and environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clone = folder / "clone"
        self.root = folder / "root"
        self.environment = {
            **os.environ,
            "PYTHONPATH": "src",
            "QUANTO_DATA_ROOT": str(self.root),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.environment.pop("DVC_ROOT", None)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=self.clone, env=self.environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments).stdout.strip()

    def dvc(self, *arguments: str) -> None:
        self.run(sys.executable, "-m", "dvc", *arguments)

    def quanto(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        program = "import sys; from quanto.cli import main; main()"
        return self.run(sys.executable, "-c", program, *arguments, check=check)

    def connect(self) -> None:
        self.run(sys.executable, "-m", "quanto.runtime.checkout")

    def copy(self, folder: Path) -> Desk:
        shutil.copytree(self.folder, folder, symlinks=True)
        other = Desk(folder)
        other.connect()
        return other

    def verify(self, name: str) -> subprocess.CompletedProcess[str]:
        return self.quanto("verify", name, "--signers", str(self.folder / "signers"), check=False)


def prepare(folder: Path, experiment: str) -> Desk:
    desk = Desk(folder)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(desk.clone)], check=True)
    for key, value in {"user.name": "risk", "user.email": "risk@desk.example", "user.signingkey": str(folder / "key.pub")}.items():
        desk.git("config", key, value)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "risk", "-f", str(folder / "key")], check=True)
    (folder / "signers").write_text(f"risk@desk.example {(folder / 'key.pub').read_text()}")
    configuration = desk.clone / "conf/config.yaml"
    configuration.write_text(configuration.read_text().replace("experiment: core_v1_regime_ppo", f"experiment: {experiment}"))
    desk.connect()
    desk.quanto("params")
    return desk


def calibrated(desk: Desk) -> None:
    """Say that the gates of this test are calibrated: the operating characteristics themselves are tested elsewhere."""
    section = yaml.safe_load((desk.clone / "params.yaml").read_text())["qualify"]
    digest = gate_digest(QualifyConfig.model_validate_json(json.dumps(section)).thresholds)
    path = desk.clone / "reports/promotion/calibration.json"
    measured = {"false_promotion_pooled": {"candidate": 0.05, "production": 0.04}}
    path.write_text(json.dumps({**json.loads(path.read_text()), digest: measured}, indent=2, sort_keys=True) + "\n")
