"""How a book was held: exposure, turnover, holding period and concentration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.portfolio.series import SESSIONS_PER_YEAR, FloatArray, finite, same_length


@dataclass(frozen=True)
class ActivityMetrics:
    """Fractions of NAV unless the name says otherwise; None where there is no session or nothing was held.

    Attributes
    ----------
    gross_*, net_*
        sum |w| and sum w at the closes: mean, maximum, 95 % quantile.
    turnover_*
        One-way, per session; `turnover_annual` is the mean times 252.
    holding_period_sessions
        Mean gross exposure over mean one-way turnover: how long an average position lives; None without trading.
    herfindahl, effective_names
        Mean over invested sessions of H = sum (|w|/gross)^2, and of 1/H.
    trades, sessions_traded
        Fills, and sessions with at least one.
    """

    sessions: int
    gross_mean: float | None = None
    gross_max: float | None = None
    gross_p95: float | None = None
    net_mean: float | None = None
    net_max: float | None = None
    net_p95: float | None = None
    turnover_mean: float | None = None
    turnover_max: float | None = None
    turnover_p95: float | None = None
    turnover_annual: float | None = None
    holding_period_sessions: float | None = None
    herfindahl: float | None = None
    effective_names: float | None = None
    trades: int | None = None
    sessions_traded: int | None = None


def activity_metrics(weights: npt.ArrayLike, turnover: npt.ArrayLike, traded: npt.ArrayLike | None = None) -> ActivityMetrics:
    """Return exposure, turnover, holding period and concentration of a window.

    Parameters
    ----------
    weights
        Shape (n_sessions, n_symbols): at each close, as fractions of NAV, without cash. NaN is refused.
    turnover
        Shape (n_sessions,): one-way, 0.5 sum |w_target - w_drifted|.
    traded
        Shape (n_sessions, n_symbols): value of each fill; None leaves the trade counts out.

    Raises
    ------
    DataError
        If a value is NaN or infinite, a turnover negative, or shapes do not fit.
    """
    w = finite("weights", weights, 2)
    moved = same_length("turnover", turnover, len(w))
    fills = None if traded is None else finite("traded", traded, 2)
    if (moved < 0).any():
        raise DataError(f"turnover must not be negative; found {moved.min()} at {int(moved.argmin())}")
    if fills is not None and fills.shape != w.shape:
        raise DataError(f"traded must have the shape of the weights {w.shape}; found {fills.shape}")
    if len(w) == 0:
        return ActivityMetrics(sessions=0)
    gross = np.abs(w).sum(axis=1)
    herfindahl, effective_names = concentration(w)
    return ActivityMetrics(
        len(w),
        *_summary(gross),
        *_summary(w.sum(axis=1)),
        *_summary(moved),
        turnover_annual=float(moved.mean() * SESSIONS_PER_YEAR),
        holding_period_sessions=float(gross.mean() / moved.mean()) if moved.any() else None,
        herfindahl=herfindahl,
        effective_names=effective_names,
        trades=None if fills is None else int(np.count_nonzero(fills)),
        sessions_traded=None if fills is None else int(np.count_nonzero(fills.any(axis=1))),
    )


def concentration(weights: FloatArray) -> tuple[float | None, float | None]:
    """Return the mean Herfindahl index and the mean effective number of names over the sessions that hold something.

    Parameters
    ----------
    weights
        Shape (n_sessions, n_symbols), finite. Both None where nothing is ever held.
    """
    gross = np.abs(weights).sum(axis=1)
    held = gross > 0
    if not held.any():
        return None, None
    index = ((weights[held] / gross[held, None]) ** 2).sum(axis=1)
    return float(index.mean()), float((1 / index).mean())


def _summary(values: FloatArray) -> tuple[float, float, float]:
    return float(values.mean()), float(values.max()), float(np.quantile(values, 0.95))
