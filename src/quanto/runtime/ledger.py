"""The trial ledger: every look at out-of-sample returns, hash-chained, outside any checkout; and its sealed snapshot.

The live ledger lies below the data root and is shared by all checkouts; `seal` copies it to
`reports/ledger/snapshot.jsonl`, which git tracks and qualify reads. Records are only ever appended:

- `trial`: the content of a `reports/evaluation/trial.json`, once per trial id and per returns digest;
- `look`: a command that showed returns of a holdout (trial id and verb);
- `merge`: the head of another machine's chain, whose trials were appended here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from quanto.core.chain import Link, append, chain_bytes, head, read_chain
from quanto.core.digest import JsonValue, digest_value
from quanto.core.errors import GovernanceError, IntegrityError, QuantoError
from quanto.core.store import data_root, write_bytes
from quanto.runtime.git import Git
from quanto.runtime.revisions import Revision

TRIAL = "reports/evaluation/trial.json"
SNAPSHOT = "reports/ledger/snapshot.jsonl"


@dataclass(frozen=True)
class Synced:
    """What a sync appended, and where the ledger stands."""

    appended: tuple[str, ...]
    records: int
    head: str


def ledger_path() -> Path:
    """Return the path of the live ledger."""
    return data_root() / "ledger" / "ledger.jsonl"


def read_ledger() -> tuple[Link, ...]:
    """Return the live ledger, checked; empty if there is none yet.

    Raises
    ------
    IntegrityError
        If the chain is broken; names the record.
    """
    path = ledger_path()
    return read_chain(path.read_bytes(), "the live ledger") if path.is_file() else ()


def sync(workspace: Path) -> Synced:
    """Append every trial that the workspace or any git reference shows and the ledger lacks.

    Trials of cached, restored and failed-later runs count: they are found by their committed trial.json, in every
    commit that any branch, tag or DVC experiment reaches. Safe for concurrent writers.

    Raises
    ------
    IntegrityError
        If the live ledger is broken, or contradicts the committed snapshot.
    """
    with _locked():
        chain = _joined(workspace, read_ledger())
        known = _identities(chain)
        appended: list[str] = []
        for body in found_trials(workspace):
            identity = trial_identity(body)
            if identity not in known:
                known.add(identity)
                chain = (*chain, append(chain, "trial", body))
                appended.append(str(body["trial_id"]))
        _write(chain)
    return Synced(tuple(appended), len(chain), head(chain))


def record_look(trial_id: str, verb: str) -> None:
    """Append that a command showed out-of-sample returns of a trial; the same look by the same verb counts once."""
    body: JsonValue = {"trial_id": trial_id, "verb": verb}
    with _locked():
        chain = read_ledger()
        if not any(link.kind == "look" and link.body == body for link in chain):
            _write((*chain, append(chain, "look", body)))


def look_at(revision: Revision, verb: str) -> None:
    """Record that a command showed the out-of-sample returns of a revision, where it has any."""
    body = revision.read_json(TRIAL) if revision.exists(TRIAL) else None
    if isinstance(body, dict) and isinstance(body.get("trial_id"), str):
        record_look(str(body["trial_id"]), verb)


def seal(workspace: Path) -> Synced:
    """Sync, check, and write the committed snapshot.

    Raises
    ------
    IntegrityError
        If the ledger lost or changed a record that git or MLflow still shows.
    """
    synced = sync(workspace)
    faults = ledger_faults(workspace)
    if faults:
        raise IntegrityError("; ".join(faults))
    write_bytes(workspace / SNAPSHOT, chain_bytes(read_ledger()))
    return synced


def ledger_faults(workspace: Path, tracked_trials: Iterable[str] = ()) -> list[str]:
    """Return a sentence for everything that the live ledger hides: a broken chain, lost heads, missing trials.

    Parameters
    ----------
    tracked_trials
        Trial ids that MLflow shows.
    """
    try:
        chain = read_ledger()
    except IntegrityError as error:
        return [str(error)]
    faults = [f"an earlier snapshot (commit {commit[:12]}) {why}" for commit, why in _lost_heads(workspace, chain)]
    known = _identities(chain)
    ids = {identity[0] for identity in known}
    digests = {identity[1] for identity in known}
    lost = [
        body["trial_id"]
        for body in found_trials(workspace)
        if trial_identity(body)[0] not in ids and trial_identity(body)[1] not in digests
    ]
    faults += [f"trial {trial} stands in git or the workspace, and not in the ledger" for trial in lost]
    faults += [f"trial {trial} stands in MLflow, and not in the ledger" for trial in sorted(set(tracked_trials) - ids)]
    return sorted(set(faults))


def found_trials(workspace: Path) -> Iterator[dict[str, JsonValue]]:
    """Yield each trial.json of the workspace and of every commit that changed one, oldest commit first."""
    git = Git(workspace)
    commits = git.text("rev-list", "--all", "--reverse", "--", TRIAL).split() if git.commit_of("HEAD") else []
    revisions = [Revision(workspace, commit, commit[:12]) for commit in commits] + [Revision(workspace, None, "workspace")]
    for revision in revisions:
        if not revision.exists(TRIAL):
            continue  # the commit deleted it
        try:
            value = revision.read_json(TRIAL)
        except QuantoError:
            value = None
        if isinstance(value, dict) and isinstance(value.get("trial_id"), str):
            yield value


def trial_identity(body: dict[str, JsonValue]) -> tuple[str, str]:
    """Return (trial id, digest of the daily returns): a trial is counted once by either."""
    return str(body["trial_id"]), digest_value(body.get("returns"))


def _identities(chain: Iterable[Link]) -> set[tuple[str, str]]:
    return {trial_identity(link.body) for link in chain if link.kind == "trial" and isinstance(link.body, dict)}


def _joined(workspace: Path, chain: tuple[Link, ...]) -> tuple[Link, ...]:
    """Return the live chain, continued by what the committed snapshot knows and it does not."""
    path = workspace / SNAPSHOT
    sealed = read_chain(path.read_bytes(), SNAPSHOT) if path.is_file() else ()
    if chain[: len(sealed)] == sealed:
        return chain
    if sealed[: len(chain)] == chain:
        return sealed  # a fresh data root: the snapshot is the ledger
    known = _identities(chain)
    if any(link.kind == "merge" and link.body == {"head": head(sealed)} for link in chain):
        return chain
    for link in sealed:
        if link.kind == "trial" and isinstance(link.body, dict) and trial_identity(link.body) not in known:
            chain = (*chain, append(chain, "trial", link.body))
    return (*chain, append(chain, "merge", {"head": head(sealed)}))


def _lost_heads(workspace: Path, chain: tuple[Link, ...]) -> Iterator[tuple[str, str]]:
    git = Git(workspace)
    if git.commit_of("HEAD") is None:
        return
    digests = {link.digest for link in chain}
    merged = {json.dumps(link.body) for link in chain if link.kind == "merge"}
    for commit in git.text("rev-list", "--all", "--", SNAPSHOT).split():
        if not git.has_file(commit, SNAPSHOT):
            continue
        try:
            sealed = read_chain(git.file(commit, SNAPSHOT), SNAPSHOT)
        except IntegrityError as error:
            yield commit, f"is broken: {error}"
            continue
        if sealed and head(sealed) not in digests and json.dumps({"head": head(sealed)}) not in merged:
            yield commit, f"ends with {head(sealed)[:12]}, which the live ledger does not hold: records were removed or changed"


def _write(chain: tuple[Link, ...]) -> None:
    write_bytes(ledger_path(), chain_bytes(chain))


def _locked() -> FileLock:
    path = ledger_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))


def require_sealed(workspace: Path, snapshot: bytes) -> str:
    """Return the head of a sealed snapshot after checking that the live ledger holds nothing that K should count beyond it.

    Raises
    ------
    GovernanceError
        If trials were recorded after the snapshot was sealed, or the live ledger is another one.
    """
    sync(workspace)
    chain, sealed = read_ledger(), read_chain(snapshot, SNAPSHOT)
    later = [link for link in chain[len(sealed) :] if link.kind != "look"]
    if chain[: len(sealed)] != sealed or later:
        raise GovernanceError(
            f"the sealed ledger ends with {head(sealed)[:12]}, and {len(later)} trials came after it. "
            "Run `quanto ledger seal` and `dvc repro`, and commit, so that the verdict counts them"
        )
    return head(sealed)
