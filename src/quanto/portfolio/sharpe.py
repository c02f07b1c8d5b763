"""Inference on one Sharpe ratio: its error, the probabilistic and the deflated ratio, the shortest record that shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from quanto.core.errors import DataError
from quanto.portfolio.series import finite, is_constant

MINIMUM_SESSIONS = 3


@dataclass(frozen=True)
class SharpeMoments:
    """Per-session Sharpe ratio with what its error depends on; `kurtosis` is raw (3 for a normal)."""

    sharpe: float
    sessions: int
    skew: float = 0.0
    kurtosis: float = 3.0


def sharpe_moments(excess: npt.ArrayLike) -> SharpeMoments | None:
    """Return the moments of returns in excess of the risk-free rate; None below 3 sessions or without dispersion.

    Raises
    ------
    DataError
        If a value is NaN or infinite.
    """
    values = finite("excess returns", excess)
    if len(values) < MINIMUM_SESSIONS or is_constant(values):
        return None
    sharpe = float(values.mean() / values.std(ddof=1))
    return SharpeMoments(sharpe, len(values), float(stats.skew(values)), float(stats.kurtosis(values, fisher=False)))


def sharpe_standard_error(moments: SharpeMoments) -> float:
    """Return sqrt((1 - g3 SR + (g4-1)/4 SR^2) / (T-1)); Mertens (2002), Bailey and Lopez de Prado (2012), equation 8.

    Raises
    ------
    DataError
        If no distribution has these moments (the kurtosis is below 1 + skew^2) or T is below 2.
    """
    return math.sqrt(_sharpe_variance(moments) / (moments.sessions - 1))


def probabilistic_sharpe(moments: SharpeMoments, benchmark: float = 0.0) -> float:
    """Return the PSR: the probability that the true per-session Sharpe ratio lies above `benchmark`.

    Bailey and Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier", equation 11.

    Raises
    ------
    DataError
        As `sharpe_standard_error`.
    """
    return float(stats.norm.cdf((moments.sharpe - benchmark) / sharpe_standard_error(moments)))


def expected_maximum_sharpe(variance: float, trials: int) -> float:
    """Return the Sharpe ratio that the best of `trials` skill-less trials is expected to show, per session.

    Bailey and Lopez de Prado (2014), "The Deflated Sharpe Ratio", equation 1; 0 for one trial.

    Parameters
    ----------
    variance
        Of the per-session Sharpe ratios across trials.

    Raises
    ------
    DataError
        If the variance is negative or not finite, or there is no trial.
    """
    if not (math.isfinite(variance) and variance >= 0) or trials < 1:
        raise DataError(
            f"the variance of the trials' Sharpe ratios must be finite and not negative, and trials 1 or more; found {variance}, {trials}"
        )
    if trials == 1:
        return 0.0
    high, higher = stats.norm.isf([1 / trials, 1 / (trials * math.e)])
    return math.sqrt(variance) * float((1 - np.euler_gamma) * high + np.euler_gamma * higher)


def deflated_sharpe(moments: SharpeMoments, variance: float, trials: int) -> float:
    """Return the DSR: the PSR against the best Sharpe ratio that `trials` trials without skill would show.

    Bailey and Lopez de Prado (2014), equation 2.

    Raises
    ------
    DataError
        As `expected_maximum_sharpe` and `sharpe_standard_error`.
    """
    return probabilistic_sharpe(moments, expected_maximum_sharpe(variance, trials))


def minimum_track_record(moments: SharpeMoments, benchmark: float = 0.0, confidence: float = 0.95) -> float | None:
    """Return the sessions a record must have before PSR(benchmark) reaches `confidence`; None where it never does.

    Bailey and Lopez de Prado (2012), equation 13.

    Raises
    ------
    DataError
        As `sharpe_standard_error`.
    """
    if moments.sharpe <= benchmark:
        return None
    return 1 + _sharpe_variance(moments) * float(stats.norm.ppf(confidence) / (moments.sharpe - benchmark)) ** 2


def _sharpe_variance(moments: SharpeMoments) -> float:
    # Below 1 + skew^2 no distribution lies; a little less is rounding (two values have exactly that much).
    possible = moments.kurtosis >= (1 + moments.skew**2) * (1 - 1e-9)
    if not (math.isfinite(moments.sharpe) and possible) or moments.sessions < 2:
        raise DataError(f"a Sharpe ratio needs 2 sessions, finite moments and a raw kurtosis of at least 1 + skew^2; found {moments}")
    return max(1 - moments.skew * moments.sharpe + (moments.kurtosis - 1) / 4 * moments.sharpe**2, 0.0)
