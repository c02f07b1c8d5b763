"""The risk policy: every limit of the account, typed, with contradictions refused at load."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.digest import digest_value


class RiskPolicy(Section):
    """Every limit of the account; each is enforced by a check, and a contradiction among them is refused at load."""

    # The portfolio that an order would leave, at the prices of the decision.
    max_gross_exposure: float = Field(gt=0, description="sum of absolute position values, fraction of NAV")
    max_net_exposure: float = Field(gt=0, description="absolute sum of signed position values, fraction of NAV")
    max_leverage: float = Field(ge=1, description="assets (long positions and cash) over NAV; 1 forbids borrowing")
    max_name_weight: float = Field(gt=0, description="fraction of NAV")
    max_positions: int = Field(ge=1)
    minimum_cash: float = Field(ge=0, lt=1, description="fraction of NAV, after costs and the worst-case slippage")
    max_beta: float = Field(gt=0, description="absolute sum of weight times beta")
    gap_market_shock: float = Field(ge=0, le=1, description="overnight fall of the market in the gap scenario")
    gap_name_shock: float = Field(ge=0, le=1, description="fall of the largest position by itself, on top")
    max_gap_loss: float = Field(gt=0, description="loss in the gap scenario, fraction of NAV")
    exit_volume_share: float = Field(gt=0, le=1, description="share of the average daily volume that an exit may take")
    max_days_to_exit: float = Field(gt=0, description="sessions to leave a position at that share")
    # Each order.
    max_order_notional_usd: float = Field(gt=0)
    max_order_volume_share: float = Field(gt=0, description="order value over average daily traded value")
    max_turnover: float = Field(gt=0, description="one-way per session, fraction of NAV")
    max_orders_per_minute: int = Field(ge=1)
    price_collar: float = Field(gt=0, description="distance from the last known price, fraction")
    restricted: tuple[str, ...] = Field(description="symbols in which no order is allowed")
    # What the decision knew.
    max_price_age_sessions: int = Field(ge=0, description="sessions since the last bar at the decision")
    max_missing_share: float = Field(ge=0, le=1, description="share of the universe without a bar in the deciding session")
    max_policy_age_sessions: int = Field(ge=1, description="sessions since the policy's training ended")
    beta_sessions: int = Field(ge=20, description="sessions of returns that a beta is estimated from")
    # The account.
    reduce_only_daily_loss: float = Field(gt=0, le=1)
    halt_daily_loss: float = Field(gt=0, le=1)
    reduce_only_drawdown: float = Field(gt=0, le=1)
    halt_drawdown: float = Field(gt=0, le=1)
    # Reconciliation with the broker; beyond these the engine halts.
    position_tolerance_shares: float = Field(ge=0)
    cash_tolerance_usd: float = Field(ge=0)
    nav_tolerance: float = Field(ge=0, lt=1, description="fraction of NAV")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults: list[str] = []
        if self.max_name_weight > self.max_gross_exposure:
            faults.append(f"max_name_weight {self.max_name_weight} could never bind: max_gross_exposure is {self.max_gross_exposure}")
        if self.max_net_exposure > self.max_gross_exposure:
            faults.append(f"max_net_exposure {self.max_net_exposure} could never bind: max_gross_exposure is {self.max_gross_exposure}")
        if self.reduce_only_daily_loss > self.halt_daily_loss:
            faults.append(f"reduce_only_daily_loss {self.reduce_only_daily_loss} is above halt_daily_loss {self.halt_daily_loss}")
        if self.reduce_only_drawdown > self.halt_drawdown:
            faults.append(f"reduce_only_drawdown {self.reduce_only_drawdown} is above halt_drawdown {self.halt_drawdown}")
        if len(set(self.restricted)) != len(self.restricted):
            faults.append(f"restricted names a symbol twice: {list(self.restricted)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def digest(self) -> str:
        """Return the digest of all limits; the promotion statement carries it."""
        return digest_value(self.model_dump(mode="json"))
