"""FRED and CBOE: index levels and rates as text files or JSON; VIX from its primary source and a day later from FRED."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

import numpy as np
from pydantic import Field

from quanto.core.config import Section
from quanto.stages.ingest.errors import ContractError, ReportedError
from quanto.stages.ingest.http_vendor import HttpOptions, HttpVendor, mapping, record_list, shard_of
from quanto.stages.ingest.limits import Clock
from quanto.stages.ingest.paging import Page, ask, follow
from quanto.stages.ingest.redaction import Credentials, secret_from_environment
from quanto.stages.ingest.rows import DateArray, FloatArray, Records, iso_day, join
from quanto.stages.ingest.stamps import session_after
from quanto.stages.ingest.text_rows import check_text, require_header, text_records
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Shard, VendorKind
from quanto.stages.ingest.wire import decode_json

DOMAINS = frozenset({"index_level"})
PAGE_ROWS = 100_000
FILES_URL = "https://fred.stlouisfed.org"  # the keyless files have another host than the API


class SeriesOption(Section):
    """A series of ours, the vendor's name for it, and what the vendor's numbers mean."""

    name: str
    code: str
    unit: Literal["percent", "level", "fraction"]  # percent becomes a fraction: 14.32 -> 0.1432


class LevelOptions(HttpOptions):
    """What FRED and CBOE have in common."""

    series: tuple[SeriesOption, ...] = Field(min_length=1)


class FredTransport(TransportSettings):
    """FRED's pace: 120 requests a minute."""

    requests: int = Field(default=120, ge=1)


class FredOptions(LevelOptions):
    """Options of FRED; `api` needs a key, `csv` (the graph's file) none."""

    base_url: str = "https://api.stlouisfed.org"
    key_env: str = "FRED_API_KEY"
    source: Literal["api", "csv"] = "api"
    transport: FredTransport = FredTransport()


class CboeOptions(LevelOptions):
    """Options of CBOE's index files; no key."""

    base_url: str = "https://cdn.cboe.com"


class _LevelVendor(HttpVendor):
    domains = DOMAINS

    def __init__(self, name: str, options: LevelOptions, clock: Clock | None = None) -> None:
        super().__init__(name, options, clock)
        self._series = {item.name: item for item in options.series}

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        end = min(request.end, request.as_of)
        if request.domain not in self.domains or end < request.start:
            return ()
        return tuple(shard_of(self.name, request, name, (name,), (request.start, end)) for name in request.symbols if name in self._series)

    def requests_of(self, shard: Shard) -> int:
        """Return about how many questions a shard takes, for a dry run."""
        del shard
        return 1

    def _levels(self, shard: Shard, records: Records, days: DateArray, field: str, late: bool) -> Parsed:
        series = self._series[shard.symbols[0]]
        texts = records.values(field)
        # A listed holiday without a value is no row and no fault.
        silent = np.array([isinstance(text, str) and text.strip() in ("", ".") for text in texts], dtype=bool)
        values: FloatArray = records.parsed_numbers(field, ["0" if quiet else text for quiet, text in zip(silent, texts, strict=True)])
        outside = ~np.isnat(days) & ((days < np.datetime64(shard.start)) | (days > np.datetime64(shard.end)))
        columns = {
            "session": days,
            "series": series.name,
            "value": values / 100.0 if series.unit == "percent" else values,
            "unit": "level" if series.unit == "level" else "fraction",
            "known_on": session_after(days) if late else days,
        }
        key = f"{series.name}/"
        parsed = records.finish("index_level", columns, lambda index: key + str(days[index]), drop=outside | silent)
        notes = [f"{int((silent & ~outside).sum())} dates without a value"] if (silent & ~outside).any() else []
        return join("index_level", [parsed], notes)


class FredVendor(_LevelVendor):
    """FRED: published the next morning, so knowable a session after the observation."""

    def __init__(self, name: str, options: FredOptions, clock: Clock | None = None) -> None:
        if options.source == "csv" and "base_url" not in options.model_fields_set:
            options = options.model_copy(update={"base_url": FILES_URL})
        super().__init__(name, options, clock)
        self.options = options

    def credentials(self) -> Credentials:
        if self.options.source == "csv":
            return Credentials()
        key = secret_from_environment(self.options.key_env, self.name)
        return Credentials(query={"api_key": key}, secrets=(key,))  # FRED takes the key as a parameter only

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        code = quote(self._series[shard.symbols[0]].code, safe="")
        if self.options.source == "csv":
            span = f"id={code}&cosd={shard.start}&coed={shard.end}"
            url = f"{self.base_url}/graph/fredgraph.csv?{span}"
            return (ask(self.transport, landing, url, lambda answer: check_text(answer, "observation_date", "DATE")),)
        span = f"observation_start={shard.start}&observation_end={shard.end}&sort_order=asc&limit={PAGE_ROWS}"
        stem = f"{self.base_url}/fred/series/observations?series_id={code}&file_type=json&{span}&offset="
        return follow(self.transport, landing, f"{stem}0", lambda body: _fred_page(stem, body), self.options.most_pages)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        return join("index_level", [self._parse(shard, payload) for payload in payloads])

    def _parse(self, shard: Shard, payload: Payload) -> Parsed:
        if not urlsplit(payload.request["url"]).path.endswith(".csv"):
            records = Records(payload.sha256, _observations(payload.body)[0])
            records.require("date", "value")
            return self._levels(shard, records, records.dates("date"), "value", late=True)
        records = text_records(payload.sha256, payload.body)
        names = [name for name in (records.records[0] if len(records) else {}) if name.lower() in ("observation_date", "date")]
        code = self._series[shard.symbols[0]].code
        require_header(records, payload.body, *(names or ["observation_date"]), code)
        days = records.dates(names[0] if names else "observation_date")
        return self._levels(shard, records, days, code, late=True)


class CboeVendor(_LevelVendor):
    """CBOE's whole-history files, in the evening of the session."""

    def __init__(self, name: str, options: CboeOptions, clock: Clock | None = None) -> None:
        super().__init__(name, options, clock)
        self.options = options

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        code = quote(self._series[shard.symbols[0]].code, safe="")
        url = f"{self.base_url}/api/global/us_indices/daily_prices/{code}_History.csv"
        return (ask(self.transport, landing, url, lambda answer: check_text(answer, "DATE")),)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        return join("index_level", [self._parse(shard, payload) for payload in payloads])

    def _parse(self, shard: Shard, payload: Payload) -> Parsed:
        records = text_records(payload.sha256, payload.body, rename=lambda name: name.strip().upper())
        code = self._series[shard.symbols[0]].code.upper()
        field = "CLOSE" if not len(records) or "CLOSE" in records.records[0] else code
        require_header(records, payload.body, "DATE", field)
        return self._levels(shard, records, records.dates("DATE", read=_american_day), field, late=False)


def _american_day(text: str) -> date:
    try:
        return datetime.strptime(text, "%m/%d/%Y").date()  # noqa: DTZ007  # a session date has no zone
    except ValueError:
        return iso_day(text)


def _observations(body: bytes) -> tuple[list[dict[str, object]], int, int]:
    value = mapping(decode_json(body), "the answer")
    if "error_message" in value:
        raise ReportedError(f"error {value.get('error_code')} under HTTP 200: {value['error_message']}")
    if "observations" not in value:
        raise ContractError(f"the answer has no observations; found {', '.join(sorted(value))}")
    rows = [dict(row) for row in record_list(value["observations"], "observations")]
    count, offset = value.get("count", len(rows)), value.get("offset", 0)
    if type(count) is not int or type(offset) is not int:
        raise ContractError(f"expected whole numbers as count and offset, found {count!r} and {offset!r}")
    return rows, count, offset


def _fred_page(stem: str, body: bytes) -> Page:
    rows, count, offset = _observations(body)
    reached = offset + len(rows)
    if not rows and reached < count:
        raise ReportedError(f"an empty page at offset {offset} of {count} observations")
    return Page(f"{stem}{reached}" if reached < count else None, tuple(str(row.get("date")) for row in rows))


def _build_fred(name: str, options: FredOptions, workspace: Path) -> FredVendor:
    del workspace
    return FredVendor(name, options)


def _build_cboe(name: str, options: CboeOptions, workspace: Path) -> CboeVendor:
    del workspace
    return CboeVendor(name, options)


FRED = VendorKind(
    name="fred",
    summary="FRED observations (VIX close, rates) over its API or as the graph's CSV; a missing value is a dot",
    domains=DOMAINS,
    modes=frozenset({"rest"}),
    options=FredOptions,
    build=_build_fred,
)

CBOE = VendorKind(
    name="cboe",
    summary="CBOE index history files: VIX and its siblings, the primary source",
    domains=DOMAINS,
    modes=frozenset({"rest"}),
    options=CboeOptions,
    build=_build_cboe,
)
