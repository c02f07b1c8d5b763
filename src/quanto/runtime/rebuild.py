"""Running a revision's pipeline again in a temporary clone, and comparing manifests stage by stage."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from quanto.core.errors import MissingDataError, UnknownNameError
from quanto.core.manifest import Manifest, differences
from quanto.core.store import data_root
from quanto.runtime.dvc import PipelineError, dvc_command, dvc_environment
from quanto.runtime.git import Git
from quanto.runtime.pipeline import STAGES
from quanto.runtime.revisions import Revision


def rebuild(workspace: Path, name: str) -> dict[str, str]:
    """Return for each stage `reproduced`, or what changed first; nothing in the workspace is touched.

    The clone has its own, empty DVC cache, so that every stage really runs; it shares the landing store, so that
    vendors are not asked again.

    Raises
    ------
    UnknownNameError
        If the name is no revision.
    PipelineError
        If a stage fails in the clone.
    """
    commit = Git(workspace).commit_of(name)
    if commit is None:
        raise UnknownNameError(f"{name} is no tag, branch or commit of this repository")
    with tempfile.TemporaryDirectory(prefix="quanto-rebuild-") as folder:
        clone = Path(folder) / "clone"
        Git(workspace).run("clone", "--quiet", "--no-checkout", str(workspace), str(clone))
        Git(clone).run("checkout", "--quiet", "--detach", commit)
        root = Path(folder) / "data-root"
        root.mkdir()
        landing = data_root() / "landing"
        if landing.is_dir():
            shutil.copytree(landing, root / "landing")
        environment = {**dvc_environment(), "QUANTO_DATA_ROOT": str(root)}
        environment.pop("DVC_ROOT", None)
        before = Revision(clone, commit, name).manifests()
        done = subprocess.run(  # noqa: S603  # no shell
            dvc_command(["repro", "--force", "--no-commit"]), cwd=clone, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PipelineError(f"the rebuild of {name} failed: {done.stderr.strip()[-2000:]}")
        after = Revision(clone, None, "rebuild").manifests()
        original = Revision(workspace, commit, name)
        return {stage: _outcome(before.get(stage), after.get(stage), original, clone) for stage in STAGES}


def _outcome(before: Manifest | None, after: Manifest | None, original: Revision, clone: Path) -> str:
    if before is None or after is None:
        return "changed: there is no manifest to compare"
    found = differences(before, after)
    if not found:
        return "reproduced"
    first = next((name for name, item in sorted(before.outputs.items()) if name in after.outputs and after.outputs[name] != item), None)
    where = "" if first is None else f"; {_first_byte(first, original, clone)}"
    return f"changed: {found[0]} ({len(found)} differences){where}"


def _first_byte(name: str, original: Revision, clone: Path) -> str:
    """Return where a rebuilt file first differs from the original, as committed or as DVC's cache holds it."""
    try:
        old = original.read(name) if original.exists(name) else original.open_tracked(name)
    except MissingDataError:
        return f"{name} differs; the original is in no cache or remote at hand, so the byte is not known"
    new = (clone / name).read_bytes()
    common = min(len(old), len(new))
    differs = np.flatnonzero(np.frombuffer(old, np.uint8, common) != np.frombuffer(new, np.uint8, common))
    return f"{name} first differs at byte {int(differs[0]) if len(differs) else common}"
