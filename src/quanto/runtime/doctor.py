"""What could stop a run on this machine, each finding with its remedy."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml

from quanto.core.errors import QuantoError
from quanto.core.store import data_root
from quanto.market.calendar import LAST
from quanto.runtime.git import Git

FREE_BYTES = 5 * 2**30
PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a remedy where it is not as it should be."""

    topic: str
    found: str
    remedy: str | None = None


def examine(workspace: Path) -> Iterator[Finding]:
    """Yield the findings on versions, data root, credentials (presence only), DVC, MLflow, calendar and disk."""
    yield _python()
    yield _packages(workspace / "requirements.lock")
    yield from _storage()
    yield from _credentials(workspace / "conf")
    yield _params(workspace)
    yield from _dvc(workspace)
    yield _mlflow()
    yield _signing(workspace)
    left = (LAST - date.today()).days  # noqa: DTZ011  # a hint for a person; it enters nothing
    yield Finding("calendar", f"sessions are fixed to {LAST}", None if left > 366 else "move LAST in quanto.market.calendar")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", version, None if sys.version_info[:2] == PYTHON else "install Python 3.11 and run `make setup`")


def _packages(lock: Path) -> Finding:
    if not lock.is_file():
        return Finding("packages", f"there is no {lock.name} in {lock.parent}", "run inside a checkout, or name one with --repo")
    pins = [line.split("==") for line in lock.read_text().splitlines() if "==" in line and not line.startswith("#")]
    wrong: list[str] = []
    for name, version in pins:
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found != version:
            wrong.append(f"{name} {found} (pinned {version})")
    return Finding(
        "packages", f"{len(pins)} pins, {len(wrong)} differ: {', '.join(wrong[:5])}".rstrip(": "), "run `make setup`" if wrong else None
    )


def _storage() -> Iterator[Finding]:
    root = data_root()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    writable = os.access(existing, os.W_OK)
    yield Finding("data root", str(root), None if writable else f"make {existing} writable or set QUANTO_DATA_ROOT")
    free = shutil.disk_usage(existing).free
    yield Finding("disk", f"{free / 2**30:.1f} GiB free", None if free > FREE_BYTES else "free at least 5 GiB or move QUANTO_DATA_ROOT")


def _credentials(conf: Path) -> Iterator[Finding]:
    names: set[str] = set()
    for path in sorted(conf.rglob("*.yaml")):
        names |= set(_environment_names(yaml.safe_load(path.read_text(encoding="utf-8"))))
    for name in sorted(names):
        present = bool(os.environ.get(name))
        yield Finding(
            "credentials", f"{name} is {'set' if present else 'not set'}", None if present else f"export {name}=... if you use that vendor"
        )


def _environment_names(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and key.endswith("_env") and isinstance(item, str):
                yield item
            else:
                yield from _environment_names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _environment_names(item)


def _params(workspace: Path) -> Finding:
    from quanto.runtime.composition import compose_params, params_text  # noqa: PLC0415  # hydra, for this finding alone

    try:
        same = (workspace / "params.yaml").read_text(encoding="utf-8") == params_text(compose_params(workspace))
    except (QuantoError, OSError) as error:
        return Finding("params.yaml", str(error), "mend conf/ and run `make params`")
    return Finding(
        "params.yaml", "equals conf/" if same else "differs from conf/", None if same else "run `make params` (dvc repro never composes)"
    )


def _dvc(workspace: Path) -> Iterator[Finding]:
    local = workspace / ".dvc" / "config.local"
    set_up = local.is_file() and "dir" in local.read_text(encoding="utf-8")
    yield Finding("dvc cache", "below the data root" if set_up else "inside the checkout", None if set_up else "run `make setup`")
    remote = "[remote" in "".join(path.read_text() for path in (workspace / ".dvc" / "config", local) if path.is_file())
    yield Finding(
        "dvc remote",
        "configured" if remote else "none",
        None if remote else "`dvc remote add -d NAME s3://...` if others should fetch the data",
    )


def _mlflow() -> Finding:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return Finding("mlflow", f"server {uri.split('@')[-1]}")
    made = (data_root() / "mlflow" / "mlflow.db").is_file()
    return Finding(
        "mlflow",
        "sqlite below the data root" if made else "no database yet",
        None if made else "`make repro` or `quanto mlflow sync` makes it",
    )


def _signing(workspace: Path) -> Finding:
    key = Git(workspace).attempt("config", "user.signingkey").stdout.decode().strip()
    return Finding(
        "signing",
        "a key is configured" if key else "no key",
        None if key else "`git config user.signingkey ~/.ssh/id_ed25519.pub` before promoting",
    )
