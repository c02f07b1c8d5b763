"""Polygon.io, since 2025-10-30 Massive: bars, grouped days, splits, dividends, option chains over REST."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field

from quanto.market.calendar import as_date, next_session, sessions_between
from quanto.stages.ingest.errors import AuthenticationError, FetchError, NotEntitledError, NotYetAvailableError, OutsidePlanWindowError
from quanto.stages.ingest.http_vendor import HttpOptions, HttpVendor, as_of, header_credentials, shard_of, years
from quanto.stages.ingest.limits import Clock
from quanto.stages.ingest.paging import follow, request_of
from quanto.stages.ingest.redaction import Credentials
from quanto.stages.ingest.rows import join
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Shard, VendorKind
from quanto.stages.ingest.vendors import polygon_actions, polygon_bars, polygon_options
from quanto.stages.ingest.vendors.polygon_answers import bars_page, explain, reference_page

DOMAINS = frozenset({"equity_ohlcv", "corporate_actions", "options_surface"})
PLAN_YEARS = (10, 5, 2)  # how far back the plans reach; a range that begins earlier is refused as a whole


class PolygonOptions(HttpOptions):
    """Options of Polygon/Massive; either host works with the same key."""

    base_url: str = "https://api.massive.com"
    key_env: str = "POLYGON_API_KEY"
    adjusted: bool = False
    bars: Literal["aggregates", "grouped"] = "aggregates"
    actions_api: Literal["stocks_v1", "reference_v3"] = "stocks_v1"
    bars_per_page: int = Field(default=50_000, ge=1, le=50_000)
    plan_years: int | None = Field(default=None, ge=1)


class PolygonVendor(HttpVendor):
    """One account at Polygon."""

    domains = DOMAINS

    def __init__(self, name: str, options: PolygonOptions, clock: Clock | None = None) -> None:
        super().__init__(name, options, clock)
        self.options = options

    def credentials(self) -> Credentials:
        return header_credentials(self.name, {"Authorization": self.options.key_env}, "Bearer {}".format)

    def classify(self, status: int, explanation: str) -> FetchError | None:
        words = explanation.lower()
        if status == 403 and "api key" in words and "unknown" in words:
            return AuthenticationError("")
        if status == 403 and ("before end of day" in words or "today's data" in words):
            return NotYetAvailableError("")
        if status == 403 and "timeframe" in words:
            return OutsidePlanWindowError("")
        return NotEntitledError("") if status == 403 else None

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        start, end = self._span(request)
        if request.domain not in self.domains or not request.symbols or end < start:
            return ()
        shard = partial(shard_of, self.name, request)
        if request.domain == "options_surface":
            # The chain is the state of now: it answers only for the session of as_of.
            current = next_session(request.as_of + timedelta(days=1), -1)
            return tuple(shard(symbol, (symbol,), (current, current)) for symbol in request.symbols) if start <= current <= end else ()
        if request.domain == "corporate_actions":
            # The whole history each time: rows are corrected and deleted without notice.
            return tuple(shard(symbol, (symbol,), (start, end)) for symbol in request.symbols)
        if self.options.bars == "grouped" and request.interval == "day":
            days = [as_date(day) for day in sessions_between(start, end)]
            return tuple(shard(day.isoformat(), request.symbols, (day, day), interval="day") for day in days)
        if request.interval == "minute":
            return tuple(
                shard(f"{symbol}/{span[0].year}", (symbol,), span, interval="minute")
                for symbol in request.symbols
                for span in years(start, end)
            )
        return tuple(shard(symbol, (symbol,), (start, end), interval="day") for symbol in request.symbols)

    def requests_of(self, shard: Shard) -> int:
        """Return about how many questions a shard takes, for a dry run."""
        if shard.domain == "corporate_actions":
            return 2
        if shard.domain == "options_surface":
            return 8
        base = (
            (shard.end - shard.start).days + 1 if shard.params["interval"] == "day" else 960 * ((shard.end - shard.start).days * 5 // 7 + 1)
        )
        return max(1, -(-base // self.options.bars_per_page))

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        if shard.domain == "equity_ohlcv":
            return self._fetch_bars(shard, landing)
        pages: list[Payload] = []
        for url in self._reference_urls(shard):
            pages += follow(self.transport, landing, url, reference_page, self.options.most_pages)
        return tuple(pages)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        if shard.domain == "corporate_actions":
            return polygon_actions.parse(shard, payloads)
        if shard.domain == "options_surface":
            return polygon_options.parse(shard, payloads)
        refused = [payload for payload in payloads if payload.status == 403]
        pages = [payload for payload in payloads if payload.status == 200]
        parsed = polygon_bars.parse(shard, pages, self.options.adjusted, self.options.final_after_days)
        notes = [f"refused by the vendor's plan: {explain(payload.body)}: {payload.request['url']}" for payload in refused]
        return join(shard.domain, [parsed], notes)

    def _span(self, request: IngestRequest) -> tuple[date, date]:
        start, end = request.start, min(request.end, request.as_of)
        if self.options.plan_years is None:
            return start, end
        return max(start, _years_before(request.as_of, self.options.plan_years)), end

    def _fetch_bars(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        read = partial(bars_page, shard.symbols[0] if self._per_ticker(shard) else None, self.options.adjusted)
        refusals: list[tuple[str, bytes]] = []
        failure: FetchError | None = None
        for url in self._bar_urls(shard, refusals):
            found = landing.find(request_of(self.name, url))
            if found is not None and found.status == 403:
                refusals.append((url, found.body))
                continue
            try:
                pages = follow(self.transport, landing, url, read, self.options.most_pages)
            except (OutsidePlanWindowError, NotYetAvailableError) as error:
                failure = error
                refusals.append((url, error.body))
            else:
                return (*self._land_refusals(refusals, landing), *pages)
        if failure is not None and self._per_ticker(shard):
            raise failure
        return self._land_refusals(refusals, landing)

    def _land_refusals(self, refusals: Sequence[tuple[str, bytes]], landing: Landing) -> tuple[Payload, ...]:
        # Part of the answer: they say which sessions the vendor would not give, and replay follows the same path.
        return tuple(landing.put(request_of(self.name, url), body, 403) for url, body in refusals)

    def _per_ticker(self, shard: Shard) -> bool:
        return shard.params["interval"] == "minute" or self.options.bars == "aggregates"

    def _bar_urls(self, shard: Shard, refusals: Sequence[tuple[str, bytes]]) -> Iterator[str]:
        """Yield the URL of the range; after each refusal, of a shorter range: a plan refuses what it holds in part as a whole."""
        adjusted = str(self.options.adjusted).lower()
        if not self._per_ticker(shard):
            yield f"{self.base_url}/v2/aggs/grouped/locale/us/market/stocks/{shard.start}?adjusted={adjusted}&include_otc=false"
            return
        ticker = quote(shard.symbols[0], safe=":.")
        start, end, plans = shard.start, shard.end, list(PLAN_YEARS)
        while start <= end:
            span = f"{start}/{end}?adjusted={adjusted}&sort=asc&limit={self.options.bars_per_page}"
            yield f"{self.base_url}/v2/aggs/ticker/{ticker}/range/1/{shard.params['interval']}/{span}"
            if isinstance(self.classify(403, explain(refusals[-1][1])), NotYetAvailableError):
                shorter = next_session(min(end, as_of(shard)), -1)
                if shorter >= end:
                    return
                end = shorter
                continue
            later = [day for day in (_years_before(as_of(shard), count) for count in plans) if day > start]
            if not later:
                return
            start = later[0]

    def _reference_urls(self, shard: Shard) -> tuple[str, ...]:
        symbol = quote(shard.symbols[0], safe="")
        if shard.domain == "options_surface":
            contracts = f"underlying_ticker={symbol}&as_of={as_of(shard)}&expired=false&limit=1000&sort=ticker&order=asc"
            return (
                f"{self.base_url}/v3/reference/options/contracts?{contracts}",
                f"{self.base_url}/v3/snapshot/options/{symbol}?limit=250",
            )
        if self.options.actions_api == "stocks_v1":
            return (
                f"{self.base_url}/stocks/v1/splits?ticker={symbol}&limit=5000&sort=execution_date.asc",
                f"{self.base_url}/stocks/v1/dividends?ticker={symbol}&limit=5000&sort=ex_dividend_date.asc",
            )
        return (
            f"{self.base_url}/v3/reference/splits?ticker={symbol}&limit=1000&sort=execution_date&order=asc",
            f"{self.base_url}/v3/reference/dividends?ticker={symbol}&limit=1000&sort=ex_dividend_date&order=asc",
        )


def _years_before(day: date, count: int) -> date:
    # One day inside the window: the vendor counts from its own today.
    day = day + timedelta(days=1)
    return day.replace(year=day.year - count, day=28 if (day.month, day.day) == (2, 29) else day.day)


def _build(name: str, options: PolygonOptions, workspace: Path) -> PolygonVendor:
    del workspace
    return PolygonVendor(name, options)


POLYGON = VendorKind(
    name="polygon",
    summary="Polygon/Massive REST: daily and minute bars, grouped days, splits, dividends, option chains",
    domains=DOMAINS,
    modes=frozenset({"rest"}),
    options=PolygonOptions,
    build=_build,
)
