"""Alpaca market data: consolidated daily bars (SIP) and corporate actions. The trading API is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
from pydantic import Field

from quanto.market.calendar import next_session
from quanto.stages.ingest.errors import AuthenticationError, ContractError, FetchError, NotYetAvailableError, ReportedError
from quanto.stages.ingest.http_vendor import HttpOptions, HttpVendor, as_of, header_credentials, mapping, record_list, shard_of
from quanto.stages.ingest.limits import Clock
from quanto.stages.ingest.paging import Page, follow, request_of, token_url
from quanto.stages.ingest.redaction import Credentials
from quanto.stages.ingest.rows import Records, join
from quanto.stages.ingest.stamps import NEW_YORK, provisional, rfc3339_day
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Shard, VendorKind
from quanto.stages.ingest.vendors import alpaca_actions
from quanto.stages.ingest.wire import decode_json

DOMAINS = frozenset({"equity_ohlcv", "corporate_actions"})
FIELDS = {"open": "o", "high": "h", "low": "l", "close": "c"}
KNOWN = frozenset({*FIELDS.values(), "t", "v", "n", "vw"})


class AlpacaTransport(TransportSettings):
    """The free plan's pace: 200 requests a minute."""

    requests: int = Field(default=200, ge=1)


class AlpacaOptions(HttpOptions):
    """Options of Alpaca's data API. There is no feed `iex`: a few percent of the tape cannot be reconciled with all of it."""

    base_url: str = "https://data.alpaca.markets"
    key_env: str = "APCA_API_KEY_ID"
    secret_env: str = "APCA_API_SECRET_KEY"  # noqa: S105  # the name of a variable, not a secret
    adjustment: Literal["raw", "split"] = "raw"
    feed: Literal["sip"] = "sip"
    asof: str = Field(default="", pattern=r"^(|-|\d{4}-\d{2}-\d{2})$")  # how renamed symbols are mapped; empty: as of `as_of`
    symbols_per_request: int = Field(default=1, ge=1, le=100)
    rows_per_page: int = Field(default=10_000, ge=1, le=10_000)
    transport: AlpacaTransport = AlpacaTransport()


class AlpacaVendor(HttpVendor):
    """One account at Alpaca, for data."""

    domains = DOMAINS

    def __init__(self, name: str, options: AlpacaOptions, clock: Clock | None = None) -> None:
        super().__init__(name, options, clock)
        self.options = options

    def credentials(self) -> Credentials:
        return header_credentials(self.name, {"APCA-API-KEY-ID": self.options.key_env, "APCA-API-SECRET-KEY": self.options.secret_env})

    def classify(self, status: int, explanation: str) -> FetchError | None:
        words = explanation.lower()
        if status == 403 and "recent sip" in words:
            return NotYetAvailableError("")
        return AuthenticationError("") if status == 403 and words.startswith("forbidden") else None

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        end = min(request.end, request.as_of)
        if request.domain not in self.domains or request.interval != "day" or end < request.start:
            return ()
        size = self.options.symbols_per_request if request.domain == "equity_ohlcv" else 1
        groups = [request.symbols[start : start + size] for start in range(0, len(request.symbols), size)]
        return tuple(shard_of(self.name, request, ",".join(group), group, (request.start, end)) for group in groups)

    def requests_of(self, shard: Shard) -> int:
        """Return about how many questions a shard takes, for a dry run."""
        rows = ((shard.end - shard.start).days * 5 // 7 + 1) * len(shard.symbols)
        return 1 if shard.domain == "corporate_actions" else max(1, -(-rows // self.options.rows_per_page))

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        if shard.domain == "corporate_actions":
            url = self._actions_url(shard)
            return follow(self.transport, landing, url, partial(alpaca_actions.read_page, url), self.options.most_pages)
        refused: list[tuple[str, bytes]] = []
        failure: FetchError | None = None
        for url in self._bar_urls(shard):
            found = landing.find(request_of(self.name, url))
            if found is not None and found.status == 403:
                refused.append((url, found.body))
                continue
            try:
                pages = follow(self.transport, landing, url, partial(_page, url), self.options.most_pages)
            except NotYetAvailableError as error:
                failure = error
                refused.append((url, error.body))
            else:
                return (*(landing.put(request_of(self.name, at), body, 403) for at, body in refused), *pages)
        raise failure or NotYetAvailableError(f"{self.name}: {shard.key} is refused up to {shard.start}; ask again after the close")

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        pages = [payload for payload in payloads if payload.status == 200]
        if shard.domain == "corporate_actions":
            return alpaca_actions.parse(shard, pages)
        notes = [f"the newest session was refused (HTTP 403): {item.request['url']}" for item in payloads if item.status == 403]
        parts = [self._bars(shard, page.sha256, symbol, rows) for page in pages for symbol, rows in _by_symbol(page.body)]
        return join("equity_ohlcv", parts, notes)

    def _bars(self, shard: Shard, payload: str, symbol: str, rows: tuple[int, list[dict[str, object]]]) -> Parsed:
        if symbol not in shard.symbols:
            raise ContractError(f"asked for {', '.join(shard.symbols)}, found bars of {symbol!r}")
        records = Records(payload, rows[1], first=rows[0])
        records.require("t", "v", *FIELDS.values())
        sessions = records.dates("t", read=lambda text: rfc3339_day(text, NEW_YORK))
        outside = ~np.isnat(sessions) & ((sessions < np.datetime64(shard.start)) | (sessions > np.datetime64(shard.end)))
        columns = {
            "session": sessions,
            "symbol": symbol,
            **{name: records.numbers(field) for name, field in FIELDS.items()},
            "volume": records.numbers("v"),
            "basis": self.options.adjustment,
            "volume_basis": self.options.adjustment,
            "basis_as_of": as_of(shard) if self.options.adjustment == "split" else None,
            "known_on": sessions,
            "provisional": provisional(sessions, as_of(shard), self.options.final_after_days),
        }
        parsed = records.finish("equity_ohlcv", columns, lambda index: f"{symbol}/{sessions[index]}", drop=outside)
        left_out = [f"{int(outside.sum())} rows outside {shard.start}..{shard.end} left out"] if outside.any() else []
        return join("equity_ohlcv", [parsed], [*records.unknown(KNOWN), *left_out])

    def _bar_urls(self, shard: Shard) -> Iterator[str]:
        """Yield the URL of the range, then of a range that ends a session before `as_of`: fresh SIP data cost extra."""
        symbols = quote(",".join(shard.symbols), safe=",.")
        earlier = next_session(as_of(shard), -1)
        for end in dict.fromkeys((shard.end, min(shard.end, earlier))):
            if end >= shard.start:
                mapped = self.options.asof or as_of(shard).isoformat()
                span = f"timeframe=1Day&start={shard.start}&end={end}&limit={self.options.rows_per_page}"
                how = f"adjustment={self.options.adjustment}&feed={self.options.feed}&asof={mapped}&sort=asc"
                yield f"{self.base_url}/v2/stocks/bars?symbols={symbols}&{span}&{how}"

    def _actions_url(self, shard: Shard) -> str:
        # The range is of the process date, which comes days after the ex-date; by default it would be today.
        span = f"start={shard.start - timedelta(days=30)}&end={_later(as_of(shard))}"
        return f"{self.base_url}/v1/corporate-actions?symbols={quote(shard.symbols[0], safe='.')}&{span}&limit=1000&sort=asc"


def _later(day: date) -> date:
    return day + timedelta(days=90)


def _page(first_url: str, body: bytes) -> Page:
    value = mapping(decode_json(body), "the answer")
    keys = [(symbol, str(row.get("t"))) for symbol, (_, rows) in _by_symbol(body) for row in rows]
    return Page(token_url(first_url, value.get("next_page_token")), tuple(keys))


def _by_symbol(body: bytes) -> list[tuple[str, tuple[int, list[dict[str, object]]]]]:
    """Return (symbol, (position of its first row in the payload, rows)) in the order of the payload."""
    value = mapping(decode_json(body), "the answer")
    if "bars" not in value and "message" in value:
        raise ReportedError(f"HTTP 200 with {str(value['message'])[:200]!r}")
    if "bars" not in value:
        raise ContractError(f"the answer has no bars; found {', '.join(sorted(value))}")
    bars = value["bars"]
    if isinstance(value.get("symbol"), str):  # the form for one symbol, where an empty answer is null
        bars = {str(value["symbol"]): bars or []}
    out, first = [], 0
    for symbol, rows in mapping(bars, "bars").items():
        listed = [dict(row) for row in record_list(rows, f"bars.{symbol}")]
        out.append((symbol, (first, listed)))
        first += len(listed)
    return out


def _build(name: str, options: AlpacaOptions, workspace: Path) -> AlpacaVendor:
    del workspace
    return AlpacaVendor(name, options)


ALPACA = VendorKind(
    name="alpaca",
    summary="Alpaca market data: consolidated daily bars (raw by default) and corporate actions",
    domains=DOMAINS,
    modes=frozenset({"rest"}),
    options=AlpacaOptions,
    build=_build,
)
