"""What all vendors over HTTP share: their common options, and the making of their transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from functools import cached_property
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from quanto.core.config import Section
from quanto.stages.ingest.errors import ContractError, FetchError
from quanto.stages.ingest.limits import Clock
from quanto.stages.ingest.redaction import Credentials, secret_from_environment
from quanto.stages.ingest.transport import Endpoint, Transport, TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Shard


class HttpOptions(Section):
    """Where a vendor is, how patiently it is asked, and how far its pages are followed."""

    base_url: str
    trusted_origins: tuple[str, ...] = ()  # further origins that the key may be sent to
    most_pages: int = Field(default=1000, ge=1)
    final_after_days: int = Field(default=1, ge=0, le=10)  # sessions younger than this at as_of are provisional
    transport: TransportSettings = TransportSettings()

    @field_validator("base_url", "trusted_origins")
    @classmethod
    def _urls(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for url in (value,) if isinstance(value, str) else value:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
                raise ValueError("expected a URL like https://host[:port][/path], without user, key or query")
        return value.rstrip("/") if isinstance(value, str) else value


class HttpVendor:
    """The common part of a vendor over HTTP: a value of its name and options; the transport is made when first used."""

    domains: ClassVar[frozenset[str]]

    def __init__(self, name: str, options: HttpOptions, clock: Clock | None = None) -> None:
        self.name = name
        self.base_url = options.base_url
        self._http_options = options
        self._clock = clock

    @cached_property
    def transport(self) -> Transport:
        """The way to the vendor; not part of the pickled value."""
        options = self._http_options
        endpoint = Endpoint(self.name, options.base_url, self.credentials, self.classify, options.trusted_origins)
        return Transport(endpoint, options.transport, self._clock)

    def credentials(self) -> Credentials:
        """Return what proves who asks; a vendor without keys sends nothing."""
        return Credentials()

    def classify(self, status: int, explanation: str) -> FetchError | None:
        """Return a finer error than the status alone tells, or None."""
        del status, explanation
        return None

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("transport", "_clock")} | {"_clock": None}


def header_credentials(vendor: str, headers: Mapping[str, str], wrap: Callable[[str], str] = str) -> Credentials:
    """Return credentials that travel in headers: header name -> name of the environment variable."""
    secrets = {header: secret_from_environment(variable, vendor) for header, variable in headers.items()}
    return Credentials(headers={header: wrap(secret) for header, secret in secrets.items()}, secrets=tuple(secrets.values()))


def shard_of(vendor: str, request: IngestRequest, key: str, symbols: tuple[str, ...], span: tuple[date, date], **params: str) -> Shard:
    """Return a shard that carries the date as of which it is asked."""
    return Shard(vendor, request.domain, key, symbols, *span, params={"as_of": request.as_of.isoformat(), **params})


def as_of(shard: Shard) -> date:
    """Return the date as of which a shard is asked."""
    return date.fromisoformat(shard.params["as_of"])


def years(start: date, end: date) -> tuple[tuple[date, date], ...]:
    """Return a range cut at the turns of the year, both ends included."""
    return tuple((max(start, date(year, 1, 1)), min(end, date(year, 12, 31))) for year in range(start.year, end.year + 1))


def mapping(value: object, what: str) -> Mapping[str, object]:
    """Return an answer that has to be a JSON object.

    Raises
    ------
    ContractError
        If it is anything else.
    """
    if not isinstance(value, dict):
        raise ContractError(f"expected {what} to be an object, found {type(value).__name__} ({str(value)[:80]!r})")
    return value


def record_list(value: object, what: str) -> list[Mapping[str, object]]:
    """Return a field that has to be a list of objects.

    Raises
    ------
    ContractError
        If it is anything else: an object, a text, or a list with something else in it.
    """
    if not isinstance(value, list):
        raise ContractError(f"expected {what} to be a list, found {type(value).__name__} ({str(value)[:80]!r})")
    if set(map(type, value)) <= {dict}:
        return value
    index, item = next((index, item) for index, item in enumerate(value) if type(item) is not dict)
    raise ContractError(f"expected {what}[{index}] to be an object, found {type(item).__name__} ({str(item)[:80]!r})")
