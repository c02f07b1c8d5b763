"""Polygon/Massive over REST against the fake, and against answers as the contract sheet quotes them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta

import pytest
from fakes.clocks import FastClock
from fakes.landing import MemoryLanding
from fakes.polygon import Bar, Market, PolygonFake
from fakes.scenarios import KEYS
from fakes.server import edit

from quanto.core.errors import ConfigError
from quanto.market.calendar import as_date, sessions_between
from quanto.stages.ingest.errors import NotEntitledError, PagingError
from quanto.stages.ingest.transport import TransportSettings
from quanto.stages.ingest.vendor import IngestRequest, Parsed, Payload, Shard
from quanto.stages.ingest.vendors.polygon import PolygonOptions, PolygonVendor

TODAY = date(2026, 4, 1)
DAYS = [as_date(day) for day in sessions_between(date(2025, 10, 20), TODAY)]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


SPLIT = {"id": "s1", "ticker": "ZZZ", "execution_date": "2026-01-06", "split_from": 1, "split_to": 4, "adjustment_type": "forward_split"}


def dividend(name: str, day: str, cash: float, currency: str = "USD", **extra: object) -> dict[str, object]:
    return {"id": name, "ticker": "ZZZ", "ex_dividend_date": day, "cash_amount": cash, "currency": currency, **extra}


@pytest.fixture
def market() -> Market:
    bars = {day: Bar(400.0 + index, 410.0 + index, 390.0 + index, 405.0 + index, 1000.25 + index) for index, day in enumerate(DAYS)}
    paid = [
        dividend("d1", "2026-02-06", 0.5, declaration_date="2026-01-20"),
        dividend("d2", "2026-02-06", 0.25, dividend_type="CD"),
        dividend("d3", "2026-03-06", 1.5, distribution_type="special"),
        dividend("d4", "2026-03-09", 1.5, "CAD"),
        dividend("d5", "2026-06-09", 0.6),
    ]
    return Market(bars={"ZZZ": bars, "BRK.B": bars}, splits=[SPLIT], dividends=paid)


@contextmanager
def serving(market: Market, today: date = TODAY, **options: object) -> Iterator[tuple[PolygonFake, PolygonVendor]]:
    plan = str(options.pop("plan", "paid"))
    settings = TransportSettings(**{"requests": 1000, "attempts": 3, **options.pop("transport", {})})  # type: ignore[dict-item]
    with PolygonFake(market, today, plan=plan) as fake:
        assert isinstance(fake, PolygonFake)
        clock = FastClock()
        fake.minute = clock.monotonic
        yield fake, PolygonVendor("polygon", PolygonOptions(base_url=fake.base_url, transport=settings, **options), clock)  # type: ignore[arg-type]


def request(
    domain: str = "equity_ohlcv", symbol: str = "ZZZ", interval: str = "day", start: date = DAYS[0], as_of: date = TODAY
) -> IngestRequest:
    return IngestRequest(domain, (symbol,), start, DAYS[-1], as_of, interval)


def ingest(vendor: PolygonVendor, ask: IngestRequest, landing: MemoryLanding | None = None) -> list[Parsed]:
    store = landing or MemoryLanding()
    return [vendor.parse(shard, vendor.fetch(shard, store)) for shard in vendor.plan(ask)]


def sessions(parsed: list[Parsed]) -> list[date]:
    return sorted(day for item in parsed for day in item.table["session"].to_pylist())


@pytest.mark.parametrize("options", [{}, {"bars_per_page": 7}, {"bars": "grouped"}])
def test_sessions_are_right_across_both_changes_of_daylight_saving(market: Market, options: dict[str, object]) -> None:
    with serving(market, **options) as (_, vendor):
        assert sessions(ingest(vendor, request())) == DAYS


def test_every_page_gives_its_own_lineage(market: Market) -> None:
    with serving(market, bars_per_page=50) as (_, vendor):
        table = ingest(vendor, request())[0].table
        assert len(set(table["payload"].to_pylist())) == -(-len(DAYS) // 50)
        assert table["payload_row"].to_pylist()[50] == 0


def test_an_adjusted_history_is_on_the_basis_of_the_day_it_was_asked(market: Market) -> None:
    with serving(market, today=date(2026, 1, 5), adjusted=True) as (_, vendor):
        before = ingest(vendor, request(as_of=date(2026, 1, 5)))[0].table
    with serving(market, adjusted=True) as (_, vendor):
        after = ingest(vendor, request())[0].table
    assert before["open"][0].as_py() == 400.0
    assert after["open"][0].as_py() == 100.0
    assert after["volume"][0].as_py() == 4001.0
    assert set(after["basis"].to_pylist()) == {"split"}
    assert set(after["basis_as_of"].to_pylist()) == {TODAY}


def test_a_fractional_volume_and_a_price_survive_exactly(market: Market) -> None:
    with serving(market) as (_, vendor):
        row = ingest(vendor, request())[0].table.to_pylist()[3]
    assert (row["open"], row["volume"], row["basis"], row["basis_as_of"]) == (403.0, 1003.25, "raw", None)


def test_a_ticker_with_a_dot_is_asked_as_it_is_written(market: Market) -> None:
    with serving(market) as (fake, vendor):
        assert sessions(ingest(vendor, request(symbol="BRK.B"))) == DAYS
        assert "/ticker/BRK.B/" in fake.calls[0].path


def test_an_empty_answer_is_landed_and_has_no_rows(market: Market) -> None:
    landing = MemoryLanding()
    with serving(market) as (fake, vendor):
        parsed = ingest(vendor, request(symbol="NONE"), landing)
        assert len(parsed[0].table) == 0
        assert len(landing.stored) == 1
        ingest(vendor, request(symbol="NONE"), landing)
        assert len(fake.calls) == 1


def test_a_delayed_answer_counts_and_is_noted(market: Market) -> None:
    with serving(market) as (fake, vendor):
        fake.status_word = "DELAYED"
        parsed = ingest(vendor, request())[0]
        assert len(parsed.table) == len(DAYS)
        assert "DELAYED" in parsed.notes[0]


def test_the_free_plan_is_never_asked_faster_than_it_allows(market: Market) -> None:
    with serving(market, plan="basic", bars="grouped", transport={"requests": 5, "window_seconds": 60.0}) as (fake, vendor):
        parsed = ingest(vendor, request(start=DAYS[-20]))
        assert sessions(parsed) == DAYS[-20:-1]  # today is not open to this plan
        assert len(fake.calls) == 20


def test_a_range_before_the_plans_window_is_shortened_and_said_so(market: Market) -> None:
    landing = MemoryLanding()
    with serving(market, plan="basic") as (fake, vendor):
        parsed = ingest(vendor, request(start=date(2010, 1, 4)), landing)[0]
        assert sessions([parsed]) == DAYS[:-1]
        assert any("timeframe" in note for note in parsed.notes)
        asked = len(fake.calls)
        landing.offline = True
        again = ingest(vendor, request(start=date(2010, 1, 4)), landing)[0]
        assert again.table.equals(parsed.table)
        assert again.notes == parsed.notes
        assert len(fake.calls) == asked


def test_a_configured_plan_asks_only_what_the_plan_holds(market: Market) -> None:
    with serving(market, plan="basic", plan_years=2) as (fake, vendor):
        ask = IngestRequest("equity_ohlcv", ("ZZZ",), date(2010, 1, 4), DAYS[-2], TODAY)
        assert sessions(ingest(vendor, ask)) == DAYS[:-1]
        assert len(fake.calls) == 1


def test_pages_that_never_end_but_advance_meet_the_cap(market: Market) -> None:
    with serving(market, bars_per_page=1, most_pages=10) as (_, vendor):
        landing = MemoryLanding()
        with pytest.raises(PagingError, match="most_pages"):
            ingest(vendor, request(), landing)
        assert not landing.stored


def test_two_pages_in_a_circle_are_found(market: Market) -> None:
    with serving(market, bars_per_page=10) as (fake, vendor):
        first: list[str] = []

        def circle(document: dict[str, object]) -> None:
            first.append(fake.calls[-1].target)
            if len(first) == 2:
                document["next_url"] = f"{fake.base_url}{first[0]}"

        fake.fault(edit(circle), calls=None)
        with pytest.raises(PagingError, match="circle"):
            ingest(vendor, request())
        assert len(fake.calls) == 2


def test_a_key_inside_next_url_is_dropped_and_never_stored(market: Market) -> None:
    with serving(market, bars_per_page=60) as (fake, vendor):
        landing = MemoryLanding()

        def leak(document: dict[str, object]) -> None:
            if "next_url" in document:
                document["next_url"] = f"{document['next_url']}&apiKey=polygon-key"

        fake.fault(edit(leak), calls=None)
        assert sessions(ingest(vendor, request(), landing)) == DAYS
        assert all("apiKey" not in call.params for call in fake.calls)
        assert "polygon-key" not in landing.text()


def test_minutes_become_bars_of_the_regular_session_half_days_included(market: Market) -> None:
    half_day, whole_day = date(2025, 11, 28), date(2025, 12, 1)
    for day, closes in ((half_day, time(13)), (whole_day, time(16))):
        at = datetime.combine(day, time(4))
        number = 0
        while at < datetime.combine(day, time(20)):
            inside = time(9, 30) <= at.time() < closes
            price = 50.0 + number / 100 if inside else 1000.0
            market.minutes.setdefault("ZZZ", {})[at] = Bar(price, price + 0.5, price - 0.5, price + 0.25, 10.0)
            number += inside
            at += timedelta(minutes=1)
    with serving(market, bars_per_page=500) as (_, vendor):
        ask = IngestRequest("equity_ohlcv", ("ZZZ",), half_day, whole_day, TODAY, "minute")
        rows = ingest(vendor, ask)[0].table.to_pylist()
    assert [row["session"] for row in rows] == [half_day, whole_day]
    short, full = rows
    assert (short["open"], short["high"], short["low"], short["close"], short["volume"]) == (50.0, 52.59, 49.5, 52.34, 2100.0)
    assert (full["open"], full["close"], full["volume"]) == (50.0, pytest.approx(54.14), 3900.0)


@pytest.mark.parametrize("api", ["stocks_v1", "reference_v3"])
def test_actions_of_both_endpoints_read_alike(market: Market, api: str) -> None:
    with serving(market, actions_api=api) as (_, vendor):
        rows = ingest(vendor, request("corporate_actions"))[0].table.to_pylist()
    found = {(str(row["ex_date"]), row["kind"]): row for row in rows}
    assert found["2026-01-06", "split"]["ratio"] == 4.0
    assert found["2026-01-06", "split"]["known_on"] == date(2026, 1, 5)
    both = found["2026-02-06", "cash_dividend"]
    assert (both["cash_usd"], both["vendor_id"]) == (0.75, "d1|d2")
    assert found["2026-03-06", "special_dividend"]["cash_usd"] == 1.5
    foreign = found["2026-03-09", "unknown"]
    assert (foreign["cash_usd"], foreign["currency"]) == (None, "CAD")
    assert ("2026-06-09", "cash_dividend") in found


def test_an_impossible_split_is_rejected_with_its_reason(market: Market) -> None:
    market.splits.append({"id": "s2", "ticker": "ZZZ", "execution_date": "2026-01-07", "split_from": 0, "split_to": 2})
    market.splits.append({"id": "s3", "ticker": "ZZZ", "execution_date": None, "split_from": 1, "split_to": 2})
    with serving(market) as (_, vendor):
        parsed = ingest(vendor, request("corporate_actions"))[0]
    assert sorted(item.reason for item in parsed.rejected) == ["a split of 0 into 2 shares is none", "execution_date is null"]


def contract(ticker: str, **extra: object) -> dict[str, object]:
    base = {"ticker": ticker, "underlying_ticker": "ZZZ", "contract_type": "call", "expiration_date": "2026-05-15", "strike_price": 52.5}
    return {**base, "shares_per_contract": 100, **extra}


def snapshot(ticker: str, **extra: object) -> dict[str, object]:
    stamp = int(datetime(2026, 4, 1, 19, 59, tzinfo=UTC).timestamp()) * 10**9
    row: dict[str, object] = {
        "details": contract(ticker), "greeks": {"delta": 0.51}, "implied_volatility": 0.3312, "open_interest": 1822,
        "day": {"volume": 311, "last_updated": stamp}, "last_quote": {"bid": 2.55, "ask": 2.65, "last_updated": stamp},
        "underlying_asset": {"ticker": "ZZZ", "price": 52.4, "last_updated": stamp},
    }  # fmt: skip
    return {**row, **extra}


def test_a_chain_leaves_adjusted_contracts_out_and_keeps_absent_greeks_null(market: Market) -> None:
    def listed(number: int) -> dict[str, object]:
        ticker = f"O:ZZZ260515C{number:08d}"
        return snapshot(ticker, details=contract(ticker, strike_price=number / 1000))

    chain = [listed(number) for number in range(50_000, 350_000, 1000)]
    chain.append(snapshot("O:ZZZ1260515C00052500", details=contract("O:ZZZ1260515C00052500", shares_per_contract=25)))
    chain.append(snapshot("O:ZZZ260515C00400000", greeks={}, day={}, details=contract("O:ZZZ260515C00400000", strike_price=400.0)))
    del chain[-1]["implied_volatility"]
    market.chains["ZZZ"] = chain
    market.contracts = [contract("O:ZZZ260515C00050000", additional_underlyings=[{"type": "currency", "amount": 1.5}])]
    with serving(market) as (fake, vendor):
        parsed = ingest(vendor, request("options_surface"))[0]
        assert len([call for call in fake.calls if "snapshot" in call.path]) == 2
    assert len(parsed.table) == 300
    assert any("2 adjusted" in note or "1 adjusted" in note for note in parsed.notes)
    row, last = parsed.table.to_pylist()[0], parsed.table.to_pylist()[-1]
    assert (row["session"], row["tenor_days"], row["side"], row["iv"], row["strike"]) == (TODAY, 44.0, "C", 0.3312, 51.0)
    assert (last["iv"], last["delta"], last["volume"]) == (None, None, None)


def test_a_plan_without_chains_says_so(market: Market) -> None:
    with serving(market, plan="basic") as (_, vendor), pytest.raises(NotEntitledError, match="not entitled"):
        ingest(vendor, request("options_surface"))


def test_a_chain_of_the_past_is_not_offered(market: Market) -> None:
    with serving(market) as (_, vendor):
        assert vendor.plan(IngestRequest("options_surface", ("ZZZ",), DAYS[0], DAYS[5], TODAY)) == ()


def test_a_missing_key_stops_before_anything_is_asked(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLYGON_API_KEY")
    with serving(market) as (fake, vendor):
        with pytest.raises(ConfigError, match="POLYGON_API_KEY"):
            ingest(vendor, request())
        assert fake.calls == []


def test_a_vendor_is_a_value_that_workers_can_be_sent(market: Market) -> None:
    with serving(market) as (_, vendor):
        shard = vendor.plan(request())[0]
        payloads = vendor.fetch(shard, MemoryLanding())
        copy = pickle.loads(pickle.dumps(vendor))  # our own bytes
        assert copy.parse(shard, payloads).table.equals(vendor.parse(shard, payloads).table)


def one_shard() -> Shard:
    params = {"as_of": "2026-01-09", "interval": "day"}
    return Shard("polygon", "equity_ohlcv", "ZZZ", ("ZZZ",), date(2026, 1, 2), date(2026, 1, 9), params)


def test_an_answer_as_the_sheet_quotes_it_is_read() -> None:
    body = (
        b'{"ticker":"ZZZ","queryCount":2,"resultsCount":2,"adjusted":true,"status":"OK","request_id":"0f","count":2,'
        b'"results":[{"v":1203344.0,"vw":50.1234,"o":49.9,"c":50.4,"h":50.75,"l":49.61,"t":1767589200000,"n":18211},'
        b'{"v":998120.5,"vw":50.61,"o":50.4,"c":50.8,"h":51.02,"l":50.11,"t":1767675600000,"n":17002}]}'
    )
    vendor = PolygonVendor("polygon", PolygonOptions(adjusted=True))
    shard = Shard(
        "polygon", "equity_ohlcv", "ZZZ", ("ZZZ",), date(2026, 1, 2), date(2026, 1, 9), {"as_of": "2026-01-09", "interval": "day"}
    )
    rows = vendor.parse(
        shard, [Payload("0" * 64, body, {"url": "https://x/v2/aggs/ticker/ZZZ/range/1/day/2026-01-02/2026-01-09"})]
    ).table.to_pylist()
    assert [(str(row["session"]), row["close"], row["volume"]) for row in rows] == [
        ("2026-01-05", 50.4, 1203344.0),
        ("2026-01-06", 50.8, 998120.5),
    ]


def test_a_number_that_json_does_not_have_spoils_its_row_alone() -> None:
    rows = [
        {"v": 1.0, "o": 1.0, "c": 1.0, "h": 1.0, "l": 1.0, "t": 1767589200000},
        {"v": 1.0, "o": float("nan"), "c": 1, "h": 1, "l": 1, "t": 1767675600000},
    ]
    body = json.dumps({"status": "OK", "results": rows}).encode()
    assert b"NaN" in body
    vendor = PolygonVendor("polygon", PolygonOptions())
    shard = Shard(
        "polygon", "equity_ohlcv", "ZZZ", ("ZZZ",), date(2026, 1, 2), date(2026, 1, 9), {"as_of": "2026-01-09", "interval": "day"}
    )
    parsed = vendor.parse(shard, [Payload("0" * 64, body, {"url": "https://x/v2/aggs/ticker/ZZZ"})])
    assert len(parsed.table) == 1
    assert "NaN" in parsed.rejected[0].reason
