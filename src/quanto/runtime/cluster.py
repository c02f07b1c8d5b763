"""A Dask cluster as an executor: an existing scheduler by its address, or one on this machine."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dask
from distributed import Client, KilledWorker, LocalCluster, Worker, WorkerPlugin
from distributed.scheduler import NoWorkerError

import quanto
from quanto.core.digest import digest_tree
from quanto.core.errors import ComputeError, ConfigError
from quanto.runtime.pipeline import LOCK_FILE
from quanto.runtime.processor import INSTRUCTION_SETS, THREADS, fix_processor

LOCAL = "local-cluster"
COMMAND = "`python -m quanto.runtime.worker ADDRESS --nworkers N`"
CONNECT_SECONDS = 20
SHOWN = 5
# A task that takes its worker with it is given up after so many workers; a cluster that lost all of them after so long.
LOCAL_RULES = {"distributed.scheduler.allowed-failures": 3, "distributed.scheduler.no-workers-timeout": "120s"}


@contextmanager
def connected(scheduler: str, workers: int) -> Iterator[Executor]:
    """Yield the executor of the cluster; a worker that dies has its tasks run again elsewhere.

    Raises
    ------
    ConfigError
        If no scheduler answers at the address, it has no worker, or a worker would compute other bytes.
    """
    logging.getLogger("distributed").setLevel(logging.WARNING)  # who came and went is no news
    if scheduler == LOCAL:
        fix_processor()  # NumPy reads these settings when the workers, which inherit them, load it
        # One thread and one process a worker: tasks are single-threaded, and share neither interpreter lock nor random state.
        with (
            dask.config.set(LOCAL_RULES),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                dashboard_address=None,
                host="127.0.0.1",
                silence_logs=logging.CRITICAL,  # a task that fails says so through its future; closing down is noisy
            ) as cluster,
            Client(cluster) as client,
        ):
            yield from _prepared(client, scheduler)
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"runtime.scheduler: no Dask scheduler answers at {scheduler} ({error}); start it with `dask scheduler`, or set null"
        ) from error
    with client:
        yield from _prepared(client, scheduler)


def explain(error: BaseException, key: str, suspects: list[str]) -> BaseException:  # noqa: ARG001  # a cluster knows the task itself
    """Return a task that killed its workers, or found none, as a ComputeError; any other error with its task as a note."""
    if isinstance(error, KilledWorker):
        return ComputeError(
            f"task {key} was given up: each of the {error.allowed_failures + 1} workers that it was tried on died (killed, or out of "
            f"memory), the last at {error.last_worker.address}; the log of that worker says more"
        )
    if isinstance(error, NoWorkerError):
        return ComputeError(f"task {key} found no worker: all of them have gone; start workers and run the same command again")
    error.add_note(f"in task {key}")
    return error


class SameGround(WorkerPlugin):
    """Makes every worker compute the same bytes, those that join later too; refuses one that cannot.

    Parameters
    ----------
    folder
        The folder that tasks read and write below.
    code
        Digest of the package's sources.
    versions
        Version of Python and of every pinned package.
    """

    name = "quanto-same-ground"

    def __init__(self, folder: Path, code: str, versions: Mapping[str, str]) -> None:
        self._folder = folder
        self._code = code
        self._versions = dict(versions)

    def setup(self, worker: Worker) -> None:
        """Fix the processor's settings; raises ConfigError with all reasons why other bytes could come out."""
        before = dict(os.environ)
        fix_processor()
        # NumPy read them when it was loaded, which distributed did before this.
        late = [name for name in (*THREADS, *INSTRUCTION_SETS) if before.get(name) != os.environ.get(name)]
        found = package_versions(self._versions)
        other = [
            f"{name} {found[name]} where the run has {wanted}" for name, wanted in sorted(self._versions.items()) if found[name] != wanted
        ]
        faults = {
            f"it runs several tasks in one process; start it with {COMMAND}": worker.state.nthreads != 1,
            f"it does not see the folder {self._folder}; all machines must share it under the same path": not self._folder.is_dir(),
            "it loaded other sources of quanto; restart it in a checkout of the same commit": code_digest() != self._code,
            f"it has {', '.join(other[:SHOWN])}{' and more' if len(other) > SHOWN else ''}; install requirements.lock": bool(other),
            f"NumPy does not run with the settings of all runs ({', '.join(late)}); start it with {COMMAND}": bool(late),
        }
        if any(faults.values()):
            raise ConfigError(f"worker {worker.address} cannot take part: {'; '.join(text for text, holds in faults.items() if holds)}")


@cache
def code_digest() -> str:
    """Return one digest of the package's sources as this process found them first: what it loaded does not change under it."""
    return digest_tree(Path(next(iter(quanto.__path__))))


def pinned_packages() -> list[str]:
    """Return the names that requirements.lock pins, sorted.

    Raises
    ------
    ConfigError
        If the file does not stand beside the sources.
    """
    path = Path(next(iter(quanto.__path__))).parents[1] / LOCK_FILE
    if not path.is_file():
        raise ConfigError(f"a cluster needs the pinned packages to compare with, and {path} is not there; run Quanto from its checkout")
    lines = (line.split("#")[0].split(";")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return sorted(line.split("==")[0].strip() for line in lines if "==" in line)


def package_versions(names: Mapping[str, str] | list[str]) -> dict[str, str]:
    """Return the version of Python and of each package in this process; `none` where it is not installed."""
    found = {"python": platform.python_version()}
    for name in names:
        if name != "python":
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "none"
    return found


def _prepared(client: Client, scheduler: str) -> Iterator[Executor]:
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise ConfigError(f"runtime.scheduler: the Dask scheduler at {scheduler} has no worker; start some with {COMMAND}") from error
    ground = SameGround(Path.cwd(), code_digest(), package_versions(pinned_packages()))
    try:
        client.register_plugin(ground)
    except Exception as error:  # whatever a foreign worker raises while it loads or runs the check
        raise ConfigError(f"runtime.scheduler: {error}") from error
    # Tasks are deterministic, but two equal submissions are two tasks: pure=False.
    yield client.get_executor(pure=False)
