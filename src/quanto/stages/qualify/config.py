"""The section of the qualify stage: which baseline the candidate must stand against, and every threshold of the gates."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from quanto.core.config import Section


class Thresholds(Section):
    """The numbers that the gates compare with; their digest belongs to the calibration of the gates."""

    # Sample and activity: below these there is no evidence, whatever the returns.
    minimum_sessions: int = Field(ge=1)
    minimum_trades: int = Field(ge=0)
    minimum_turnover: float = Field(ge=0)
    minimum_exposure_share: float = Field(ge=0, le=1)
    proof_sessions: int = Field(ge=1)

    # Regime protection.
    high_volatility_sessions: int = Field(ge=2)
    high_volatility_episodes: int = Field(ge=1)
    exposure_margin: float = Field(ge=0)
    volatility_ratio: float = Field(gt=0)
    volatility_ratio_confidence: float = Field(gt=0.5, lt=1)
    drawdown_ratio: float = Field(gt=0)
    drawdown_limit: float = Field(gt=0, le=1)
    protection: Literal["required", "none"]
    protection_exposure: float = Field(ge=0)
    protection_volatility_ratio: float = Field(gt=0)

    # Inferiority and evidence of an edge.
    inferiority_level: float = Field(gt=0, lt=0.5)
    evidence_level: float = Field(gt=0, lt=0.5)
    near_copies_correlation: float = Field(gt=0, le=1)
    minimum_seeds: int = Field(ge=1)
    seed_share: float = Field(ge=0, le=1)
    growth_margin: float = Field(ge=0)
    minimum_fresh_sessions: int = Field(ge=1)
    interesting_ir: float = Field(gt=0)
    bootstrap_draws: int = Field(ge=100)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.protection_volatility_ratio > self.volatility_ratio:
            found = f"{self.protection_volatility_ratio} and {self.volatility_ratio}"
            raise ValueError(f"protection_volatility_ratio must not lie above volatility_ratio; found {found}")
        return self


class QualifyConfig(Section):
    """What the qualification reads besides the evidence."""

    baseline: str
    selection: Literal["point_in_time", "hindsight"]
    thresholds: Thresholds
    prior_trials: int = Field(ge=0)
    seed: int = Field(ge=0)
