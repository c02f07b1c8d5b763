"""IVolatility (Data Cloud): end-of-day bars, IVX, IV surfaces and chains; small answers inline, large ones as file jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from threading import Lock
from typing import Literal
from urllib.parse import quote

from pydantic import Field

from quanto.stages.ingest.errors import JobError, NotFoundError, UndecodableError
from quanto.stages.ingest.http_vendor import HttpOptions, HttpVendor, header_credentials, shard_of, years
from quanto.stages.ingest.limits import Clock, SystemClock
from quanto.stages.ingest.paging import request_of
from quanto.stages.ingest.redaction import Credentials
from quanto.stages.ingest.rows import join
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Shard, VendorKind
from quanto.stages.ingest.vendors import ivolatility_rows
from quanto.stages.ingest.vendors.ivolatility_answers import Job, check_download, check_first, first_answer, job_state
from quanto.stages.ingest.wire import Answer

DOMAINS = frozenset({"equity_ohlcv", "options_surface"})
PATHS = {
    "stock-prices": "/equities/eod/stock-prices",
    "ivx": "/equities/eod/ivx",
    "ivs": "/equities/eod/ivs",
    "ivs-by-delta": "/equities/eod/ivs-by-delta",
    "options-rawiv": "/equities/eod/options-rawiv",
}
SLICE_DAYS = 30  # of a surface: some 286 rows a day
DOWNLOADS = 10
EMPTY_POLLS = 3


class IVolatilityTransport(TransportSettings):
    """The account's pace: one request a second, one at a time."""

    requests: int = Field(default=1, ge=1)
    window_seconds: float = Field(default=1.0, gt=0)
    concurrency: int = Field(default=1, ge=1, le=256)
    attempts: int = Field(default=10, ge=1, le=100)
    backoff_seconds: float = Field(default=1.0, ge=0)


class IVolatilityOptions(HttpOptions):
    """Options of IVolatility."""

    base_url: str = "https://restapi.ivolatility.com"
    key_env: str = "IVOLATILITY_API_KEY"
    region: Literal["USA", "EUROPE", "ASIA", "CANADA"] = "USA"
    exchanges: tuple[str, ...] = ()  # which listing of a cross-listed symbol; empty: all rows must be of one
    surface: Literal["ivx", "ivs", "ivs-by-delta", "options-rawiv"] = "ivx"
    surface_range: dict[str, str] = Field(default_factory=dict)  # OTMFrom, OTMTo, periodFrom, periodTo, deltaFrom, deltaTo
    prices: Literal["adjusted", "unadjusted"] = "adjusted"
    iv_unit: Literal["fraction", "percent"] = "fraction"
    poll_seconds: float = Field(default=1.0, gt=0)
    job_seconds: float = Field(default=600.0, gt=0)
    transport: IVolatilityTransport = IVolatilityTransport()


class IVolatilityVendor(HttpVendor):
    """One account at IVolatility."""

    domains = DOMAINS

    def __init__(self, name: str, options: IVolatilityOptions, clock: Clock | None = None) -> None:
        super().__init__(name, options, clock)
        self.options = options

    def credentials(self) -> Credentials:
        return header_credentials(self.name, {"apiKey": self.options.key_env})

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        end = min(request.end, request.as_of)
        if request.domain not in self.domains or request.interval != "day" or end < request.start:
            return ()
        spans = years(request.start, end)
        if request.domain == "options_surface" and self.options.surface != "ivx":
            spans = _slices(request.start, end)
        return tuple(shard_of(self.name, request, f"{symbol}/{span[0]}", (symbol,), span) for symbol in request.symbols for span in spans)

    def requests_of(self, shard: Shard) -> int:
        """Return about how many questions a shard takes, for a dry run: inline, or a job of about five."""
        inline = shard.domain == "equity_ohlcv" or self.options.surface == "ivx"
        return 1 if inline else 5

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        url = self._url(shard)
        first = landing.find(request_of(self.name, url))
        landed = None if first is None else self._landed_job(first, landing)
        if first is not None and landed is not None:
            return (first, *landed)
        answer, _ = self.transport.get(url, check_first)
        pending = first_answer(answer.status, answer.body).details_url
        # The first answer is landed last: with it, the job's other answers are there.
        rest = [] if pending is None else [item for item in self._run_job(pending) if item]
        payloads = [landing.put(request_of(self.name, item.url), item.body, item.status, item.headers) for item in rest]
        return (landing.put(request_of(self.name, url), answer.body, answer.status, answer.headers), *payloads)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        read = ivolatility_rows.bars if shard.domain == "equity_ohlcv" else ivolatility_rows.surface
        settings = ivolatility_rows.Reading(
            self.options.exchanges, self.options.prices, self.options.surface, self.options.iv_unit, self.options.final_after_days
        )
        return join(shard.domain, [read(shard, records, settings) for records in ivolatility_rows.tables(payloads)])

    def _run_job(self, details_url: str) -> tuple[Answer, Answer | None]:
        """Return the answer that says where the file is, and the file (None: the job found nothing)."""
        details, job = self._await_job(self.transport.absolute(details_url))
        return details, None if job.download_url is None else self._download(self.transport.absolute(job.download_url), job.records)

    def _await_job(self, url: str) -> tuple[Answer, Job]:
        clock = self._clock or SystemClock()
        give_up = clock.monotonic() + self.options.job_seconds
        empty = 0
        while True:
            answer, job = self.transport.get(url, lambda item: job_state(item.body))
            # COMPLETE without a file is seen for a moment even when there are records.
            empty += job.complete and job.unfilled
            if job.complete and (not job.unfilled or (job.records == 0 and empty >= EMPTY_POLLS)):
                return answer, job
            if clock.monotonic() > give_up:
                raise JobError(
                    f"{self.name}: the job at {url} was not complete after {self.options.job_seconds:g} s; run again to start it anew"
                )
            clock.sleep(self.options.poll_seconds)

    def _download(self, url: str, records: int | None) -> Answer:
        clock = self._clock or SystemClock()
        with _DOWNLOADING:
            for attempt in range(1, DOWNLOADS + 1):
                try:
                    return self.transport.get(url, lambda item: check_download(item.body, records))[0]
                except (NotFoundError, UndecodableError):
                    # The file appears a moment after the job says so.
                    if attempt == DOWNLOADS:
                        raise
                    clock.sleep(self.options.poll_seconds)
        raise JobError(f"{self.name}: no download of {url}")

    def _landed_job(self, first: Payload, landing: Landing) -> tuple[Payload, ...] | None:
        """Return the other answers of a landed job, none for an inline answer, or None if they are not all there."""
        details_url = first_answer(first.status, first.body).details_url
        if details_url is None:
            return ()
        details = landing.find(request_of(self.name, self.transport.absolute(details_url)))
        if details is None:
            return None
        download_url = job_state(details.body).download_url
        if download_url is None:
            return (details,)
        file = landing.find(request_of(self.name, self.transport.absolute(download_url)))
        return None if file is None else (details, file)

    def _url(self, shard: Shard) -> str:
        path = PATHS["stock-prices" if shard.domain == "equity_ohlcv" else self.options.surface]
        extra = "".join(f"&{name}={quote(value, safe='')}" for name, value in sorted(self.options.surface_range.items()))
        symbol = quote(shard.symbols[0], safe=".")
        surface = extra if shard.domain == "options_surface" else ""
        return f"{self.base_url}{path}?symbol={symbol}&from={shard.start}&to={shard.end}&region={self.options.region}{surface}"


# Parallel downloads of one account break after 32 KiB, so this process makes one at a time.
_DOWNLOADING = Lock()


def _slices(start: date, end: date) -> tuple[tuple[date, date], ...]:
    count = (end - start).days // SLICE_DAYS + 1
    starts = [start + timedelta(days=SLICE_DAYS * index) for index in range(count)]
    return tuple((day, min(end, day + timedelta(days=SLICE_DAYS - 1))) for day in starts)


def _build(name: str, options: IVolatilityOptions, workspace: Path) -> IVolatilityVendor:
    del workspace
    return IVolatilityVendor(name, options)


IVOLATILITY = VendorKind(
    name="ivolatility",
    summary="IVolatility Data Cloud: end-of-day bars, IVX, IV surfaces and option chains, with asynchronous file jobs",
    domains=DOMAINS,
    modes=frozenset({"rest"}),
    options=IVolatilityOptions,
    build=_build,
)
