"""What a researcher wants to know about the features before trusting a policy: coverage, distribution, drift."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.market.calendar import as_date
from quanto.market.panel import FloatArray
from quanto.market.split import resolve_split
from quanto.stages.features.column import FeatureColumn
from quanto.stages.features.compute import Features
from quanto.stages.features.config import FeaturesConfig, Selection

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_DRIFT_BINS = 10


def refuse_empty(features: Features, config: FeaturesConfig) -> None:
    """Refuse features that no policy could use.

    Raises
    ------
    DataError
        If a column has no value from start_date on, or no name is ever eligible; says which and what to do.
    """
    rows = features.sessions >= np.datetime64(config.start_date)
    every = {**features.asset, **features.market}
    empty = [name for name, values in every.items() if not np.isfinite(values[rows]).any()]
    if empty:
        raise DataError(
            f"{', '.join(empty)} have no value from {config.start_date} to {config.end_date}: too little history, too few names"
            " (a cross-section needs 3), or no data of their domain. Leave them out by features.columns or"
            " features.market_columns, or widen the window"
        )
    if not features.eligible[rows].any():
        window = f"from {config.start_date} to {config.end_date}"
        raise DataError(f"no symbol is eligible on any session {window}: no row has all columns, known by its evening")


def feature_report(features: Features, selection: Selection, config: FeaturesConfig) -> dict[str, Any]:
    """Return the report of all columns over the sessions from start_date on, as a JSON value."""
    rows = np.flatnonzero(features.sessions >= np.datetime64(config.start_date))
    sessions = features.sessions[rows]
    split = resolve_split(sessions, config.split)
    train, test = slice(*split.train_range(sessions)), slice(*split.test_range(sessions))
    columns = {}
    for column in (*selection.asset, *selection.market):
        values = (features.asset if column.axis == "asset" else features.market)[column.name][rows]
        columns[column.name] = {**describe(column), **_statistics(values, sessions, train, test)}
    eligible = features.eligible[rows]
    return {
        "feature_set": config.feature_set,
        "regime_feature_set": config.regime_feature_set,
        "sessions": {"first": as_date(sessions[0]), "last": as_date(sessions[-1]), "count": len(sessions)},
        "symbols": list(features.symbols),
        "eligible_share": {symbol: float(eligible[:, column].mean()) for column, symbol in enumerate(features.symbols)},
        "high_volatility": {"sessions": int(features.labels.high[rows].sum()), "unlabelled": int((~features.labels.known[rows]).sum())},
        "asset_columns": list(features.asset),
        "market_columns": list(features.market),
        "columns": columns,
        "correlation": _correlation(features, rows),
    }


def describe(column: FeatureColumn) -> dict[str, Any]:
    """Return what a column declares, as a JSON value."""
    return {
        "axis": column.axis,
        "formula": column.formula,
        "unit": column.unit,
        "lookback_sessions": "expanding" if column.lookback is None else column.lookback,
        "lag_sessions": column.lag,
        "known": column.known,
        "nan_rule": column.nan_rule,
        "source": column.source,
        "reads": sorted(column.reads),
        "required": column.required,
    }


def _statistics(values: FloatArray, sessions: npt.NDArray[np.datetime64], train: slice, test: slice) -> dict[str, Any]:
    seen = np.isfinite(values)
    any_name = seen if seen.ndim == 1 else seen.any(axis=1)
    finite = values[seen]
    return {
        "coverage": float(seen.mean()),
        "first_finite_session": as_date(sessions[int(np.argmax(any_name))]) if any_name.any() else None,
        "mean": float(np.mean(finite)),
        "std": float(np.std(finite)),
        "minimum": float(finite.min()),
        "maximum": float(finite.max()),
        "quantiles": {str(level): float(value) for level, value in zip(_QUANTILES, np.quantile(finite, _QUANTILES), strict=True)},
        "drift": _drift(values[train], values[test]),
    }


def _drift(train: FloatArray, test: FloatArray) -> dict[str, float | None]:
    """Shift of the mean in train deviations, ratio of deviations, and population stability index over train deciles."""
    before, after = train[np.isfinite(train)], test[np.isfinite(test)]
    if len(before) < 2 or len(after) < 2 or np.std(before) == 0.0:
        return {"mean_shift": None, "std_ratio": None, "stability_index": None}
    edges = np.unique(np.quantile(before, np.linspace(0.0, 1.0, _DRIFT_BINS + 1)[1:-1]))
    shares = [np.bincount(np.searchsorted(edges, part), minlength=len(edges) + 1) / len(part) for part in (before, after)]
    old, new = (np.maximum(share, 1e-4) for share in shares)
    return {
        "mean_shift": float((np.mean(after) - np.mean(before)) / np.std(before)),
        "std_ratio": float(np.std(after) / np.std(before)),
        "stability_index": float(((new - old) * np.log(new / old)).sum()),
    }


def _correlation(features: Features, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Pairwise-complete Pearson correlation of all columns; a market value counts once for each name."""
    shape = (len(rows), len(features.symbols))
    columns = [values[rows].reshape(-1) for values in features.asset.values()]
    columns += [np.broadcast_to(values[rows][:, None], shape).reshape(-1) for values in features.market.values()]
    stacked = np.ma.masked_invalid(np.stack(columns))
    matrix = np.ma.corrcoef(stacked).filled(np.nan)  # type: ignore[no-untyped-call]  # NumPy types no masked statistics
    cells = [[round(float(cell), 6) if np.isfinite(cell) else None for cell in line] for line in np.atleast_2d(matrix)]
    return {"names": [*features.asset, *features.market], "matrix": cells}
