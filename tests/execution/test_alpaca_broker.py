"""The Alpaca adapter against a faithful fake on loopback: what each answer, and each missing answer, means."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from fakes.alpaca_trading import KEY, NEW_YORK, SECRET, FakeAlpaca, TradingClock
from fakes.server import body, page, status, wire

from quanto.core.errors import ConfigError
from quanto.execution.broker import BrokerError, BrokerRefusedError
from quanto.execution.brokers.alpaca import AlpacaBroker
from quanto.execution.brokers.alpaca_http import PAPER_URL, AlpacaConfig, check_host
from quanto.execution.orders import Order, Side, Status

SESSION = date(2026, 1, 6)
OPEN = datetime(2026, 1, 6, 9, 31, tzinfo=NEW_YORK)


def order(symbol: str = "ZZZ", side: Side = "buy", quantity: float = 10.0, limit: float | None = 55.0, name: str = "q-1") -> Order:
    return Order(name, symbol, side, quantity, 50.0, limit)


@pytest.fixture
def clock() -> TradingClock:
    return TradingClock(OPEN)


@pytest.fixture
def fake(clock: TradingClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAlpaca]:
    monkeypatch.setenv("APCA_API_KEY_ID", KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    with FakeAlpaca(clock, quotes={"ZZZ": "50", "YYY": "20.5"}) as server:
        assert isinstance(server, FakeAlpaca)
        yield server


def connect(fake: FakeAlpaca, **settings: Any) -> AlpacaBroker:
    broker = AlpacaBroker(AlpacaConfig(base_url=fake.base_url, read_seconds=2.0, **settings), fake.clock)
    broker.open_session(SESSION)
    return broker


def posts(fake: FakeAlpaca) -> int:
    return sum(call.method == "POST" for call in fake.calls)


# Where the keys go.


@pytest.mark.parametrize(
    "url",
    [
        "https://api.alpaca.markets",
        "https://API.alpaca.markets/",
        "http://paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets.evil.example",
        "https://paper-api.alpaca.markets@evil.example",
        "https://evil.example/paper-api.alpaca.markets",
        "https://evil.example?x=paper-api.alpaca.markets",
        "https://evil.example#paper-api.alpaca.markets",
        "https://xpaper-api.alpaca.markets",
        "https://paper-api.alpaca.markets:8443",
        "https://paper-api.alpaca.markets:port",
        "ftp://127.0.0.1",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "paper-api.alpaca.markets",
        "",
    ],
)
def test_every_host_but_paper_and_loopback_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        check_host(url)


@pytest.mark.parametrize("url", [PAPER_URL, PAPER_URL + "/", "https://PAPER-API.alpaca.markets", PAPER_URL + ".", PAPER_URL + ":443"])
def test_the_paper_host_is_the_paper_host_however_it_is_written(url: str) -> None:
    assert check_host(url) == PAPER_URL


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:9", "http://localhost:1234/"])
def test_loopback_is_allowed(url: str) -> None:
    assert check_host(url) == url.rstrip("/")


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, clock: TradingClock) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        AlpacaBroker(AlpacaConfig(base_url="http://127.0.0.1:1", key_env="NO_SUCH_KEY"), clock)


def test_wrong_keys_are_refused_without_a_retry(fake: FakeAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APCA_API_SECRET_KEY", "another")
    broker = connect(fake)
    with pytest.raises(BrokerRefusedError, match="refuses the keys"):
        broker.account()
    with pytest.raises(BrokerRefusedError):
        broker.submit(order())
    assert len(fake.calls) == 2


def test_a_redirect_is_never_followed(fake: FakeAlpaca) -> None:
    fake.fault(status(302, Location="http://127.0.0.1:1/elsewhere"), "/v2/account")
    with pytest.raises(BrokerRefusedError, match="redirects"):
        connect(fake).account()


def test_the_secret_is_in_no_error_and_no_log(fake: FakeAlpaca, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fake.fault(wire("reset"), "", None)
    broker = connect(fake, attempts=2)
    with pytest.raises(BrokerError) as error:
        broker.account()
    text = f"{error.value!r} {error.value.__cause__!r} {caplog.text}"
    assert SECRET not in text
    assert KEY not in text


# Account and positions.


def test_account_and_positions_are_read_as_numbers(fake: FakeAlpaca) -> None:
    from decimal import Decimal

    fake.positions = {"ZZZ": Decimal("1.123456789"), "YYY": Decimal(-3)}
    account = connect(fake).account()
    assert account.cash == 100000.0
    assert account.positions == {"ZZZ": 1.123456789, "YYY": -3.0}
    assert account.blocked == ""


@pytest.mark.parametrize(
    "flag",
    [
        {"trading_blocked": True},
        {"account_blocked": None},
        {"trade_suspended_by_user": True},
        {"status": "ONBOARDING"},
        {"currency": "EUR"},
    ],
)
def test_an_account_that_may_not_trade_says_why(fake: FakeAlpaca, flag: dict[str, Any]) -> None:
    fake.blocked = flag
    assert next(iter(flag)) in connect(fake).account().blocked or "status" in connect(fake).account().blocked


@pytest.mark.parametrize("cash", ["NaN", "Infinity", "", "12,5", True, None, [1]])
def test_a_cash_that_is_no_number_is_an_error(fake: FakeAlpaca, cash: Any) -> None:
    fake.blocked = {"cash": cash}
    with pytest.raises(BrokerError, match="account cash"):
        connect(fake).account()


@pytest.mark.parametrize("change", [page(), body(b"null"), body(b"[]"), body(b'{"cash": NaN}'), body(b""), wire("short")])
def test_an_answer_that_is_no_account_is_an_error(fake: FakeAlpaca, change: Any) -> None:
    fake.fault(change, "/v2/account", None)
    with pytest.raises(BrokerError):
        connect(fake, attempts=2).account()


def test_reads_survive_a_bad_minute(fake: FakeAlpaca) -> None:
    fake.fault(wire("reset"), "/v2/account", [1])
    fake.fault(status(503), "/v2/account", [2])
    fake.fault(status(429, b'{"message":"too many requests."}', Retry_After="7"), "/v2/account", [3])
    assert connect(fake).account().cash == 100000.0
    assert 7.0 in fake.clock.sleeps


# Orders.


def test_an_accepted_order_is_not_assumed_filled(fake: FakeAlpaca) -> None:
    broker = connect(fake)
    answer = broker.submit(order())
    assert (answer.status, answer.filled, answer.client_order_id) == (Status.ACCEPTED, 0.0, "q-1")
    assert broker.fills(SESSION) == ()
    assert broker.wait()
    found = broker.find("q-1")
    assert found is not None
    assert (found.status, found.filled) == (Status.FILLED, 10.0)
    (execution,) = broker.fills(SESSION)
    assert (execution.quantity, execution.price, execution.broker_order_id) == (10.0, 50.0, answer.broker_order_id)


def test_partial_fills_are_rows_of_the_ledger(fake: FakeAlpaca) -> None:
    fake.partials = {"ZZZ": ["4", "3"]}
    broker = connect(fake)
    broker.submit(order())
    seen = []
    for _ in range(3):
        broker.wait()
        found = broker.find("q-1")
        assert found is not None
        seen.append((found.status, found.filled))
    assert seen == [(Status.PARTIALLY_FILLED, 4.0), (Status.PARTIALLY_FILLED, 7.0), (Status.FILLED, 10.0)]
    assert [row.quantity for row in broker.fills(SESSION)] == [4.0, 3.0, 3.0]
    assert len({row.fill_id for row in broker.fills(SESSION)}) == 3


@pytest.mark.parametrize("change", [wire("reset"), wire("drop"), status(500), status(504), status(429), page(), body(b'{"id": "cut')])
def test_an_answer_lost_after_acceptance_is_found_by_asking(fake: FakeAlpaca, change: Any) -> None:
    fake.fault(change, "/v2/orders", [1])
    answer = connect(fake).submit(order())
    assert answer.status in (Status.ACCEPTED, Status.FILLED)  # a pause for the limit gives the market time
    assert posts(fake) == 1
    assert len(fake.orders) == 1


def test_an_order_lost_before_acceptance_is_sent_again_under_its_name(fake: FakeAlpaca) -> None:
    fake.lost_before = {1, 2}
    answer = connect(fake).submit(order())
    assert answer.status == Status.ACCEPTED
    assert posts(fake) == 3
    assert [held.fields["client_order_id"] for held in fake.orders.values()] == ["q-1"]


def test_an_order_of_unknown_fate_is_an_error_and_never_two_orders(fake: FakeAlpaca) -> None:
    fake.lost_before = set(range(1, 50))
    with pytest.raises(BrokerError, match="q-1"):
        connect(fake, attempts=3).submit(order())
    assert not fake.orders


def test_a_repeated_name_means_accepted(fake: FakeAlpaca) -> None:
    broker = connect(fake)
    first = broker.submit(order())
    again = broker.submit(order())
    assert again.broker_order_id == first.broker_order_id
    assert len(fake.orders) == 1


def test_a_name_that_belongs_to_another_order_is_an_error(fake: FakeAlpaca) -> None:
    broker = connect(fake)
    broker.submit(order())
    with pytest.raises(BrokerError, match="somebody else"):
        broker.submit(order(quantity=11.0))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (order(quantity=1e6), "insufficient buying power"),
        (order(side="sell"), "insufficient qty"),
        (order(symbol="NOPE"), "not tradable"),
        (order(limit=55.123), "sub-penny"),
    ],
)
def test_a_refused_order_is_rejected_with_the_brokers_words(fake: FakeAlpaca, wrong: Order, words: str) -> None:
    answer = connect(fake).submit(wrong)
    assert answer.status == Status.REJECTED
    assert words in answer.message
    assert posts(fake) == 1


def test_fractions_are_market_orders_of_the_day_and_whole_shares_have_their_limit(fake: FakeAlpaca) -> None:
    broker = connect(fake, opening_auction=True)
    assert broker.submit(order(quantity=1.2345678912345)).status == Status.ACCEPTED
    assert broker.submit(order(quantity=3.0, name="q-2")).status == Status.ACCEPTED
    first, second = (held.fields for held in fake.orders.values())
    assert (first["qty"], first["type"], first["time_in_force"], first["limit_price"]) == ("1.234567891", "market", "day", None)
    assert (second["qty"], second["type"], second["time_in_force"], second["limit_price"]) == ("3", "limit", "day", "55")


def test_whole_shares_go_into_the_auction_before_its_cut_off(fake: FakeAlpaca) -> None:
    fake.clock.set(datetime(2026, 1, 6, 9, 27, tzinfo=NEW_YORK))
    broker = connect(fake, opening_auction=True)
    broker.submit(order(quantity=3.0))
    fake.clock.set(datetime(2026, 1, 6, 9, 28, tzinfo=NEW_YORK))
    assert broker.submit(order(quantity=3.0, name="q-2")).status == Status.ACCEPTED
    assert [held.fields["time_in_force"] for held in fake.orders.values()] == ["opg", "day"]


def test_a_quantity_below_the_smallest_is_rejected_at_home(fake: FakeAlpaca) -> None:
    assert connect(fake).submit(order(quantity=1e-10)).status == Status.REJECTED
    assert posts(fake) == 0


def test_waiting_ends_at_the_deadline_and_at_the_close(fake: FakeAlpaca) -> None:
    fake.halted = {"ZZZ"}
    broker = connect(fake, fill_deadline_seconds=10.0, poll_seconds=2.0)
    broker.submit(order())
    waits = 0
    while broker.wait():
        waits += 1
    assert waits == 5
    fake.clock.set(datetime(2026, 1, 6, 16, 1, tzinfo=NEW_YORK))
    assert not broker.wait()


def test_waiting_before_the_open_sleeps_until_it(fake: FakeAlpaca) -> None:
    fake.clock.set(datetime(2026, 1, 6, 8, 30, tzinfo=NEW_YORK))
    broker = connect(fake)
    answer = broker.submit(order())
    assert answer.status == Status.ACCEPTED
    waits = 0
    while not fake.is_open():
        assert broker.wait()
        waits += 1
    # The kill switch is looked at between two waits.
    assert 60 <= waits <= 62
    assert [row.quantity for row in broker.fills(SESSION)] == [10.0]


@pytest.mark.parametrize("stamp", ["2026-01-06 soon", "2026-01-06T09:30:00", "", 5])
def test_a_clock_without_a_time_and_its_offset_is_an_error(fake: FakeAlpaca, stamp: object) -> None:
    fake.fault(body(json.dumps({"timestamp": "2026-01-06T08:30:00-05:00", "is_open": False, "next_open": stamp}).encode()), "/v2/clock")
    with pytest.raises(BrokerError, match="next_open"):
        connect(fake).wait()


def test_a_clock_in_nanoseconds_and_utc_is_understood(fake: FakeAlpaca) -> None:
    stamps = {"timestamp": "2026-01-06T14:29:30.123456789Z", "is_open": False, "next_open": "2026-01-06T14:30:00.000000000Z"}
    fake.fault(body(json.dumps(stamps).encode()), "/v2/clock")
    assert connect(fake, poll_seconds=2.0).wait()
    assert fake.clock.sleeps[-1] == pytest.approx(31.88, abs=0.01)


def test_a_cancel_is_a_request_that_a_fill_may_beat(fake: FakeAlpaca) -> None:
    fake.partials = {"ZZZ": ["4"] + ["0"] * 20}
    broker = connect(fake)
    answer = broker.submit(order())
    broker.wait()
    broker.cancel(answer.broker_order_id)
    found = broker.find("q-1")
    assert found is not None
    assert found.status == Status.PENDING_CANCEL
    fake.fill_on_cancel = True
    fake.tick()
    beaten = broker.find("q-1")
    assert beaten is not None
    assert (beaten.status, beaten.filled) == (Status.FILLED, 10.0)
    broker.cancel(answer.broker_order_id)  # 422: already filled; asking is no error
    with pytest.raises(BrokerError, match="404"):
        broker.cancel("o-unknown")


def test_a_replacement_is_a_new_order_and_the_old_one_says_so(fake: FakeAlpaca) -> None:
    fake.halted = {"ZZZ"}
    broker = connect(fake)
    old = broker.submit(order())
    fake.tick()
    new = broker.replace(old.broker_order_id, order(quantity=7.0, name="q-2"))
    assert (new.client_order_id, new.quantity, new.status) == ("q-2", 7.0, Status.ACCEPTED)
    replaced = broker.find("q-1")
    assert replaced is not None
    assert (replaced.status, replaced.replaced_by) == (Status.REPLACED, new.broker_order_id)
    refused = broker.replace(old.broker_order_id, order(quantity=5.0, name="q-3"))
    assert refused.status == Status.REJECTED


def test_a_lost_answer_to_a_replacement_is_found_by_asking(fake: FakeAlpaca) -> None:
    fake.halted = {"ZZZ"}
    broker = connect(fake)
    old = broker.submit(order())
    fake.tick()
    fake.fault(wire("reset"), f"/v2/orders/{old.broker_order_id}")
    assert broker.replace(old.broker_order_id, order(quantity=7.0, name="q-2")).client_order_id == "q-2"


def test_an_unknown_status_stops_instead_of_being_guessed(fake: FakeAlpaca) -> None:
    broker = connect(fake)
    broker.submit(order())
    next(iter(fake.orders.values())).fields["status"] = "brand_new_status"
    with pytest.raises(BrokerError, match="brand_new_status"):
        broker.find("q-1")


@pytest.mark.parametrize("name", ["accepted", "pending_new", "accepted_for_bidding", "new", "held", "stopped", "suspended", "calculated"])
def test_open_statuses_are_open(fake: FakeAlpaca, name: str) -> None:
    broker = connect(fake)
    broker.submit(order())
    next(iter(fake.orders.values())).fields["status"] = name
    found = broker.find("q-1")
    assert found is not None
    assert found.status == Status.ACCEPTED


def test_all_open_orders_are_listed_however_many_pages_they_take(fake: FakeAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quanto.execution.brokers.alpaca.ORDERS_PAGE", 3)
    fake.halted = {"ZZZ"}
    broker = connect(fake)
    for index in range(7):
        broker.submit(order(quantity=1.0, name=f"q-{index}"))
    assert [found.client_order_id for found in broker.open_orders()] == [f"q-{index}" for index in range(7)]


def test_open_orders_of_a_server_with_smaller_pages_are_all_listed(fake: FakeAlpaca) -> None:
    fake.halted = {"ZZZ"}
    fake.largest_page = 2
    broker = connect(fake)
    for index in range(5):
        broker.submit(order(quantity=1.0, name=f"q-{index}"))
    assert [found.client_order_id for found in broker.open_orders()] == [f"q-{index}" for index in range(5)]


def test_a_cancel_without_an_id_is_no_cancel_of_everything(fake: FakeAlpaca) -> None:
    with pytest.raises(BrokerError, match="not known yet"):
        connect(fake).cancel("")
    assert fake.calls == []


@pytest.mark.parametrize("code", [520, 524, 599])
def test_a_gateway_that_answers_with_a_status_of_its_own_says_nothing_of_the_order(fake: FakeAlpaca, code: int) -> None:
    fake.fault(page(code=code), "/v2/orders", [1])
    assert connect(fake).submit(order()).status in (Status.ACCEPTED, Status.FILLED)
    assert posts(fake) == len(fake.orders) == 1


@pytest.mark.parametrize(
    "message",
    [
        "insufficient buying power",
        "insufficient qty available for order (requested: 11, available: 10)",
        "account is not allowed to short",
        "potential wash trade detected. use complex orders",
        "trade denied due to pattern day trading protection",
    ],
)
def test_a_refusal_without_a_code_is_of_the_order_where_it_speaks_of_it(fake: FakeAlpaca, message: str) -> None:
    fake.fault(status(403, json.dumps({"message": message}).encode()), "/v2/orders", [1])
    answer = connect(fake).submit(order())
    assert answer.status == Status.REJECTED
    assert message in answer.message


def test_a_refusal_without_a_code_is_of_the_keys_where_it_says_nothing(fake: FakeAlpaca) -> None:
    fake.fault(status(403, b'{"message":"forbidden."}'), "/v2/orders", [1])
    with pytest.raises(BrokerRefusedError, match="keys"):
        connect(fake).submit(order())


def test_an_answer_with_another_order_is_an_error(fake: FakeAlpaca) -> None:
    other = {"id": "x", "client_order_id": "q-1", "symbol": "YYY", "side": "buy", "qty": "10", "filled_qty": "0", "status": "new"}
    fake.fault(body(json.dumps(other).encode()), "/v2/orders", [1])
    with pytest.raises(BrokerError, match="somebody else"):
        connect(fake).submit(order())


@pytest.mark.parametrize("row", [{"qty": "-5"}, {"qty": "-5", "side": "short"}, {"qty": "5", "side": "short"}])
def test_a_short_position_is_short_however_it_is_written(fake: FakeAlpaca, row: dict[str, str]) -> None:
    fake.fault(body(json.dumps([{"symbol": "ZZZ", **row}]).encode()), "/v2/positions")
    assert connect(fake).account().positions == {"ZZZ": -5.0}


def test_an_execution_on_no_side_is_an_error(fake: FakeAlpaca) -> None:
    row = {"id": "x::1", "order_id": "o", "symbol": "ZZZ", "side": "undefined", "qty": "1", "price": "50"}
    fake.fault(body(json.dumps([row]).encode()), "/v2/account/activities")
    with pytest.raises(BrokerError, match="side as 'undefined'"):
        connect(fake).fills(SESSION)


# The ledger.


def test_the_ledger_of_a_server_with_smaller_pages_is_read_to_its_end(fake: FakeAlpaca) -> None:
    fake.partials, fake.largest_page = {"ZZZ": ["1"] * 10}, 4
    broker = connect(fake)
    broker.submit(order())
    for _ in range(10):
        broker.wait()
    assert [row.quantity for row in broker.fills(SESSION)] == [1.0] * 10


def test_the_ledger_is_read_over_all_pages(fake: FakeAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quanto.execution.brokers.alpaca.PAGE", 3)
    fake.partials = {"ZZZ": ["1"] * 10}
    broker = connect(fake)
    broker.submit(order())
    for _ in range(10):
        broker.wait()
    assert [row.quantity for row in broker.fills(SESSION)] == [1.0] * 10


def test_a_ledger_that_contradicts_itself_is_an_error(fake: FakeAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quanto.execution.brokers.alpaca.PAGE", 2)
    row = {
        "id": "x::1",
        "order_id": "o",
        "symbol": "ZZZ",
        "side": "buy",
        "qty": "1",
        "price": "50",
        "transaction_time": "2026-01-06T10:00:00",
    }
    fake.ledger = [row, {**row, "qty": "2"}]
    with pytest.raises(BrokerError, match="two different rows"):
        connect(fake).fills(SESSION)


def test_a_ledger_that_never_moves_on_is_an_error(fake: FakeAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quanto.execution.brokers.alpaca.PAGE", 1)
    row = b'[{"id":"x::1","order_id":"o","symbol":"ZZZ","side":"buy","qty":"1","price":"50"}]'
    fake.fault(body(row), "/v2/account/activities", None)
    with pytest.raises(BrokerError, match="same page again"):
        connect(fake).fills(SESSION)


def test_flows_are_what_is_no_fill_since_the_session_before(fake: FakeAlpaca) -> None:
    fake.pay("DIV", date(2026, 1, 5), "12.5", "ZZZ", "50")
    fake.pay("FEE", date(2026, 1, 6), "-0.02")
    fake.pay("SPLIT", date(2026, 1, 6), "0", "YYY", "30")
    fake.pay("INT", date(2026, 1, 2), "3")
    broker = connect(fake)
    broker.submit(order())
    broker.wait()
    flows = {flow.kind: flow for flow in broker.flows(SESSION)}
    assert set(flows) == {"dividend", "fee", "split"}
    assert (flows["dividend"].cash, flows["dividend"].shares) == (12.5, 0.0)
    assert flows["fee"].cash == -0.02
    assert (flows["split"].cash, flows["split"].shares) == (0.0, 30.0)


def test_flows_of_a_weekend_belong_to_the_session_after_it(fake: FakeAlpaca) -> None:
    fake.pay("INT", date(2026, 1, 4), "3")
    assert [flow.cash for flow in connect(fake).flows(date(2026, 1, 5))] == [3.0]


def test_prices_are_known_of_what_is_held(fake: FakeAlpaca) -> None:
    broker = connect(fake)
    broker.submit(order())
    broker.wait()
    assert broker.prices(SESSION) == {"ZZZ": 50.0}


def test_requests_keep_within_the_accounts_rate(fake: FakeAlpaca) -> None:
    broker = connect(fake, requests_per_minute=5)
    before = fake.clock.now()
    for _ in range(12):
        broker.account()  # two requests each
    assert fake.clock.now() - before >= timedelta(minutes=4)
