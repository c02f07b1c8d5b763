"""`python -m quanto.runtime.checkout`: point this checkout's DVC cache at the data root (not committed: it is a path)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from quanto.core.store import data_root


def connect_cache(workspace: Path) -> None:
    """Set `cache.dir` of the checkout to `<data root>/dvc-cache`, so that it outlives the checkout and clones share it."""
    cache = data_root() / "dvc-cache"
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dvc", "config", "--local", "cache.dir", str(cache)]
    subprocess.run(command, cwd=workspace, check=True)  # noqa: S603  # our own interpreter, fixed arguments


if __name__ == "__main__":
    connect_cache(Path.cwd())
