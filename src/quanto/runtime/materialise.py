"""A revision's artefacts in a folder of their own, so that a verb can compute on them without touching the checkout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from quanto.core.errors import MissingDataError
from quanto.core.store import write_bytes
from quanto.runtime.git import Git
from quanto.runtime.revisions import Revision

EVALUATION_INPUTS = ("params.yaml", "data/canonical", "data/features", "models")
QUALIFICATION_INPUTS = ("params.yaml", "reports", "reports/evaluation/returns.parquet")
SHADOW_INPUTS = (*EVALUATION_INPUTS, "reports/promotion/promotion_record.json")


@contextmanager
def materialised(revision: Revision, paths: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder that holds the given paths of a revision: from git, DVC's cache or remotes.

    Raises
    ------
    MissingDataError
        If a path is neither committed nor in any cache or remote at hand.
    """
    with TemporaryDirectory(prefix="quanto-revision-") as name:
        folder = Path(name)
        for path in paths:
            _bring(revision, path, folder / path)
        yield folder


def _bring(revision: Revision, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if revision.commit is None:
        source = revision.workspace / path
        if not source.exists():
            raise MissingDataError(f"the workspace has no {path}; run `dvc repro`")
        if source.is_dir():
            _link_tree(source, target)
        elif not target.exists():
            target.symlink_to(source)
        return
    git = Git(revision.workspace)
    names = [name for name in git.text("ls-tree", "-r", "-z", "--name-only", revision.commit, "--", path).split("\0") if name]
    for name in names:
        write_bytes(target.parent / Path(name).relative_to(Path(path).parent), git.file(revision.commit, name))
    if not names:
        _fetch(revision, path, target)


def _link_tree(source: Path, target: Path) -> None:
    for item in source.rglob("*"):
        if item.is_file():
            link = target / item.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(item)


def _fetch(revision: Revision, path: str, target: Path) -> None:
    from dvc.api import DVCFileSystem  # noqa: PLC0415  # a second of import that most commands do not need
    from dvc.exceptions import DvcException  # noqa: PLC0415  # as above

    try:
        files = DVCFileSystem(str(revision.workspace), rev=revision.commit)
        files.get(path, str(target), recursive=files.isdir(path))
    except (DvcException, OSError) as error:
        raise MissingDataError(f"{path} of {revision.label} is in no cache or remote at hand ({error}); try `dvc fetch`") from error
