"""What a policy sees: features scaled by train-window statistics, clipped, 0 where missing, with masks beside them.

Training, evaluation, shadow and paper trading share these functions, so that a policy acts on what it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from quanto.core.errors import ConfigError, DataError
from quanto.market.panel import BoolArray, FloatArray

CLIP = 5.0

# Columns of zeros and ones that say whether another value is there: they pass unscaled.
INDICATOR_SUFFIX = "_available"


@dataclass(frozen=True)
class Scaler:
    """Train-window statistics of each column, in column order; stored with the policy.

    Attributes
    ----------
    asset_mean, asset_std, market_mean, market_std
        Population statistics (ddof 0); indicators have mean 0 and standard deviation 1.
    clip
        Scaled values are cut to -clip..clip.
    """

    asset_columns: tuple[str, ...]
    asset_mean: tuple[float, ...]
    asset_std: tuple[float, ...]
    market_columns: tuple[str, ...]
    market_mean: tuple[float, ...]
    market_std: tuple[float, ...]
    clip: float = CLIP

    def to_dict(self) -> dict[str, object]:
        """Return the scaler as a JSON value; `scaler_from` reads it back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class Observation(NamedTuple):
    """Scaled blocks; float64, never NaN.

    Attributes
    ----------
    asset
        Shape (n_sessions, n_symbols, n_asset_columns): 0 where a value is missing or the name is not eligible.
    mask
        Shape (n_sessions, n_symbols): whether the name is eligible.
    market
        Shape (n_sessions, n_market_columns): 0 where missing.
    market_mask
        Shape (n_sessions, n_market_columns): whether the value was there.
    """

    asset: FloatArray
    mask: BoolArray
    market: FloatArray
    market_mask: BoolArray


def fit_scaler(
    features: FloatArray,
    market: FloatArray,
    eligible: BoolArray,
    asset_columns: Sequence[str],
    market_columns: Sequence[str],
    clip: float = CLIP,
) -> Scaler:
    """Return the statistics of the given rows, which must be train rows only; asset columns pooled over symbols.

    Parameters
    ----------
    features, market, eligible
        Shapes (n_sessions, n_symbols, n_asset_columns), (n_sessions, n_market_columns), (n_sessions, n_symbols), of
        the train window. Asset columns use eligible rows, market columns all; NaN is left out.

    Raises
    ------
    ConfigError
        If a column has no value or does not vary on the train rows, or the clip is not positive; names all columns.
    DataError
        If the shapes do not fit.
    """
    _check_shapes(features, market, eligible, len(asset_columns), len(market_columns))
    if not clip > 0:
        raise ConfigError(f"the clip of the scaler must be positive, found {clip}")
    faults: list[str] = []
    pooled = features[eligible]
    asset = [_moments(name, pooled[:, column], faults) for column, name in enumerate(asset_columns)]
    regime = [_moments(name, market[:, column], faults) for column, name in enumerate(market_columns)]
    if faults:
        raise ConfigError(f"the train window cannot scale {'; '.join(faults)}. Leave these columns out, or move the window")
    return Scaler(
        asset_columns=tuple(asset_columns),
        asset_mean=tuple(mean for mean, _ in asset),
        asset_std=tuple(std for _, std in asset),
        market_columns=tuple(market_columns),
        market_mean=tuple(mean for mean, _ in regime),
        market_std=tuple(std for _, std in regime),
        clip=float(clip),
    )


def assemble(features: FloatArray, market: FloatArray, eligible: BoolArray, scaler: Scaler) -> Observation:
    """Return the observation blocks: scaled, clipped, then 0 where missing.

    Parameters
    ----------
    features, market, eligible
        As for `fit_scaler`, of any sessions, columns in the scaler's order. NaN means missing; infinity is refused.

    Raises
    ------
    DataError
        If the shapes do not fit the scaler or a value is infinite.
    """
    _check_shapes(features, market, eligible, len(scaler.asset_columns), len(scaler.market_columns))
    if np.isinf(features).any() or np.isinf(market).any():
        raise DataError("features hold infinite values; the features stage writes NaN where a value does not exist")
    asset_seen = np.isfinite(features) & eligible[:, :, None]
    market_seen = np.isfinite(market)
    asset = _scale(features, scaler.asset_mean, scaler.asset_std, scaler.clip)
    regime = _scale(market, scaler.market_mean, scaler.market_std, scaler.clip)
    return Observation(np.where(asset_seen, asset, 0.0), eligible.copy(), np.where(market_seen, regime, 0.0), market_seen)


def scaler_from(value: object) -> Scaler:
    """Return the scaler that a parsed JSON value holds.

    Raises
    ------
    DataError
        If a field is missing, unknown or of another length, or a number is not finite or a deviation not positive.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"expected a scaler (a mapping), found {type(value).__name__}")
    try:
        fields: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
        scaler = Scaler(**fields)
        lengths = {len(scaler.asset_columns) - len(part) for part in (scaler.asset_mean, scaler.asset_std)}
        lengths |= {len(scaler.market_columns) - len(part) for part in (scaler.market_mean, scaler.market_std)}
        numbers = np.array([*scaler.asset_mean, *scaler.asset_std, *scaler.market_mean, *scaler.market_std, scaler.clip], dtype=np.float64)
        deviations = np.array([*scaler.asset_std, *scaler.market_std, scaler.clip], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"a scaler has missing, unknown or odd fields: {error}") from error
    if lengths - {0} or not np.isfinite(numbers).all() or not (deviations > 0).all():
        raise DataError("a scaler needs one finite mean and one positive deviation for each column, and a positive clip")
    return scaler


def _moments(name: str, values: FloatArray, faults: list[str]) -> tuple[float, float]:
    seen = values[np.isfinite(values)]
    if len(seen) == 0:
        faults.append(f"{name} (no value)")
        return 0.0, 1.0
    if name.endswith(INDICATOR_SUFFIX):
        return 0.0, 1.0
    mean, std = float(np.mean(seen)), float(np.std(seen))
    if std <= 1e-12 * max(1.0, abs(mean)):
        faults.append(f"{name} (zero variance: {len(seen)} values of {mean:g})")
        return 0.0, 1.0
    return mean, std


def _scale(values: FloatArray, mean: Sequence[float], std: Sequence[float], clip: float) -> FloatArray:
    scaled = (values - np.asarray(mean, dtype=np.float64)) / np.asarray(std, dtype=np.float64)
    return np.clip(scaled, -clip, clip)


def _check_shapes(features: FloatArray, market: FloatArray, eligible: BoolArray, asset_columns: int, market_columns: int) -> None:
    sessions = len(features)
    wanted = ((sessions, eligible.shape[-1], asset_columns), (sessions, market_columns), (sessions, eligible.shape[-1]))
    found = (features.shape, market.shape, eligible.shape)
    if found != wanted:
        raise DataError(f"expected features, market and eligible of shapes {wanted}, found {found}")
