"""S3-compatible storage on loopback: moto's server, with a door in front that can fail; and day files in Polygon's layout."""

from __future__ import annotations

import atexit
import csv
import gzip
import io
import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo

import boto3
import requests
from fakes.polygon import Bar
from fakes.server import Call, FakeServer, Reply
from moto.server import ThreadedMotoServer

NEW_YORK = ZoneInfo("America/New_York")
HEADER = ("ticker", "volume", "open", "close", "high", "low", "window_start", "transactions")
HOP = ("connection", "transfer-encoding", "content-length", "server", "date", "content-type")


class StorageDoor(FakeServer):
    """Hands every request on to the storage behind it, unless a fault is planned."""

    def __init__(self, behind: str) -> None:
        super().__init__()
        self._behind = behind

    def answer(self, call: Call) -> Reply:
        # ListBucket and HEAD come here as well: s3fs asks for an object's size first.
        passed = {name: value for name, value in call.headers.items() if name not in ("host", "connection")}
        response = requests.request(call.method, self._behind + call.target, timeout=10, headers={**passed, "accept-encoding": "identity"})
        headers = {name: value for name, value in response.headers.items() if name.lower() not in HOP}
        if call.method == "HEAD" and "Content-Length" in response.headers:
            headers["Content-Length"] = response.headers["Content-Length"]
        return Reply(response.content, response.status_code, headers, response.headers.get("Content-Type", "binary/octet-stream"))


class Storage:
    """A bucket and its door."""

    def __init__(self, door: StorageDoor, behind: str, bucket: str) -> None:
        self.door = door
        self.bucket = bucket
        self._client = boto3.client("s3", endpoint_url=behind, aws_access_key_id="x", aws_secret_access_key="y", region_name="us-east-1")

    def put(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=key)


@lru_cache(maxsize=1)
def _moto() -> str:
    """Start moto's server once per process; buckets keep the tests apart."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


_NUMBER = itertools.count(1)


@contextmanager
def storage() -> Iterator[Storage]:
    behind = _moto()
    bucket = f"flatfiles-{next(_NUMBER)}"
    requests.put(f"{behind}/{bucket}", timeout=10)
    with StorageDoor(behind) as door:
        assert isinstance(door, StorageDoor)
        yield Storage(door, behind, bucket)


def key_of(day: date, kind: str = "day_aggs_v1") -> str:
    return f"us_stocks_sip/{kind}/{day:%Y}/{day:%m}/{day}.csv.gz"


def day_file(day: date, bars: Mapping[str, Bar], header: tuple[str, ...] = HEADER) -> bytes:
    """Return the gzip bytes of a day file; equal bars, equal bytes."""
    stamp = int(datetime.combine(day, time(0), NEW_YORK).timestamp()) * 10**9
    rows = [
        {
            "ticker": ticker, "volume": bar.volume, "open": bar.open, "close": bar.close, "high": bar.high, "low": bar.low,
            "window_start": stamp, "transactions": 9,
        }
        for ticker, bar in sorted(bars.items())
    ]  # fmt: skip
    return pack(rows, header)


def pack(rows: list[dict[str, object]], header: tuple[str, ...] = HEADER) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, header, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return gzip.compress(out.getvalue().encode(), mtime=0)


def unpack(body: bytes) -> list[dict[str, object]]:
    return [dict(row) for row in csv.DictReader(io.StringIO(gzip.decompress(body).decode()))]
