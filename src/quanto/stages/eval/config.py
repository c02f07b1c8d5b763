"""The section of the eval stage: the window, the rules that every book shares, and what is computed beside the candidate."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.errors import ConfigError
from quanto.execution.limits import RiskPolicy
from quanto.market.regimes import LABELLERS
from quanto.market.split import SplitConfig
from quanto.policy.baselines import BASELINES
from quanto.portfolio.constraints import ConstraintConfig
from quanto.portfolio.costs import CostConfig

Stress = Literal["lagged_signals", "shifted_labels", "permuted_symbols", "leave_one_out"]


class EvalConfig(Section):
    """What the evaluation runs: one window, one set of costs, limits and eligibility for the candidate and its baselines."""

    selection: Literal["point_in_time", "hindsight"]
    split: SplitConfig
    costs: CostConfig
    constraints: ConstraintConfig
    risk: RiskPolicy
    sizing: Literal["close", "open"]
    baseline: str
    index_series: str | None
    labeller: str
    cost_factors: tuple[float, ...]
    stress: tuple[Stress, ...]
    bootstrap_draws: int = Field(ge=100)
    interval_level: float = Field(gt=0.5, lt=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        faults: list[str] = []
        for registry, name in ((BASELINES, self.baseline), (LABELLERS, self.labeller)):
            try:
                registry[name]
            except ConfigError as error:
                faults.append(str(error))
        if self.baseline == "cash_v1":
            faults.append("baseline cash_v1 has no mix to match exposure with; name one that invests")
        if not {1.0, 2.0} <= set(self.cost_factors) or min(self.cost_factors, default=0.0) < 0:
            faults.append(f"cost_factors must be 0 or above and hold 1 and 2, which the gates read; found {list(self.cost_factors)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self
