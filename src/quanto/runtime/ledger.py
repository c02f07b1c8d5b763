"""The trial ledger: every look at out-of-sample returns, hash-chained, outside any checkout; and its sealed snapshot.

The live ledger lies below the data root and is shared by all checkouts; `seal` copies it to
`reports/ledger/snapshot.jsonl`, which git tracks and qualify reads. Records are only ever appended:

- `trial`: the content of a `reports/evaluation/trial.json`, once per trial id and per returns digest;
- `look`: a command that showed returns of a holdout (trial id and verb);
- `opening`: a policy is about to see a sealed block; written before anything is computed on it. What it saw is a `trial`;
- `merge`: the head of another machine's chain, whose trials were appended here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
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
SEALED = "reports/promotion/sealed"


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


def record_opening(policy: str, trial_id: str, first: str, last: str) -> None:
    """Append that a policy opens the sealed sessions from first to last (ISO dates); once, before it sees them."""
    body: JsonValue = {"policy": policy, "trial_id": trial_id, "first_session": first, "last_session": last}
    with _locked():
        chain = read_ledger()
        if not any(link.kind == "opening" and link.body == body for link in chain):
            _write((*chain, append(chain, "opening", body)))


def record_opened(record: Mapping[str, JsonValue]) -> None:
    """Append what an opening showed as a trial on the sealed sessions: whoever tests on them later counts it."""
    body = record["trial"]
    if not isinstance(body, dict):
        raise IntegrityError("an opening record holds no trial; open the block again")
    with _locked():
        chain = read_ledger()
        if trial_identity(body) not in _identities(chain):
            _write((*chain, append(chain, "trial", body)))


def opened_blocks() -> list[tuple[str, str, str]]:
    """Return (policy, first session, last session) of every opening that the live ledger holds."""
    bodies = [link.body for link in read_ledger() if link.kind == "opening" and isinstance(link.body, dict)]
    return [(str(body["policy"]), str(body["first_session"]), str(body["last_session"])) for body in bodies]


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
    """Yield each trial.json of the workspace and of every commit that changed one, oldest first; then what sealed blocks showed."""
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
    for record in opening_records(workspace):
        if isinstance(record["trial"], dict):
            yield record["trial"]


def opening_records(workspace: Path) -> Iterator[dict[str, JsonValue]]:
    """Yield the opening records of sealed blocks in the workspace and in every commit.

    Raises
    ------
    IntegrityError
        If one is no such record.
    """
    git = Git(workspace)
    commits = git.text("rev-list", "--all", "--reverse", "--", SEALED).split() if git.commit_of("HEAD") else []
    names = [(commit, git.text("ls-tree", "-r", "--name-only", commit, "--", SEALED).splitlines()) for commit in commits]
    contents = {(commit[:12], name): git.file(commit, name) for commit, found in names for name in found}
    folder = workspace / SEALED
    contents |= {("workspace", path.name): path.read_bytes() for path in sorted(folder.glob("*.json"))}
    seen: set[bytes] = set()
    for (where, name), content in contents.items():
        if content in seen:
            continue
        seen.add(content)
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not {"policy", "first_session", "last_session", "trial"} <= set(value):
            raise IntegrityError(f"{name} ({where}) is no opening record of a sealed block; restore it from git")
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
    said = {digest_value({"kind": link.kind, "body": link.body}) for link in chain}
    for link in sealed:
        new_trial = link.kind == "trial" and isinstance(link.body, dict) and trial_identity(link.body) not in known
        new_look = link.kind in ("look", "opening") and digest_value({"kind": link.kind, "body": link.body}) not in said
        if new_trial or new_look:
            chain = (*chain, append(chain, link.kind, link.body))
    return (*chain, append(chain, "merge", {"head": head(sealed)}))


def _lost_heads(workspace: Path, chain: tuple[Link, ...]) -> Iterator[tuple[str, str]]:
    git = Git(workspace)
    if git.commit_of("HEAD") is None:
        return
    sealed: dict[str, tuple[Link, ...]] = {}
    for commit in git.text("rev-list", "--all", "--", SNAPSHOT).split():
        if not git.has_file(commit, SNAPSHOT):
            continue
        try:
            sealed[commit] = read_chain(git.file(commit, SNAPSHOT), SNAPSHOT)
        except IntegrityError as error:
            yield commit, f"is broken: {error}"
    held, known = _covered(chain), _identities(chain)
    for commit, links in sealed.items():
        # Whoever writes that another chain was merged must hold what that chain held.
        absent = [body["trial_id"] for body in map(_trial_body, links) if body and trial_identity(body) not in known]
        if absent and head(links) in held:
            yield commit, f"is said to be merged, and trial {absent[0]} of it is not in the live ledger"
    # A merge names the head of another chain: what that chain held, and what it had merged itself, came with it.
    while reached := [commit for commit, links in sealed.items() if not links or head(links) in held]:
        for commit in reached:
            held |= _covered(sealed.pop(commit))
    for commit, links in sealed.items():
        yield commit, f"ends with {head(links)[:12]}, which the live ledger does not hold: records were removed or changed"


def _trial_body(link: Link) -> dict[str, JsonValue]:
    return link.body if link.kind == "trial" and isinstance(link.body, dict) else {}


def _covered(chain: tuple[Link, ...]) -> set[str]:
    merged = {str(link.body["head"]) for link in chain if link.kind == "merge" and isinstance(link.body, dict)}
    return {link.digest for link in chain} | merged


def _write(chain: tuple[Link, ...]) -> None:
    write_bytes(ledger_path(), chain_bytes(chain))


def _locked() -> FileLock:
    path = ledger_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))


def require_sealed(workspace: Path, snapshot: bytes, policy: object = None) -> str:
    """Return the head of a sealed snapshot after checking that the live ledger holds nothing that K should count beyond it.

    The opening of its sealed block by `policy` itself is no look at the sessions that its K is about.

    Raises
    ------
    GovernanceError
        If trials were recorded after the snapshot was sealed, or the live ledger is another one.
    """
    sync(workspace)
    chain, sealed = read_ledger(), read_chain(snapshot, SNAPSHOT)
    later = [link for link in chain[len(sealed) :] if link.kind != "look" and not _own_opening(link, policy)]
    if chain[: len(sealed)] != sealed or later:
        raise GovernanceError(
            f"the sealed ledger ends with {head(sealed)[:12]}, and {len(later)} trials came after it. "
            "Run `quanto ledger seal` and `dvc repro`, and commit, so that the verdict counts them"
        )
    return head(sealed)


def _own_opening(link: Link, policy: object) -> bool:
    body = link.body if isinstance(link.body, dict) else {}
    return policy is not None and body.get("policy") == policy and (link.kind == "opening" or body.get("sealed") is True)
