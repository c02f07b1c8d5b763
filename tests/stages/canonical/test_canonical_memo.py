"""Unchanged partitions are linked from the memo; the result is a full rebuild's, byte for byte."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quanto.core.digest import digest_tree
from quanto.core.store import read_table
from quanto.market.schema import RAW
from quanto.stages.canonical import memo, tasks
from tests.stages.canonical.vendor_tables import Market, build, canonical_config, put, raw_actions, raw_bars, true_market


@pytest.fixture
def market() -> Market:
    return true_market(sessions=600, events=(("AAA", 300, "split", 2.0), ("BBB", 450, "dividend", 0.5)))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The partitions that are computed, not linked."""
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    computed: list[str] = []
    honest = tasks.build_bars

    def watched(partition: object, *rest: object) -> object:
        computed.append(partition.key)  # type: ignore[attr-defined]
        return honest(partition, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tasks, "build_bars", watched)
    return computed


def write(workspace: Path, market: Market) -> None:
    rng = np.random.default_rng(5)
    for vendor, basis in (("one", "raw"), ("two", "split")):
        keep = rng.random(market.bars["close"].shape) < 0.95
        put(workspace, vendor, "equity_ohlcv", raw_bars(market, basis=basis, volume_basis=basis, keep=keep, payload=vendor))
    put(workspace, "one", "corporate_actions", raw_actions(market))


def change(workspace: Path, vendor: str, day: date, **values: object) -> None:
    """Change the vendor's rows of one day."""
    path = workspace / "data/raw" / vendor / "equity_ohlcv/part.parquet"
    rows = [{**row, **values} if row["session"] == day else row for row in read_table(path, RAW["equity_ohlcv"]).to_pylist()]
    put(workspace, vendor, "equity_ohlcv", pa.Table.from_pylist(rows, schema=RAW["equity_ohlcv"]))


def rebuilt(workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return the digest of a full rebuild with an empty memo."""
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "empty"))
    build(workspace)
    return digest_tree(workspace / "data/canonical")


def test_nothing_is_computed_twice(tmp_path: Path, market: Market, built: list[str]) -> None:
    write(tmp_path, market)
    build(tmp_path)
    first = digest_tree(tmp_path / "data/canonical"), digest_tree(tmp_path / "reports/canonical")
    assert built == ["2010", "2011", "2012", "2013"]
    build(tmp_path)
    assert (digest_tree(tmp_path / "data/canonical"), digest_tree(tmp_path / "reports/canonical")) == first
    assert len(built) == 4


def test_only_touched_partitions_are_computed_and_the_result_is_a_full_rebuild(
    tmp_path: Path, market: Market, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, market)
    build(tmp_path)
    built.clear()
    change(tmp_path, "one", date(2011, 6, 15), volume=777.0)
    build(tmp_path)
    assert built == ["2011"]
    assert digest_tree(tmp_path / "data/canonical") == rebuilt(tmp_path, monkeypatch, tmp_path)


def test_a_row_near_a_border_touches_both_partitions_whose_context_it_is(
    tmp_path: Path, market: Market, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, market)
    build(tmp_path)
    built.clear()
    change(tmp_path, "one", date(2011, 12, 30), volume=777.0)
    build(tmp_path)
    assert built == ["2011", "2012"]
    assert digest_tree(tmp_path / "data/canonical") == rebuilt(tmp_path, monkeypatch, tmp_path)


def test_a_new_action_touches_the_partitions_whose_prices_it_moves(
    tmp_path: Path, market: Market, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, market)
    build(tmp_path)
    built.clear()
    rows = raw_actions(market).to_pylist()
    more = {**rows[0], "symbol": "CCC", "ex_date": date(2012, 6, 15), "known_on": date(2012, 6, 1), "payload_row": 9}
    put(tmp_path, "one", "corporate_actions", pa.Table.from_pylist([*rows, more], schema=RAW["corporate_actions"]))
    build(tmp_path)
    assert "2013" not in built  # after the ex-date nothing is undone
    assert digest_tree(tmp_path / "data/canonical") == rebuilt(tmp_path, monkeypatch, tmp_path)


def test_a_threshold_computes_nothing_and_a_tolerance_everything(tmp_path: Path, market: Market, built: list[str]) -> None:
    write(tmp_path, market)
    build(tmp_path)
    built.clear()
    build(tmp_path, canonical_config(max_missing__equity_ohlcv=0.5))
    assert built == []
    build(tmp_path, canonical_config(tolerances__close=0.001))
    assert built == ["2010", "2011", "2012", "2013"]


@pytest.mark.parametrize("file", ["rows.parquet", "facts"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_memo_is_computed_anew(tmp_path: Path, market: Market, built: list[str], file: str, damage: str) -> None:
    write(tmp_path, market)
    build(tmp_path)
    whole = digest_tree(tmp_path / "data/canonical")
    built.clear()
    for path in (tmp_path / "root/memo/canonical").rglob(file):
        content = bytearray(path.read_bytes())
        path.unlink()
        if damage == "cut":
            path.write_bytes(bytes(content[: len(content) // 2]))
        elif damage == "flipped":
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(bytes(content))
    build(tmp_path)
    assert digest_tree(tmp_path / "data/canonical") == whole
    assert built == ["2010", "2011", "2012", "2013"]


def test_appended_sessions_touch_the_last_partition_only(tmp_path: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    truth = true_market(sessions=600)
    day = truth.sessions[-1].astype(object) - timedelta(days=20)
    whole = raw_bars(truth)
    early = pa.Table.from_pylist([row for row in whole.to_pylist() if row["session"] <= day], schema=RAW["equity_ohlcv"])
    put(tmp_path, "one", "equity_ohlcv", early)
    build(tmp_path)
    built.clear()
    put(tmp_path, "one", "equity_ohlcv", whole)
    build(tmp_path)
    assert built == ["2013"]
    assert digest_tree(tmp_path / "data/canonical") == rebuilt(tmp_path, monkeypatch, tmp_path)


def aged(folder: Path, hours: float, size: int = 1000) -> Path:
    """Make a memo entry that was used some hours ago."""
    folder.mkdir(parents=True)
    (folder / "facts").write_bytes(bytes(size))
    then = time.time() - hours * 3600
    os.utime(folder, (then, then))
    return folder


def test_the_memo_forgets_what_was_not_used_for_longest_and_no_more_than_it_must(tmp_path: Path) -> None:
    entries = [aged(tmp_path / f"{hours:02d}", hours) for hours in (0, 10, 20, 30)]
    assert memo.prune(tmp_path, most_bytes=2500) == 2
    assert [entry.exists() for entry in entries] == [True, True, False, False]
    assert memo.prune(tmp_path, most_bytes=2500) == 0


def test_the_memo_keeps_what_another_build_may_be_using_whatever_its_size(tmp_path: Path) -> None:
    entries = [aged(tmp_path / f"{hours:02d}", hours) for hours in (0, 1, 2)]
    assert memo.prune(tmp_path, most_bytes=0) == 0
    assert all(entry.exists() for entry in entries)


def test_what_killed_runs_left_in_the_memo_goes(tmp_path: Path) -> None:
    aged(tmp_path / "whole", 0)
    left = [aged(tmp_path / ".abc.tmp", 30), aged(tmp_path / ".gone.xyz.1", 30)]
    fresh = aged(tmp_path / ".def.tmp", 1)
    assert memo.prune(tmp_path) == 2
    assert [path.exists() for path in (*left, fresh)] == [False, False, True]


def test_a_use_renews_an_entry(tmp_path: Path, market: Market, built: list[str]) -> None:
    write(tmp_path, market)
    build(tmp_path)
    folder = tmp_path / "root/memo/canonical"
    for entry in folder.iterdir():
        os.utime(entry, (0, 0))
    other = aged(folder / "other", 24)
    build(tmp_path)
    assert memo.prune(folder, most_bytes=0) == 1
    assert not other.exists()
    built.clear()
    build(tmp_path)
    assert built == []


def test_builds_beside_a_prune_give_the_same_bytes(tmp_path: Path, market: Market, built: list[str]) -> None:
    write(tmp_path, market)
    build(tmp_path)
    whole = digest_tree(tmp_path / "data/canonical")
    folder, stop = tmp_path / "root/memo/canonical", threading.Event()

    def prune_all() -> None:
        while not stop.is_set():
            for entry in folder.glob("[0-9a-f]*"):
                with suppress(FileNotFoundError):
                    os.utime(entry, (0, 0))
            memo.prune(folder, most_bytes=0)

    other = threading.Thread(target=prune_all)
    other.start()
    try:
        for _ in range(3):
            build(tmp_path)
            assert digest_tree(tmp_path / "data/canonical") == whole
    finally:
        stop.set()
        other.join()
