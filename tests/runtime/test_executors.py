from __future__ import annotations

import os
import signal

import pytest

from quanto.core.errors import ComputeError, ConfigError, DataError
from quanto.runtime.compute import RuntimeConfig, open_executor, worker_count

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


def threads(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


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
        pytest.raises(ComputeError, match=r"a worker process died while task die\(7\)"),
    ):
        executor.submit(die, 7).result()


def test_the_environment_may_set_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_WORKERS", "3")
    assert worker_count(TWO) == 3
    monkeypatch.setenv("QUANTO_WORKERS", "many")
    with pytest.raises(ConfigError, match="found 'many'"):
        worker_count(TWO)
    monkeypatch.delenv("QUANTO_WORKERS")
    assert worker_count(TWO) == 2
