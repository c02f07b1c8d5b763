"""Minute bars through ingest and canonical: sessions, half days, daylight saving, one vendor a session, daily bars."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.digest import digest_tree
from quanto.core.errors import ConfigError, DataError
from quanto.core.store import read_json, read_table, write_table
from quanto.market.calendar import as_date, sessions_between
from quanto.market.minutes import CANONICAL_MINUTES, DAILY, MINUTES, RAW_MINUTES, daily_bars, session_hours
from quanto.market.schema import RAW
from quanto.stages.canonical import minute_tasks
from quanto.stages.canonical.minutes import build_minutes
from tests.stages.canonical.minute_month import run, write_day
from tests.stages.canonical.vendor_tables import ROOT, Serial, build, canonical_config, put, quarantine

SESSION = date(2026, 1, 5)
OPEN, CLOSE = 570, 960


@pytest.fixture(autouse=True)
def _own_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))


def minute_rows(
    symbol: str = "AAA", minutes: Sequence[int] = range(OPEN, CLOSE), price: float = 50.0, session: date = SESSION, **more: object
) -> list[dict[str, object]]:
    """Minutes that rise by a cent each."""
    return [
        {
            "session": session, "symbol": symbol, "minute": at, "open": price + 0.01 * i, "high": price + 0.01 * i + 0.02,
            "low": price + 0.01 * i - 0.02, "close": price + 0.01 * i + 0.01, "volume": 10.0, "basis": "raw", "volume_basis": "raw",
            "basis_as_of": None, "known_on": session, "provisional": False, "payload": "p", "payload_row": i, **more,
        }
        for i, at in enumerate(minutes)
    ]  # fmt: skip


def put_minutes(workspace: Path, vendor: str, rows: Sequence[Mapping[str, object]], session: date = SESSION) -> None:
    table = pa.Table.from_pylist(list(rows), schema=RAW_MINUTES)
    write_table(workspace / "data/raw" / vendor / MINUTES / f"year={session.year}" / f"{session}.parquet", table)


def put_days(workspace: Path, vendor: str, closes: Mapping[str, float], session: date = SESSION) -> None:
    rows = [
        {
            "session": session, "symbol": symbol, "open": close, "high": close + 5, "low": close - 5, "close": close, "volume": 3900.0,
            "basis": "raw", "volume_basis": "raw", "known_on": session, "provisional": False, "payload": "d", "payload_row": row,
        }
        for row, (symbol, close) in enumerate(sorted(closes.items()))
    ]  # fmt: skip
    put(workspace, vendor, "equity_ohlcv", pa.Table.from_pylist(rows, schema=RAW["equity_ohlcv"]))


def minutes_of(workspace: Path) -> list[dict[str, object]]:
    folder = workspace / "data/canonical" / MINUTES
    rows: list[dict[str, object]] = read_table(folder, CANONICAL_MINUTES).to_pylist()
    return rows


def report_of(workspace: Path) -> dict[str, object]:
    report = read_json(workspace / "reports/canonical/canonical_report.json")["minutes"]  # type: ignore[index,call-overload]
    assert isinstance(report, dict)
    return report


@pytest.mark.parametrize(
    ("days", "closed"),
    [((date(2026, 3, 6), date(2026, 3, 9)), 960), ((date(2026, 10, 30), date(2026, 11, 2)), 960), ((date(2026, 11, 27),), 780)],
)
def test_files_become_regular_sessions_on_half_days_and_across_daylight_saving(tmp_path: Path, days: tuple[date, ...], closed: int) -> None:
    for day in days:
        write_day(tmp_path / "flat", day, symbols=2, extended=30)
    run(tmp_path, 2, days[0], days[-1], Serial())
    rows = minutes_of(tmp_path)
    for day in days:
        mine = [row for row in rows if row["session"] == day and row["symbol"] == "S00001"]
        assert [row["minute"] for row in mine] == list(range(570, closed))
    told = report_of(tmp_path)
    assert told["vendors"]["minutes"]["outside_regular_session"] == 2 * 60 * len(days)  # type: ignore[index]
    # The vendor's daily volume includes extended hours, its prices do not.
    classes = told["against_daily_bars"]["classes"]  # type: ignore[index]
    assert [(item["field"], item["class"], item["rows"]) for item in classes] == [("volume", "volume_difference", 2 * len(days))]
    assert [pair["cells"] for pair in told["against_daily_bars"]["compared"]] == [2 * len(days)] * 5  # type: ignore[index]


def test_both_changes_of_daylight_saving_leave_the_hours_where_they_are() -> None:
    days = sessions_between(date(1985, 1, 2), date(2035, 12, 28))
    opens, closes = session_hours(days)
    assert set(opens.tolist()) == {570, 600} or set(opens.tolist()) == {570}
    assert set(closes.tolist()) <= {780, 810, 840, 870, 900, 930, 960}
    sunday = np.array(["2026-01-04"], dtype="datetime64[D]")
    assert [int(bound[0]) for bound in session_hours(sunday)] == [0, 0]


def test_a_session_comes_from_one_vendor_even_where_another_has_its_gaps(tmp_path: Path) -> None:
    put_days(tmp_path, "one", {"AAA": 53.9, "BBB": 53.9})
    put_minutes(tmp_path, "one", minute_rows("AAA", range(OPEN, CLOSE, 2)))
    put_minutes(tmp_path, "two", [*minute_rows("AAA"), *minute_rows("BBB")])
    build(tmp_path)
    rows = minutes_of(tmp_path)
    assert {(row["symbol"], row["vendor"], row["method"]) for row in rows} == {("AAA", "one", "priority"), ("BBB", "two", "fallback")}
    assert sum(row["symbol"] == "AAA" for row in rows) == 195
    assert {row["vendors_seen"] for row in rows if row["symbol"] == "AAA"} == {"one|two"}


def test_a_stand_in_that_contradicts_the_daily_bar_is_quarantined(tmp_path: Path) -> None:
    put_days(tmp_path, "one", {"AAA": 53.9, "BBB": 27.0})
    put_minutes(tmp_path, "one", minute_rows("AAA"))
    put_minutes(tmp_path, "two", minute_rows("BBB"))  # on a basis twice the daily one
    build(tmp_path)
    assert {row["symbol"] for row in minutes_of(tmp_path)} == {"AAA"}
    found = [row for row in quarantine(tmp_path) if row["domain"] == MINUTES]
    assert {row["reason"] for row in found} == {"fallback_disagrees"}
    assert len(found) == 390
    assert found[0]["key"] == f"{SESSION}/BBB/570"


def test_a_derived_close_that_is_not_the_daily_one_is_flagged_and_reported(tmp_path: Path) -> None:
    put_days(tmp_path, "one", {"AAA": 53.9, "BBB": 53.0})
    put_minutes(tmp_path, "one", [*minute_rows("AAA"), *minute_rows("BBB")])
    build(tmp_path)
    assert {(row["symbol"], row["flags"]) for row in minutes_of(tmp_path)} == {("AAA", ""), ("BBB", "daily_disagreement")}
    listed = pacsv.read_csv(tmp_path / "reports/canonical/minutes_against_daily.csv").to_pylist()
    closes = [
        (row["symbol"], row["vendor"], row["other"], row["chosen_value"], row["other_value"]) for row in listed if row["field"] == "close"
    ]
    assert closes == [("BBB", "one", "minutes of one", 53.0, pytest.approx(53.9))]


def test_bad_minutes_are_quarantined_with_their_reason_and_nothing_is_lost(tmp_path: Path) -> None:
    rows = minute_rows("AAA", range(OPEN - 5, CLOSE + 5))
    rows[20]["close"] = float("nan")
    rows[30]["low"] = -1.0
    rows[40]["high"] = 1.0
    rows[50]["volume"] = -5.0
    rows += [{**rows[60], "payload_row": 1000}, {**rows[70], "close": rows[70]["open"], "payload_row": 1001}]
    rows[80] |= {"open": 80.0, "high": 80.0, "low": 80.0, "close": 80.0}
    put_days(tmp_path, "one", {"AAA": 53.9})
    put_minutes(tmp_path, "one", rows)
    build(tmp_path)
    reasons = sorted(row["reason"] for row in quarantine(tmp_path))
    once = ["bad_tick", "inconsistent_bar", "missing_field", "negative_volume", "not_positive"]
    assert reasons == sorted([*once, "conflicting_duplicate", "conflicting_duplicate"])
    told = report_of(tmp_path)["vendors"]["one"]  # type: ignore[index]
    assert (told["rows"], told["outside_regular_session"], told["superseded"], told["quarantined"]) == (402, 10, 1, 7)
    assert told["selected"] == len(minutes_of(tmp_path)) == 384
    assert told["conserved"]


def test_split_adjusted_minutes_come_back_to_the_raw_basis(tmp_path: Path) -> None:
    put_days(tmp_path, "one", {"AAA": 107.8})
    actions = {"symbol": "AAA", "ex_date": date(2026, 2, 2), "kind": "split", "ratio": 2.0, "currency": "USD", "known_on": SESSION}
    put(
        tmp_path,
        "one",
        "corporate_actions",
        pa.Table.from_pylist([{**actions, "payload": "a", "payload_row": 0}], RAW["corporate_actions"]),
    )
    put_minutes(tmp_path, "one", minute_rows("AAA", basis="split", volume_basis="split", basis_as_of=date(2026, 3, 2)))
    build(tmp_path)
    rows = minutes_of(tmp_path)
    assert (rows[0]["open"], rows[-1]["close"], rows[0]["volume"], rows[0]["flags"]) == (100.0, 107.8, 5.0, "adjusted_basis")


def test_blocks_of_symbols_hold_the_rows_of_one_block(tmp_path: Path) -> None:
    symbols = [f"S{index}" for index in range(7)]
    for folder, rows_at_once in ((tmp_path / "whole", 1_000_000), (tmp_path / "cut", 1000)):
        put_days(folder, "one", dict.fromkeys(symbols, 53.9))
        put_minutes(folder, "one", [row for symbol in symbols for row in minute_rows(symbol)])
        put_minutes(folder, "two", [row for symbol in symbols[3:] for row in minute_rows(symbol, price=50.01)])
        build(folder, canonical_config(partition_rows=rows_at_once))
    assert len(list((tmp_path / "cut/data/canonical" / MINUTES).rglob("*.parquet"))) > 1
    assert minutes_of(tmp_path / "cut") == minutes_of(tmp_path / "whole")
    assert report_of(tmp_path / "cut") == report_of(tmp_path / "whole")


def test_any_order_of_minutes_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder, seed in ((tmp_path / "a", 1), (tmp_path / "b", 2)):
        rows = [*minute_rows("AAA"), *minute_rows("BBB")]
        put_days(folder, "one", {"AAA": 53.9, "BBB": 53.9})
        put_minutes(folder, "one", [rows[at] for at in np.random.default_rng(seed).permutation(len(rows))])
        build(folder)
    assert digest_tree(tmp_path / "a/data/canonical") == digest_tree(tmp_path / "b/data/canonical")


def test_only_touched_sessions_of_minutes_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [as_date(day) for day in sessions_between(date(2026, 1, 5), date(2026, 1, 8))]
    computed: list[date] = []

    def watched(session: date, *rest: object) -> object:
        computed.append(session)
        return build_minutes(session, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(minute_tasks, "build_minutes", watched)
    put_days(tmp_path, "one", {"AAA": 53.9})
    for day in days:
        put_minutes(tmp_path, "one", minute_rows(session=day), day)
    build(tmp_path)
    whole = digest_tree(tmp_path / "data/canonical"), digest_tree(tmp_path / "reports/canonical")
    assert computed == days
    build(tmp_path)
    assert computed == days
    assert (digest_tree(tmp_path / "data/canonical"), digest_tree(tmp_path / "reports/canonical")) == whole
    put_minutes(tmp_path, "one", minute_rows(session=days[1], price=51.0), days[1])
    build(tmp_path)
    assert computed[len(days) :] == [days[1]]
    touched = digest_tree(tmp_path / "data/canonical")
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "empty"))
    build(tmp_path)
    assert digest_tree(tmp_path / "data/canonical") == touched


def test_a_build_without_minutes_has_no_trace_of_them(tmp_path: Path) -> None:
    put_days(tmp_path, "one", {"AAA": 53.9})
    build(tmp_path)
    assert not (tmp_path / "data/canonical" / MINUTES).exists()
    assert "minutes" not in read_json(tmp_path / "reports/canonical/canonical_report.json")  # type: ignore[operator]


def test_a_vendor_of_minutes_that_nobody_ranks_is_refused(tmp_path: Path) -> None:
    put_days(tmp_path, "one", {"AAA": 53.9})
    put_minutes(tmp_path, "stranger", minute_rows())
    with pytest.raises(ConfigError, match="stranger, which has minutes"):
        build(tmp_path)


def test_a_minute_table_of_another_schema_is_refused(tmp_path: Path) -> None:
    put_days(tmp_path, "one", {"AAA": 53.9})
    path = tmp_path / "data/raw/one" / MINUTES / "year=2026" / f"{SESSION}.parquet"
    write_table(path, pa.table({"symbol": ["AAA"]}))
    with pytest.raises(DataError, match="another schema than minutes have"):
        build(tmp_path)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_daily_bars_are_what_pandas_makes_of_the_regular_minutes(data: st.DataObject) -> None:
    days = [as_date(day) for day in sessions_between(date(2026, 11, 24), date(2026, 11, 30))]
    keys = data.draw(
        st.lists(st.tuples(st.sampled_from(days), st.sampled_from("ABC"), st.integers(540, 1000)), unique=True, min_size=1, max_size=60)
    )
    prices = data.draw(st.lists(st.floats(1, 100), min_size=len(keys), max_size=len(keys)))
    rows = [
        minute_rows(symbol, [at], price, day)[0] | {"payload_row": row}
        for row, ((day, symbol, at), price) in enumerate(zip(keys, prices, strict=True))
    ]
    found = daily_bars(pa.Table.from_pylist(rows, schema=RAW_MINUTES))
    frame = pd.DataFrame(rows)
    closes = frame["session"].map(lambda day: 780 if day == date(2026, 11, 27) else 960)
    frame = frame[(frame["minute"] >= 570) & (frame["minute"] < closes)].sort_values(["session", "symbol", "minute"])
    grouped = frame.groupby(["session", "symbol"])
    wanted = grouped.agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum", "minute": "count"}).reset_index()
    names = ["session", "symbol", "open", "high", "low", "close", "volume", "minutes"]
    assert found.schema.equals(DAILY)
    assert [tuple(row[name] for name in names) for row in found.to_pylist()] == [tuple(row) for row in wanted.itertuples(index=False)]


def test_a_minute_that_appears_twice_has_no_daily_bar() -> None:
    with pytest.raises(DataError, match="minute 571 twice"):
        daily_bars(pa.Table.from_pylist([*minute_rows(minutes=[571]), *minute_rows(minutes=[570, 571])], schema=RAW_MINUTES))


@pytest.mark.acceptance
def test_a_month_of_2000_symbols_takes_two_gigabytes_a_worker_and_two_months_no_more(tmp_path: Path) -> None:
    told = []
    for name, sessions in (("month", 21), ("months", 42)):
        command = [sys.executable, "-m", "tests.stages.canonical.minute_month", str(tmp_path / name), "2000", str(sessions)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        told.append(json.loads(done.stdout.splitlines()[-1]))
    month, months = told
    assert month["rows"] >= 16_000_000
    assert month["minutes"]["canonical_rows"] == month["rows"]
    assert months["minutes"]["canonical_rows"] == months["rows"] >= 2 * 16_000_000
    assert max(month["worker_gb"], months["worker_gb"]) <= 2.0
    assert months["worker_gb"] <= 1.15 * month["worker_gb"]
    assert months["main_gb"] <= 1.25 * month["main_gb"]
