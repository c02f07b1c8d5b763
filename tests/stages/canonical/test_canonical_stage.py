"""The stage as a whole: bytes, conservation, thresholds, and clear errors for bad input."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from quanto.core.digest import digest_tree
from quanto.core.errors import DataError, MissingDataError
from quanto.core.store import read_json
from quanto.market.schema import CANONICAL, DOMAINS
from quanto.stages.canonical import stage
from tests.stages.canonical.vendor_tables import (
    build,
    canonical,
    canonical_config,
    put,
    quarantine,
    raw_actions,
    raw_bars,
    true_market,
)


@pytest.fixture(autouse=True)
def _own_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))


def three_vendors(workspace: Path, shuffle: int | None = None) -> None:
    market = true_market(sessions=300, events=(("AAA", 50, "split", 2.0), ("BBB", 70, "dividend", 0.5)))
    rng = np.random.default_rng(3)
    keep = [rng.random(market.bars["close"].shape) < 0.9 for _ in range(3)]
    tables = {
        "one": raw_bars(market, keep=keep[0], adj_close=True),
        "two": raw_bars(market, keep=keep[1], basis="split", volume_basis="split", payload="q"),
        "three": raw_bars(market, keep=keep[2], changes={("AAA", 9, "high"): 0.01}, payload="r"),
    }
    for vendor, table in tables.items():
        order = np.arange(len(table)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(table))
        put(workspace, vendor, "equity_ohlcv", table.take(pa.array(order)))
    put(workspace, "one", "corporate_actions", raw_actions(market, only=("split",)))


def test_a_second_run_changes_no_byte(tmp_path: Path) -> None:
    three_vendors(tmp_path)
    build(tmp_path)
    first = digest_tree(tmp_path / "data/canonical"), digest_tree(tmp_path / "reports/canonical")
    build(tmp_path)
    assert (digest_tree(tmp_path / "data/canonical"), digest_tree(tmp_path / "reports/canonical")) == first


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_rows_in_the_vendors_files_changes_no_byte(tmp_path: Path, seed: int) -> None:
    three_vendors(tmp_path / "a")
    three_vendors(tmp_path / "b", shuffle=seed)
    build(tmp_path / "a")
    build(tmp_path / "b")
    for folder in ("data/canonical", "reports/canonical"):
        assert digest_tree(tmp_path / "a" / folder) == digest_tree(tmp_path / "b" / folder)


def test_workers_and_the_size_of_partitions_change_no_row(tmp_path: Path) -> None:
    three_vendors(tmp_path)
    whole = build(tmp_path)
    digest = digest_tree(tmp_path / "data/canonical")
    with ThreadPoolExecutor(3) as executor:
        stage.run(canonical_config(), tmp_path, executor)
    assert digest_tree(tmp_path / "data/canonical") == digest
    small = build(tmp_path, canonical_config(partition_rows=1000))
    assert len(list((tmp_path / "data/canonical/equity_ohlcv/year=2011").iterdir())) > 1
    assert small.equals(whole)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_vendors(tmp_path)
    build(tmp_path)
    digest = digest_tree(tmp_path / "data/canonical")
    # Another data root: nothing is linked from the memo of the first build.
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "other"))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster,
        Client(cluster) as client,
        client.get_executor() as executor,
    ):
        stage.run(canonical_config(), tmp_path, executor)
    assert digest_tree(tmp_path / "data/canonical") == digest


def test_rows_in_equal_rows_selected_superseded_and_quarantined(tmp_path: Path) -> None:
    three_vendors(tmp_path)
    table = build(tmp_path)
    report = read_json(tmp_path / "reports/canonical/canonical_report.json")
    assert report["conserved"] is True  # type: ignore[index,call-overload]
    vendors = report["domains"]["equity_ohlcv"]["vendors"]  # type: ignore[index,call-overload]
    for vendor in ("one", "two", "three"):
        counts = vendors[vendor]  # type: ignore[index,call-overload]
        rows = pq.ParquetFile(tmp_path / "data/raw" / vendor / "equity_ohlcv/part.parquet").metadata.num_rows
        assert counts["rows"] == rows == counts["selected"] + counts["superseded"] + counts["quarantined"]  # type: ignore[index,call-overload,operator]
        assert counts["selected"] == table["vendor"].to_pylist().count(vendor)  # type: ignore[index,call-overload]
        assert counts["quarantined"] == sum(row["vendor"] == vendor for row in quarantine(tmp_path))  # type: ignore[index,call-overload]


def test_canonical_tables_are_sorted_by_their_key_and_keep_their_contract(tmp_path: Path) -> None:
    three_vendors(tmp_path)
    build(tmp_path)
    for domain in DOMAINS:
        assert canonical(tmp_path, domain).schema.equals(CANONICAL[domain])
    keys = [(row["session"], row["symbol"]) for row in canonical(tmp_path).to_pylist()]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_only_the_configured_dates_are_built_and_the_rest_is_counted_as_outside(tmp_path: Path) -> None:
    three_vendors(tmp_path)
    table = build(tmp_path, canonical_config(start_date="2011-02-01", end_date="2011-06-30"))
    sessions = table["session"].to_pylist()
    assert str(min(sessions)) == "2011-02-01"
    assert str(max(sessions)) == "2011-06-30"
    report = json.loads((tmp_path / "reports/canonical/canonical_report.json").read_text())
    assert report["domains"]["equity_ohlcv"]["vendors"]["one"]["outside_dates"] > 0
    assert report["conserved"]


def test_too_many_missing_sessions_fail_the_stage_with_a_report_and_leave_the_old_tables(tmp_path: Path) -> None:
    three_vendors(tmp_path)
    build(tmp_path)
    before = digest_tree(tmp_path / "data/canonical")
    (tmp_path / "data/raw/two/equity_ohlcv/part.parquet").unlink()
    (tmp_path / "data/raw/three/equity_ohlcv/part.parquet").unlink()
    limits = {"equity_ohlcv": 0.05, "corporate_actions": 1.0, "index_level": 1.0, "options_surface": 1.0}
    with pytest.raises(DataError, match=r"equity_ohlcv: missing_share is 0\.\d+, canonical\.max_missing\.equity_ohlcv allows 0\.05"):
        build(tmp_path, canonical_config(max_missing=limits))
    assert digest_tree(tmp_path / "data/canonical") == before
    ranges = (tmp_path / "root/failures/canonical/coverage.csv").read_text().splitlines()
    assert ranges[1].startswith('"equity_ohlcv","AAA",')
    assert ".." in ranges[1]


def test_too_many_disagreements_fail_the_stage_and_name_the_rows(tmp_path: Path) -> None:
    market = true_market()
    wrong = {("AAA", at, "close"): float(market.bars["close"][at, 0]) * 1.0007 for at in range(0, 60, 2)}
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market))
    put(tmp_path, "two", "equity_ohlcv", raw_bars(market, changes=wrong))
    limits = {"equity_ohlcv": 0.1, "corporate_actions": 1.0, "index_level": 1.0, "options_surface": 1.0}
    with pytest.raises(DataError, match=r"disagreement_share is 0\.1667"):
        build(tmp_path, canonical_config(max_disagreement=limits))
    rows = (tmp_path / "root/failures/canonical/disagreements.csv").read_text().splitlines()
    assert len(rows) == 31
    assert not (tmp_path / "data/canonical").exists()


def test_a_raw_folder_without_tables_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data/raw").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="holds no raw table"):
        build(tmp_path)


def test_a_corrupt_file_and_a_wrong_schema_are_named(tmp_path: Path) -> None:
    three_vendors(tmp_path)
    path = tmp_path / "data/raw/two/equity_ohlcv/part.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"two/equity_ohlcv/part\.parquet is no readable Parquet file"):
        build(tmp_path)
    pq.write_table(pa.table({"session": [1]}), path)
    with pytest.raises(DataError, match=r"session: expected date32\[day\], found int64"):
        build(tmp_path)
    assert not (tmp_path / "data/canonical").exists()


def test_missing_ranges_are_reported_against_the_exchange_calendar(tmp_path: Path) -> None:
    market = true_market()
    keep = np.ones(market.bars["close"].shape, dtype=bool)
    keep[17:20, 0] = keep[30, 0] = False  # 17 is 2010-11-24, the day before Thanksgiving
    put(tmp_path, "one", "equity_ohlcv", raw_bars(market, keep=keep))
    build(tmp_path)
    report = json.loads((tmp_path / "reports/canonical/canonical_report.json").read_text())
    found = report["domains"]["equity_ohlcv"]["coverage"]["AAA"]
    days = [str(market.sessions[at]) for at in (17, 19, 30)]
    assert found["missing_ranges"] == [[days[0], days[1], 3], [days[2], days[2], 1]]
    assert found["expected"] == 60
    assert found["missing"] == 4


def test_a_domain_without_rows_is_an_empty_table_not_a_missing_folder(tmp_path: Path) -> None:
    three_vendors(tmp_path)
    build(tmp_path)
    assert len(canonical(tmp_path, "options_surface")) == 0
    assert len(canonical(tmp_path, "index_level")) == 0
