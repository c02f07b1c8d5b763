"""A Dask cluster as an executor: an existing scheduler by its address, or one on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from distributed import Client, LocalCluster

from quanto.core.errors import ConfigError
from quanto.runtime.processor import fix_processor

LOCAL = "local-cluster"
CONNECT_SECONDS = 20


@contextmanager
def dask_executor(scheduler: str, workers: int) -> Iterator[Executor]:
    """Yield the executor of the cluster; a worker that dies has its tasks run again elsewhere.

    Raises
    ------
    ConfigError
        If no scheduler answers at the address.
    """
    if scheduler == LOCAL:
        # One thread and one process a worker: tasks are single-threaded and must not share an interpreter lock.
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1")
        with cluster, Client(cluster) as client:
            yield from _prepared(client)
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(f"runtime.scheduler: no Dask scheduler answers at {scheduler} ({error}); start it or set null") from error
    with client:
        yield from _prepared(client)


def _prepared(client: Client) -> Iterator[Executor]:
    client.run(fix_processor)
    # Tasks are deterministic, but two equal submissions are two tasks: pure=False.
    yield client.get_executor(pure=False)
