"""Any table in CSV or Parquet files: columns, units, dates and price basis are configuration."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.digest import digest_bytes
from quanto.market.schema import DOMAINS, RAW
from quanto.stages.ingest.errors import ContractError, NotFoundError, TruncatedError, UndecodableError
from quanto.stages.ingest.http_vendor import as_of, shard_of
from quanto.stages.ingest.rows import DateArray, Records, iso_day, join
from quanto.stages.ingest.stamps import Unit, local_stamps, provisional, rfc3339_day, session_after, session_before
from quanto.stages.ingest.text_rows import require_header, text_records
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Shard, VendorKind

DATE_OF = {"equity_ohlcv": "session", "corporate_actions": "ex_date", "options_surface": "session", "index_level": "session"}
NAME_OF = {"equity_ohlcv": "symbol", "corporate_actions": "symbol", "options_surface": "symbol", "index_level": "series"}
OWN = ("payload", "payload_row", "known_on", "provisional", "basis", "volume_basis", "basis_as_of")


class FileOptions(Section):
    """Options of a file vendor. `path` may hold {symbol} and {year}; relative paths resolve against the workspace."""

    path: str
    format: Literal["csv", "parquet"] = "csv"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    columns: dict[str, str]  # our column -> the file's
    constants: dict[str, str] = Field(default_factory=dict)  # our text column -> its value for every row
    scale: dict[str, float] = Field(default_factory=dict)  # our column -> factor that brings the file's unit to ours
    dates: str = "iso"  # iso, a strptime format, or the unit of an integer stamp: s, ms, us, ns
    zone: str | None = None  # where a stamp is turned into a day; none: the day as written
    basis: Literal["raw", "split", "total", "unknown"] = "raw"
    volume_basis: Literal["raw", "split"] = "raw"
    known_after: Literal["evening", "next_session", "session_before"] = "evening"
    final_after_days: int = Field(default=1, ge=0, le=10)

    @model_validator(mode="after")
    def _consistent(self) -> FileOptions:
        known = {field.name for schema in RAW.values() for field in schema} - set(OWN)
        faults = [f"{name} is no column of a raw table" for name in sorted({*self.columns, *self.constants, *self.scale} - known)]
        faults += [f"{name} is both a column and a constant" for name in sorted(set(self.columns) & set(self.constants))]
        if self.dates in ("s", "ms", "us", "ns") and self.zone is None:
            faults.append(f"dates are stamps in {self.dates}: name the zone in which their day is meant")
        if self.zone is not None:
            try:
                ZoneInfo(self.zone)
            except (KeyError, ValueError):
                faults.append(f"zone {self.zone!r} is unknown")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class FileVendor:
    """A set of files; each shard is one file."""

    domains = frozenset(DOMAINS)

    def __init__(self, name: str, options: FileOptions, workspace: Path) -> None:
        self.name = name
        self.options = options
        self._workspace = workspace

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        end = min(request.end, request.as_of)
        if end < request.start:
            return ()
        groups = [(symbol,) for symbol in request.symbols] if "{symbol}" in self.options.path else [request.symbols]
        spans = [(request.start, end)]
        if "{year}" in self.options.path:
            spans = [
                (max(request.start, date(year, 1, 1)), min(end, date(year, 12, 31))) for year in range(request.start.year, end.year + 1)
            ]
        shards = [(self._path(group, span[0]), group, span) for group in groups for span in spans]
        return tuple(shard_of(self.name, request, path, group, span, path=path) for path, group, span in shards)

    def requests_of(self, shard: Shard) -> int:
        """Return how many files a shard reads."""
        del shard
        return 1

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        path = shard.params["path"]
        place = path if "://" in path else str(self._workspace / path)
        request = {"kind": "file", "vendor": self.name, "path": path}
        replayed = landing.find(request)  # offline only: online it is the file that counts
        if replayed is not None:
            return (replayed,)
        try:
            with fsspec.open(place, "rb") as stream:
                body = stream.read()
        except FileNotFoundError:
            raise NotFoundError(f"{self.name}: there is no file {path}; {shard.key} stays without rows") from None
        except OSError as error:
            raise UndecodableError(f"{self.name}: {path} cannot be read: {error}") from error
        # Named by its bytes as well: a file that changed is another request, so the old bytes never stand for the new.
        return (landing.put({**request, "sha256": digest_bytes(body)}, body),)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        return join(shard.domain, [self._parse(shard, payload) for payload in payloads])

    def _path(self, group: tuple[str, ...], start: date) -> str:
        return self.options.path.replace("{symbol}", group[0] if group else "").replace("{year}", str(start.year))

    def _parse(self, shard: Shard, payload: Payload) -> Parsed:
        options, domain = self.options, shard.domain
        records = self._records(payload)
        wanted = {name: source for name, source in options.columns.items() if name in RAW[domain].names}
        days = self._days(records, wanted, DATE_OF[domain])
        columns: dict[str, object] = {name: value for name, value in options.constants.items() if name in RAW[domain].names}
        columns |= {name: self._column(records, domain, name, source) for name, source in wanted.items() if name != DATE_OF[domain]}
        columns[DATE_OF[domain]] = days
        columns |= self._given(shard, days)
        names = columns.setdefault(NAME_OF[domain], shard.symbols[0] if len(shard.symbols) == 1 else None)
        self._check_given(domain, columns)
        keys = [names] * len(records) if isinstance(names, str) else list(names)  # type: ignore[call-overload]  # a list of text
        outside = ~np.isnat(days) & ((days < np.datetime64(shard.start)) | (days > np.datetime64(shard.end)))
        other = np.array([key is not None and key not in shard.symbols for key in keys], dtype=bool)
        parsed = records.finish(domain, columns, lambda index: f"{keys[index]}/{days[index]}", drop=outside | other)
        drop = int((outside | other).sum())
        return join(domain, [parsed], [f"{drop} rows of other names or dates left out"] if drop else [])

    def _records(self, payload: Payload) -> Records:
        options = self.options
        body = payload.body
        try:
            body = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
            if options.format == "parquet":
                rows = pq.ParquetFile(io.BytesIO(body)).read().to_pylist()
                records = Records(payload.sha256, rows)
                records.require(*options.columns.values())
                return records
        except (EOFError, OSError, zlib.error, pa.ArrowException) as error:
            raise TruncatedError(f"{self.name}: {payload.request.get('path')} is broken: {error}") from error
        if not body.strip():
            raise UndecodableError(f"{self.name}: {payload.request.get('path')} is empty; a table without rows has a header")
        records = text_records(payload.sha256, body, delimiter=options.delimiter)
        require_header(records, body, *options.columns.values())
        return records

    def _days(self, records: Records, wanted: Mapping[str, str], name: str) -> DateArray:
        if name not in wanted:
            raise ContractError(f"{self.name}: columns has no {name}: without dates there are no rows")
        source, dates, zone = wanted[name], self.options.dates, self.options.zone
        units: dict[str, Unit] = {"s": "s", "ms": "ms", "us": "us", "ns": "ns"}
        if dates in units and zone is not None:
            stamps = records.integers(source)
            local = local_stamps(stamps, units[dates], zone)
            records.fault_where(np.isnat(local), lambda index: f"{source} is no time in {dates} between 1985 and 2035 ({stamps[index]})")
            return local.astype("datetime64[D]")
        values = records.values(source)
        if all(isinstance(value, date) for value in values):  # Parquet has real dates and times
            return np.array([_local_day(value, zone) for value in values], dtype="datetime64[D]")
        if dates != "iso":
            return records.dates(source, read=lambda text: _by_format(text, dates, zone))
        return records.dates(source, read=(lambda text: rfc3339_day(text, zone)) if zone else iso_day)

    def _column(self, records: Records, domain: str, name: str, source: str) -> object:
        field = RAW[domain].field(name)
        if not pa.types.is_floating(field.type):
            return records.texts(source, optional=field.nullable)
        values = [None if field.nullable and value == "" else value for value in records.values(source)]
        # Bars without a price are rejected here with the file's own words; other numbers may be absent.
        optional = field.nullable and not (domain == "equity_ohlcv" and name != "adj_close")
        return records.parsed_numbers(source, values, optional=optional) * self.options.scale.get(name, 1.0)

    def _given(self, shard: Shard, days: DateArray) -> dict[str, object]:
        options = self.options
        lag = {"evening": lambda given: given, "next_session": session_after, "session_before": session_before}
        given: dict[str, object] = {"known_on": lag[options.known_after](days)}
        if shard.domain == "equity_ohlcv":
            given |= {"basis": options.basis, "volume_basis": options.volume_basis}
            given["basis_as_of"] = as_of(shard) if options.basis in ("split", "total") else None
            given["provisional"] = provisional(days, as_of(shard), options.final_after_days)
        return given

    def _check_given(self, domain: str, columns: Mapping[str, object]) -> None:
        lost = [field.name for field in RAW[domain] if not field.nullable and columns.get(field.name) is None and field.name not in OWN]
        if lost:
            raise ContractError(f"{self.name}: {domain} needs {', '.join(lost)}; name them in columns or constants")


def _local_day(value: object, zone: str | None) -> date:
    if isinstance(value, datetime):
        return (value.astimezone(ZoneInfo(zone)) if zone and value.tzinfo else value).date()
    if isinstance(value, date):
        return value
    raise ValueError(value)


def _by_format(text: str, form: str, zone: str | None) -> date:
    moment = datetime.strptime(text, form)  # noqa: DTZ007  # a zone is in the format, or there is none
    return _local_day(moment, zone)


def _build(name: str, options: FileOptions, workspace: Path) -> FileVendor:
    return FileVendor(name, options, workspace)


FILES = VendorKind(
    name="files",
    summary="CSV or Parquet files of any layout: columns, units, time zone and price basis by configuration",
    domains=frozenset(DOMAINS),
    modes=frozenset({"flatfile", "file"}),
    options=FileOptions,
    build=_build,
)
