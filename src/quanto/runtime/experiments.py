"""Experiments by name: an id or its prefix, a git revision or tag, or a DVC experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from quanto.core.config import read_yaml
from quanto.core.errors import ConfigError, MissingDataError, QuantoError, UnknownNameError
from quanto.core.registry import unknown_name
from quanto.runtime.composition import check_params, compose_params, spec_overrides
from quanto.runtime.dvc import run_dvc
from quanto.runtime.git import Git
from quanto.runtime.pipeline import manifest_path
from quanto.runtime.revisions import Revision

WORKSPACE = "workspace"
SPEC_FOLDER = Path("conf/experiment")
SHORTEST_PREFIX = 6


def experiment_refs(workspace: Path) -> dict[str, str]:
    """Return the DVC experiments of the repository: name to commit, in the order of their references."""
    text = Git(workspace).text("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps")
    refs = [line.split() for line in text.splitlines()]
    # refs/exps/<2>/<38>/<name>; stash and exec references are DVC's own.
    return {ref.split("/")[4]: commit for ref, commit in refs if len(ref.split("/")) == 5 and "exec" not in ref.split("/")}


def known_revisions(workspace: Path) -> Iterator[Revision]:
    """Yield every revision that may hold an evaluated experiment: workspace, experiments, branches, tags; each commit once."""
    yield Revision(workspace, None, WORKSPACE)
    seen: set[str] = set()
    git = Git(workspace)
    heads = git.text("for-each-ref", "--format=%(refname:short) %(objectname) %(*objectname)", "refs/heads", "refs/remotes", "refs/tags")
    named = list(experiment_refs(workspace).items()) + [(line.split()[0], line.split()[-1]) for line in heads.splitlines()]
    for label, commit in named:
        if commit not in seen and git.has_file(commit, manifest_path("eval")):
            seen.add(commit)
            yield Revision(workspace, commit, label)


def find_revision(workspace: Path, name: str) -> Revision:
    """Return the revision that `name` addresses: `workspace`, a DVC experiment, a git revision, or an experiment id prefix.

    Raises
    ------
    UnknownNameError
        If nothing carries the name, or an id prefix fits several experiments.
    """
    if name == WORKSPACE:
        return Revision(workspace, None, WORKSPACE)
    experiments = experiment_refs(workspace)
    if name in experiments:
        return Revision(workspace, experiments[name], name)
    by_id = _by_id(workspace, name)
    if by_id is not None:
        return by_id
    commit = Git(workspace).commit_of(name)
    if commit is None:
        raise UnknownNameError(unknown_name("experiment (id, DVC experiment, branch, tag or commit)", name, [WORKSPACE, *experiments]))
    return Revision(workspace, commit, name)


def _by_id(workspace: Path, prefix: str) -> Revision | None:
    if len(prefix) < SHORTEST_PREFIX or set(prefix) - set("0123456789abcdef"):
        return None
    fits: dict[str, Revision] = {}
    for revision in known_revisions(workspace):
        try:
            identity = revision.experiment_id()
        except QuantoError:
            continue  # a revision without a complete run has no id, so it cannot be the one that is asked for
        # A commit outlives the workspace: it replaces the workspace where both hold the experiment.
        if identity.startswith(prefix) and (identity not in fits or fits[identity].commit is None):
            fits[identity] = revision
    if len(fits) > 1:
        raise UnknownNameError(f"{prefix} is the beginning of {len(fits)} experiment ids: {', '.join(sorted(fits))}; give more digits")
    return next(iter(fits.values()), None)


def experiment_overrides(workspace: Path, spec: str, settings: Sequence[str] = ()) -> list[str]:
    """Return the Hydra overrides of an experiment: a name below conf/experiment, or a file with the keys of a spec.

    Raises
    ------
    ConfigError
        If there is no such experiment, the file has a key that no spec takes, or the composed sections have faults.
    """
    file = Path(spec)
    names = sorted(item.stem for item in (workspace / SPEC_FOLDER).glob("*.yaml"))
    inside = file.suffix in (".yaml", ".yml") and file.is_file() and file.resolve().parent == (workspace / SPEC_FOLDER).resolve()
    if spec in names or inside:
        overrides = [f"experiment={file.stem}"]
    elif file.suffix in (".yaml", ".yml"):
        overrides = spec_overrides(read_yaml(file))
    else:
        raise ConfigError(unknown_name("experiment of conf/experiment (or spec file *.yaml)", spec, names))
    overrides += settings
    check_params(compose_params(workspace, overrides))
    return overrides


def run_experiment(workspace: Path, overrides: Sequence[str], *, here: bool, name: str | None = None) -> Revision:
    """Run `dvc exp run` with the overrides and return the revision that holds the result.

    It runs in a temporary copy of the last commit, so that a failure leaves nothing behind; `here` runs it in the
    workspace, which then holds the result. DVC finds a name where none is given.

    Raises
    ------
    PipelineError
        If a stage fails; its message stands above.
    """
    before = experiment_refs(workspace)
    settings = [item for override in overrides for item in ("-S", override)]
    run_dvc(workspace, ["exp", "run", *([] if here else ["--temp"]), *(["--name", name] if name else []), *settings])
    after = experiment_refs(workspace)
    new = [name for name, commit in after.items() if before.get(name) != commit]
    if new:
        return Revision(workspace, after[new[-1]], new[-1])
    if here:
        return Revision(workspace, None, WORKSPACE)
    raise MissingDataError("dvc exp run left no new experiment; `dvc exp show` lists what there is (an equal one may exist already)")
