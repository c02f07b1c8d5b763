"""dvc.yaml as data: which stages there are, in order, and what each declares to read and to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quanto.core.config import read_yaml
from quanto.core.errors import ConfigError

STAGES = ("ingest", "canonical", "features", "train", "eval", "qualify", "promote", "shadow")
SOURCE_PREFIX = "src/"
LOCK_FILE = "requirements.lock"


@dataclass(frozen=True)
class Declared:
    """What dvc.yaml says of one stage: paths relative to the workspace, sorted."""

    stage: str
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    private: tuple[str, ...] = ()  # outputs that a licence forbids to push

    @property
    def manifest(self) -> str:
        """The path of the stage's manifest."""
        return manifest_path(self.stage)


def manifest_path(stage: str) -> str:
    """Return the path of a stage's manifest, relative to the workspace."""
    return f"reports/manifests/{stage}.json"


def declared(workspace: Path, stage: str) -> Declared:
    """Return what `dvc.yaml` declares for a stage; the manifest itself is no output of the manifest.

    Raises
    ------
    ConfigError
        If dvc.yaml has no such stage.
    """
    graph = read_yaml(workspace / "dvc.yaml").get("stages")
    return declared_in(graph if isinstance(graph, Mapping) else {}, stage)


def declared_in(graph: Mapping[str, Any], stage: str) -> Declared:
    """Return what the `stages` mapping of a dvc.yaml declares for a stage; raises ConfigError if it has no such stage."""
    if stage not in graph:
        raise ConfigError(f"dvc.yaml has no stage {stage!r}; it needs all of {', '.join(STAGES)}")
    section = graph[stage]
    deps = sorted(section.get("deps", []))
    outs = [item for kind in ("outs", "metrics", "plots") for item in section.get(kind, [])]
    is_source = {dep: dep.startswith(SOURCE_PREFIX) or dep == LOCK_FILE for dep in deps}
    return Declared(
        stage=stage,
        inputs=tuple(dep for dep in deps if not is_source[dep]),
        sources=tuple(dep for dep in deps if is_source[dep]),
        outputs=tuple(sorted(_path(out) for out in outs if _path(out) != manifest_path(stage))),
        private=tuple(sorted(_path(out) for out in outs if isinstance(out, Mapping) and out[_path(out)].get("push") is False)),
    )


def _path(item: object) -> str:
    return str(next(iter(item))) if isinstance(item, Mapping) else str(item)
