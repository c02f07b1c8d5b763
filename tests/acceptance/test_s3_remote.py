"""A run shared through S3-compatible storage: pushed, cloned, pulled, verified, and nothing left to run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
import yaml
from fakes.desk import Desk
from fakes.team import bucket, bucket_client, first_desk, further_desk

pytestmark = pytest.mark.acceptance

BUCKET = "quanto-remote"


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    with bucket(BUCKET) as found:
        yield found


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> Desk:
    desk = first_desk(tmp_path_factory.mktemp("remote") / "first", variables)
    desk.dvc("remote", "add", "--default", "desk", f"s3://{BUCKET}/dvc")
    desk.dvc("repro")
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "a run")
    desk.dvc("push")
    desk.git("push", "-q", "origin", "HEAD")
    return desk


def objects(variables: dict[str, str]) -> dict[str, int]:
    pages = bucket_client(variables).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}


def test_a_fresh_clone_pulls_verifies_and_has_nothing_to_run(pushed: Desk, variables: dict[str, str]) -> None:
    desk = further_desk(pushed.folder.parent / "second", variables)
    desk.dvc("pull")
    assert json.loads(desk.run(sys.executable, "-m", "dvc", "status", "--json").stdout) == {}
    assert "links hold" in desk.quanto("verify", "HEAD").stdout
    done = desk.run(sys.executable, "-m", "dvc", "repro")
    assert "Data and pipelines are up to date." in done.stdout + done.stderr
    assert "Running stage" not in done.stdout + done.stderr
    assert desk.git("status", "--porcelain") == ""
    assert yaml.safe_load((desk.clone / "dvc.lock").read_text()) == yaml.safe_load((pushed.clone / "dvc.lock").read_text())


def test_pushing_again_stores_nothing_new(pushed: Desk, variables: dict[str, str]) -> None:
    before = objects(variables)
    pushed.dvc("push")
    assert objects(variables) == before


def test_an_object_that_was_changed_in_the_bucket_does_not_pass_for_the_data(pushed: Desk, variables: dict[str, str]) -> None:
    weights = next((pushed.clone / "models").glob("policy-*.safetensors")).read_bytes()
    client = bucket_client(variables)
    keys = [key for key, size in objects(variables).items() if size == len(weights)]
    key = next(key for key in keys if client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == weights)
    client.put_object(Bucket=BUCKET, Key=key, Body=weights[:-1] + bytes([weights[-1] ^ 1]))
    try:
        desk = further_desk(pushed.folder.parent / "third", variables)
        desk.run(sys.executable, "-m", "dvc", "pull", check=False)
        verified = desk.quanto("verify", "HEAD", check=False)
        assert verified.returncode == 1
        assert any("BROKEN" in line and "models" in line for line in verified.stdout.splitlines()), verified.stdout
    finally:
        client.put_object(Bucket=BUCKET, Key=key, Body=weights)


def test_without_the_storage_a_clone_runs_everything_itself(pushed: Desk) -> None:
    closed = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_MAX_ATTEMPTS": "1"}
    desk = further_desk(pushed.folder.parent / "offline", closed)
    assert desk.run(sys.executable, "-m", "dvc", "pull", check=False).returncode != 0
    assert desk.quanto("verify", "HEAD", check=False).returncode != 0
    desk.dvc("repro")
    assert yaml.safe_load((desk.clone / "dvc.lock").read_text()) == yaml.safe_load((pushed.clone / "dvc.lock").read_text())
