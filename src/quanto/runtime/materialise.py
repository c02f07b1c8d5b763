"""A revision's artefacts in a folder of their own, so that a verb can compute on them without touching the checkout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import quanto
from quanto.core.errors import GovernanceError, MissingDataError
from quanto.core.manifest import describe_inputs
from quanto.core.store import write_bytes
from quanto.runtime.git import Git
from quanto.runtime.revisions import Revision

EVALUATION_INPUTS = ("params.yaml", "data/canonical", "data/features", "models")
QUALIFICATION_INPUTS = ("params.yaml", "reports", "reports/evaluation/returns.parquet")
# The stages whose code stands between the vendors' bytes and an observation.
DATA_STAGES = ("canonical", "features")
SHADOW_INPUTS = (*EVALUATION_INPUTS, "reports/promotion/promotion_record.json")


@contextmanager
def materialised(revision: Revision, paths: Sequence[str], data: Revision | None = None) -> Iterator[Path]:
    """Yield a temporary folder that holds the given paths of a revision: from git, DVC's cache or remotes.

    Parameters
    ----------
    data
        Where what lies below data/ comes from, if not from the revision itself: newer sessions for an older policy.

    Raises
    ------
    MissingDataError
        If a path is neither committed nor in any cache or remote at hand.
    GovernanceError
        If the code of `data` made canonical data or features otherwise than that of the revision.
    """
    if data is not None:
        require_same_data_code(revision, data)
    with TemporaryDirectory(prefix="quanto-revision-") as name:
        folder = Path(name)
        for path in paths:
            _bring(data if data is not None and path.startswith("data/") else revision, path, folder / path)
        yield folder


def require_same_data_code(revision: Revision, data: Revision) -> None:
    """Refuse data that other code or other feature definitions made than those that the policy was trained and judged on.

    Raises
    ------
    GovernanceError
        Naming what differs.
    """
    own, other = revision.manifests(), data.manifests()
    absent = [
        f"{where.label} has no manifest of {stage}"
        for stage in DATA_STAGES
        for where, found in ((revision, own), (data, other))
        if stage not in found
    ]
    if absent:
        raise GovernanceError(f"{'; '.join(absent)}; run the pipeline there first")
    differing = [
        f"{stage}: {name}"
        for stage in DATA_STAGES
        for name in sorted({*own[stage].sources, *other[stage].sources})
        if own[stage].sources.get(name) != other[stage].sources.get(name)
    ]
    names = ("feature_set", "regime_feature_set", "symbols", "columns", "market_columns")
    differing += [f"features.{name}" for name in names if own["features"].config.get(name) != other["features"].config.get(name)]
    if differing:
        raise GovernanceError(
            f"the data of {data.label} were made otherwise than those {revision.label} was judged on ({', '.join(differing)}); "
            "make them with the code and the settings of that commit (git worktree add), changing only dates and ingest.as_of"
        )


def require_same_code(revision: Revision) -> None:
    """Refuse to run a policy with other code than the one that was judged: shadow and paper run what was evaluated.

    Raises
    ------
    GovernanceError
        Naming the folders whose code differs.
    """
    sources = revision.manifests()["shadow"].sources if "shadow" in revision.manifests() else {}
    if not sources:
        raise GovernanceError(f"{revision.label} has no manifest of its shadow stage; run the pipeline there first")
    checkout = Path(next(iter(quanto.__path__))).parents[1]
    present = describe_inputs(checkout, [name for name in sources if name.startswith("src/")])
    differing = [name for name, digest in present.items() if sources[name] != digest]
    if differing:
        raise GovernanceError(
            f"the code that runs differs from the code {revision.label} was judged with ({', '.join(differing)}); "
            + (
                f"run it from a checkout of that commit, e.g. `git worktree add ../judged {revision.commit}`"
                if revision.commit
                else "run `dvc repro` first, so that the workspace is judged with the code that it holds"
            )
        )


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
