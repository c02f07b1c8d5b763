"""MLflow is filled from files: once, readably, and to be filled again from nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.finished import edit_json, write_finished
from mlflow.tracking import MlflowClient

from quanto.core.digest import canonical_json, digest_bytes
from quanto.core.errors import MissingDataError
from quanto.runtime.after import mirror, promoted_tiers, sync_all, sync_revision
from quanto.runtime.git import Git
from quanto.runtime.promotion import REVOCATION
from quanto.runtime.revisions import Revision
from quanto.runtime.tracking import MODEL, mirror_promotions, open_client, tracked_trials


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MlflowClient, str]]:
    """One database for the file (its migrations take seconds); each test fills it with an experiment of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTO_DATA_ROOT", str(tmp_path_factory.mktemp("root")))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield open_client()


def finished(folder: Path, seed: int, name: str = "tiny") -> Revision:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return Revision(write_finished(folder, name=name, seed=seed), None, "workspace")


def test_a_run_says_what_it_is_and_holds_what_a_reviewer_needs(store: tuple[MlflowClient, str], tmp_path: Path) -> None:
    client, experiment = store
    revision = finished(tmp_path, seed=11)
    done = sync_revision(revision)
    run = client.get_run(done.run_id)
    assert run.info.run_name == f"tiny {revision.experiment_id()[:8]}"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["evaluation.sharpe"] == 0.5
    assert run.data.params["train.seed"] == "11"
    assert run.data.tags["quanto.experiment_id"] == revision.experiment_id()
    assert run.data.tags["quanto.verdict.production"] == "reject"
    assert "tier candidate: promote" in run.data.tags["mlflow.note.content"]
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"raw", "canonical", "features"}
    assert "report.html" in {item.path for item in client.list_artifacts(done.run_id)}
    assert "promotion/qualification_report.json" in {item.path for item in client.list_artifacts(done.run_id, "promotion")}
    assert [item.path for item in client.list_artifacts(done.run_id, "models")] == ["models/policy.json"]
    assert "77" * 32 in tracked_trials()
    seeds = client.search_runs([experiment], filter_string=f"tags.`mlflow.parentRunId` = '{done.run_id}'")
    assert sorted(item.info.run_name for item in seeds) == ["tiny seed 0", "tiny seed 1"]
    first = next(item for item in seeds if item.data.tags["quanto.seed"] == "0")
    curve = client.get_metric_history(first.info.run_id, "growth")
    assert [(point.step, point.value) for point in curve] == [(100, 0.1), (200, 0.2)]
    assert len(client.get_metric_history(first.info.run_id, "validation_growth")) == 1, "a step without a value is no point"


def test_syncing_twice_changes_nothing_and_a_changed_verdict_is_written(store: tuple[MlflowClient, str], tmp_path: Path) -> None:
    client, experiment = store
    revision = finished(tmp_path, seed=12)
    first = sync_revision(revision)
    runs = len(client.search_runs([experiment]))
    again = sync_revision(revision)
    assert (again.written, again.run_id) == (False, first.run_id)
    verdicts = {"research": "promote", "candidate": "reject", "production": "reject"}
    edit_json(tmp_path / "reports/promotion/promotion_record.json", verdicts=verdicts)
    changed = sync_revision(revision)
    assert (changed.written, changed.run_id) == (True, first.run_id)
    assert client.get_run(first.run_id).data.tags["quanto.verdict.candidate"] == "reject"
    assert len(client.search_runs([experiment])) == runs


def test_an_experiment_that_several_revisions_hold_is_synced_once(store: tuple[MlflowClient, str], tmp_path: Path) -> None:
    revision = finished(tmp_path / "one", seed=13)
    twin = Revision(revision.workspace, None, "twin")
    (tmp_path / "empty").mkdir()
    nothing = Revision(tmp_path / "empty", None, "nothing")
    done = sync_all([revision, twin, nothing])
    assert [item.label for item, _ in done] == ["twin"]
    assert not sync_all([revision, twin, nothing])[0][1].written


def test_a_commit_replaces_the_dirty_workspace_it_came_from_and_is_then_left_alone(store: tuple[MlflowClient, str], tmp_path: Path) -> None:
    client, _ = store
    workspace = finished(tmp_path, seed=18)
    run = sync_revision(workspace).run_id
    assert client.get_run(run).data.tags["quanto.dirty"] == "true"
    git = Git(tmp_path)
    git.run("add", "-A")
    git.run("-c", "user.name=Test", "-c", "user.email=test@example.org", "commit", "-q", "-m", "run")
    commit = Revision(tmp_path, git.commit_of("HEAD"), "HEAD")
    assert sync_revision(commit).written
    assert client.get_run(run).data.tags["quanto.dirty"] == "false"
    assert not sync_revision(workspace).written, "the same experiment from another place is no change"
    assert not sync_revision(commit).written


def test_a_sync_that_was_killed_between_seeds_is_finished_by_the_next(store: tuple[MlflowClient, str], tmp_path: Path) -> None:
    client, experiment = store
    revision = finished(tmp_path, seed=14)
    done = sync_revision(revision)
    query = f"tags.`mlflow.parentRunId` = '{done.run_id}'"
    half = client.search_runs([experiment], filter_string=query)[0]
    client.update_run(half.info.run_id, status="RUNNING")
    client.set_tag(done.run_id, "quanto.content", "killed")
    assert sync_revision(revision).written
    seeds = client.search_runs([experiment], filter_string=query)
    assert [item.info.status for item in seeds] == ["FINISHED", "FINISHED"]
    assert half.info.run_id not in {item.info.run_id for item in seeds}


def test_aliases_of_the_registered_model_mirror_the_promotions(store: tuple[MlflowClient, str], tmp_path: Path) -> None:
    client, _ = store
    first, second = finished(tmp_path / "a", seed=15), finished(tmp_path / "b", seed=16)
    sync_all([first, second])
    one, two = first.experiment_id(), second.experiment_id()
    made = mirror_promotions({"research": one, "candidate": one})
    assert mirror_promotions({"research": one, "candidate": one}) == made
    moved = mirror_promotions({"research": two})
    assert client.get_registered_model(MODEL).aliases == {"research": int(moved["research"])}
    assert client.get_model_version_by_alias(MODEL, "research").tags["quanto.experiment_id"] == two
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 2
    mirror_promotions({})
    assert client.get_registered_model(MODEL).aliases == {}


def test_the_tags_of_the_repository_decide_the_aliases_and_a_revoked_one_does_not_count(
    store: tuple[MlflowClient, str], tmp_path: Path
) -> None:
    client, _ = store
    revision = finished(tmp_path, seed=17)
    git = Git(tmp_path)
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    git.run("add", "-A")
    git.run(*identity, "commit", "-q", "-m", "run")
    for name in ("policy#research#1", "policy#candidate#2"):
        git.run(*identity, "tag", "-a", "-m", name, name)
    assert mirror(tmp_path) == promoted_tiers(tmp_path) == {tier: revision.experiment_id() for tier in ("research", "candidate")}
    assert set(client.get_registered_model(MODEL).aliases) == {"research", "candidate"}
    statement = {"predicateType": REVOCATION, "subject": [{"digest": {"sha256": digest_bytes(b"policy#candidate#2")}}]}
    git.run(*identity, "tag", "-a", "-m", canonical_json(statement).decode(), "policy#revoked#3")
    assert set(mirror(tmp_path)) == {"research"}
    assert set(client.get_registered_model(MODEL).aliases) == {"research"}


def test_a_promotion_of_an_experiment_that_mlflow_does_not_hold_names_the_remedy(store: tuple[MlflowClient, str]) -> None:
    with pytest.raises(MissingDataError, match="quanto mlflow sync abcabcabcabc"):
        mirror_promotions({"candidate": "abc" * 21 + "a"})


def test_two_desks_that_create_the_experiment_at_once_use_the_same_one(
    store: tuple[MlflowClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find, asked = MlflowClient.get_experiment_by_name, []

    def blind_at_first(self: MlflowClient, name: str) -> object:
        asked.append(name)
        return None if len(asked) == 1 else find(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", blind_at_first)
    _, identity = open_client()
    assert identity == store[1]
    assert len(asked) == 2
