"""The default pipeline on this machine's processes, on a two-worker Dask cluster and on `local-cluster`: one dvc.lock, kills included."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from distributed import Client
from fakes.desk import ROOT, Desk, prepare
from fakes.readme import fenced_blocks
from fakes.team import free_port

pytestmark = pytest.mark.acceptance

DEFAULT = "core_v1_regime_ppo"
SMALL = ("policy_params.timesteps=20000", "train.seeds=[0,1]")  # of the default pipeline; all else as it stands
START_SECONDS = 60
STAGE_SECONDS = 600
BUSY_SECONDS = 5.0  # processor time after which a training process is past its imports and within its task
POLL_SECONDS = 0.02


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(POLL_SECONDS)


def command(*settings: str) -> list[str]:
    return [sys.executable, "-m", "dvc", "exp", "run", *(word for setting in (*SMALL, *settings) for word in ("-S", setting))]


@contextmanager
def running(desk: Desk, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the pipeline in the background; its output goes to `run.log` beside the clone."""
    with (desk.folder / "run.log").open("wb") as log:
        process = subprocess.Popen(command(*settings), cwd=desk.clone, env=desk.environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finished(desk: Desk, process: subprocess.Popen[bytes]) -> int:
    process.wait(STAGE_SECONDS)
    return process.returncode


def log_of(desk: Desk) -> str:
    return (desk.folder / "run.log").read_text(errors="replace")


def lock_of(desk: Desk) -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load((desk.clone / "dvc.lock").read_text()))


def new_desk(folder: Path, like: Desk | None = None) -> Desk:
    """Return a desk at the last commit, or at that of another desk: somebody may commit while this test runs."""
    folder.mkdir()
    desk = prepare(folder, DEFAULT)
    if like is not None:
        desk.git("reset", "-q", "--hard", like.git("rev-parse", "HEAD"))
    return desk


def pool_process(desk: Desk, stage: str) -> psutil.Process | None:
    """Return a pool process of the stage that is within a task, or None."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if process.info["cwd"] == str(desk.clone) and words[-2:] == ["quanto", stage]:
            for child in process.children():
                if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > BUSY_SECONDS:
                    return child
    return None


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The run on local processes: a worker is killed in training, and the same command goes on from there."""
    desk = new_desk(tmp_path_factory.mktemp("local") / "desk")
    committed = lock_of(desk)["stages"]["train"]
    with running(desk) as process:
        victim: list[psutil.Process] = []

        def found() -> bool:
            assert process.poll() is None, log_of(desk)
            child = pool_process(desk, "train")
            victim.extend([child] if child is not None else [])
            return bool(victim)

        wait_for(found, STAGE_SECONDS, "a training process")
        victim[0].kill()
        assert finished(desk, process) != 0
    (desk.folder / "killed.log").write_text(log_of(desk))
    assert lock_of(desk)["stages"]["train"] == committed, "a killed stage leaves no result"
    with running(desk) as process:
        assert finished(desk, process) == 0, log_of(desk)
    (desk.folder / "resumed.log").write_text(log_of(desk))
    return desk


class Cluster:
    """A scheduler and two workers as docs/team.md starts them, and a client that sees where tasks run."""

    def __init__(self, desk: Desk) -> None:
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        self._log = (desk.folder / "cluster.log").open("wb")
        environment = {**desk.environment, "SCHEDULER_PORT": str(port), "SCHEDULER": self.address}
        self._processes: list[subprocess.Popen[bytes]] = []
        for heading in ("Scheduler", "Workers"):
            (line,) = fenced_blocks((ROOT / "docs/team.md").read_text(encoding="utf-8"), heading)
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=desk.clone, env=environment, stdout=subprocess.DEVNULL, stderr=self._log
            )
            self._processes.append(process)
        self.client = Client(self.address, timeout=START_SECONDS)
        self.client.wait_for_workers(2, timeout=START_SECONDS)

    def kill_within(self, task: str, process: subprocess.Popen[bytes]) -> tuple[str, ...]:
        """Stop the first worker that runs such a task, make sure that it has not finished, kill it; return the keys it had."""
        pids: dict[str, int] = {}

        def ours(address: str) -> tuple[str, ...]:
            return tuple(key for key in self.client.processing().get(address, ()) if str(key).startswith(task))

        def busy() -> str | None:
            assert process.poll() is None, f"the run ended before a {task} was seen"
            return next((address for address in self.client.processing() if ours(address)), None)

        while True:
            wait_for(busy, STAGE_SECONDS, task)
            address = busy()
            if address is None:
                continue
            pids = self.client.run(os.getpid)
            if address not in pids:
                continue
            os.kill(pids[address], signal.SIGSTOP)
            held = ours(address)
            os.kill(pids[address], signal.SIGKILL if held else signal.SIGCONT)
            if held:
                return held

    def close(self) -> None:
        self.client.close()
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait()
        self._log.close()


def test_a_killed_process_stops_the_run_with_its_task_and_the_same_command_resumes(local: Desk) -> None:
    killed, resumed = ((local.folder / name).read_text() for name in ("killed.log", "resumed.log"))
    assert re.search(r"ComputeError: a worker process died while task train\w*\(.+\) ran \(killed, or out of memory\)", killed), killed
    assert "in stage train" in killed
    assert "Stage 'features' didn't change, skipping" in resumed
    assert "Running stage 'train'" in resumed


def test_how_it_runs_makes_no_stage_stale(local: Desk) -> None:
    path = local.clone / "params.yaml"
    before = path.read_bytes()
    params = yaml.safe_load(before)
    path.write_text(yaml.safe_dump({**params, "runtime": {"workers": 1, "scheduler": "tcp://127.0.0.1:1"}}))
    assert json.loads(local.run(sys.executable, "-m", "dvc", "status", "--json").stdout) == {}
    path.write_bytes(before)


def test_two_workers_of_which_one_is_killed_in_canonical_and_one_in_training_give_the_bytes_of_the_local_run(
    local: Desk, tmp_path: Path
) -> None:
    desk = new_desk(tmp_path / "desk", local)
    cluster = Cluster(desk)
    try:
        with running(desk, f"runtime.scheduler='{cluster.address}'") as process:
            assert cluster.kill_within("build_partition", process)
            assert cluster.kill_within("train", process)
            assert finished(desk, process) == 0, log_of(desk)
    finally:
        cluster.close()
    assert (desk.folder / "cluster.log").read_text().count("was killed by signal 9") >= 2
    assert lock_of(desk) == lock_of(local)


def test_a_cluster_on_this_machine_gives_the_bytes_of_the_local_run(local: Desk, tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk", local)
    with running(desk, "runtime.scheduler=local-cluster", "runtime.workers=2") as process:
        assert finished(desk, process) == 0, log_of(desk)
    assert lock_of(desk) == lock_of(local)
