"""Tries cosmic-ray's mutants in forks of one process that has loaded everything but the modules under test.

cosmic-ray makes the mutants and keeps the results; starting Python, NumPy, Hypothesis and pytest anew for each of more
than a thousand mutants is what would take hours. Run in a copy of the sources: mutants are written where they stand.

    python mutate_in_forks.py session.sqlite subject.json
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

SECONDS = 60  # a mutant that takes longer never ends
sys.dont_write_bytecode = True
sys.path[:0] = ["src", ".", "tests"]

import pytest  # noqa: E402  # after the path
from cosmic_ray.mutating import use_mutation  # noqa: E402
from cosmic_ray.plugins import get_operator  # noqa: E402
from cosmic_ray.work_db import WorkDB, use_db  # noqa: E402
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult  # noqa: E402


def tests_pass(tests: list[str]) -> bool:
    """Return whether the tests pass in a fork, which imports the modules under test as they stand now."""
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        signal.alarm(SECONDS)
        code = 1
        try:
            code = int(pytest.main(["-x", "-q", "--assert=plain", *tests]))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return status == 0


def attempt(item: WorkItem, tests: list[str]) -> WorkResult:
    """Return what became of one mutant."""
    mutation = item.mutations[0]
    operator = get_operator(mutation.operator_name)(**(getattr(mutation, "operator_args", None) or {}))
    with use_mutation(mutation.module_path, operator, mutation.occurrence) as (_, mutated):
        if mutated is None:
            return WorkResult(worker_outcome=WorkerOutcome.NO_TEST)
        outcome = TestOutcome.SURVIVED if tests_pass(tests) else TestOutcome.KILLED
        return WorkResult(worker_outcome=WorkerOutcome.NORMAL, test_outcome=outcome)


def main(session: Path, subject: dict[str, Any]) -> None:
    """Try every mutant of a session that has no result yet."""
    for name in subject["preload"]:
        importlib.import_module(name)
    loaded = [name for name in subject["modules"] if name in sys.modules]
    if loaded:
        raise SystemExit(f"{loaded} stand in this process: no fork would see their mutants")
    if not tests_pass(subject["tests"]):
        raise SystemExit("the tests fail without a mutant")
    with use_db(str(session), WorkDB.Mode.open) as work:
        for item in list(work.pending_work_items):
            work.set_result(item.job_id, attempt(item, subject["tests"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
