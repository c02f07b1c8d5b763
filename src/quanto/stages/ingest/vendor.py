"""The vendor port: plan (pure), fetch (bytes into the landing store), parse (pure, from the landing store).

A shard is the unit of fetching, of resuming and of failing: one symbol's failure does not lose the others. What a
vendor answered lies in the landing store byte for byte; `parse` sees nothing else, so any ingest can be replayed
offline to identical bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from quanto.core.config import Section


@dataclass(frozen=True)
class IngestRequest:
    """What is asked of one vendor: a domain, symbols (or series), and sessions from `start` to `end`, both included."""

    domain: str
    symbols: tuple[str, ...]
    start: date
    end: date
    as_of: date
    interval: str = "day"
    mode: str = "auto"


@dataclass(frozen=True)
class Shard:
    """One independent piece of a request; `key` is unique within (vendor, domain) and readable, e.g. `AAPL/2004`."""

    vendor: str
    domain: str
    key: str
    symbols: tuple[str, ...]
    start: date
    end: date
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Payload:
    """One answer of a vendor, as received: body bytes and the redacted request that they answer."""

    sha256: str
    body: bytes
    request: Mapping[str, str]  # method, url without credentials, params; the identity of what was asked
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    received_at: str = ""  # UTC, ISO 8601; a run fact: never part of a table or a digest


@dataclass(frozen=True)
class Rejected:
    """A record that was delivered but cannot become a row; nothing is dropped silently."""

    key: str
    reason: str
    row: Mapping[str, object]
    payload: str
    payload_row: int


@dataclass(frozen=True)
class Parsed:
    """What the payloads of one shard hold: rows by the RAW schema of the domain, rejected records, and notes.

    At interval=minute `table` holds the session bars that the minutes make, and `minutes` the minutes (RAW_MINUTES).
    """

    table: pa.Table
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()  # e.g. "3 equal duplicates merged", "unknown column otc ignored"
    minutes: pa.Table | None = None
    earlier: tuple[pa.Table, ...] = ()  # versions that rows of `table` replaced, oldest first; a key once in each


class Landing(Protocol):
    """Where a vendor puts what it received, and finds what it had received before."""

    def put(self, request: Mapping[str, str], body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Payload:
        """Store one answer; an answer that differs from the stored one to the same request is a recorded restatement."""
        ...

    def find(self, request: Mapping[str, str]) -> Payload | None:
        """Return the answer to this request as of the ingest's date, or None if it was never received."""
        ...


class Vendor(Protocol):
    """One source of data; entries of the closed vendor registry build these from their configuration."""

    @property
    def name(self) -> str: ...

    @property
    def domains(self) -> frozenset[str]: ...

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        """Return the shards that answer the request; empty where the vendor has nothing to offer. Pure."""
        ...

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        """Return all payloads of a shard, in order, each stored in `landing`; raises a VendorError."""
        ...

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        """Return the rows of the payloads, in the vendor's own basis. Pure."""
        ...


@dataclass(frozen=True)
class VendorKind:
    """An entry of the closed vendor registry: what a kind of vendor serves, and how one is made from its options.

    `build(name, options, workspace)` returns the vendor that the configuration calls `name` (several vendors may be of
    one kind); `options` is an instance of the kind's `options` section; relative paths resolve against `workspace`.
    """

    name: str
    summary: str
    domains: frozenset[str]
    modes: frozenset[str]  # of rest, flatfile, package, file, synthetic: what `ingest.mode` may ask of it
    options: type[Section]
    build: Callable[[str, Any, Path], Vendor]
    bulk_of: str = ""  # the kind that serves the same data by requests, where this one serves them as files
