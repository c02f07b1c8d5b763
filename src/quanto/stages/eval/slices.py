"""Regime slices: what a book did where volatility was high, the trend was down, and where both met.

One alignment everywhere: the label of session t was known before its open, its weights are those held after trading at
that open, its return runs from the close before to its close. Drawdowns count inside contiguous episodes only, each
from a fresh peak: a slice is no continuous life.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.env.simulation import Simulation
from quanto.market.calendar import DateArray
from quanto.market.regimes import episodes
from quanto.portfolio.drawdowns import drawdown_within
from quanto.portfolio.metrics import return_metrics
from quanto.portfolio.series import SESSIONS_PER_YEAR
from quanto.stages.eval.arena import Arena

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

TREND_SESSIONS = 200
# What of the return metrics keeps its meaning on sessions that do not follow each other.
SLICE_METRICS = ("annual_return", "annual_volatility", "sharpe", "cvar", "hit_rate", "beta", "alpha", "information_ratio")


@dataclass(frozen=True)
class Record:
    """A book's returns, gross exposure and one-way turnover on the window; shapes (n_sessions,)."""

    returns: FloatArray
    exposure: FloatArray
    turnover: FloatArray


def record(book: Simulation) -> Record:
    """Return the record of a simulated book."""
    return Record(book.returns, book.exposure, book.turnover)


def slice_masks(high: BoolArray, known: BoolArray, trend: FloatArray) -> dict[str, BoolArray]:
    """Return the sessions of each slice; sessions without a label belong to none. Shapes (n_sessions,).

    Parameters
    ----------
    trend
        Of the index as known before the session: above 0 is up; NaN where unknown.
    """
    up, down = trend > 0, trend <= 0
    return {
        "all": np.ones(len(high), dtype=np.bool_),
        "high_volatility": known & high,
        "normal_volatility": known & ~high,
        "trend_up": up,
        "trend_down": down,
        "high_volatility_trend_up": known & high & up,
        "high_volatility_trend_down": known & high & down,
        "normal_volatility_trend_up": known & ~high & up,
        "normal_volatility_trend_down": known & ~high & down,
    }


def trend(level: FloatArray, sessions: int = TREND_SESSIONS) -> FloatArray:
    """Return the index over its trailing mean, minus 1, as known before each session; NaN where not known.

    Shape (n_sessions,): row t is made of the levels up to t-1.
    """
    out = np.full(len(level), np.nan)
    if len(level) > sessions:
        windows = np.lib.stride_tricks.sliding_window_view(level, sessions)[:-1]
        out[sessions:] = windows[:, -1] / windows.mean(axis=1) - 1
    return out


def slice_numbers(book: Record, baseline: Record, cash: FloatArray, mask: BoolArray) -> dict[str, object]:
    """Return what a book did in one slice; numbers are None where the slice is empty or they are not defined.

    Raises
    ------
    DataError
        If the mask and the record have different lengths.
    """
    if len(mask) != len(book.returns):
        raise DataError(f"a slice must cover the record's {len(book.returns)} sessions; found {len(mask)}")
    metrics = return_metrics(book.returns[mask], cash[mask], baseline.returns[mask])
    count = int(mask.sum())
    return {
        **{name: getattr(metrics, name) for name in SLICE_METRICS},
        "drawdown_within_episodes": drawdown_within(book.returns, mask),
        "exposure_mean": float(book.exposure[mask].mean()) if count else None,
        "exposure_max": float(book.exposure[mask].max()) if count else None,
        "turnover_annual": float(book.turnover[mask].mean() * SESSIONS_PER_YEAR) if count else None,
    }


def regime_slices(arena: Arena, books: Mapping[str, Record], baseline: str) -> dict[str, object]:
    """Return the content of regime_slices.json: labels with their thresholds, and every slice of every book."""
    masks = arena_masks(arena)
    labels = arena.labels
    return {
        "labeller": {"source": arena.label_source, "known": "before the open of each session", "trend_sessions": TREND_SESSIONS},
        "baseline": baseline,
        "labels": {
            "sessions": [str(day) for day in arena.sessions],
            "high_volatility": arena.window(labels.high).tolist(),
            "known": arena.window(labels.known).tolist(),
            "volatility": numbers(arena.window(labels.volatility)),
            "enter_threshold": numbers(arena.window(labels.enter_threshold)),
            "exit_threshold": numbers(arena.window(labels.exit_threshold)),
            "trend": numbers(arena.window(trend(arena.index_level))),
        },
        "slices": {name: _slice(arena, mask, books, baseline) for name, mask in masks.items()},
    }


def arena_masks(arena: Arena, shift: int = 0) -> dict[str, BoolArray]:
    """Return the slices of an arena's window; `shift` moves every label by sessions (a stress: 1 is one session late)."""
    moved = (np.roll(values, shift) for values in (arena.labels.high, arena.labels.known, trend(arena.index_level)))
    high, known, direction = (arena.window(values) for values in moved)
    return slice_masks(high.astype(np.bool_), known.astype(np.bool_), direction.astype(np.float64))


def numbers(values: npt.NDArray[np.generic]) -> list[float | None]:
    """Return an array as JSON numbers: None where it is NaN or infinite."""
    return [float(value) if np.isfinite(value) else None for value in values.astype(np.float64)]


def _slice(arena: Arena, mask: BoolArray, books: Mapping[str, Record], baseline: str) -> dict[str, object]:
    return {
        "sessions": int(mask.sum()),
        "episodes": [_dates(arena.sessions, start, stop) for start, stop in episodes(mask)],
        "books": {name: slice_numbers(book, books[baseline], arena.cash, mask) for name, book in books.items()},
    }


def _dates(sessions: DateArray, start: int, stop: int) -> dict[str, object]:
    return {"first": str(sessions[start]), "last": str(sessions[stop - 1]), "sessions": stop - start}
