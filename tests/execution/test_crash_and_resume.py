"""A run that is killed anywhere and resumed leaves the bytes of a run that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from fakes.execution_worlds import World, sim_config, terms

from quanto.core.store import write_json
from quanto.execution.brokers.sim import SimConfig
from quanto.execution.desk import Terms
from quanto.execution.engine import read_book
from quanto.execution.evidence import session_rows, summarise
from quanto.execution.journal import Journal
from quanto.execution.replay import Plan


class KilledError(Exception):
    """The process died here."""


def busy(seed: int, sessions: int) -> tuple[World, Plan, Terms, SimConfig]:
    """Return a world in which orders are cut, denied, rejected, filled in part, and a session is missed."""
    world = World(seed, sessions=sessions, symbols=3, linear=5e-4)
    conditions = terms(
        rules={"fractional": False, "worst_case_slippage_bps": 10.0, "minimum_notional_usd": 50.0},
        max_name_weight=0.5,
        max_gross_exposure=1.0,
        max_net_exposure=1.0,
        max_leverage=1.0,
        max_price_age_sessions=0,
        max_orders_per_minute=2,
    )
    sim = sim_config(slippage_bps=5.0, volume_share=0.05, reject_rate=0.1, whole_shares=True)
    return world, Plan(1, sessions, 1e6, frozenset({sessions // 2})), conditions, sim


def run(path: Path, setup: tuple[World, Plan, Terms, SimConfig], die_after: int | None = None) -> None:
    world, plan, conditions, sim = setup

    def on_append(count: int) -> None:
        if count == die_after:
            raise KilledError

    journal = Journal(path, on_append)
    try:
        world.replay(plan, journal, conditions, sim)
    finally:
        journal.close()


def test_a_run_killed_after_any_event_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    setup = busy(2, 7)
    run(tmp_path / "whole.jsonl", setup)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    events = whole.count(b"\n")
    kinds = {kind for kind in ("orders", "updates", "fills", "missed", "quote", "end") if f'"kind":"{kind}"'.encode() in whole}
    assert kinds == {"orders", "updates", "fills", "missed", "quote", "end"}
    for index in range(1, events + 1):
        path = tmp_path / f"{index}.jsonl"
        with pytest.raises(KilledError):
            run(path, setup, die_after=index)
        run(path, setup)
        assert path.read_bytes() == whole, f"killed after event {index}"


def test_a_halting_run_killed_after_any_event_halts_all_the_same(tmp_path: Path) -> None:
    world = World(2, sessions=20, symbols=3)
    setup = (world, Plan(1, 20, 1e6), terms(reduce_only_drawdown=0.002, halt_drawdown=0.004), sim_config())
    run(tmp_path / "whole.jsonl", setup)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    halted_at = next(index for index, line in enumerate(lines) if b'"kind":"halt"' in line)
    for index in range(max(1, halted_at - 15), min(halted_at + 5, len(lines))):
        path = tmp_path / f"{index}.jsonl"
        path.write_bytes(b"".join(lines[:index]))
        run(path, setup)
        assert path.read_bytes() == whole, f"killed after event {index}"


def test_a_torn_last_line_is_repaired_and_the_run_ends_the_same(tmp_path: Path) -> None:
    setup = busy(3, 7)
    run(tmp_path / "whole.jsonl", setup)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for size in range(1, len(whole), max(1, len(whole) // 25)):
        path = tmp_path / "torn.jsonl"
        path.write_bytes(whole[:size])
        run(path, setup)
        assert path.read_bytes() == whole, f"torn at byte {size}"


def test_each_session_is_durable_before_its_first_order_and_after_its_last_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2, sessions=12, symbols=3, quiet=True)
    world.wishes[:] = [[0.6, 0.2, 0.1], [0.1, 0.2, 0.6]] * 6
    path = tmp_path / "j.jsonl"
    marks: list[str] = []

    def fsync(_descriptor: int) -> None:
        last = path.read_bytes().splitlines()[-1:] if path.exists() else []
        marks.append(str(json.loads(last[0])["body"]["kind"]) if last else "")

    monkeypatch.setattr(os, "fsync", fsync)
    run(path, (world, Plan(2, 12, 1e6), terms(), sim_config()))
    assert marks.count("orders") == 10, "once a session, before the sales leave; before the purchases where nothing is sold"
    assert marks.count("end") == 10


@pytest.mark.acceptance
def test_sixty_sessions_killed_after_every_event_give_the_same_book_orders_and_metrics(tmp_path: Path) -> None:
    setup = busy(5, 60)
    world = setup[0]
    run(tmp_path / "whole.jsonl", setup)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    with Journal(tmp_path / "whole.jsonl") as journal:
        expected, metrics = vars(read_book(journal)), summarise(session_rows(journal.replay(), world.feed))
    for index in range(1, len(lines) + 1):
        path = tmp_path / "killed.jsonl"
        path.write_bytes(b"".join(lines[: index - 1]))
        with pytest.raises(KilledError):
            run(path, setup, die_after=index)
        run(path, setup)
        assert path.read_bytes() == whole, f"killed after event {index}"
    with Journal(path) as journal:
        assert vars(read_book(journal)) == expected
        assert summarise(session_rows(journal.replay(), world.feed)) == metrics
    facts = {"sessions": 60, "crash_points": len(lines), "identical_journals": len(lines), "kinds": kinds_of(lines)}
    write_json(Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "risk_crash_at_every_event.json", facts)


def kinds_of(lines: list[bytes]) -> dict[str, int]:
    """Return how many events of each kind there are."""
    return dict(sorted(Counter(str(json.loads(line)["body"]["kind"]) for line in lines).items()))


def sigkill_until_done(tmp_path: Path, sessions: int, kills: int) -> int:
    setup = busy(5, sessions)
    run(tmp_path / "whole.jsonl", setup)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "killed.jsonl"
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[3:]\n"
        "import importlib.util as u\n"
        "spec = u.spec_from_file_location('crash', sys.argv[1]); crash = u.module_from_spec(spec); spec.loader.exec_module(crash)\n"
        f"import time; print('ready', flush=True); crash.run(Path(sys.argv[2]), crash.busy(5, {sessions}), None)\n"
    )
    done = 0
    for _ in range(kills):
        arguments = [sys.executable, "-c", program, __file__, str(path), *[item for item in sys.path if item]]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        before = path.stat().st_size if path.exists() else 0
        # Killed once the journal has grown by another slice of the run.
        while process.poll() is None and (path.stat().st_size if path.exists() else 0) < before + len(whole) // (kills + 1):
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        done += process.returncode == -signal.SIGKILL
        assert whole.startswith(path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1])
    run(path, setup)
    assert path.read_bytes() == whole
    assert done >= kills - 1
    return done


def test_a_killed_process_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    sigkill_until_done(tmp_path, sessions=40, kills=2)


@pytest.mark.acceptance
def test_thirty_real_kills_leave_the_same_bytes(tmp_path: Path) -> None:
    done = sigkill_until_done(tmp_path, sessions=400, kills=31)
    assert done >= 30
    facts = {"sessions": 400, "sigkills": done, "identical_journal": True}
    write_json(Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "risk_sigkills.json", facts)
