"""Day files in Polygon's layout, from S3-compatible storage or a local folder: one shard and one file per session."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]  # publishes no types
from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.digest import digest_bytes
from quanto.core.rng import generator
from quanto.market.calendar import as_date, sessions_between
from quanto.market.minutes import RAW_MINUTES
from quanto.market.schema import PRICES
from quanto.stages.ingest.bars import minutes_of_day, regular_minutes, session_bars
from quanto.stages.ingest.errors import (
    AuthenticationError,
    ConnectionFailedError,
    ContractError,
    FetchError,
    NotEntitledError,
    TruncatedError,
    UndecodableError,
)
from quanto.stages.ingest.http_vendor import as_of, shard_of
from quanto.stages.ingest.limits import Clock, SystemClock, backoff
from quanto.stages.ingest.redaction import redact, secret_from_environment
from quanto.stages.ingest.rows import join, make_table, table_by
from quanto.stages.ingest.stamps import local_stamps, provisional
from quanto.stages.ingest.text_rows import text_records
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Rejected, Shard, VendorKind

DOMAINS = frozenset({"equity_ohlcv"})
COLUMNS = ("ticker", "volume", "open", "close", "high", "low", "window_start", "transactions")
NUMBERS = (*PRICES, "volume")
NEEDED = tuple(name for name in COLUMNS if name != "transactions")
GONE = 404
ATTEMPTS = 5
# A file beyond this is not kept unpacked between its check and its parsing (some 300 MB of a whole market's minutes).
LARGE_BYTES = 4 << 20


class FlatFileOptions(Section):
    """Options of day files: `root` is a folder or `s3://bucket`; keys are needed for S3 only."""

    root: str
    endpoint_url: str | None = None
    key_env: str = "POLYGON_S3_ACCESS_KEY"
    secret_env: str = "POLYGON_S3_SECRET_KEY"  # noqa: S105  # the name of a variable, not a secret
    daily: str = "us_stocks_sip/day_aggs_v1"
    minute: str = "us_stocks_sip/minute_aggs_v1"
    all_symbols: bool = False
    final_after_days: int = Field(default=2, ge=0, le=10)
    known_after: Literal["evening", "next_day"] = "evening"
    attempts: int = Field(default=ATTEMPTS, ge=1, le=100)
    backoff_seconds: float = Field(default=0.5, ge=0)
    read_seconds: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _root(self) -> FlatFileOptions:
        scheme = self.root.partition("://")[0] if "://" in self.root else ""
        if scheme not in ("", "s3", "file"):
            raise ValueError(f"root is {self.root!r}; expected a folder or s3://bucket")
        if self.endpoint_url and scheme != "s3":
            raise ValueError("endpoint_url is given, but root is no s3:// URL")
        return self


class FlatFileVendor:
    """One tree of day files. A day that is not there yet is an answer too: it is landed as 404."""

    domains = DOMAINS

    def __init__(self, name: str, options: FlatFileOptions, workspace: Path, clock: Clock | None = None) -> None:
        self.name = name
        self.options = options
        self._workspace = workspace
        self._clock = clock or SystemClock()

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        end = min(request.end, request.as_of)
        if request.domain not in self.domains or end < request.start:
            return ()
        days = [as_date(day) for day in sessions_between(request.start, end)]
        return tuple(shard_of(self.name, request, str(day), request.symbols, (day, day), interval=request.interval) for day in days)

    def requests_of(self, shard: Shard) -> int:
        """Return how many files a shard reads."""
        del shard
        return 1

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        path = self._path(shard)
        request = {"kind": "s3" if self._remote else "file", "vendor": self.name, "path": path}
        if self._remote:
            request["endpoint"] = self.options.endpoint_url or "aws"
        found = landing.find(request)  # of a local file offline only: online it is the file that counts
        if found is not None:
            return (found,)
        body, status, headers = self._retried(lambda: self._read(path, shard))
        if not self._remote:
            request["sha256"] = digest_bytes(body)  # a file of ours may change at any time: then it is another request
        return (landing.put(request, body, status, headers),)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        present = [payload for payload in payloads if payload.status != GONE]
        notes = [f"no file for {shard.key}" for payload in payloads if payload.status == GONE]
        return join("equity_ohlcv", [self._parse(shard, payload) for payload in present], notes)

    @property
    def _remote(self) -> bool:
        return self.options.root.startswith("s3://")

    @cached_property
    def _files(self) -> fsspec.AbstractFileSystem:
        if not self._remote:
            return fsspec.filesystem("file")
        return fsspec.filesystem(
            "s3", key=self._secrets[0], secret=self._secrets[1], endpoint_url=self.options.endpoint_url, use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={
                "s3": {"addressing_style": "path"}, "read_timeout": self.options.read_seconds, "retries": {"max_attempts": 1},
            },
        )  # fmt: skip

    @cached_property
    def _secrets(self) -> tuple[str, str]:
        return secret_from_environment(self.options.key_env, self.name), secret_from_environment(self.options.secret_env, self.name)

    def _path(self, shard: Shard) -> str:
        folder = self.options.minute if shard.params["interval"] == "minute" else self.options.daily
        tail = f"{folder}/{shard.start:%Y}/{shard.start:%m}/{shard.start}.csv.gz"
        if self._remote:
            return f"{self.options.root.removeprefix('s3://').rstrip('/')}/{tail}"
        return f"{self.options.root.removeprefix('file://').rstrip('/')}/{tail}"

    def _read(self, path: str, shard: Shard) -> tuple[bytes, int, dict[str, str]]:
        place = path if self._remote else str(self._workspace / path)
        try:
            info = self._files.info(place)
            body = self._files.cat_file(place)
        except FileNotFoundError:
            return b"", GONE, {}
        except PermissionError as error:
            raise self._refused(error) from None
        except (ClientError, BotoCoreError, OSError) as error:
            text = redact(str(error), self._secrets) if self._remote else str(error)
            raise ConnectionFailedError(f"{path} cannot be read now: {text}") from None
        if len(body) != info.get("size", len(body)):
            raise TruncatedError(f"{path} has {info['size']} bytes, {len(body)} came")
        _check_file(path, shard, body)
        named = {"etag": info.get("ETag"), "last-modified": info.get("LastModified"), "content-length": info.get("size")}
        return body, 200, {name: str(value) for name, value in named.items() if self._remote and value is not None}

    def _refused(self, error: PermissionError) -> FetchError:
        text = redact(str(error), self._secrets) if self._remote else str(error)
        if any(word in text for word in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "Access Key Id")):
            return AuthenticationError(f"the storage refuses the access key: {text}")
        return NotEntitledError(f"the storage refuses the file: {text}")

    def _retried(self, read: Callable[[], tuple[bytes, int, dict[str, str]]]) -> tuple[bytes, int, dict[str, str]]:
        for attempt in range(1, self.options.attempts + 1):
            try:
                return read()
            except FetchError as error:
                rng = generator(0, "flatfiles", self.name, attempt)
                if not error.retryable or attempt >= min(self.options.attempts, error.most_attempts):
                    raise type(error)(f"{self.name}: {error}{f' (asked {attempt} times)' if attempt > 1 else ''}") from None
                self._clock.sleep(backoff(attempt, self.options.backoff_seconds, 60.0, rng))
        raise UndecodableError(f"{self.name}: no attempt was made")

    def _parse(self, shard: Shard, payload: Payload) -> Parsed:
        table, rejected, notes = read_day_file(payload.sha256, _text(payload.body))
        if not self.options.all_symbols:
            table = table.filter(pc.is_in(table["ticker"], pa.array(shard.symbols, pa.string())))
            rejected = [item for item in rejected if item.key in shard.symbols]
        local = local_stamps(table["window_start"].to_numpy(), "ns")
        days = local.astype("datetime64[D]")
        wrong = days != np.datetime64(shard.start)
        if len(table) and wrong.all():
            raise ContractError(f"{self.name}: the file of {shard.start} holds rows of {days[0]}: it is the file of another day")
        if wrong.any():
            rejected += _rejected(
                payload.sha256, table, wrong, lambda index: f"window_start lies on {days[index]}, the file is of {shard.start}"
            )
            table, local = table.filter(pa.array(~wrong)), local[~wrong]
        by_minute = shard.params["interval"] == "minute"
        columns = _minutes(table, local) if by_minute else _days(table)
        count = len(columns["symbol"])  # type: ignore[arg-type]  # an array
        given = self._given(shard, payload)
        bars = make_table("equity_ohlcv", {**given, **columns}, count)
        minutes = None
        if by_minute:
            minutes = table_by(RAW_MINUTES, {**given, **_days(table), "minute": minutes_of_day(local)}, len(table))
        return Parsed(bars, tuple(rejected), notes, minutes)

    def _given(self, shard: Shard, payload: Payload) -> dict[str, object]:
        """Return the columns that are one for all rows of a file."""
        session = np.array([shard.start], dtype="datetime64[D]")
        known = shard.start + timedelta(days=1 if self.options.known_after == "next_day" else 0)
        return {
            "session": shard.start, "basis": "raw", "volume_basis": "raw", "known_on": known, "payload": payload.sha256,
            "provisional": bool(provisional(session, as_of(shard), self.options.final_after_days)[0]),
        }  # fmt: skip


def read_day_file(payload: str, text: bytes) -> tuple[pa.Table, list[Rejected], tuple[str, ...]]:
    """Return the needed columns of a day file with `payload_row`, the lines that are no rows, and notes.

    Columns are found by name, in any order. A file of numbers is read by Arrow; one with something else in it line by
    line, so that a bad line spoils nothing but itself.

    Raises
    ------
    ContractError
        If a column is missing.
    """
    header = next(csv.reader([text.partition(b"\n")[0].decode("utf-8-sig", "replace").strip()]), [])
    lost = [name for name in NEEDED if name not in header]
    if lost:
        raise ContractError(f"payload {payload[:12]} has no column {', '.join(lost)}; found {', '.join(header)}")
    extra = sorted(set(header) - set(COLUMNS))
    notes = (f"unknown fields ignored: {', '.join(extra)}",) if extra else ()
    types = {"ticker": pa.string(), **dict.fromkeys(NUMBERS, pa.float64()), "window_start": pa.int64()}
    convert = pacsv.ConvertOptions(column_types=types, include_columns=list(NEEDED), strings_can_be_null=False, null_values=[])
    try:
        # Shards are read side by side already.
        table = pacsv.read_csv(pa.BufferReader(text), pacsv.ReadOptions(use_threads=False), convert_options=convert)
    except pa.ArrowInvalid:
        table, rejected = _line_by_line(payload, text)
        return table, rejected, notes
    table = table.append_column("payload_row", pa.array(np.arange(len(table))))
    finite = np.all([np.isfinite(table[name].to_numpy()) for name in NUMBERS], axis=0)
    if finite.all():
        return table, [], notes
    return table.filter(pa.array(finite)), _rejected(payload, table, ~finite, lambda _: "a price or the volume is not finite"), notes


def _line_by_line(payload: str, text: bytes) -> tuple[pa.Table, list[Rejected]]:
    records = text_records(payload, text)
    columns: dict[str, object] = {"ticker": pa.array(records.texts("ticker"), pa.string())}
    columns |= {name: pa.array(records.numbers(name)) for name in NUMBERS}
    columns["window_start"] = pa.array(records.integers("window_start"))
    columns["payload_row"] = pa.array(np.arange(len(records)))
    good = np.array([index not in records.faults for index in range(len(records))], dtype=bool)
    rejected = [
        Rejected(str(records.records[index].get("ticker")), reason, dict(records.records[index]), payload, index)
        for index, reason in sorted(records.faults.items())
    ]
    return pa.table(columns).filter(pa.array(good)), rejected


def _text(body: bytes) -> bytes:
    return _unpacked(body) if len(body) < LARGE_BYTES else gzip.decompress(body)


@lru_cache(maxsize=16)
def _unpacked(body: bytes) -> bytes:
    """Return the text of a file; parsing follows the check of the same bytes at once."""
    return gzip.decompress(body)


def _line_breaks(body: bytes) -> int:
    """Return whether lines follow the first (0: none); a large file is unpacked in pieces, so that none of it stays in memory."""
    if len(body) < LARGE_BYTES:
        text = _unpacked(body)
        return int(text.find(b"\n", 0, len(text.rstrip())) >= 0)
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
        return sum(piece.count(b"\n") for piece in iter(lambda: stream.read(LARGE_BYTES), b"")) - 1


def _check_file(path: str, shard: Shard, body: bytes) -> None:
    if not body:
        raise UndecodableError(f"{path} is an object of zero bytes")
    try:
        lines = _line_breaks(body)
    except (EOFError, OSError, zlib.error) as error:
        raise TruncatedError(f"{path} is broken or breaks off ({type(error).__name__}: {error})") from None
    if lines == 0:
        raise UndecodableError(f"{path} has a header and no row, although {shard.start} is a session; it may not be published yet")


def _rejected(payload: str, table: pa.Table, mask: np.ndarray, reason: Callable[[int], str]) -> list[Rejected]:
    return [
        Rejected(str(row["ticker"]), reason(index), {name: row[name] for name in NEEDED}, payload, row["payload_row"])
        for index, row in zip(np.flatnonzero(mask).tolist(), table.filter(pa.array(mask)).to_pylist(), strict=True)
    ]


def _days(table: pa.Table) -> dict[str, object]:
    return {"symbol": table["ticker"], **{name: table[name] for name in (*PRICES, "volume", "payload_row")}}


def _minutes(table: pa.Table, local: np.ndarray) -> dict[str, object]:
    """Return one bar per ticker out of the minutes of the regular session."""
    inside = regular_minutes(local)
    table = table.filter(pa.array(inside)).sort_by([("ticker", "ascending"), ("window_start", "ascending"), ("payload_row", "ascending")])
    tickers = table["ticker"].combine_chunks().dictionary_encode()
    codes = tickers.indices.to_numpy(zero_copy_only=False)
    prices = {name: table[name].to_numpy() for name in PRICES}
    first, _, bars, volume = session_bars(codes, prices, table["volume"].to_numpy())
    return {
        "symbol": table["ticker"].take(pa.array(first)),
        "payload_row": table["payload_row"].take(pa.array(first)),
        "volume": volume,
        **bars,
    }


def _build(name: str, options: FlatFileOptions, workspace: Path) -> FlatFileVendor:
    return FlatFileVendor(name, options, workspace)


FLATFILES = VendorKind(
    name="polygon_flatfiles",
    summary="Day files in Polygon's layout from S3-compatible storage or a folder; raw prices",
    domains=DOMAINS,
    modes=frozenset({"flatfile"}),
    options=FlatFileOptions,
    build=_build,
    bulk_of="polygon",
)
