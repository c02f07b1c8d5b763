"""The closed table of brokers."""

from __future__ import annotations

from dataclasses import dataclass

from quanto.core.registry import Registry
from quanto.execution.brokers.alpaca import AlpacaBroker
from quanto.execution.brokers.sim import SimBroker


@dataclass(frozen=True)
class BrokerEntry:
    """A kind of broker: one sentence, whether real time passes there, and the class behind the port."""

    name: str
    sentence: str
    real_time: bool
    kind: type[SimBroker] | type[AlpacaBroker]


BROKERS: Registry[BrokerEntry] = Registry(
    "broker",
    BrokerEntry("sim", "Fills at the session's open as the step kernel does, with optional frictions.", False, SimBroker),
    BrokerEntry("alpaca", "The paper account at Alpaca over its trading API; a live host is refused.", True, AlpacaBroker),
)
