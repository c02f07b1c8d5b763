"""The configuration of the shadow stage."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.execution.brokers.sim import SimConfig
from quanto.execution.compiler import OrderRules
from quanto.execution.limits import RiskPolicy
from quanto.execution.stress import StressConfig
from quanto.market.calendar import next_session
from quanto.market.split import SplitConfig
from quanto.portfolio.constraints import ConstraintConfig
from quanto.portfolio.costs import CostConfig


class ShadowConfig(Section):
    """Which sessions are replayed, from which account, under which rules, limits and frictions."""

    start_date: date | None
    end_date: date | None
    nav_usd: float = Field(gt=0)
    split: SplitConfig
    costs: CostConfig
    constraints: ConstraintConfig
    risk: RiskPolicy
    index_series: str | None
    late_sessions: tuple[date, ...]
    orders: OrderRules
    broker: SimConfig
    stress: StressConfig
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults: list[str] = []
        if self.start_date and self.end_date and self.start_date > self.end_date:
            faults.append(f"end_date {self.end_date} lies before start_date {self.start_date}")
        if self.broker.whole_shares and self.orders.fractional:
            faults.append("orders.fractional is true, but broker.whole_shares accepts no fractions; set one of them")
        if self.broker.slippage_bps > self.orders.worst_case_slippage_bps:
            faults.append(
                f"orders.worst_case_slippage_bps {self.orders.worst_case_slippage_bps} is below broker.slippage_bps "
                f"{self.broker.slippage_bps}: cash could become negative; reserve at least as much"
            )
        if list(self.late_sessions) != sorted(set(self.late_sessions)):
            faults.append(f"late_sessions must ascend, each once; found {[str(day) for day in self.late_sessions]}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def newer_sessions(config: ShadowConfig, end: date) -> ShadowConfig:
    """Return the configuration that replays only sessions after `end`, the last day of the data that the policy was judged on."""
    first = next_session(end)
    split = config.split.model_copy(update={"test_start": first, "sealed_sessions": 0, "walk_forward": None})
    return config.model_copy(update={"split": split, "start_date": config.start_date or first, "late_sessions": ()})
