"""One suite over every broker of the registry: what the session engine relies on holds for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pytest
from fakes.alpaca_trading import KEY, NEW_YORK, SECRET, FakeAlpaca, TradingClock
from fakes.execution_worlds import World, sim_config

from quanto.execution.broker import Broker, BrokerOrder
from quanto.execution.brokers.alpaca import AlpacaBroker
from quanto.execution.brokers.alpaca_http import AlpacaConfig
from quanto.execution.brokers.registry import BROKERS
from quanto.execution.brokers.sim import SimBroker
from quanto.execution.orders import FINAL, Order, Side, Status

DAY = 3
Case = tuple[Broker, date, float]


def world() -> World:
    """Return a quiet market whose third name does not trade on the day."""
    made = World(9, sessions=8, symbols=3, quiet=True)
    made.tape.fillable[DAY, 2] = False
    return made


@contextmanager
def simulated() -> Iterator[Case]:
    market = world().market
    broker = SimBroker(market, sim_config(), 1, 50_000.0, {"S01": 40.0})
    session = market.sessions[DAY].astype(object)
    broker.open_session(session)
    yield broker, session, float(market.tape.open[DAY, 0])


@contextmanager
def alpaca() -> Iterator[Case]:
    opens = world().tape.open[DAY]
    clock = TradingClock(datetime(2026, 1, 6, 9, 31, tzinfo=NEW_YORK))
    quotes = {f"S{index:02d}": repr(float(price)) for index, price in enumerate(opens)}
    with FakeAlpaca(clock, cash="50000", quotes=quotes) as fake:
        assert isinstance(fake, FakeAlpaca)
        fake.positions["S01"] = Decimal(40)
        fake.halted = {"S02"}
        broker = AlpacaBroker(AlpacaConfig(base_url=fake.base_url, fill_deadline_seconds=6.0), clock)
        broker.open_session(date(2026, 1, 6))
        yield broker, date(2026, 1, 6), float(opens[0])


MAKERS: dict[str, Callable[[], object]] = {"sim": simulated, "alpaca": alpaca}


@pytest.fixture(params=list(BROKERS))
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.setenv("APCA_API_KEY_ID", KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    with MAKERS[request.param]() as made:  # type: ignore[attr-defined]  # both makers are context managers
        yield made


def order(symbol: str = "S00", side: Side = "buy", quantity: float = 10.0, name: str = "q-1") -> Order:
    return Order(name, symbol, side, quantity, 50.0, None)


def settled(broker: Broker, name: str) -> BrokerOrder:
    while broker.wait():
        pass
    found = broker.find(name)
    assert found is not None
    return found


def test_every_entry_says_what_it_is() -> None:
    assert set(MAKERS) == set(BROKERS), "a broker without a maker here is not under contract"
    for entry in BROKERS.values():
        assert entry.sentence.endswith(".")
        assert entry.kind.name == entry.name


def test_an_unknown_order_is_none(case: Case) -> None:
    broker, session, _ = case
    assert broker.find("nobody") is None
    assert broker.open_orders() == ()
    assert broker.fills(session) == ()


def test_an_accepted_order_fills_at_the_price_and_shows_in_ledger_and_account(case: Case) -> None:
    broker, session, price = case
    before = broker.account()
    answer = broker.submit(order())
    assert answer.status not in (Status.REJECTED, Status.DENIED)
    assert answer.broker_order_id
    found = settled(broker, "q-1")
    assert (found.status, found.filled, found.symbol, found.side) == (Status.FILLED, 10.0, "S00", "buy")
    fills = broker.fills(session)
    assert sum(fill.quantity for fill in fills) == pytest.approx(10.0)
    assert {fill.broker_order_id for fill in fills} == {answer.broker_order_id}
    assert len({fill.fill_id for fill in fills}) == len(fills)
    assert all(fill.price == pytest.approx(price) and fill.side == "buy" for fill in fills)
    after = broker.account()
    assert after.positions["S00"] == pytest.approx(10.0)
    assert after.cash == pytest.approx(before.cash - 10.0 * price)
    assert after.blocked == ""
    assert broker.prices(session)["S00"] == pytest.approx(price)


def test_the_same_name_is_the_same_order(case: Case) -> None:
    broker, session, _ = case
    first = broker.submit(order())
    assert broker.submit(order()).broker_order_id == first.broker_order_id
    settled(broker, "q-1")
    assert broker.submit(order()).broker_order_id == first.broker_order_id
    assert sum(fill.quantity for fill in broker.fills(session)) == pytest.approx(10.0)


def test_a_sale_of_a_whole_position_leaves_none(case: Case) -> None:
    broker, _, _ = case
    broker.submit(order("S01", "sell", 40.0))
    assert settled(broker, "q-1").status == Status.FILLED
    assert "S01" not in broker.account().positions


@pytest.mark.parametrize(
    ("symbol", "side", "quantity"), [("S01", "sell", 41.0), ("S00", "sell", 1.0), ("S00", "buy", 1e7), ("NOPE", "buy", 1.0)]
)
def test_what_the_account_cannot_do_is_rejected_with_words(case: Case, symbol: str, side: Side, quantity: float) -> None:
    broker, session, _ = case
    before = broker.account()
    answer = broker.submit(order(symbol, side, quantity))
    assert answer.status == Status.REJECTED
    assert answer.message
    assert broker.account() == before
    assert broker.fills(session) == ()
    assert broker.open_orders() == ()


def test_an_order_in_a_name_that_does_not_trade_stays_open_until_it_is_canceled(case: Case) -> None:
    broker, session, _ = case
    answer = broker.submit(order("S02"))
    assert settled(broker, "q-1").status not in FINAL
    assert [found.client_order_id for found in broker.open_orders()] == ["q-1"]
    broker.cancel(answer.broker_order_id)
    broker.wait()
    found = broker.find("q-1")
    assert found is not None
    assert (found.status, found.filled) == (Status.CANCELED, 0.0)
    assert broker.open_orders() == ()
    assert broker.fills(session) == ()
    broker.cancel(answer.broker_order_id)  # asking again harms nothing


def test_a_replacement_is_another_order(case: Case) -> None:
    broker, _, _ = case
    old = broker.submit(order("S02"))
    broker.wait()
    new = broker.replace(old.broker_order_id, order("S02", quantity=7.0, name="q-2"))
    assert (new.client_order_id, new.quantity) == ("q-2", 7.0)
    assert new.broker_order_id != old.broker_order_id
    replaced = broker.find("q-1")
    assert replaced is not None
    assert (replaced.status, replaced.replaced_by) == (Status.REPLACED, new.broker_order_id)
    assert [found.client_order_id for found in broker.open_orders()] == ["q-2"]


def test_flows_have_ids_of_their_own_and_are_the_same_twice(case: Case) -> None:
    broker, session, _ = case
    flows = broker.flows(session)
    assert broker.flows(session) == flows
    assert len({flow.flow_id for flow in flows}) == len(flows)
    assert all(np.isfinite([flow.cash, flow.shares]).all() for flow in flows)
