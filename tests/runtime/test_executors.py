from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from distributed import LocalCluster

from quanto.core.errors import ComputeError, ConfigError, DataError
from quanto.runtime.compute import KeyedExecutor, RuntimeConfig, open_executor, worker_count

TWO = RuntimeConfig(workers=2)


def square(value: int) -> int:
    return value * value


def poison(value: int) -> int:
    if value == 3:
        raise DataError("three is not to be squared")
    return value


def die(value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def die_at_first(value: int, folder: Path) -> int:
    mark = folder / str(value)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def hang_or_die(value: int, folder: Path) -> int:
    (folder / str(value)).touch()
    while value != 1 or not (folder / "0").exists():
        pass
    return die(value)


def threads(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def settings(_: int) -> tuple[str, str, str]:
    return os.environ["OMP_NUM_THREADS"], os.environ["MKL_CBWR"], os.environ["OPENBLAS_CORETYPE"]


def kinds(value: object) -> list[str]:
    return [type(item).__name__ for item in value] if isinstance(value, list) else []


def test_tasks_run_and_keep_their_order() -> None:
    with open_executor(TWO) as executor:
        assert list(executor.map(square, range(20))) == [value * value for value in range(20)]
        assert executor.submit(threads, 0).result() == "1"


def test_a_poisoned_task_fails_with_its_key_and_its_own_error() -> None:
    with open_executor(TWO) as executor, pytest.raises(DataError, match="three") as caught:
        list(executor.map(poison, range(5)))
    assert "in task poison(3)" in caught.value.__notes__


def test_a_killed_worker_is_named_as_such() -> None:
    with (
        open_executor(RuntimeConfig(workers=1)) as executor,
        pytest.raises(ComputeError, match=r"a worker process died while task die\(7\) ran"),
    ):
        executor.submit(die, 7).result()


def test_a_killed_worker_names_all_tasks_that_ran_and_none_that_waited(tmp_path: Path) -> None:
    with open_executor(TWO) as executor, pytest.raises(ComputeError, match=r"hang_or_die\(0\) or hang_or_die\(1\) ran"):
        list(executor.map(hang_or_die, range(6), [tmp_path] * 6))


def test_after_a_failure_nobody_waits_for_what_has_not_begun() -> None:
    started: list[int] = []
    gate = Event()

    def work(value: int) -> int:
        started.append(value)
        if value == 0:
            raise DataError("zero")
        gate.wait(10)
        return value

    def run() -> None:
        with KeyedExecutor(ThreadPoolExecutor(1)) as executor:
            waiting = [executor.submit(work, value) for value in range(50)]
            try:
                waiting[0].result()
            finally:
                gate.set()

    with pytest.raises(DataError, match="zero"):
        run()
    assert len(started) < 50


def test_a_cancelled_task_is_never_run() -> None:
    gate = Event()
    with KeyedExecutor(ThreadPoolExecutor(1)) as executor:
        first = executor.submit(gate.wait, 10)
        second = executor.submit(square, 2)
        assert second.cancel()
        gate.set()
        assert first.result()
        with pytest.raises(CancelledError):
            second.result()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Executor]:
    with open_executor(RuntimeConfig(workers=2, scheduler="local-cluster")) as executor:
        yield executor


def test_a_cluster_runs_tasks_in_order_with_the_settings_of_a_local_run(cluster: Executor) -> None:
    assert list(cluster.map(square, range(20))) == [value * value for value in range(20)]
    with open_executor(TWO) as local:
        assert cluster.submit(settings, 0).result() == local.submit(settings, 0).result()


def test_a_cluster_hands_arguments_on_as_they_are(cluster: Executor) -> None:
    assert cluster.submit(kinds, [{"a": 1}, (1, 2), np.zeros(2), "square"]).result() == ["dict", "tuple", "ndarray", "str"]


def test_a_task_that_raises_on_a_cluster_fails_with_its_key_and_its_own_error(cluster: Executor) -> None:
    with pytest.raises(DataError, match="three") as caught:
        list(cluster.map(poison, range(5)))
    assert "in task poison(3)" in caught.value.__notes__
    assert any("poison" in str(frame.name) for frame in caught.traceback), "the traceback of the worker is not lost"


def test_a_task_whose_worker_is_killed_once_is_run_again(cluster: Executor, tmp_path: Path) -> None:
    assert list(cluster.map(die_at_first, range(2), [tmp_path] * 2)) == [0, 1]
    assert cluster.submit(settings, 0).result()[1] == os.environ.get("MKL_CBWR", "AVX2"), (
        "a worker that came back is prepared like the first"
    )


def count(value: int, folder: Path) -> int:
    with (folder / f"ran-{value}").open("a") as stream:
        stream.write("x")
    return value


def test_what_is_done_is_not_computed_again_when_a_worker_dies(cluster: Executor, tmp_path: Path) -> None:
    done = [cluster.submit(count, value, tmp_path) for value in range(8)]
    assert [future.result() for future in done] == list(range(8))
    assert list(cluster.map(die_at_first, range(2), [tmp_path] * 2)) == [0, 1]
    assert {(tmp_path / f"ran-{value}").read_text() for value in range(8)} == {"x"}


def test_a_task_that_kills_every_worker_is_given_up_with_its_key(cluster: Executor) -> None:
    with pytest.raises(ComputeError, match=r"task die\(7\) was given up: each of the 4 workers"):
        cluster.submit(die, 7).result()
    assert cluster.submit(square, 3).result() == 9, "the cluster lives on"


def test_a_worker_that_would_run_tasks_side_by_side_in_one_process_is_refused() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0", protocol="tcp") as shared:
        config = RuntimeConfig(workers=2, scheduler=shared.scheduler_address)
        with pytest.raises(ConfigError, match="several tasks in one process"), open_executor(config):
            pass


def test_a_scheduler_that_does_not_answer_is_a_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("quanto.runtime.cluster.CONNECT_SECONDS", 1)
    with pytest.raises(ConfigError, match=f"no Dask scheduler answers at {address}"), open_executor(RuntimeConfig(scheduler=address)):
        pass
    monkeypatch.setenv("QUANTO_SCHEDULER", address)  # the environment names a cluster where the configuration names none
    with pytest.raises(ConfigError, match=f"no Dask scheduler answers at {address}"), open_executor(TWO):
        pass


def test_the_environment_may_set_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_WORKERS", "3")
    assert worker_count(TWO) == 3
    monkeypatch.setenv("QUANTO_WORKERS", "many")
    with pytest.raises(ConfigError, match="found 'many'"):
        worker_count(TWO)
    monkeypatch.delenv("QUANTO_WORKERS")
    assert worker_count(TWO) == 2


BUSY = """
import sys
from pathlib import Path
from runtime_tasks import busy
from quanto.runtime.compute import RuntimeConfig, open_executor
if __name__ == "__main__":
    with open_executor(RuntimeConfig(workers=1)) as executor:
        executor.submit(busy, Path(sys.argv[1])).result()
"""
TASKS = """
import os, threading
def busy(mark):
    mark.with_suffix(".part").write_text(str(os.getpid()))
    mark.with_suffix(".part").rename(mark)
    threading.Event().wait(600)
"""


def waited(done: Callable[[], bool]) -> bool:
    return any(done() or Event().wait(0.05) for _ in range(1200)) and done()


def alive(process: int) -> bool:
    # A zombie that nobody has waited for yet has ended all the same.
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_run_that_is_killed_leaves_no_worker_behind(tmp_path: Path) -> None:
    (tmp_path / "runtime_tasks.py").write_text(TASKS)
    (tmp_path / "run.py").write_text(BUSY)
    environment = {**os.environ, "PYTHONPATH": f"{Path('src').resolve()}:{tmp_path}"}
    mark = tmp_path / "worker"
    run = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(mark)], env=environment)
    assert waited(mark.exists)
    worker = int(mark.read_text())
    assert alive(worker)
    run.kill()
    run.wait()
    assert waited(lambda: not alive(worker))
