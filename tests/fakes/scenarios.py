"""One small, complete ingest per vendor: a fake, an adapter, a request, what has to come out, and how its rows are changed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import pyarrow as pa
from fakes.alpaca_data import AlpacaDataFake
from fakes.clocks import FastClock
from fakes.ivolatility import IVolatilityFake
from fakes.landing import MemoryLanding
from fakes.polygon import Bar, Market, PolygonFake
from fakes.server import FakeServer, Reply
from fakes.simple import CboeFake, FredFake, TiingoFake
from fakes.storage import Storage, day_file, key_of, pack, storage, unpack

from quanto.core.errors import QuantoError
from quanto.market.calendar import as_date, sessions_between
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.validate import validate
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Vendor
from quanto.stages.ingest.vendors.alpaca import AlpacaOptions, AlpacaVendor
from quanto.stages.ingest.vendors.flatfiles import FlatFileOptions, FlatFileVendor
from quanto.stages.ingest.vendors.ivolatility import IVolatilityOptions, IVolatilityVendor
from quanto.stages.ingest.vendors.levels import CboeOptions, CboeVendor, FredOptions, FredVendor, SeriesOption
from quanto.stages.ingest.vendors.polygon import PolygonOptions, PolygonVendor
from quanto.stages.ingest.vendors.tiingo import TiingoOptions, TiingoVendor

# Across the change to daylight saving time on 2026-03-08, and up to a session that is not final on as_of.
START, END, AS_OF = date(2026, 2, 27), date(2026, 3, 16), date(2026, 3, 17)
DAYS = [as_date(day) for day in sessions_between(START, END)]
KEYS = {
    "POLYGON_API_KEY": "polygon-key", "TIINGO_API_KEY": "tiingo-key", "FRED_API_KEY": "fred-key", "IVOLATILITY_API_KEY": "ivol-key",
    "APCA_API_KEY_ID": "alpaca-id", "APCA_API_SECRET_KEY": "alpaca-secret",
    "POLYGON_S3_ACCESS_KEY": "s3-access-key", "POLYGON_S3_SECRET_KEY": "s3-secret-key",
}  # fmt: skip
PATIENCE = TransportSettings(
    requests=1000, attempts=4, backoff_seconds=0.1, read_seconds=0.25, deadline_seconds=0.6, most_wait_seconds=60.0
)

Rows = list[dict[str, object]]
RowChange = Callable[[Rows], Rows | None]


def market() -> Market:
    """Return one symbol with prices around 50; no splits or dividends."""
    bars = {day: Bar(50.0 + index, 51.25 + index, 49.5 + index, 50.75 + index, 1_000_000.5 + index) for index, day in enumerate(DAYS)}
    return Market(bars={"ZZZ": bars, "YYY": {day: replace(bar, close=bar.close + 0.25) for day, bar in bars.items()}})


@dataclass
class Outcome:
    """What an ingest of one request came to: rows after validation, or the error that ended it."""

    rows: int = 0
    closes: tuple[float, ...] = ()
    rejected: tuple[str, ...] = ()
    merged: int = 0
    notes: tuple[str, ...] = ()
    error: QuantoError | None = None
    provisional: int = 0

    @property
    def word(self) -> str:
        if self.error is not None:
            return type(self.error).__name__
        return f"{self.rows} rows, {len(self.rejected)} quarantined, {self.merged} merged"


@dataclass
class Scenario:
    """A vendor against its fake."""

    name: str
    fake: FakeServer
    vendor: Vendor
    request: IngestRequest
    clock: FastClock
    endpoint: str  # part of the path that carries the rows
    value: str  # the vendor's field for the close or level
    change: Callable[[Reply, RowChange], Reply]
    fields: Mapping[str, str] = field(default_factory=dict)  # ours -> the vendor's, of the other fields
    landing: Landing = field(default_factory=MemoryLanding)
    expected: int = len(DAYS)
    bucket: Storage | None = None

    def rows(self, change: RowChange, endpoint: str | None = None, calls: Sequence[int] | None = (1,)) -> None:
        """Plan a change of the rows of an answer; of day files the object itself is changed."""
        if self.bucket is not None:
            key = key_of(DAYS[-2])
            self.bucket.put(key, self.change(Reply(self.bucket.get(key)), change).body)
            return
        self.fake.fault(lambda reply: self.change(reply, change), self.endpoint if endpoint is None else endpoint, calls)

    def run(self, landing: Landing | None = None) -> Outcome:
        store = landing or self.landing
        try:
            parsed = [self.vendor.parse(shard, self.vendor.fetch(shard, store)) for shard in self.vendor.plan(self.request)]
        except QuantoError as error:
            return Outcome(error=error)
        return outcome(self.request.domain, self.name, parsed)


def outcome(domain: str, name: str, parsed: Sequence[Parsed]) -> Outcome:

    table = pa.concat_tables([item.table for item in parsed])
    checked = validate(domain, name, table, [row for item in parsed for row in item.rejected])
    value = {"equity_ohlcv": "close", "index_level": "value"}.get(domain)
    return Outcome(
        rows=len(checked.table),
        closes=tuple(checked.table[value].to_pylist()) if value else (),
        rejected=tuple(checked.quarantine["reason"].to_pylist()),
        merged=checked.merged,
        notes=tuple(note for item in parsed for note in item.notes),
        provisional=sum(checked.table["provisional"].to_pylist()) if domain == "equity_ohlcv" else 0,
    )


def _ask(domain: str = "equity_ohlcv", *symbols: str) -> IngestRequest:
    return IngestRequest(domain, symbols or ("ZZZ",), START, END, AS_OF)


def in_json(place: Callable[[dict[str, object]], Rows], put: Callable[[object, Rows], object]) -> Callable[[Reply, RowChange], Reply]:
    """Return a changer of rows inside a JSON document."""

    def change(reply: Reply, edit: RowChange) -> Reply:
        document = json.loads(reply.body)
        rows = place(document)
        return replace(reply, body=json.dumps(put(document, edit(rows) or rows)).encode())

    return change


def in_csv(reply: Reply, edit: RowChange) -> Reply:
    rows = [dict(row) for row in csv.DictReader(io.StringIO(reply.body.decode()))]
    changed = edit(rows) or rows
    out = io.StringIO()
    header = list(dict.fromkeys(name for row in changed for name in row))
    writer = csv.DictWriter(out, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(changed)
    return replace(reply, body=out.getvalue().encode())


def in_day_file(reply: Reply, edit: RowChange) -> Reply:
    rows = unpack(reply.body)
    changed = edit(rows) or rows
    body = pack(changed, tuple(dict.fromkeys(name for row in changed for name in row)))
    return replace(reply, body=body)


def _put(name: str) -> Callable[[object, Rows], object]:
    def put(document: object, rows: Rows) -> object:
        assert isinstance(document, dict)
        document[name] = rows
        for counter in ("resultsCount", "queryCount", "count"):
            if counter in document:
                document[counter] = len(rows)
        return document

    return put


BAR_LETTERS = {"open": "o", "high": "h", "low": "l", "volume": "v", "stamp": "t"}
BAR_WORDS = {"open": "open", "high": "high", "low": "low", "volume": "volume", "stamp": "date"}


@contextmanager
def polygon(**options: object) -> Iterator[Scenario]:
    with PolygonFake(market(), AS_OF) as fake:
        given = PolygonOptions(base_url=fake.base_url, transport=PATIENCE.model_dump(), **options)  # type: ignore[arg-type]
        clock = FastClock()
        change = in_json(lambda document: document["results"], _put("results"))  # type: ignore[arg-type, return-value]
        yield Scenario("polygon", fake, PolygonVendor("polygon", given, clock), _ask(), clock, "/v2/aggs/ticker", "c", change, BAR_LETTERS)


@contextmanager
def tiingo() -> Iterator[Scenario]:
    with TiingoFake(market(), AS_OF) as fake:
        clock = FastClock()
        vendor = TiingoVendor("tiingo", TiingoOptions(base_url=fake.base_url, transport=PATIENCE.model_dump()), clock)
        change = in_json(lambda document: document, lambda _, rows: rows)  # type: ignore[arg-type, return-value]
        yield Scenario("tiingo", fake, vendor, _ask(), clock, "/tiingo/daily", "close", change, BAR_WORDS)


@contextmanager
def alpaca(**options: object) -> Iterator[Scenario]:
    with AlpacaDataFake(market(), AS_OF) as fake:
        clock = FastClock()
        given = AlpacaOptions(base_url=fake.base_url, transport=PATIENCE.model_dump(), **options)  # type: ignore[arg-type]

        def put(document: object, rows: Rows) -> object:
            assert isinstance(document, dict)
            document["bars"] = {"ZZZ": rows}
            return document

        change = in_json(lambda document: document["bars"]["ZZZ"], put)  # type: ignore[call-overload, index, return-value]
        yield Scenario("alpaca", fake, AlpacaVendor("alpaca", given, clock), _ask(), clock, "/v2/stocks/bars", "c", change, BAR_LETTERS)


@contextmanager
def ivolatility(**options: object) -> Iterator[Scenario]:
    rows: Rows = [
        {
            "record_no": index + 1, "symbol": "ZZZ", "exchange": "NASDAQ", "date": day.isoformat(), "open": bar.open, "high": bar.high,
            "low": bar.low, "close": bar.close, "volume": bar.volume, "unadjusted_close": bar.close * 2,
        }
        for index, (day, bar) in enumerate(market().bars["ZZZ"].items())
    ]  # fmt: skip
    with IVolatilityFake({"/equities/eod/stock-prices": rows}) as fake:
        clock = FastClock()
        given = IVolatilityOptions(base_url=fake.base_url, transport=PATIENCE.model_dump(), poll_seconds=0.01, **options)  # type: ignore[arg-type]

        def put(document: object, changed: Rows) -> object:
            assert isinstance(document, dict)
            document["data"] = changed
            document["status"]["recordsFound"] = len(changed)
            return document

        change = in_json(lambda document: document["data"], put)  # type: ignore[arg-type, return-value]
        vendor = IVolatilityVendor("ivolatility", given, clock)
        yield Scenario("ivolatility", fake, vendor, _ask(), clock, "/equities/eod", "close", change, BAR_WORDS)


@contextmanager
def fred() -> Iterator[Scenario]:
    with FredFake({"VIXCLS": {day: f"{14 + index / 4:.2f}" for index, day in enumerate(DAYS)}}) as fake:
        clock = FastClock()
        series = (SeriesOption(name="VIX", code="VIXCLS", unit="percent"),)
        vendor = FredVendor("fred", FredOptions(base_url=fake.base_url, series=series, transport=PATIENCE.model_dump()), clock)
        change = in_json(lambda document: document["observations"], _put("observations"))  # type: ignore[arg-type, return-value]
        ask = _ask("index_level", "VIX")
        yield Scenario("fred", fake, vendor, ask, clock, "/fred/series", "value", change, {"stamp": "date"})


@contextmanager
def cboe() -> Iterator[Scenario]:
    lines = [f"{day:%m/%d/%Y},14.5,15.5,14.0,{14 + index / 4:.2f}" for index, day in enumerate(DAYS)]
    with CboeFake({"VIX": "\n".join(["DATE,OPEN,HIGH,LOW,CLOSE", *lines, ""])}) as fake:
        clock = FastClock()
        series = (SeriesOption(name="VIX", code="VIX", unit="percent"),)
        vendor = CboeVendor("cboe", CboeOptions(base_url=fake.base_url, series=series, transport=PATIENCE.model_dump()), clock)
        yield Scenario("cboe", fake, vendor, _ask("index_level", "VIX"), clock, "_History.csv", "CLOSE", in_csv, {"stamp": "DATE"})


@contextmanager
def flatfiles() -> Iterator[Scenario]:
    with storage() as bucket:
        world = market()
        days = DAYS[-3:]  # each day is a file
        for day in days:
            bucket.put(key_of(day), day_file(day, {ticker: bars[day] for ticker, bars in world.bars.items()}))
        clock = FastClock()
        options = FlatFileOptions(
            root=f"s3://{bucket.bucket}", endpoint_url=bucket.door.base_url, attempts=4, backoff_seconds=0.01, read_seconds=0.25
        )
        vendor = FlatFileVendor("polygon_flatfiles", options, Path("/nonexistent"), clock)
        words = {**BAR_WORDS, "stamp": "window_start"}
        scenario = Scenario("polygon_flatfiles", bucket.door, vendor, _ask(), clock, "2026-03-13", "close", in_day_file, words)
        scenario.request = replace(scenario.request, start=days[0])
        scenario.expected = len(days)
        scenario.bucket = bucket
        yield scenario


SCENARIOS: Mapping[str, Callable[[], object]] = {
    item.__name__: item for item in (polygon, ivolatility, alpaca, tiingo, fred, cboe, flatfiles)
}
