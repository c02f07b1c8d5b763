"""Day files in Polygon's layout: from S3 over the wire, and from a folder."""

from __future__ import annotations

import gzip
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fakes.clocks import FastClock
from fakes.landing import MemoryLanding
from fakes.polygon import Bar
from fakes.scenarios import KEYS
from fakes.storage import HEADER, day_file, key_of, pack, storage

from quanto.core.config import load_section
from quanto.core.errors import ConfigError
from quanto.market.calendar import as_date, sessions_between
from quanto.stages.ingest.errors import NotEntitledError
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed
from quanto.stages.ingest.vendors.flatfiles import FlatFileOptions, FlatFileVendor

# Across the change of daylight saving time on 2026-03-08.
DAYS = [as_date(day) for day in sessions_between(date(2026, 3, 5), date(2026, 3, 10))]
AS_OF = date(2026, 3, 20)
BARS = {"ZZZ": Bar(50.0, 51.0, 49.0, 50.5, 1000.5), "YYY": Bar(5.0, 6.0, 4.0, 5.5, 10.0), "NA": Bar(7.0, 8.0, 6.0, 7.5, 3.0)}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def folder(tmp_path: Path, files: dict[date, bytes] | None = None, kind: str = "day_aggs_v1") -> Path:
    for day, body in (files or {day: day_file(day, BARS) for day in DAYS}).items():
        path = tmp_path / "tree" / key_of(day, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return tmp_path


def local(tmp_path: Path, **options: object) -> FlatFileVendor:
    return FlatFileVendor("polygon_flatfiles", FlatFileOptions(root="tree", **options), tmp_path, FastClock())  # type: ignore[arg-type]


def ingest(
    vendor: FlatFileVendor, *symbols: str, landing: Landing | None = None, interval: str = "day", as_of: date = AS_OF
) -> list[Parsed]:
    store = landing or MemoryLanding()
    request = IngestRequest("equity_ohlcv", symbols or ("ZZZ",), DAYS[0], DAYS[-1], as_of, interval)
    return [vendor.parse(shard, vendor.fetch(shard, store)) for shard in vendor.plan(request)]


def rows_of(parsed: list[Parsed]) -> list[dict[str, object]]:
    return [row for item in parsed for row in item.table.to_pylist()]


def test_a_folder_gives_a_raw_bar_per_session(tmp_path: Path) -> None:
    rows = rows_of(ingest(local(folder(tmp_path))))
    assert [row["session"] for row in rows] == DAYS
    first = rows[0]
    assert (first["open"], first["high"], first["low"], first["close"], first["volume"]) == (50.0, 51.0, 49.0, 50.5, 1000.5)
    assert (first["basis"], first["volume_basis"], first["payload_row"]) == ("raw", "raw", 2)


def test_a_ticker_that_looks_like_a_missing_value_is_a_ticker(tmp_path: Path) -> None:
    assert {row["symbol"] for row in rows_of(ingest(local(folder(tmp_path)), "NA"))} == {"NA"}


def test_every_ticker_is_kept_where_all_are_asked_for(tmp_path: Path) -> None:
    assert len(rows_of(ingest(local(folder(tmp_path), all_symbols=True)))) == 3 * len(DAYS)


def test_columns_are_found_by_name_in_any_order_and_new_ones_are_noted(tmp_path: Path) -> None:
    other = (*HEADER[::-1], "brand_new")
    files = {day: day_file(day, BARS, header=other) for day in DAYS}
    parsed = ingest(local(folder(tmp_path, files)))
    assert [row["close"] for row in rows_of(parsed)] == [50.5] * len(DAYS)
    assert "brand_new" in parsed[0].notes[0]


def test_a_line_with_another_number_of_fields_spoils_nothing_else(tmp_path: Path) -> None:
    text = gzip.decompress(day_file(DAYS[1], BARS)).replace(b"YYY,", b"YYY, Inc.,")
    files = {day: day_file(day, BARS) for day in DAYS} | {DAYS[1]: gzip.compress(text)}
    parsed = ingest(local(folder(tmp_path, files), all_symbols=True))
    rows = rows_of(parsed)
    assert len(rows) == 3 * len(DAYS) - 1
    assert [row["payload_row"] for row in rows if row["session"] == DAYS[1]] == [0, 2]
    assert ["9 fields" in item.reason for part in parsed for item in part.rejected] == [True]


def test_a_quoted_header_is_a_header(tmp_path: Path) -> None:
    quoted = {}
    for day in DAYS:
        head, _, tail = gzip.decompress(day_file(day, BARS)).partition(b"\n")
        names = b",".join(b'"' + name + b'"' for name in head.split(b","))
        quoted[day] = gzip.compress(names + b"\n" + tail)
    assert [row["session"] for row in rows_of(ingest(local(folder(tmp_path, quoted))))] == DAYS


def test_a_row_of_another_day_is_rejected_with_its_number(tmp_path: Path) -> None:
    stamp = int(datetime(2026, 3, 6, tzinfo=ZoneInfo("America/New_York")).timestamp()) * 10**9
    good = {"ticker": "ZZZ", "volume": 1, "open": 1, "close": 1, "high": 1, "low": 1, "window_start": stamp, "transactions": 1}
    late = {**good, "window_start": stamp + 86_400 * 3 * 10**9}
    files = {day: day_file(day, BARS) for day in DAYS} | {date(2026, 3, 6): pack([good, late])}
    parsed = ingest(local(folder(tmp_path, files)))
    assert len(rows_of(parsed)) == len(DAYS)
    assert [(item.payload_row, "window_start" in item.reason) for part in parsed for item in part.rejected] == [(1, True)]


def test_text_among_numbers_spoils_its_row_alone(tmp_path: Path) -> None:
    text = gzip.decompress(day_file(DAYS[0], BARS)).replace(b"YYY,10.0,5.0", b"YYY,10.0,N/A")
    files = {day: day_file(day, BARS) for day in DAYS} | {DAYS[0]: gzip.compress(text)}
    parsed = ingest(local(folder(tmp_path, files), all_symbols=True))
    assert len(rows_of(parsed)) == 3 * len(DAYS) - 1
    rejected = [item for part in parsed for item in part.rejected]
    assert [(item.key, "N/A" in item.reason) for item in rejected] == [("YYY", True)]


def test_minutes_of_a_day_file_become_one_bar_per_ticker(tmp_path: Path) -> None:
    files = {}
    for day in DAYS:
        start = datetime(day.year, day.month, day.day, 9, 0, tzinfo=ZoneInfo("America/New_York"))
        rows = []
        for ticker in ("ZZZ", "YYY"):
            for minute in range(60):
                at = int((start + timedelta(minutes=minute)).timestamp()) * 10**9
                price = 100.0 + minute
                rows.append(
                    {
                        "ticker": ticker,
                        "volume": 2,
                        "open": price,
                        "close": price + 0.5,
                        "high": price + 1,
                        "low": price - 1,
                        "window_start": at,
                        "transactions": 1,
                    }
                )
        files[day] = pack(rows[::-1])
    parsed = ingest(local(folder(tmp_path, files, "minute_aggs_v1")), "ZZZ", interval="minute")
    rows = rows_of(parsed)
    assert [row["session"] for row in rows] == DAYS
    assert {(row["open"], row["high"], row["low"], row["close"], row["volume"]) for row in rows} == {(130.0, 160.0, 129.0, 159.5, 60.0)}


def test_s3_is_read_with_its_own_keys_and_the_tag_is_kept() -> None:
    with storage() as bucket:
        for day in DAYS:
            bucket.put(key_of(day), day_file(day, BARS))
        options = FlatFileOptions(root=f"s3://{bucket.bucket}", endpoint_url=bucket.door.base_url)
        landing = MemoryLanding()
        vendor = FlatFileVendor("polygon_flatfiles", options, Path("/nonexistent"), FastClock())
        assert len(rows_of(ingest(vendor, landing=landing))) == len(DAYS)
        assert all("s3-access-key" in call.headers["authorization"] for call in bucket.door.calls)
        assert all(payload.headers["etag"] for payload in landing.stored.values())
        assert "s3-secret-key" not in landing.text()
        assert "s3-access-key" not in landing.text()
        asked = len(bucket.door.calls)
        landing.offline = True
        assert len(rows_of(ingest(vendor, landing=landing))) == len(DAYS)
        assert len(bucket.door.calls) == asked


def test_a_refused_bucket_is_not_a_missing_day() -> None:
    with storage() as bucket:
        bucket.door.fault(lambda reply: type(reply)(b"", 403), calls=None)
        vendor = FlatFileVendor(
            "polygon_flatfiles", FlatFileOptions(root=f"s3://{bucket.bucket}", endpoint_url=bucket.door.base_url), Path("/x"), FastClock()
        )
        with pytest.raises(NotEntitledError):
            ingest(vendor)


def test_a_republished_file_is_a_recorded_restatement(tmp_path: Path) -> None:
    later = {**BARS, "ZZZ": Bar(50.0, 51.0, 49.0, 50.75, 1001.0)}
    with storage() as bucket:
        for day in DAYS:
            bucket.put(key_of(day), day_file(day, BARS))
        options = FlatFileOptions(root=f"s3://{bucket.bucket}", endpoint_url=bucket.door.base_url)
        vendor = FlatFileVendor("polygon_flatfiles", options, Path("/x"), FastClock())
        before, after = (LandingStore(tmp_path / "landing", day) for day in (AS_OF, AS_OF + timedelta(days=1)))
        old = rows_of(ingest(vendor, landing=before))
        bucket.put(key_of(DAYS[1]), day_file(DAYS[1], later))
        assert rows_of(ingest(vendor, landing=before)) == old
        new = rows_of(ingest(vendor, landing=after))
    assert [row["close"] for row in new] == [50.5, 50.75, 50.5, 50.5]
    assert len(list(after.restatements())) == 1


def test_options_of_another_storage_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected a folder or s3"):
        load_section("x", {"root": "ftp://host/x"}, FlatFileOptions)
    with pytest.raises(ConfigError, match="endpoint_url"):
        load_section("x", {"root": "tree", "endpoint_url": "http://h"}, FlatFileOptions)


def test_a_missing_s3_key_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLYGON_S3_SECRET_KEY")
    vendor = FlatFileVendor("polygon_flatfiles", FlatFileOptions(root="s3://b", endpoint_url="http://127.0.0.1:9"), Path("/x"), FastClock())
    with pytest.raises(ConfigError, match="POLYGON_S3_SECRET_KEY"):
        ingest(vendor)


def test_a_day_that_appears_in_a_folder_is_read_and_replayed(tmp_path: Path) -> None:
    vendor = FlatFileVendor("polygon_flatfiles", FlatFileOptions(root=str(tmp_path / "files")), tmp_path, FastClock())
    online, offline = (LandingStore(tmp_path / "landing", AS_OF, offline=flag) for flag in (False, True))
    assert rows_of(ingest(vendor, landing=online)) == []
    assert rows_of(ingest(vendor, landing=offline)) == []
    for day in DAYS:
        path = tmp_path / "files" / key_of(day)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(day_file(day, BARS))
    found = rows_of(ingest(vendor, landing=online))
    assert len(found) == len(DAYS)
    shutil.rmtree(tmp_path / "files")
    assert rows_of(ingest(vendor, landing=offline)) == found
