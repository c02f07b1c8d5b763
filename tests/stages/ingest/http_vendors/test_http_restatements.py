"""A vendor restates, drops and delivers late between two dates: raw and canonical tell what was known when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fakes.scenarios import AS_OF, DAYS, END, KEYS, SCENARIOS, START, Scenario

from quanto.core.config import load_section
from quanto.core.errors import IntegrityError
from quanto.core.store import read_table
from quanto.market.point_in_time import as_known
from quanto.market.schema import CANONICAL, QUARANTINE, RAW
from quanto.stages.ingest import stage
from quanto.stages.ingest.config import IngestConfig
from tests.stages.canonical.vendor_tables import build, canonical_config

BEFORE, AFTER = AS_OF, AS_OF + timedelta(days=14)
RESTATED, DROPPED, LATE, CALM = DAYS[3], DAYS[4], DAYS[5], DAYS[6]
SHARED: dict[str, Any] = {
    "symbols": ["ZZZ", "YYY"], "start": str(START), "end": str(END), "history_sessions": 0, "index_start": str(START),
    "series": [], "interval": "day", "mode": "rest", "offline": False, "tail_tolerance_sessions": 2,
}  # fmt: skip
HURRY = {"attempts": 2, "backoff_seconds": 0.01, "requests": 1000, "window_seconds": 0.05}
VENDORS = ("polygon", "tiingo", "alpaca")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))


@pytest.fixture(params=VENDORS)
def scenario(request: pytest.FixtureRequest) -> Iterator[Scenario]:
    with SCENARIOS[request.param]() as found:
        yield found


def ingest(scenario: Scenario, workspace: Path, as_of: date, **changes: object) -> dict[str, bytes]:
    options = {"base_url": scenario.fake.base_url, "transport": HURRY}
    entry = {"name": scenario.name, "domains": ["equity_ohlcv"], "options": options}
    config = load_section("ingest", {**SHARED, "as_of": str(as_of), "vendors": [entry], **changes}, IngestConfig)
    with ThreadPoolExecutor(2) as pool:
        stage.run(config, workspace, pool)
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in sorted(workspace.rglob("*")) if path.is_file()}


def raw(scenario: Scenario, workspace: Path) -> pa.Table:
    return read_table(workspace / f"data/raw/{scenario.name}/equity_ohlcv/part.parquet", RAW["equity_ohlcv"])


def of(table: pa.Table, day: date, symbol: str = "ZZZ") -> list[tuple[float, date]]:
    return [(row["close"], row["known_on"]) for row in table.to_pylist() if (row["session"], row["symbol"]) == (day, symbol)]


def restate(scenario: Scenario) -> None:
    """Let the vendor change one bar, drop another, and deliver a third that it had not had."""
    bars = scenario.fake.market.bars["ZZZ"]  # type: ignore[attr-defined]  # the fakes of bars have a market
    bars[RESTATED] = replace(bars[RESTATED], close=bars[RESTATED].close - 0.125)
    del bars[DROPPED]
    bars[LATE] = bars[CALM]


def two_dates(scenario: Scenario, tmp_path: Path, **changes: object) -> dict[str, bytes]:
    del scenario.fake.market.bars["ZZZ"][LATE]  # type: ignore[attr-defined]
    ingest(scenario, tmp_path / "before", BEFORE)
    restate(scenario)
    scenario.fake.today = AFTER  # type: ignore[attr-defined]
    return ingest(scenario, tmp_path / "after", AFTER, **changes)


def test_raw_holds_both_versions_and_the_day_from_which_each_was_known(scenario: Scenario, tmp_path: Path) -> None:
    two_dates(scenario, tmp_path)
    table = raw(scenario, tmp_path / "after")
    ((old, _),) = of(raw(scenario, tmp_path / "before"), RESTATED)
    assert of(table, RESTATED) == [(old - 0.125, AFTER), (old, RESTATED)]
    assert of(table, DROPPED) == []
    assert [known for _, known in of(table, LATE)] == [AFTER]
    assert [known for _, known in of(table, CALM)] == [CALM]
    assert [known for _, known in of(table, RESTATED, "YYY")] == [RESTATED]
    rejected = read_table(tmp_path / f"after/data/raw/{scenario.name}/equity_ohlcv/rejected.parquet", QUARANTINE)
    assert len(rejected) == 0


def test_the_report_counts_every_row_and_the_bytes_of_both_versions_are_kept(scenario: Scenario, tmp_path: Path) -> None:
    two_dates(scenario, tmp_path)
    report = json.loads((tmp_path / "after/reports/ingest/ingest_report.json").read_bytes())
    found = report["domains"]["equity_ohlcv"][scenario.name]
    table = raw(scenario, tmp_path / "after")
    assert (found["rows"], found["earlier_versions"]) == (len(table) - 1, 1)
    assert any("1 rows of earlier answers were restated since" in note for note in found["notes"])
    assert any("1 rows of earlier answers were withdrawn" in note for note in found["notes"])
    kept = {path.name for path in (tmp_path / "after/data/payloads").iterdir()}
    assert set(table["payload"].to_pylist()) <= kept
    assert {item["sha256"] for item in report["payloads"]} == kept


def test_canonical_reads_on_each_day_what_was_known_then(scenario: Scenario, tmp_path: Path) -> None:
    two_dates(scenario, tmp_path)
    first, last = tmp_path / "before", tmp_path / "after"
    config = canonical_config((scenario.name,))
    earlier = build(first, config)
    current = build(last, config)
    restated = read_table(last / "data/canonical/restated/equity_ohlcv.parquet", CANONICAL["equity_ohlcv"])
    assert [(row["session"], row["symbol"], row["flags"]) for row in restated.to_pylist()] == [(RESTATED, "ZZZ", "restated")]
    columns = ["session", "symbol", "open", "high", "low", "close", "volume", "known_on"]
    then = as_known("equity_ohlcv", current, restated, AFTER - timedelta(days=1)).select(columns)
    # The withdrawn bar is no row of today; all others are what the first ingest knew, and nothing else.
    said = [row for row in earlier.select(columns).to_pylist() if (row["session"], row["symbol"]) != (DROPPED, "ZZZ")]
    assert then.to_pylist() == said
    now = as_known("equity_ohlcv", current, restated, AFTER)
    assert now.select(columns).equals(current.select(columns))


def test_an_offline_replay_gives_the_same_bytes(scenario: Scenario, tmp_path: Path) -> None:
    online = two_dates(scenario, tmp_path)
    asked = len(scenario.fake.calls)
    assert ingest(scenario, tmp_path / "replay", AFTER, offline=True) == online
    assert ingest(scenario, tmp_path / "again", AFTER) == online
    assert len(scenario.fake.calls) == asked


def test_a_later_ingest_does_not_change_the_replay_of_an_earlier_one(scenario: Scenario, tmp_path: Path) -> None:
    two_dates(scenario, tmp_path)
    before = {path.relative_to(tmp_path / "before"): path.read_bytes() for path in (tmp_path / "before").rglob("*") if path.is_file()}
    ingest(scenario, tmp_path / "replay", BEFORE, offline=True)
    assert {
        path.relative_to(tmp_path / "replay"): path.read_bytes() for path in (tmp_path / "replay").rglob("*") if path.is_file()
    } == before


def test_a_range_that_grew_with_the_date_keeps_the_history_of_the_old_part(scenario: Scenario, tmp_path: Path) -> None:
    del scenario.fake.market.bars["ZZZ"][LATE]  # type: ignore[attr-defined]
    ingest(scenario, tmp_path / "before", BEFORE, end=str(CALM))
    restate(scenario)
    ingest(scenario, tmp_path / "after", AFTER)
    table = raw(scenario, tmp_path / "after")
    assert [known for _, known in of(table, RESTATED)] == [AFTER, RESTATED]
    assert [known for _, known in of(table, LATE)] == [AFTER]
    assert [known for _, known in of(table, DAYS[-1])] == [DAYS[-1]]


def test_an_earlier_date_at_which_nothing_was_different_changes_no_byte_of_raw(
    scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(scenario, tmp_path / "before", BEFORE)
    later = ingest(scenario, tmp_path / "after", AFTER)
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "other"))
    alone = ingest(scenario, tmp_path / "alone", AFTER)
    assert {name: body for name, body in later.items() if "data/" in name} == {
        name: body for name, body in alone.items() if "data/" in name
    }


def test_a_ruined_earlier_answer_stops_the_run_instead_of_losing_history(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        two_dates(scenario, tmp_path)
        objects = (tmp_path / "root/landing/objects").glob("*/*")
        after = {path.name for path in (tmp_path / "after/data/payloads").iterdir()}
        before = {path.name for path in (tmp_path / "before/data/payloads").iterdir()}
        first = raw(scenario, tmp_path / "before")
        replaced = {row["payload"] for row in first.to_pylist() if row["symbol"] == "ZZZ"} & after & before
        for path in objects:
            if path.name in replaced:
                path.write_bytes(path.read_bytes()[:-1] + b" ")
        with pytest.raises(IntegrityError, match="not what its name says"):
            ingest(scenario, tmp_path / "again", AFTER, offline=True)


def test_answers_without_a_note_of_their_shard_are_found_by_todays_requests(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        del scenario.fake.market.bars["ZZZ"][LATE]  # type: ignore[attr-defined]
        ingest(scenario, tmp_path / "before", BEFORE)
        shutil.rmtree(tmp_path / "root/landing/shards")
        restate(scenario)
        ingest(scenario, tmp_path / "after", AFTER)
        table = raw(scenario, tmp_path / "after")
        assert [known for _, known in of(table, RESTATED)] == [AFTER, RESTATED]
        assert [known for _, known in of(table, LATE)] == [AFTER]


def test_an_answer_to_another_question_is_left_out_with_a_note_that_names_no_place(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        ingest(scenario, tmp_path / "before", BEFORE)
        restate(scenario)
        shutil.rmtree(tmp_path / "root/landing/requests")
        ingest(scenario, tmp_path / "after", AFTER)
        report = (tmp_path / "after/reports/ingest/ingest_report.json").read_text()
        assert "its answer as of 2026-03-17 is not found as it is asked for today and is left out (MissingDataError)" in report
        assert str(tmp_path) not in report
        assert [known for _, known in of(raw(scenario, tmp_path / "after"), RESTATED)] == [RESTATED]


def test_a_local_file_that_was_corrected_keeps_what_it_said_and_reads_no_file_for_it(tmp_path: Path) -> None:
    columns = {"session": "d", "symbol": "s", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    entry = {"name": "own", "kind": "files", "domains": ["equity_ohlcv"]}
    entry |= {"options": {"path": str(tmp_path / "own.csv"), "columns": columns, "basis": "raw", "volume_basis": "raw"}}

    def run(as_of: date, close: dict[date, float], offline: bool = False) -> pa.Table:
        lines = ["d,s,o,h,l,c,v", *(f"{day},ZZZ,10,20,5,{value},100" for day, value in close.items())]
        if not offline:
            (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
        config = load_section(
            "ingest",
            {**SHARED, "symbols": ["ZZZ"], "as_of": str(as_of), "vendors": [entry], "mode": "auto", "offline": offline},
            IngestConfig,
        )
        with ThreadPoolExecutor(2) as pool:
            stage.run(config, tmp_path / "own", pool)
        return read_table(tmp_path / "own/data/raw/own/equity_ohlcv/part.parquet", RAW["equity_ohlcv"])

    said = dict.fromkeys(DAYS, 11.0)
    days = [BEFORE + timedelta(days=7 * number) for number in range(5)]
    for day in days[:4]:
        assert len(run(day, said)) == len(DAYS)
    table = run(days[4], {**said, RESTATED: 12.0})
    assert of(table, RESTATED) == [(12.0, days[4]), (11.0, RESTATED)]
    (tmp_path / "own.csv").unlink()
    assert run(days[4], {}, offline=True).equals(table)


def test_session_bars_out_of_minutes_have_a_history_and_the_minutes_are_those_of_today(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        bars = scenario.fake.market.bars.pop("ZZZ")  # type: ignore[attr-defined]
        minutes = {datetime.combine(day, time(10)): bar for day, bar in bars.items()}
        scenario.fake.market.minutes["ZZZ"] = minutes  # type: ignore[attr-defined]
        ingest(scenario, tmp_path / "before", BEFORE, interval="minute", symbols=["ZZZ"])
        at = datetime.combine(RESTATED, time(10))
        minutes[at] = replace(minutes[at], close=minutes[at].close - 0.125)
        ingest(scenario, tmp_path / "after", AFTER, interval="minute", symbols=["ZZZ"])
    ((old, _),) = of(raw(scenario, tmp_path / "before"), RESTATED)
    assert of(raw(scenario, tmp_path / "after"), RESTATED) == [(old - 0.125, AFTER), (old, RESTATED)]
    folder = tmp_path / f"after/data/raw/polygon/equity_minutes/year={RESTATED.year}"
    assert read_table(folder / f"{RESTATED}.parquet")["close"].to_pylist() == [old - 0.125]
