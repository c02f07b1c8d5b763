"""Tiingo end of day: raw prices, total-return close and actions in one row; the recommended second vendor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from pydantic import Field

from quanto.market.calendar import as_date
from quanto.stages.ingest.actions import Action, actions_table, known_before
from quanto.stages.ingest.errors import RateLimitedError, ReportedError
from quanto.stages.ingest.http_vendor import HttpOptions, HttpVendor, as_of, header_credentials, record_list, shard_of
from quanto.stages.ingest.limits import Clock
from quanto.stages.ingest.paging import ask
from quanto.stages.ingest.redaction import Credentials
from quanto.stages.ingest.rows import Records, join
from quanto.stages.ingest.stamps import provisional, rfc3339_day
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Shard, VendorKind
from quanto.stages.ingest.wire import Answer, decode_json, page_text

DOMAINS = frozenset({"equity_ohlcv", "corporate_actions"})
PRICES = ("open", "high", "low", "close")
KNOWN = frozenset(
    {"date", *PRICES, "volume", "adjOpen", "adjHigh", "adjLow", "adjClose", "adjVolume", "divCash", "splitFactor"},
)


class TiingoTransport(TransportSettings):
    """The free plan's pace: about 50 requests an hour."""

    requests: int = Field(default=50, ge=1)
    window_seconds: float = Field(default=3600.0, gt=0)
    most_wait_seconds: float = Field(default=3600.0, ge=0)
    budget_seconds: float = Field(default=7200.0, gt=0)


class TiingoOptions(HttpOptions):
    """Options of Tiingo."""

    base_url: str = "https://api.tiingo.com"
    key_env: str = "TIINGO_API_KEY"
    transport: TiingoTransport = TiingoTransport()


class TiingoVendor(HttpVendor):
    """One account at Tiingo. Bars and actions come from the same answer, which is asked for once."""

    domains = DOMAINS

    def __init__(self, name: str, options: TiingoOptions, clock: Clock | None = None) -> None:
        super().__init__(name, options, clock)
        self.options = options

    def credentials(self) -> Credentials:
        return header_credentials(self.name, {"Authorization": self.options.key_env}, "Token {}".format)

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        end = min(request.end, request.as_of)
        if request.domain not in self.domains or request.interval != "day" or end < request.start:
            return ()
        return tuple(shard_of(self.name, request, symbol, (symbol,), (request.start, end)) for symbol in request.symbols)

    def requests_of(self, shard: Shard) -> int:
        """Return about how many questions a shard takes, for a dry run."""
        del shard
        return 1

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        ticker = quote(shard.symbols[0].replace(".", "-"), safe="")
        # Up to as_of in both domains, so that bars and actions share one answer.
        span = f"startDate={shard.start}&endDate={as_of(shard)}&format=json"
        return (ask(self.transport, landing, f"{self.base_url}/tiingo/daily/{ticker}/prices?{span}", _check),)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        parts = [_bars(shard, payload, self.options.final_after_days) for payload in payloads]
        if shard.domain == "corporate_actions":
            parts = [_actions(shard, payload) for payload in payloads]
        return join(shard.domain, parts)


def _check(answer: Answer) -> list[object]:
    words = page_text(answer.body, 300)
    if answer.body.lstrip()[:1] not in (b"[", b"{") and any(word in words.lower() for word in ("limit", "quota", "exceeded")):
        raise RateLimitedError(f"a sentence under HTTP 200: {words}")
    return list(_rows(answer.body))


def _rows(body: bytes) -> list[object]:
    value = decode_json(body)
    if isinstance(value, dict):
        raise ReportedError(f"HTTP 200 with {str(value.get('detail') or value)[:200]!r}")
    return list(record_list(value, "the answer"))


def _records(shard: Shard, payload: Payload) -> tuple[Records, np.ndarray, np.ndarray]:
    records = Records(payload.sha256, record_list(decode_json(payload.body), "the answer"))
    records.require("date", *PRICES, "volume", "divCash", "splitFactor")
    # The session date is written as UTC midnight: it is not converted.
    sessions = records.dates("date", read=lambda text: rfc3339_day(text, None))
    outside = ~np.isnat(sessions) & ((sessions < np.datetime64(shard.start)) | (sessions > np.datetime64(shard.end)))
    return records, sessions, outside


def _bars(shard: Shard, payload: Payload, final_after_days: int) -> Parsed:
    records, sessions, outside = _records(shard, payload)
    columns = {
        "session": sessions,
        "symbol": shard.symbols[0],
        **{name: records.numbers(name) for name in (*PRICES, "volume")},
        "adj_close": records.numbers("adjClose", optional=True),
        "basis": "raw",
        "volume_basis": "raw",
        "basis_as_of": as_of(shard),
        "known_on": sessions,
        "provisional": provisional(sessions, as_of(shard), final_after_days),
    }
    parsed = records.finish("equity_ohlcv", columns, lambda index: f"{shard.symbols[0]}/{sessions[index]}", drop=outside)
    return join("equity_ohlcv", [parsed], _notes(records, outside, shard))


def _actions(shard: Shard, payload: Payload) -> Parsed:
    records, sessions, outside = _records(shard, payload)
    cash, factor = records.numbers("divCash"), records.numbers("splitFactor")
    records.fault_where(cash < 0, lambda index: f"divCash is negative ({cash[index]:g})")
    records.fault_where(factor <= 0, lambda index: f"splitFactor is not positive ({factor[index]:g})")
    actions = []
    for index in np.flatnonzero(~outside & ((cash > 0) | ((factor > 0) & (factor != 1.0)))).tolist():
        if index in records.faults:
            continue
        day = as_date(sessions[index])
        common = {"symbol": shard.symbols[0], "ex_date": day, "known_on": known_before(day)}
        source = {"payload": payload.sha256, "payload_row": index}
        if factor[index] != 1.0:
            actions.append(Action(**common, **source, kind="split", ratio=float(factor[index])))  # type: ignore[arg-type]
        if cash[index] > 0:
            actions.append(
                Action(**common, **source, kind="cash_dividend", cash_usd=float(cash[index]), currency="USD")  # type: ignore[arg-type]
            )
    table, notes = actions_table(actions)
    rejected = records.finish("equity_ohlcv", {}, lambda index: f"{shard.symbols[0]}/{sessions[index]}", drop=outside).rejected
    return Parsed(table, rejected, (*notes, *_notes(records, outside, shard)))


def _notes(records: Records, outside: np.ndarray, shard: Shard) -> tuple[str, ...]:
    left_out = (f"{int(outside.sum())} rows outside {shard.start}..{shard.end} left out",) if outside.any() else ()
    return (*records.unknown(KNOWN), *left_out)


def _build(name: str, options: TiingoOptions, workspace: Path) -> TiingoVendor:
    del workspace
    return TiingoVendor(name, options)


TIINGO = VendorKind(
    name="tiingo",
    summary="Tiingo end of day: raw bars with total-return close, splits and dividends",
    domains=DOMAINS,
    modes=frozenset({"rest"}),
    options=TiingoOptions,
    build=_build,
)
