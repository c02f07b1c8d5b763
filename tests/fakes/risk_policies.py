"""Risk policies whose limits bind nowhere but where a test says so; light to import, for the mutation score."""

from __future__ import annotations

from typing import Any

from quanto.execution.limits import RiskPolicy

WIDE: dict[str, Any] = {
    "max_gross_exposure": 1e6,
    "max_net_exposure": 1e6,
    "max_leverage": 1e6,
    "max_name_weight": 1e6,
    "max_positions": 10_000,
    "minimum_cash": 0.0,
    "max_beta": 1e6,
    "gap_market_shock": 0.1,
    "gap_name_shock": 0.3,
    "max_gap_loss": 1e6,
    "exit_volume_share": 0.1,
    "max_days_to_exit": 1e12,
    "max_order_notional_usd": 1e15,
    "max_order_volume_share": 1e12,
    "max_turnover": 1e6,
    "max_orders_per_minute": 10_000,
    "price_collar": 1e6,
    "restricted": (),
    "max_price_age_sessions": 10_000,
    "max_missing_share": 1.0,
    "max_policy_age_sessions": 1_000_000,
    "beta_sessions": 20,
    "reduce_only_daily_loss": 1.0,
    "halt_daily_loss": 1.0,
    "reduce_only_drawdown": 1.0,
    "halt_drawdown": 1.0,
    "position_tolerance_shares": 1e-6,
    "cash_tolerance_usd": 0.01,
    "nav_tolerance": 1e-6,
}


def wide_policy(**limits: Any) -> RiskPolicy:
    """Return a policy whose limits bind nowhere but where given."""
    return RiskPolicy(**{**WIDE, **limits})
