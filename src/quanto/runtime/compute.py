"""Executors: where independent tasks run. Same bytes from all of them; nothing here enters a digest."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, InvalidStateError, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from threading import RLock, Thread
from types import TracebackType
from typing import Any, ParamSpec, TypeVar
from weakref import ref

from pydantic import Field
from tqdm import tqdm

from quanto.core.config import Section
from quanto.core.errors import ComputeError, ConfigError
from quanto.runtime.processor import fix_processor

P = ParamSpec("P")
ResultT = TypeVar("ResultT")

PATIENCE_SECONDS = 2.0  # a bar for what is done sooner would only flicker


class RuntimeConfig(Section):
    """How work runs on this machine or cluster; never what it computes."""

    workers: int | None = Field(default=None, ge=1)
    scheduler: str | None = None


@contextmanager
def open_executor(config: RuntimeConfig, label: str | None = None) -> Iterator[Executor]:
    """Yield an executor: processes of this machine, or a Dask cluster where `scheduler` (or QUANTO_SCHEDULER) names one.

    With a label, a terminal sees how many of the tasks submitted so far are done.

    Raises
    ------
    ConfigError
        If QUANTO_WORKERS is no positive number, or the cluster cannot be reached or would compute other bytes.
    """
    workers = worker_count(config)
    scheduler = os.environ.get("QUANTO_SCHEDULER") or config.scheduler
    if scheduler is None:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
        with KeyedExecutor(pool, workers, label=label) as executor:
            yield executor
        return
    from quanto.runtime.cluster import connected, explain  # noqa: PLC0415  # distributed takes 2 s to import and most runs are local

    with connected(scheduler, workers) as inner, KeyedExecutor(inner, workers, explain, label) as executor:
        yield executor


def worker_count(config: RuntimeConfig) -> int:
    """Return the number of workers: QUANTO_WORKERS, else `runtime.workers`, else the number of cores."""
    text = os.environ.get("QUANTO_WORKERS", "")
    if not text:
        return config.workers or os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"QUANTO_WORKERS must be a positive number; found {text!r}")
    return int(text)


def explain_process(error: BaseException, key: str, suspects: list[str]) -> BaseException:
    """Return a dead worker process as a ComputeError that names the tasks which ran; any other error with its task as a note."""
    if isinstance(error, BrokenExecutor):
        ran = " or ".join(suspects or [key])
        return ComputeError(f"a worker process died while task {ran} ran (killed, or out of memory); run the same command again")
    error.add_note(f"in task {key}")
    return error


def _start_worker() -> None:
    """Prepare a worker process, which ends with its parent: a run that is killed leaves nobody behind."""
    fix_processor()
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), name="end with the parent", daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


class KeyedExecutor(Executor):
    """An executor whose failures name the task: its function and the key (or the text) of its first argument.

    Parameters
    ----------
    inner
        The executor that does the work, first in, first out.
    workers
        How many tasks it runs at once.
    explain
        What an error means, given the key of its task and the keys of the tasks that ran when the first worker died.
    label
        What the progress bar is called; None for no bar.
    """

    def __init__(
        self,
        inner: Executor,
        workers: int = 1,
        explain: Callable[[BaseException, str, list[str]], BaseException] = explain_process,
        label: str | None = None,
    ) -> None:
        self._inner = inner
        self._workers = workers
        self._explain = explain
        self._lock = RLock()  # a future that is done already calls back at once
        self._open: dict[Future[Any], str] = {}  # what is not finished yet, in the order of submission
        self._suspects: list[str] = []
        self._bar = None if label is None else tqdm(desc=label, unit="task", total=0, delay=PATIENCE_SECONDS, leave=False, disable=None)

    def submit(self, fn: Callable[P, ResultT], /, *args: P.args, **kwargs: P.kwargs) -> Future[ResultT]:
        """Run `fn` on a worker; see `concurrent.futures.Executor.submit`."""
        key = task_key(fn, args)
        outer: Future[ResultT] = Future()
        with self._lock:
            # One callable without arguments: a cluster must not look for its own futures within them.
            try:
                inner = self._inner.submit(partial(fn, *args, **kwargs))
            except BrokenExecutor as error:
                outer.set_exception(self._explain(error, key, self._suspects))
                return outer
            self._open[inner] = key
            self._count(total=1)
        # Weak: whoever keeps the outer future keeps the result, but a cluster need not keep it too and compute a lost one again.
        outer.add_done_callback(partial(_cancel_too, ref(inner)))
        inner.add_done_callback(partial(self._settle, outer, key))
        return outer

    def _settle(self, outer: Future[ResultT], key: str, inner: Future[ResultT]) -> None:
        with self._lock:
            error = None if inner.cancelled() else inner.exception()
            if isinstance(error, BrokenExecutor) and not self._suspects:
                self._suspects = list(itertools.islice(self._open.values(), self._workers))
            self._open.pop(inner, None)
            self._count(done=1)
        with suppress(InvalidStateError):  # whoever cancelled the task does not wait for it
            if inner.cancelled():
                outer.set_exception(ComputeError(f"task {key} was dropped: its scheduler went away; run the same command again"))
            elif error is not None:
                outer.set_exception(self._explain(error, key, self._suspects))
            else:
                outer.set_result(inner.result())

    def _count(self, total: int = 0, done: int = 0) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.total += total
            self._bar.update(done)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the workers; see `concurrent.futures.Executor.shutdown`."""
        if cancel_futures:
            for future in list(self._open):
                future.cancel()
        self._inner.shutdown(wait=wait)  # Dask's executor knows no `cancel_futures`
        if self._bar is not None:
            self._bar.close()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        # After an error nobody waits for the tasks that have not begun.
        self.shutdown(wait=True, cancel_futures=kind is not None)


def _cancel_too(inner: ref[Future[Any]], outer: Future[Any]) -> None:
    running = inner() if outer.cancelled() else None
    if running is not None:
        running.cancel()


def task_key(fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Return a readable name of a task: the function, and the key or the beginning of its first argument."""
    first = getattr(args[0], "key", args[0]) if args else ""
    return f"{getattr(fn, '__name__', 'task')}({str(first)[:80]})"
