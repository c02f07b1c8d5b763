"""The tables that the stage writes; keyed by session, or session and symbol, sorted by key."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa

from quanto.stages.features.compute import Features


def feature_table(features: Features, start: date) -> pa.Table:
    """Return one row for every session from `start` on and every symbol: the columns in order, then `eligible`."""
    rows = _from(features, start)
    sessions = features.sessions[rows]
    arrays = {
        "session": pa.array(np.repeat(sessions, len(features.symbols)), pa.date32()),
        "symbol": pa.array(list(features.symbols) * len(sessions), pa.string()),
        **{name: pa.array(values[rows].reshape(-1)) for name, values in features.asset.items()},
        "eligible": pa.array(features.eligible[rows].reshape(-1)),
    }
    return pa.table(arrays)


def regime_table(features: Features, start: date) -> pa.Table:
    """Return one row for every session from `start` on: the market columns, then `high_volatility` (null: unknown)."""
    rows = _from(features, start)
    labels = features.labels
    arrays = {
        "session": pa.array(features.sessions[rows], pa.date32()),
        **{name: pa.array(values[rows]) for name, values in features.market.items()},
        "high_volatility": pa.array(labels.high[rows], pa.bool_(), mask=~labels.known[rows]),
    }
    return pa.table(arrays)


def label_table(features: Features, start: date) -> pa.Table:
    """Return one row for every session from `start` on: the label and the numbers of the evening before it was made from."""
    rows = _from(features, start)
    labels = features.labels
    arrays = {
        "session": pa.array(features.sessions[rows], pa.date32()),
        "high_volatility": pa.array(labels.high[rows], pa.bool_(), mask=~labels.known[rows]),
        **{name: pa.array(getattr(labels, name)[rows]) for name in ("volatility", "enter_threshold", "exit_threshold")},
    }
    return pa.table(arrays)


def _from(features: Features, start: date) -> slice:
    return slice(int(np.searchsorted(features.sessions, np.datetime64(start))), None)
