"""Why shadow differs from evaluation: replays that add one cause after another, in a fixed order.

The first replay has none of them and equals the simulation; the last one is the shadow replay itself. What a cause
adds to the final NAV is the difference between two neighbours, so the causes sum to the whole difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from quanto.execution.brokers.sim import SimConfig
from quanto.execution.compiler import OrderRules
from quanto.execution.desk import Terms
from quanto.execution.limits import RiskPolicy
from quanto.execution.replay import Plan

# Every cause, in the order in which it is added.
CAUSES = ("rounding", "cash_in_lieu", "buying_power", "slippage", "fees", "partial_fills", "rejections", "denials", "halts", "late_data")


@dataclass(frozen=True)
class Setting:
    """What a replay is run with."""

    terms: Terms
    sim: SimConfig
    plan: Plan


@dataclass(frozen=True)
class Attribution:
    """The final NAV of evaluation and shadow, USD, and what each cause contributed, in the order of `CAUSES`."""

    evaluation_nav: float
    shadow_nav: float
    causes: dict[str, float]

    @property
    def difference(self) -> float:
        """Shadow minus evaluation, USD."""
        return self.shadow_nav - self.evaluation_nav

    @property
    def residual(self) -> float:
        """What the causes leave unexplained, USD: the rounding of their sum."""
        return math.fsum([self.difference, *(-value for value in self.causes.values())])


def ladder(setting: Setting) -> list[tuple[str, Setting]]:
    """Return the settings from none of the causes to all of them: ("", base), then one per cause."""
    wide = unlimited(setting.terms.risk)
    rules = setting.terms.rules
    free_rules = rules.model_copy(
        update={
            "fractional": True,
            "lot_shares": 1,
            "minimum_notional_usd": 0.0,
            "worst_case_slippage_bps": 0.0,
            "unsettled_proceeds": "usable",
        }
    )
    free_sim = SimConfig(slippage_bps=0.0, fee_bps=0.0, volume_share=None, reject_rate=0.0, whole_shares=False)
    current = Setting(
        terms=replace(setting.terms, rules=free_rules, risk=wide),
        sim=free_sim,
        plan=replace(setting.plan, late=frozenset()),
    )
    rungs = [("", current)]
    for cause in CAUSES:
        current = _add(cause, current, setting)
        rungs.append((cause, current))
    return rungs


def attribute(evaluation_nav: float, setting: Setting, final_nav: Callable[[Setting], float], shadow_nav: float) -> Attribution:
    """Return what each cause contributed to the difference of shadow from evaluation.

    Parameters
    ----------
    final_nav
        Runs one replay and returns its last NAV, USD. A setting equal to one before is not run again.
    shadow_nav
        The final NAV of the full setting, which was run already.
    """
    rungs = ladder(setting)
    known: list[tuple[Setting, float]] = [(setting, shadow_nav)]
    causes: dict[str, float] = {}
    before = _nav(rungs[0][1], known, final_nav)
    # What the frictionless engine itself leaves against the simulation is rounding of doubles.
    causes["engine"] = before - evaluation_nav
    for cause, rung in rungs[1:]:
        nav = _nav(rung, known, final_nav)
        causes[cause] = nav - before
        before = nav
    return Attribution(evaluation_nav, shadow_nav, causes)


def unlimited(policy: RiskPolicy) -> RiskPolicy:
    """Return the policy with limits that nothing reaches; the collar stays in the form, so orders keep their limit price."""
    wide = {
        "max_gross_exposure": 1e9, "max_net_exposure": 1e9, "max_leverage": 1e9, "max_name_weight": 1e9, "max_positions": 10**9,
        "minimum_cash": 0.0, "max_beta": 1e12, "max_gap_loss": 1e12, "max_days_to_exit": 1e15, "max_order_notional_usd": 1e18,
        "max_order_volume_share": 1e15, "max_turnover": 1e9, "max_orders_per_minute": 10**9, "price_collar": 1e9, "restricted": (),
        "max_price_age_sessions": 10**9, "max_missing_share": 1.0, "max_policy_age_sessions": 10**9,
    }  # fmt: skip
    return without_halts(policy).model_copy(update=wide)


def without_halts(policy: RiskPolicy) -> RiskPolicy:
    """Return the policy whose losses neither reduce nor halt."""
    return policy.model_copy(
        update={"reduce_only_daily_loss": 1.0, "halt_daily_loss": 1.0, "reduce_only_drawdown": 1.0, "halt_drawdown": 1.0}
    )


def _nav(setting: Setting, known: list[tuple[Setting, float]], final_nav: Callable[[Setting], float]) -> float:
    for other, nav in known:
        if other == setting:
            return nav
    nav = final_nav(setting)
    known.append((setting, nav))
    return nav


def _add(cause: str, current: Setting, full: Setting) -> Setting:
    """Return the setting with one cause more."""
    rules, sim, risk = full.terms.rules, full.sim, full.terms.risk
    if cause == "rounding":
        return _with_rules(current, rules, ("fractional", "lot_shares", "minimum_notional_usd"))
    if cause == "buying_power":
        return _with_rules(current, rules, ("worst_case_slippage_bps", "unsettled_proceeds"))
    if cause == "denials":
        return replace(current, terms=replace(current.terms, risk=without_halts(risk)))
    if cause == "halts":
        return replace(current, terms=replace(current.terms, risk=risk))
    if cause == "late_data":
        return replace(current, plan=full.plan)
    option = _SIM_OPTION[cause]
    return replace(current, sim=current.sim.model_copy(update={option: getattr(sim, option)}))


_SIM_OPTION = {
    "cash_in_lieu": "whole_shares",
    "slippage": "slippage_bps",
    "fees": "fee_bps",
    "partial_fills": "volume_share",
    "rejections": "reject_rate",
}


def _with_rules(setting: Setting, rules: OrderRules, fields: tuple[str, ...]) -> Setting:
    update = {name: getattr(rules, name) for name in fields}
    return replace(setting, terms=replace(setting.terms, rules=setting.terms.rules.model_copy(update=update)))
