from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from quanto.core.manifest import differences, manifest_from, outputs_digest
from quanto.core.store import read_json
from quanto.runtime.pipeline import STAGES, declared, manifest_path
from quanto.runtime.revisions import Revision
from tests.pipeline.conftest import make_workspace, run, run_all

pytestmark = pytest.mark.slow


def manifests(workspace: Path) -> dict[str, object]:
    return {stage: read_json(workspace / manifest_path(stage)) for stage in STAGES}


def test_every_stage_writes_what_dvc_yaml_declares_and_a_manifest(small_run: Path) -> None:
    for stage in STAGES:
        plan = declared(small_run, stage)
        assert all((small_run / output).exists() for output in (*plan.outputs, plan.manifest)), stage


def test_what_a_stage_read_is_what_the_stage_before_wrote(small_run: Path) -> None:
    found = {stage: manifest_from(value) for stage, value in manifests(small_run).items()}
    joins = [
        (found["canonical"], "data/raw", found["ingest"]),
        (found["train"], "data/features", found["features"]),
        (found["eval"], "models", found["train"]),
    ]
    for consumer, path, producer in joins:
        assert consumer.inputs[path] == outputs_digest(producer, path)


def test_manifests_hold_no_time_host_user_or_absolute_path(small_run: Path) -> None:
    for stage in STAGES:
        text = (small_run / manifest_path(stage)).read_text()
        assert str(small_run) not in text
        assert "/tmp" not in text  # the point of the test


def test_a_twin_in_another_environment_writes_the_same_bytes(small_run: Path, tmp_path: Path) -> None:
    twin = tmp_path / "elsewhere"
    twin.mkdir()
    make_workspace(twin)
    run_all(
        twin, {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7", "QUANTO_WORKERS": "1", "QUANTO_DATA_ROOT": str(tmp_path / "other")}
    )
    for stage, value in manifests(small_run).items():
        assert differences(manifest_from(value), manifest_from(manifests(twin)[stage])) == []


def test_the_experiment_id_ignores_names_and_runtime_and_follows_settings(small_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_run, copy, symlinks=True)
    params = yaml.safe_load((copy / "params.yaml").read_text())
    (copy / "params.yaml").write_text(yaml.safe_dump({**params, "name": "another", "runtime": {"workers": 1, "scheduler": None}}))
    assert run(copy, "promote").returncode == 0
    assert Revision(copy, None, "copy").experiment_id() == Revision(small_run, None, "small").experiment_id()
    manifest = json.loads((copy / manifest_path("train")).read_text())
    manifest["config"]["seeds"] = [5]
    (copy / manifest_path("train")).write_text(json.dumps(manifest))
    assert Revision(copy, None, "copy").experiment_id() != Revision(small_run, None, "small").experiment_id()


def test_an_input_that_changes_while_its_stage_runs_makes_it_fail(copy_of_small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quanto.core.errors import IntegrityError
    from quanto.runtime import frame
    from quanto.stages.promote import stage as promote

    original = promote.run

    def meddle(config: object, workspace: Path, executor: object) -> None:
        original(config, workspace, executor)  # type: ignore[arg-type]  # passed through
        (workspace / "reports/evaluation/metrics.json").write_text("{}")

    monkeypatch.setattr(promote, "run", meddle)
    before = (copy_of_small_run / manifest_path("promote")).read_text()
    with pytest.raises(IntegrityError, match=r"reports/evaluation/metrics\.json changed while the stage ran"):
        frame.run_stage("promote", copy_of_small_run)
    assert (copy_of_small_run / manifest_path("promote")).read_text() == before
