"""A fake of Polygon/Massive REST: raw prices and a table of splits, seen as of a virtual today."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from fakes.server import Call, FakeServer, Reply, json_reply

NEW_YORK = ZoneInfo("America/New_York")
AGGS = re.compile(r"/v2/aggs/ticker/([^/]+)/range/(\d+)/(day|minute)/([^/]+)/([^/]+)")
GROUPED = re.compile(r"/v2/aggs/grouped/locale/us/market/stocks/(\d{4}-\d\d-\d\d)")
UNKNOWN_KEY = {"status": "ERROR", "request_id": "r", "error": "Unknown API Key"}
TOO_MANY = {"status": "ERROR", "request_id": "r", "error": "You've exceeded the maximum requests per minute, please wait or upgrade."}


@dataclass(frozen=True)
class Bar:
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass
class Market:
    """What really happened: raw daily bars, minute bars by New York wall time, and the actions."""

    bars: dict[str, dict[date, Bar]] = field(default_factory=dict)
    minutes: dict[str, dict[datetime, Bar]] = field(default_factory=dict)
    splits: list[dict[str, object]] = field(default_factory=list)
    dividends: list[dict[str, object]] = field(default_factory=list)
    contracts: list[dict[str, object]] = field(default_factory=list)
    chains: dict[str, list[dict[str, object]]] = field(default_factory=dict)


class PolygonFake(FakeServer):
    """`plan`: basic (5 requests a minute, 2 years, no running day, no chain) or paid."""

    def __init__(self, market: Market, today: date, keys: tuple[str, ...] = ("polygon-key",), plan: str = "paid") -> None:
        super().__init__()
        self.market = market
        self.today = today
        self.keys = set(keys)
        self.plan = plan
        self.minute: Callable[[], float] | None = None  # a clock; with one, the basic plan counts requests per minute
        self._granted: dict[str, list[float]] = defaultdict(list)
        self.status_word = "OK"

    def answer(self, call: Call) -> Reply:
        key = call.headers.get("authorization", "").removeprefix("Bearer ") or call.params.get("apiKey", "")
        if key not in self.keys:
            return json_reply(UNKNOWN_KEY, 401)
        if self._over_limit(key):
            return json_reply(TOO_MANY, 429)
        if found := AGGS.fullmatch(call.path):
            return self._aggs(call, *found.groups())
        if found := GROUPED.fullmatch(call.path):
            return self._grouped(date.fromisoformat(found[1]), call.params.get("adjusted", "true") == "true")
        tables: dict[str, tuple[list[dict[str, object]], int, int]] = {
            "/stocks/v1/splits": (self.market.splits, 100, 5000), "/stocks/v1/dividends": (self.market.dividends, 100, 5000),
            "/v3/reference/splits": (self.market.splits, 10, 1000), "/v3/reference/dividends": (self.market.dividends, 10, 1000),
        }  # fmt: skip
        if call.path in tables:
            rows, default, most = tables[call.path]
            chosen = [row for row in rows if "ticker" not in call.params or row["ticker"] == call.params["ticker"]]
            return self._paged(call, chosen, default, most)
        if call.path == "/v3/reference/options/contracts":
            return self._contracts(call)
        if call.path.startswith("/v3/snapshot/options/"):
            if self.plan == "basic":
                return self._not_entitled("You are not entitled to this data. Please upgrade your plan at https://x/pricing")
            return self._paged(call, self.market.chains.get(call.path.rpartition("/")[2], []), 10, 250)
        return json_reply({"status": "NOT_FOUND", "request_id": "r", "message": "Not found."}, 404)

    def _over_limit(self, key: str) -> bool:
        if self.plan != "basic" or self.minute is None:
            return False
        now = self.minute()
        recent = [at for at in self._granted[key] if at > now - 60]
        self._granted[key] = [*recent, now]
        return len(recent) >= 5

    def _not_entitled(self, message: str) -> Reply:
        return json_reply({"status": "NOT_AUTHORIZED", "request_id": "r", "message": message}, 403)

    def _window_fault(self, start: date, end: date) -> Reply | None:
        if self.plan != "basic":
            return None
        if start < self.today.replace(year=self.today.year - 2):
            return self._not_entitled("Your plan doesn't include this data timeframe. Please upgrade your plan at https://x/pricing")
        if end >= self.today:
            return self._not_entitled("Attempted to request today's data before end of day. Please upgrade your plan at https://x/pricing")
        return None

    def _aggs(self, call: Call, ticker: str, multiplier: str, timespan: str, low: str, high: str) -> Reply:
        limit = int(call.params.get("limit", "5000"))
        if multiplier != "1" or not 1 <= limit <= 50_000:
            return json_reply({"status": "ERROR", "request_id": "r", "error": "limit must be at most 50000"}, 400)
        start, end = _moment(low, first=True), _moment(high, first=False)
        if fault := self._window_fault(start.date(), end.date()):
            return fault
        adjusted = call.params.get("adjusted", "true") == "true"
        rows = self._daily(ticker, adjusted) if timespan == "day" else self._by_minute(ticker)
        inside = [row for row in rows if start <= row[0] <= end]
        scanned, rest = inside[:limit], inside[limit:]
        document: dict[str, object] = {
            "ticker": ticker, "queryCount": len(scanned), "resultsCount": len(scanned), "adjusted": adjusted,
            "status": self.status_word, "request_id": "r", "count": len(scanned),
        }  # fmt: skip
        if scanned:
            document["results"] = [_row(moment, bar) for moment, bar in scanned]
        if rest:
            cursor = base64.b64encode(f"limit={limit}&sort=asc&adjusted={str(adjusted).lower()}".encode()).decode().rstrip("=")
            document["next_url"] = (
                f"{self.base_url}/v2/aggs/ticker/{ticker}/range/1/{timespan}/{_ms(rest[0][0])}/{high}"
                f"?cursor={cursor}&limit={limit}&sort=asc&adjusted={str(adjusted).lower()}"
            )
        return json_reply(document)

    def _daily(self, ticker: str, adjusted: bool) -> list[tuple[datetime, Bar]]:
        out = []
        for day, bar in sorted(self.market.bars.get(ticker, {}).items()):
            if day > self.today:
                continue
            factor = self.factor(ticker, day) if adjusted else 1.0
            prices = (round(value * factor, 4) for value in (bar.open, bar.high, bar.low, bar.close))
            out.append((datetime.combine(day, time(0), NEW_YORK), Bar(*prices, bar.volume / factor)))
        return out

    def _by_minute(self, ticker: str) -> list[tuple[datetime, Bar]]:
        return [(moment.replace(tzinfo=NEW_YORK), bar) for moment, bar in sorted(self.market.minutes.get(ticker, {}).items())]

    def factor(self, ticker: str, day: date) -> float:
        """Return the split factor of a raw price as of the virtual today: a later split restates history."""
        out = 1.0
        for split in self.market.splits:
            when = date.fromisoformat(str(split["execution_date"]))
            if split["ticker"] == ticker and day < when <= self.today:
                out *= float(str(split["split_from"])) / float(str(split["split_to"]))
        return out

    def _grouped(self, day: date, adjusted: bool) -> Reply:
        if fault := self._window_fault(day, day):
            return fault
        moment = datetime.combine(day, time(16), NEW_YORK)
        rows = []
        for ticker in sorted(self.market.bars):
            found = dict(self._daily(ticker, adjusted)).get(datetime.combine(day, time(0), NEW_YORK))
            if found is not None:
                rows.append({"T": ticker, **_row(moment, found)})
        document: dict[str, object] = {
            "queryCount": len(rows), "resultsCount": len(rows), "adjusted": adjusted, "status": self.status_word, "request_id": "r",
        }  # fmt: skip
        if rows:
            document["results"] = rows
        return json_reply(document)

    def _contracts(self, call: Call) -> Reply:
        as_of = date.fromisoformat(call.params.get("as_of", self.today.isoformat()))
        expired = call.params.get("expired", "false") == "true"
        rows = [
            row
            for row in self.market.contracts
            if row["underlying_ticker"] == call.params.get("underlying_ticker", row["underlying_ticker"])
            and (expired or date.fromisoformat(str(row["expiration_date"])) >= as_of)
        ]
        return self._paged(call, rows, 10, 1000)

    def _paged(self, call: Call, rows: list[dict[str, object]], default: int, most: int) -> Reply:
        limit = int(call.params.get("limit", default))
        if not 1 <= limit <= most:
            return json_reply({"status": "ERROR", "request_id": "r", "error": f"limit must be at most {most}"}, 400)
        offset = int(base64.b64decode(call.params.get("cursor", "MA==")))
        document: dict[str, object] = {"status": "OK", "request_id": "r", "results": rows[offset : offset + limit]}
        if offset + limit < len(rows):
            cursor = base64.b64encode(str(offset + limit).encode()).decode()
            query = "&".join(f"{name}={value}" for name, value in call.params.items() if name not in ("cursor", "apiKey"))
            document["next_url"] = f"{self.base_url}{call.path}?{query}&cursor={cursor}".replace("=MA==", "=")
        return json_reply(document)


def _row(moment: datetime, bar: Bar) -> Mapping[str, object]:
    return {"v": bar.volume, "vw": bar.close, "o": bar.open, "c": bar.close, "h": bar.high, "l": bar.low, "t": _ms(moment), "n": 17}


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def _moment(text: str, *, first: bool) -> datetime:
    if text.isdigit():
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    day = datetime.combine(date.fromisoformat(text), time(0), NEW_YORK)
    return day if first else day + timedelta(days=1) - timedelta(milliseconds=1)
