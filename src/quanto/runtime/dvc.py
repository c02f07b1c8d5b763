"""DVC as a command: the only way in which a verb changes a tracked path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from quanto.core.errors import QuantoError
from quanto.runtime.processor import QUIET


class PipelineError(QuantoError, RuntimeError):
    """DVC or a stage that it ran ended with an error; its own message stands above."""


def run_dvc(workspace: Path, arguments: Sequence[str]) -> None:
    """Run `dvc <arguments>` with its output passed through.

    Raises
    ------
    PipelineError
        If it ends with another exit code than 0.
    """
    done = subprocess.run(dvc_command(arguments), cwd=workspace, env=dvc_environment(), check=False)  # noqa: S603  # no shell
    if done.returncode:
        raise PipelineError(f"`dvc {' '.join(arguments)}` ended with exit code {done.returncode}; the message above says why")


def dvc_output(workspace: Path, arguments: Sequence[str]) -> str:
    """Return what `dvc <arguments>` prints; raises PipelineError with its message if it fails."""
    done = subprocess.run(dvc_command(arguments), cwd=workspace, env=dvc_environment(), capture_output=True, text=True, check=False)  # noqa: S603  # no shell
    if done.returncode:
        raise PipelineError(f"`dvc {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout


def dvc_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs DVC with this interpreter."""
    return [sys.executable, "-m", "dvc", *arguments]


def dvc_environment() -> dict[str, str]:
    """Return the environment for DVC: `python` in a stage's command is this interpreter, and nothing calls home."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, **QUIET, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
