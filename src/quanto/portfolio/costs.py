"""What trading costs: commission, half-spread by date, and an optional square-root impact."""

from __future__ import annotations

from datetime import date
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.market.calendar import DateArray

FloatArray = npt.NDArray[np.float64]
BPS = 1e-4
ADV_SESSIONS = 20


class SpreadStep(Section):
    """From this session on, the half-spread is this many basis points."""

    start: date
    half_spread_bps: float = Field(ge=0)


class CostConfig(Section):
    """Costs per side, in basis points of the traded value; never negative."""

    commission_bps: float = Field(ge=0)
    half_spread_bps: float = Field(ge=0, description="before the first step of spread_steps")
    spread_steps: tuple[SpreadStep, ...] = ()
    impact_bps: float = Field(ge=0, description="at traded value = average daily volume; grows with its square root")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        starts = [step.start for step in self.spread_steps]
        if starts != sorted(set(starts)):
            raise ValueError(f"spread_steps must have ascending dates, each once; found {[str(day) for day in starts]}")
        return self

    def scaled(self, factor: float) -> CostConfig:
        """Return the same costs times a factor (0, .5, 2 for the cost sensitivity)."""
        steps = tuple(SpreadStep(start=step.start, half_spread_bps=step.half_spread_bps * factor) for step in self.spread_steps)
        return CostConfig(
            commission_bps=self.commission_bps * factor,
            half_spread_bps=self.half_spread_bps * factor,
            spread_steps=steps,
            impact_bps=self.impact_bps * factor,
        )


def linear_cost(config: CostConfig, sessions: DateArray) -> FloatArray:
    """Return commission and half-spread as a fraction of traded value; shape (n_sessions,)."""
    spread = np.full(len(sessions), config.half_spread_bps)
    for step in config.spread_steps:
        spread[sessions >= np.datetime64(step.start)] = step.half_spread_bps
    return (config.commission_bps + spread) * BPS


def average_daily_volume(close: FloatArray, volume: FloatArray) -> FloatArray:
    """Return the mean traded value of the last 20 sessions with a bar, known at the close of each session.

    Shape (n_sessions, n_symbols), USD. Sessions without a bar are left out; NaN where none of the 20 has one.
    """
    traded = np.where(np.isfinite(close) & np.isfinite(volume), close * volume, np.nan)
    padded = np.vstack([np.full((ADV_SESSIONS - 1, traded.shape[1]), np.nan), traded])
    windows = np.lib.stride_tricks.sliding_window_view(padded, ADV_SESSIONS, axis=0)
    present = np.isfinite(windows)
    count = present.sum(axis=-1)
    total = np.where(present, windows, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
