"""The ledger against real git repositories in temporary folders."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
from pathlib import Path
from typing import Any

import pytest

from quanto.core.chain import append, chain_bytes, head, read_chain
from quanto.core.errors import GovernanceError, IntegrityError
from quanto.core.store import write_bytes, write_json
from quanto.runtime import ledger


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def trial(name: str, returns: list[float] | None = None) -> dict[str, Any]:
    return {"trial_id": name, "sessions": ["2007-01-03"], "returns": returns or [len(name) / 100]}


def commit_trial(folder: Path, body: dict[str, Any], *, branch: str | None = None) -> str:
    if branch:
        git(folder, "checkout", "-q", "-B", branch)
    write_json(folder / ledger.TRIAL, body)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "trial")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    git(folder, "init", "-q", "-b", "main")
    return folder


def ids() -> list[str]:
    return [str(link.body["trial_id"]) for link in ledger.read_ledger() if link.kind == "trial" and isinstance(link.body, dict)]


def test_trials_of_every_reference_and_of_replaced_commits_are_found(repository: Path) -> None:
    commit_trial(repository, trial("a"))
    commit_trial(repository, trial("bb"))
    side = commit_trial(repository, trial("ccc"), branch="side")
    git(repository, "checkout", "-q", "main")
    git(repository, "update-ref", "refs/exps/aa/bbbb/fuzzy-name", side)
    git(repository, "branch", "-q", "-D", "side")
    write_json(repository / ledger.TRIAL, trial("dddd"))
    assert sorted(ledger.sync(repository).appended) == ["a", "bb", "ccc", "dddd"]
    assert ledger.sync(repository).appended == ()


def test_a_trial_is_counted_once_by_id_and_again_when_its_returns_differ(repository: Path) -> None:
    write_json(repository / ledger.TRIAL, trial("a", [0.1]))
    ledger.sync(repository)
    write_json(repository / ledger.TRIAL, trial("a", [0.2]))
    assert ledger.sync(repository).appended == ("a",)


def test_the_seal_is_a_copy_of_the_chain_and_later_trials_break_it(repository: Path) -> None:
    commit_trial(repository, trial("a"))
    ledger.seal(repository)
    snapshot = (repository / ledger.SNAPSHOT).read_bytes()
    assert ledger.require_sealed(repository, snapshot) == read_chain(snapshot, "s")[-1].digest
    ledger.record_look("a", "report")
    ledger.require_sealed(repository, snapshot)  # a look is no trial
    write_json(repository / ledger.TRIAL, trial("bb"))
    with pytest.raises(GovernanceError, match="1 trials came after"):
        ledger.require_sealed(repository, snapshot)


def test_a_look_by_the_same_verb_is_recorded_once(repository: Path) -> None:
    for _ in range(3):
        ledger.record_look("a", "report")
    ledger.record_look("a", "shadow")
    assert len(ledger.read_ledger()) == 2


def test_a_cut_ledger_is_found_by_the_heads_of_earlier_snapshots(repository: Path) -> None:
    for name in ("a", "bb"):
        commit_trial(repository, trial(name))
        ledger.seal(repository)
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "seal")
    lines = ledger.ledger_path().read_bytes().splitlines(keepends=True)
    ledger.ledger_path().write_bytes(lines[0])
    faults = " ".join(ledger.ledger_faults(repository))
    assert "records were removed or changed" in faults
    assert "trial bb stands in git" in faults


def test_an_edited_ledger_is_found_by_its_chain(repository: Path) -> None:
    commit_trial(repository, trial("a"))
    ledger.sync(repository)
    path = ledger.ledger_path()
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))
    assert "was edited" in ledger.ledger_faults(repository)[0]
    with pytest.raises(IntegrityError):
        ledger.sync(repository)


def test_a_trial_that_only_mlflow_shows_is_named(repository: Path) -> None:
    commit_trial(repository, trial("a"))
    ledger.sync(repository)
    assert ledger.ledger_faults(repository, ["a", "hidden"]) == ["trial hidden stands in MLflow, and not in the ledger"]


def test_a_fresh_data_root_continues_the_committed_snapshot(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_trial(repository, trial("a"))
    head = ledger.seal(repository).head
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "other"))
    assert ledger.sync(repository).head == head


def test_two_machines_merge_and_no_trial_is_lost(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_trial(repository, trial("a"))
    ledger.seal(repository)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "seal")
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "other"))
    (tmp_path / "other/ledger").mkdir(parents=True)
    snapshot = (repository / ledger.SNAPSHOT).read_bytes()
    (repository / ledger.SNAPSHOT).unlink()
    write_json(repository / ledger.TRIAL, trial("zz"))
    ledger.record_look("zz", "shadow")  # the other machine's chain begins differently
    (repository / ledger.SNAPSHOT).write_bytes(snapshot)
    ledger.sync(repository)
    assert sorted(ids()) == ["a", "zz"]
    assert ledger.ledger_faults(repository) == []


def test_a_seal_that_another_machine_joined_into_its_chain_is_no_lost_one(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_trial(repository, trial("a"))
    ledger.seal(repository)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "common ground")
    base = git(repository, "rev-parse", "HEAD")
    desks = {name: tmp_path / name for name in ("ann", "ben")}
    for name, folder in desks.items():  # both go on from the same snapshot, seal, and commit on a branch of their own
        git(tmp_path, "clone", "-q", str(repository), str(folder))
        git(folder, "checkout", "-q", "-b", name, base)
        monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / f"root-{name}"))
        write_json(folder / ledger.TRIAL, trial(f"of-{name}"))
        ledger.seal(folder)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", f"seal of {name}")
    git(desks["ben"], "fetch", "-q", str(desks["ann"]), "ann:ann")  # Ben joins Ann's, seals again, and Ann takes the result
    (desks["ben"] / ledger.SNAPSHOT).write_bytes((desks["ann"] / ledger.SNAPSHOT).read_bytes())
    ledger.seal(desks["ben"])
    git(desks["ben"], "commit", "-q", "-a", "-m", "joined")
    git(desks["ann"], "fetch", "-q", str(desks["ben"]), "ben:ben")
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root-ann"))
    (desks["ann"] / ledger.SNAPSHOT).write_bytes((desks["ben"] / ledger.SNAPSHOT).read_bytes())
    ledger.sync(desks["ann"])
    assert set(ids()) == {"a", "of-ann", "of-ben"}
    assert ledger.ledger_faults(desks["ann"]) == [], "Ben's first seal is within the chain that Ann joined"
    lines = ledger.ledger_path().read_bytes().splitlines(keepends=True)
    ledger.ledger_path().write_bytes(b"".join(lines[:-1]))
    assert "records were removed or changed" in " ".join(ledger.ledger_faults(desks["ann"]))


def append_trials(repository: str, first: int) -> None:
    for index in range(first, first + 5):
        folder = Path(repository).parent / f"work-{index}"
        (folder / "reports/evaluation").mkdir(parents=True)
        git(folder, "init", "-q")
        (folder / ledger.TRIAL).write_text(json.dumps(trial(f"t{index}")))
        ledger.sync(folder)


def test_concurrent_writers_lose_nothing(repository: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_trials, args=(str(repository), first)) for first in (0, 100, 200)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(ids()) == len(set(ids())) == 15


def other_desk(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seal a ledger with a trial and an opening on another desk, commit it, and come back with an own trial."""
    commit_trial(repository, trial("a"))
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "other"))
    ledger.sync(repository)
    ledger.record_opening("p" * 64, "a", "2012-07-02", "2012-12-31")
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "found_trials", lambda _: iter([trial("a"), trial("elsewhere")]))
        ledger.sync(repository)
        write_bytes(repository / ledger.SNAPSHOT, chain_bytes(ledger.read_ledger()))
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "sealed elsewhere")
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    ledger.record_look("a", "report")


def test_joining_another_desk_brings_its_trials_and_its_openings(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_desk(repository, tmp_path, monkeypatch)
    ledger.sync(repository)
    assert set(ids()) == {"a", "elsewhere"}
    assert ledger.opened_blocks() == [("p" * 64, "2012-07-02", "2012-12-31")]
    assert ledger.ledger_faults(repository) == []


def test_a_merge_that_was_only_claimed_is_found(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_desk(repository, tmp_path, monkeypatch)
    sealed = read_chain((repository / ledger.SNAPSHOT).read_bytes(), "sealed")
    chain = ledger.read_ledger()
    chain = (*chain, append(chain, "trial", trial("a")))
    write_bytes(ledger.ledger_path(), chain_bytes((*chain, append(chain, "merge", {"head": head(sealed)}))))
    (fault,) = ledger.ledger_faults(repository)
    assert "is said to be merged, and trial elsewhere of it is not in the live ledger" in fault
