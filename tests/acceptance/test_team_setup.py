"""docs/team.md, command by command: MLflow on PostgreSQL with artefacts in a bucket, two people's sweeps at once, nothing lost."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
import requests
from fakes.desk import Desk
from fakes.readme import fenced_blocks, script_of
from fakes.team import bucket, bucket_client, first_desk, free_port, further_desk
from mlflow import MlflowClient

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
BUCKET = "quanto-team"
START_SECONDS = 120
UNPRIVILEGED = "nobody"
PASSWORD = "of-a-database-on-loopback"  # of a server that lives as long as this test
SWEEPS = {"ann": (1, 2), "ben": (3, 4)}
MEMBERS = sum(len(seeds) for seeds in SWEEPS.values())


def block(heading: str) -> str:
    (found,) = fenced_blocks((ROOT / "docs/team.md").read_text(encoding="utf-8"), heading)
    return found


def shell(script: str, folder: Path, environment: Mapping[str, str], user: str | None = None) -> str:
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, user=user, capture_output=True, text=True, check=False,
        extra_groups=[] if user else None,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done.stdout


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """Run the documented database commands as an unprivileged user and yield the variables that name the database."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not binaries:
        pytest.skip("PostgreSQL is not installed (Debian package `postgresql`): there is no /usr/lib/postgresql/*/bin/initdb")
    user = UNPRIVILEGED if os.getuid() == 0 else None
    # Not pytest's folder: another user must reach it, and a socket's path may have 107 characters.
    home = Path(tempfile.mkdtemp(prefix="quanto-pg-"))
    if user:
        os.chown(home, pwd.getpwnam(user).pw_uid, -1)
    variables = {"SERVER_HOME": str(home), "PGPORT": str(free_port()), "PGPASSWORD": PASSWORD}
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(home), **variables}
    stop = f"{binaries[-1].parent}/pg_ctl --pgdata={home}/postgres --mode=immediate stop"
    try:
        shell(script_of(block("Database")), home, environment, user)
        yield variables
    finally:
        subprocess.run(["bash", "-c", stop], cwd=home, env=environment, user=user, capture_output=True, check=False)
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def tracking(variables: dict[str, str], folder: Path) -> Iterator[dict[str, str]]:
    """Run the documented tracking server and yield the variables that people need."""
    port = str(free_port())
    environment = {**os.environ, **variables, "MLFLOW_PORT": port, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / "mlflow.log").open("wb") as log:
        command = ["bash", "-c", f"exec {block('Tracking server').strip()}"]
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        uri = f"http://127.0.0.1:{port}"
        while not answers(uri):
            assert server.poll() is None, (folder / "mlflow.log").read_text()
            assert time.monotonic() < deadline, (folder / "mlflow.log").read_text()
            time.sleep(0.5)
        yield {"MLFLOW_TRACKING_URI": uri}
    finally:
        if server.poll() is None:
            os.killpg(server.pid, 15)
        server.wait()


def answers(uri: str) -> bool:
    try:
        return requests.get(f"{uri}/health", timeout=5).ok
    except requests.RequestException:
        return False


def do(desk: Desk, heading: str) -> str:
    return shell(script_of(block(heading)), desk.clone, {**desk.environment, "USER": desk.folder.name})


class Team:
    """Two people, their services, and what each was shown."""

    def __init__(self, ann: Desk, ben: Desk, variables: dict[str, str]) -> None:
        self.ann, self.ben, self.variables = ann, ben, variables

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.variables["MLFLOW_TRACKING_URI"])

    def runs(self, kind: str) -> list[object]:
        client = self.client
        experiments = [item.experiment_id for item in client.search_experiments()]
        return list(client.search_runs(experiments, filter_string=f"tags.`quanto.kind` = '{kind}'", max_results=1000))


def add_sweeps(desk: Desk) -> None:
    for person, seeds in SWEEPS.items():
        (desk.clone / f"conf/sweep/{person}.yaml").write_text(f"experiment: small\nseeds: {list(seeds)}\n")
    desk.git("add", "conf/sweep")
    desk.git("commit", "-q", "-m", "two sweeps")


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Two people who swept at the same time, then joined their ledgers by git: the second had sealed before he pulled."""
    folder = tmp_path_factory.mktemp("team")
    with postgres() as database, bucket(BUCKET) as storage, tracking(database | storage, folder) as server:
        variables = storage | server
        ann = first_desk(folder / "ann", variables)
        add_sweeps(ann)
        do(ann, "Storage")
        ben = further_desk(folder / "ben", variables)
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda desk: do(desk, "Sweep"), (ann, ben)))
        # Ben seals before he has Ann's trials: the awkward order.
        ben.quanto("ledger", "seal")
        ben.git("commit", "-q", "-m", "Ledger: mine", "--", "reports/ledger/snapshot.jsonl")
        do(ann, "Ledger")
        do(ben, "Two sealed at once")
        for desk in (ann, ben):
            do(desk, "Nothing is lost")
        yield Team(ann, ben, variables | database)


def trials(desk: Desk) -> set[str]:
    lines = (desk.clone / "reports/ledger/snapshot.jsonl").read_text().splitlines()
    return set(re.findall(r'"trial_id":\s*"([0-9a-f]{64})"', "\n".join(lines)))


def members(desk: Desk) -> list[str]:
    refs = desk.git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    return [ref.split("/")[-1] for ref in refs if ref.split("/")[-1].split("-")[0] in SWEEPS]


def test_every_member_of_both_sweeps_is_a_finished_run_with_its_seeds_and_artefacts(team: Team) -> None:
    runs = team.runs("experiment")
    assert len(runs) == MEMBERS
    assert len({run.data.tags["quanto.experiment_id"] for run in runs}) == MEMBERS
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(team.runs("seed")) == MEMBERS
    for run in runs:
        assert "evaluation.sharpe" in run.data.metrics
        names = {item.path for item in team.client.list_artifacts(run.info.run_id)}
        assert {"report.html", "models"} <= names


def test_runs_lie_in_postgresql_and_artefacts_in_the_bucket(team: Team) -> None:
    with psycopg2.connect(host="127.0.0.1", port=team.variables["PGPORT"], user="mlflow", password=PASSWORD, dbname="mlflow") as database:
        cursor = database.cursor()
        cursor.execute("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'")
        assert cursor.fetchone() == (2 * MEMBERS,)
    pages = bucket_client(team.variables).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="mlflow/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    assert sum(key.endswith("report.html") for key in keys) == MEMBERS


def test_the_joined_ledger_holds_the_trials_of_both_and_git_carries_it(team: Team) -> None:
    tracked = {run.data.tags["quanto.trial_id"] for run in team.runs("experiment")}
    assert len(tracked) == MEMBERS
    assert tracked <= trials(team.ben), "the later seal has all"
    assert trials(team.ann) == trials(team.ben), "the pull of the last block brought it"
    for desk in (team.ann, team.ben):
        live = (desk.root / "ledger/ledger.jsonl").read_text()
        assert all(trial in live for trial in tracked)


def test_a_ledger_that_lacks_a_trial_which_mlflow_shows_is_told_so(team: Team) -> None:
    live = team.ann.root / "ledger/ledger.jsonl"
    kept = live.read_bytes()
    (first, *_) = kept.splitlines(keepends=True)
    try:
        live.write_bytes(first)
        done = team.ann.quanto("ledger", "check", check=False)
    finally:
        live.write_bytes(kept)
    assert done.returncode == 1
    assert "stands in MLflow, and not in the ledger" in done.stdout + done.stderr


def test_one_person_takes_over_an_experiment_of_the_other(team: Team) -> None:
    name = next(item for item in members(team.ann) if item.startswith("ann-"))
    team.ben.dvc("exp", "pull", "origin", name)
    assert name in members(team.ben)
    commit = team.ben.git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}")
    verified = team.ben.quanto("verify", commit)
    assert "links hold" in verified.stdout
    synced = team.ben.quanto("mlflow", "sync", name, "--json")
    assert [item["written"] for item in json.loads(synced.stdout)] == [False], "it is in MLflow already, as the other left it"
