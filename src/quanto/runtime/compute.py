"""Executors: where independent tasks run. Same bytes from all of them; nothing here enters a digest."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from pydantic import Field

from quanto.core.config import Section
from quanto.core.errors import ComputeError, ConfigError
from quanto.runtime.processor import fix_processor

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


class RuntimeConfig(Section):
    """How work runs on this machine or cluster; never what it computes."""

    workers: int | None = Field(default=None, ge=1)
    scheduler: str | None = None


@contextmanager
def open_executor(config: RuntimeConfig) -> Iterator[Executor]:
    """Yield an executor: processes of this machine, or a Dask cluster where `scheduler` names one.

    Raises
    ------
    ConfigError
        If QUANTO_WORKERS is no positive number or the scheduler cannot be reached.
    """
    workers = worker_count(config)
    if config.scheduler is None:
        with KeyedExecutor(ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=fix_processor)) as executor:
            yield executor
        return
    from quanto.runtime.cluster import dask_executor  # noqa: PLC0415  # distributed takes 2 s to import and most runs are local

    with dask_executor(config.scheduler, workers) as inner, KeyedExecutor(inner) as executor:
        yield executor


def worker_count(config: RuntimeConfig) -> int:
    """Return the number of workers: QUANTO_WORKERS, else `runtime.workers`, else the number of cores."""
    text = os.environ.get("QUANTO_WORKERS", "")
    if not text:
        return config.workers or os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"QUANTO_WORKERS must be a positive number; found {text!r}")
    return int(text)


class KeyedExecutor(Executor):
    """An executor whose failures name the task: its function and the key (or the text) of its first argument."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner

    def submit(self, fn: Callable[P, ResultT], /, *args: P.args, **kwargs: P.kwargs) -> Future[ResultT]:
        """Run `fn` on a worker; see `concurrent.futures.Executor.submit`."""
        outer: Future[ResultT] = Future()
        key = task_key(fn, args)

        def settle(inner: Future[ResultT]) -> None:
            if inner.cancelled():
                outer.cancel()
                return
            error = inner.exception()
            if error is None:
                outer.set_result(inner.result())
            else:
                outer.set_exception(_with_key(error, key))

        self._inner.submit(fn, *args, **kwargs).add_done_callback(settle)
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the workers; see `concurrent.futures.Executor.shutdown`."""
        self._inner.shutdown(wait=wait, cancel_futures=cancel_futures)


def task_key(fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Return a readable name of a task: the function, and the key or the beginning of its first argument."""
    first = getattr(args[0], "key", args[0]) if args else ""
    return f"{getattr(fn, '__name__', 'task')}({str(first)[:80]})"


def _with_key(error: BaseException, key: str) -> BaseException:
    if isinstance(error, BrokenProcessPool):
        return ComputeError(f"a worker process died while task {key} ran or waited (killed, or out of memory); run the stage again")
    error.add_note(f"in task {key}")
    return error
