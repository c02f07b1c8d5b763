"""Tiingo, Alpaca data, FRED and CBOE against their fakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date

import pytest
from fakes.alpaca_data import AlpacaDataFake
from fakes.clocks import FastClock
from fakes.landing import MemoryLanding
from fakes.polygon import Bar, Market
from fakes.scenarios import KEYS
from fakes.server import FakeServer, Reply
from fakes.simple import CboeFake, FredFake, TiingoFake

from quanto.core.config import load_section
from quanto.core.errors import ConfigError
from quanto.market.calendar import as_date, sessions_between
from quanto.stages.ingest.errors import AuthenticationError, NotFoundError, QuotaExhaustedError, RefusedRequestError
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Parsed, Vendor
from quanto.stages.ingest.vendors.alpaca import AlpacaOptions, AlpacaVendor
from quanto.stages.ingest.vendors.levels import CboeOptions, CboeVendor, FredOptions, FredVendor, SeriesOption
from quanto.stages.ingest.vendors.tiingo import TiingoOptions, TiingoVendor

# Both changes of daylight saving time lie inside.
DAYS = [as_date(day) for day in sessions_between(date(2025, 10, 27), date(2026, 3, 13))]
AS_OF = date(2026, 3, 16)
FAST = TransportSettings(requests=1000, attempts=2, backoff_seconds=0.01)
VIX = (SeriesOption(name="VIX", code="VIXCLS", unit="percent"),)


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def market() -> Market:
    bars = {day: Bar(400.0 + index, 410.0 + index, 390.0 + index, 405.0 + index, 1000.0 + index) for index, day in enumerate(DAYS)}
    split = {"ticker": "ZZZ", "execution_date": "2026-01-06", "split_from": 1, "split_to": 4}
    paid = {"ticker": "ZZZ", "ex_dividend_date": "2026-02-06", "cash_amount": 0.5}
    return Market(bars={"ZZZ": bars, "YYY": bars, "BRK.B": bars}, splits=[split], dividends=[paid])


def ingest(vendor: Vendor, domain: str, *symbols: str, landing: MemoryLanding | None = None, end: date = DAYS[-1]) -> list[Parsed]:
    store = landing or MemoryLanding()
    request = IngestRequest(domain, symbols or ("ZZZ",), DAYS[0], end, AS_OF)
    return [vendor.parse(shard, vendor.fetch(shard, store)) for shard in vendor.plan(request)]


def rows_of(parsed: list[Parsed]) -> list[dict[str, object]]:
    return [row for item in parsed for row in item.table.to_pylist()]


@contextmanager
def tiingo(market: Market) -> Iterator[tuple[FakeServer, TiingoVendor]]:
    with TiingoFake(market, AS_OF) as fake:
        yield fake, TiingoVendor("tiingo", TiingoOptions(base_url=fake.base_url, transport=FAST.model_dump()), FastClock())


@contextmanager
def alpaca(market: Market, **options: object) -> Iterator[tuple[AlpacaDataFake, AlpacaVendor]]:
    with AlpacaDataFake(market, AS_OF) as fake:
        assert isinstance(fake, AlpacaDataFake)
        yield fake, AlpacaVendor("alpaca", AlpacaOptions(base_url=fake.base_url, transport=FAST.model_dump(), **options), FastClock())  # type: ignore[arg-type]


def test_tiingo_gives_raw_bars_on_the_date_as_written(market: Market) -> None:
    with tiingo(market) as (fake, vendor):
        rows = rows_of(ingest(vendor, "equity_ohlcv"))
        assert fake.calls[0].headers["authorization"] == "Token tiingo-key"
    assert [row["session"] for row in rows] == DAYS
    assert (rows[0]["close"], rows[0]["adj_close"], rows[0]["basis"]) == (405.0, 405.0, "raw")


def test_tiingo_gives_actions_out_of_the_answer_that_gave_the_bars(market: Market) -> None:
    landing = MemoryLanding()
    with tiingo(market) as (fake, vendor):
        ingest(vendor, "equity_ohlcv", landing=landing)
        rows = rows_of(ingest(vendor, "corporate_actions", landing=landing))
        assert len(fake.calls) == 1
    assert [(str(row["ex_date"]), row["kind"], row["ratio"], row["cash_usd"]) for row in rows] == [
        ("2026-01-06", "split", 4.0, None),
        ("2026-02-06", "cash_dividend", None, 0.5),
    ]


def test_two_threads_with_one_question_ask_once(market: Market) -> None:
    landing = MemoryLanding()
    with tiingo(market) as (fake, vendor), ThreadPoolExecutor(8) as pool:
        domains = ["equity_ohlcv", "corporate_actions"] * 4
        list(pool.map(lambda domain: ingest(vendor, domain, landing=landing), domains))
        assert len(fake.calls) == 1


def test_tiingo_writes_share_classes_with_a_dash(market: Market) -> None:
    with tiingo(market) as (fake, vendor):
        rows = rows_of(ingest(vendor, "equity_ohlcv", "BRK.B"))
        assert "/BRK-B/" in fake.calls[0].path
    assert {row["symbol"] for row in rows} == {"BRK.B"}


def test_one_unknown_symbol_does_not_lose_the_others(market: Market) -> None:
    with tiingo(market) as (_, vendor):
        good, bad = vendor.plan(IngestRequest("equity_ohlcv", ("ZZZ", "GONE"), DAYS[0], DAYS[-1], AS_OF))
        assert vendor.fetch(good, MemoryLanding())
        with pytest.raises(NotFoundError, match="GONE"):
            vendor.fetch(bad, MemoryLanding())


def test_tiingos_quota_as_a_sentence_under_200_is_a_limit(market: Market) -> None:
    with tiingo(market) as (fake, vendor):
        fake.fault(lambda _: Reply(b"You have exceeded your hourly request limit.", content_type="text/plain"), calls=None)
        with pytest.raises(QuotaExhaustedError, match="hourly"):
            ingest(vendor, "equity_ohlcv")


def test_alpaca_gives_new_york_sessions_across_both_changes(market: Market) -> None:
    with alpaca(market) as (_, vendor):
        rows = rows_of(ingest(vendor, "equity_ohlcv"))
    assert [row["session"] for row in rows] == DAYS
    assert {row["basis"] for row in rows} == {"raw"}


def test_alpaca_pages_run_across_symbols(market: Market) -> None:
    with alpaca(market, symbols_per_request=100, rows_per_page=30) as (fake, vendor):
        rows = rows_of(ingest(vendor, "equity_ohlcv", "ZZZ", "NONE", "YYY"))
        assert len(fake.calls) == -(-2 * len(DAYS) // 30)
        assert all(call.params["symbols"] == "ZZZ,NONE,YYY" for call in fake.calls)
    assert sorted((row["symbol"], row["session"]) for row in rows) == [(name, day) for name in ("YYY", "ZZZ") for day in DAYS]


def test_alpaca_rows_of_one_payload_have_their_own_numbers(market: Market) -> None:
    with alpaca(market, symbols_per_request=100) as (_, vendor):
        rows = rows_of(ingest(vendor, "equity_ohlcv", "ZZZ", "YYY"))
    assert sorted(row["payload_row"] for row in rows) == list(range(2 * len(DAYS)))  # type: ignore[type-var]


def test_alpaca_splits_are_the_basis_of_as_of(market: Market) -> None:
    with alpaca(market, adjustment="split") as (_, vendor):
        row = rows_of(ingest(vendor, "equity_ohlcv"))[0]
    assert (row["open"], row["volume"], row["basis"], row["volume_basis"], row["basis_as_of"]) == (100.0, 4000.0, "split", "split", AS_OF)


def test_fresh_consolidated_bars_are_left_for_later(market: Market) -> None:
    landing = MemoryLanding()
    with alpaca(market) as (_, vendor):
        parsed = ingest(vendor, "equity_ohlcv", landing=landing, end=AS_OF)
        assert [row["session"] for row in rows_of(parsed)] == DAYS
        assert "refused" in parsed[0].notes[0]
        landing.offline = True
        assert rows_of(ingest(vendor, "equity_ohlcv", landing=landing, end=AS_OF)) == rows_of(parsed)


def test_alpaca_says_forbidden_for_a_wrong_key(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APCA_API_SECRET_KEY", "wrong")
    with alpaca(market) as (_, vendor), pytest.raises(AuthenticationError):
        ingest(vendor, "equity_ohlcv")


def test_the_single_exchange_feed_is_refused_by_configuration() -> None:
    with pytest.raises(ConfigError, match="feed"):
        load_section("alpaca", {"feed": "iex"}, AlpacaOptions)


def test_alpacas_actions_are_read_by_type_and_unknown_types_stop_the_symbol(market: Market) -> None:
    with alpaca(market) as (fake, vendor):
        day = {"ex_date": "2026-01-06", "process_date": "2026-01-07"}
        fake.actions = {
            "forward_splits": [{"id": "1", "symbol": "ZZZ", "old_rate": 1, "new_rate": 4, **day}],
            "reverse_splits": [{"id": "2", "symbol": "ZZZ", "old_rate": 10, "new_rate": 1, **day, "ex_date": "2026-01-08"}],
            "cash_dividends": [
                {"id": "3", "symbol": "ZZZ", "rate": 0.5, "special": False, "foreign": False, **day},
                {"id": "4", "symbol": "ZZZ", "rate": 2, "special": True, **day},
                {"id": "x", "symbol": "ZZZ", "rate": "N/A", "special": True, **day},
            ],
            "stock_dividends": [{"id": "5", "symbol": "ZZZ", "rate": 0.05, **day}],
            "spin_offs": [{"id": "6", "source_symbol": "ZZZ", "new_symbol": "NEW", "source_rate": 4, "new_rate": 1, **day}],
            "name_changes": [{"id": "7", "old_symbol": "ZZZ", "new_symbol": "YYZ", "process_date": "2026-01-07"}],
            "moon_landings": [{"id": "8", "symbol": "ZZZ", **day}],
        }
        parsed = ingest(vendor, "corporate_actions")
    found = {str(row["kind"]) + str(row["ex_date"])[-2:]: row for row in rows_of(parsed)}
    assert found["split06"]["ratio"] == 4.0
    assert found["split08"]["ratio"] == 0.1
    assert found["cash_dividend06"]["cash_usd"] == 0.5
    assert found["special_dividend06"]["cash_usd"] == 2.0
    assert found["stock_dividend06"]["ratio"] == 1.05
    assert (found["spin_off06"]["ratio"], found["spin_off06"]["other_symbol"]) == (0.25, "NEW")
    assert found["symbol_change07"]["other_symbol"] == "YYZ"
    assert "unknown06" in found
    assert [item.reason for item in parsed[0].rejected] == ["rate is no usable value ('N/A')"]


def fred(**options: object) -> tuple[FredFake, FredVendor]:
    values = {day: f"{14 + index / 100:.2f}" for index, day in enumerate(DAYS)}
    fake = FredFake({"VIXCLS": {**values, date(2025, 12, 25): "."}}, page_rows=30)
    return fake, FredVendor("fred", FredOptions(base_url=fake.base_url, series=VIX, transport=FAST.model_dump(), **options), FastClock())  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["api", "csv"])
def test_fred_gives_fractions_known_a_session_later_and_no_row_for_a_dot(source: str) -> None:
    fake, vendor = fred(source=source)
    with fake:
        parsed = ingest(vendor, "index_level", "VIX")
    rows = rows_of(parsed)
    assert [row["session"] for row in rows] == DAYS
    assert (rows[0]["value"], rows[0]["unit"], rows[0]["known_on"]) == (0.14, "fraction", DAYS[1])
    assert parsed[0].notes == ("1 dates without a value",)


def test_freds_pages_by_offset_are_followed_and_its_key_is_stored_nowhere() -> None:
    landing = MemoryLanding()
    fake, vendor = fred()
    with fake:
        ingest(vendor, "index_level", "VIX", landing=landing)
        assert [call.params["offset"] for call in fake.calls] == ["0", "30", "60", "90"]
        assert all(call.params["api_key"] == "fred-key" for call in fake.calls)
    assert "fred-key" not in landing.text()


def test_fred_calls_a_wrong_series_a_bad_request() -> None:
    fake = FredFake({})
    with fake:
        vendor = FredVendor("fred", FredOptions(base_url=fake.base_url, series=VIX, transport=FAST.model_dump()), FastClock())
        with pytest.raises(RefusedRequestError, match="does not exist"):
            ingest(vendor, "index_level", "VIX")


@pytest.mark.parametrize(
    "text",
    [
        "DATE,OPEN,HIGH,LOW,CLOSE\n01/05/2026,14.0,15.0,13.0,14.32\n01/06/2026,14.0,15.0,13.0,15.01\n",
        "DATE,OPEN,HIGH,LOW,CLOSE\r\n01/05/2026,14.0,15.0,13.0,14.32\r\n01/06/2026,14.0,15.0,13.0,15.01\r\n",
        "DATE,VIX\n01/05/2026,14.32\n01/06/2026,15.01",
        "\ufeffDATE,OPEN,HIGH,LOW,CLOSE\n2026-01-05,14,15,13,14.32\n2026-01-06,14,15,13,15.01\n",
        "CLOSE,LOW,HIGH,OPEN,DATE\n14.32,13,15,14,01/05/2026\n15.01,13,15,14,01/06/2026\n",
    ],
)
def test_cboes_files_are_read_with_and_without_ohlc(text: str) -> None:
    with CboeFake({"VIX": text}) as fake:
        series = (SeriesOption(name="VIX", code="VIX", unit="percent"),)
        vendor = CboeVendor("cboe", CboeOptions(base_url=fake.base_url, series=series, transport=FAST.model_dump()), FastClock())
        rows = rows_of(ingest(vendor, "index_level", "VIX"))
    assert [(str(row["session"]), row["value"], row["known_on"]) for row in rows] == [
        ("2026-01-05", pytest.approx(0.1432), date(2026, 1, 5)),
        ("2026-01-06", pytest.approx(0.1501), date(2026, 1, 6)),
    ]


def test_a_series_that_a_vendor_does_not_have_is_not_asked_of_it() -> None:
    fake, vendor = fred()
    with fake:
        assert ingest(vendor, "index_level", "SPX") == []
        assert fake.calls == []


def test_a_setting_of_the_transport_leaves_the_vendors_own_pace() -> None:
    options = load_section("tiingo", {"transport": {"attempts": 3}}, TiingoOptions)
    assert (options.transport.attempts, options.transport.requests, options.transport.window_seconds) == (3, 50, 3600.0)


def test_the_sheets_tiingo_row_is_read() -> None:
    body = json.dumps(
        [{"date": "2026-01-06T00:00:00.000Z", "open": 50.4, "high": 51.02, "low": 50.11, "close": 50.8, "volume": 998120, "adjOpen": 50.15,
          "adjHigh": 50.77, "adjLow": 49.86, "adjClose": 50.55, "adjVolume": 998120, "divCash": 0.0, "splitFactor": 1.0}]
    ).encode()  # fmt: skip
    with tiingo(Market(bars={"ZZZ": {}})) as (fake, vendor):
        fake.fault(lambda _: Reply(body), calls=None)
        row = rows_of(ingest(vendor, "equity_ohlcv"))[0]
    assert (str(row["session"]), row["close"], row["adj_close"]) == ("2026-01-06", 50.8, 50.55)


def test_the_keyless_files_of_fred_have_a_host_of_their_own() -> None:
    series = [{"name": "VIX", "code": "VIXCLS", "unit": "percent"}]
    options = [load_section("fred", {"series": series, "source": source}, FredOptions) for source in ("api", "csv")]
    hosts = [FredVendor("fred", item).base_url for item in options]
    assert hosts == ["https://api.stlouisfed.org", "https://fred.stlouisfed.org"]
