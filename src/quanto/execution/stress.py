"""Stress: what the replayed account would have lost. Historical windows, instant shocks, and shocked markets to replay.

Historical windows and instant shocks read the journal of a replay. A shocked market is another market: its prices go
through the features and the policy again, so `shock_factors` gives factors for the canonical prices, and who replays
them computes the features anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from pydantic import Field

from quanto.core.config import Section
from quanto.core.registry import Registry
from quanto.execution.book import Entry
from quanto.execution.evidence import SessionRow
from quanto.execution.feed import Feed

FloatArray = npt.NDArray[np.float64]


class StressConfig(Section):
    """The instant shocks, and the losses that no window, shock or shocked market may exceed; fractions, positive."""

    market_gaps: tuple[float, ...] = Field(description="overnight falls of the market; each position falls by its beta times it")
    name_gap: float = Field(gt=0, le=1, description="fall of the largest position by itself")
    max_instant_loss: float = Field(gt=0, le=1)
    max_session_loss: float = Field(gt=0, le=1)
    max_drawdown: float = Field(gt=0, le=1)


@dataclass(frozen=True)
class Scenario:
    """A shocked market: one sentence, and the function that gives the price factors.

    `factors(closes, start)` takes closes of shape (n_sessions, n_columns), with the market index as the last column, and
    the session at which the shock begins; it returns factors of the same shape, 1 before the shock.
    """

    name: str
    sentence: str
    factors: Callable[[FloatArray, int], FloatArray]


def _level(path: Sequence[float]) -> Callable[[FloatArray, int], FloatArray]:
    """Return factors that follow a path from the start on, and keep its last value."""

    def factors(closes: FloatArray, start: int) -> FloatArray:
        line = np.ones(len(closes))
        tail = np.asarray(path, dtype=np.float64)
        line[start:] = tail[np.minimum(np.arange(len(closes) - start), len(tail) - 1)]
        return np.repeat(line[:, None], closes.shape[1], axis=1)

    return factors


def _first_name(size: float) -> Callable[[FloatArray, int], FloatArray]:
    def factors(closes: FloatArray, start: int) -> FloatArray:
        out = np.ones(closes.shape)
        out[start:, 0] = 1.0 + size
        return out

    return factors


def _wilder(scale: float, sessions: int) -> Callable[[FloatArray, int], FloatArray]:
    """Return factors that multiply each log return of a window by `scale`; the level reached stays."""

    def factors(closes: FloatArray, start: int) -> FloatArray:
        steps = np.zeros(closes.shape)
        known = (closes[1:] > 0) & (closes[:-1] > 0)
        steps[1:][known] = np.log(closes[1:][known] / closes[:-1][known])
        # A step that large is a split, not a return.
        steps = np.where(np.abs(steps) < np.log(1.45), steps, 0.0)
        window = np.zeros(len(closes), dtype=np.bool_)
        window[start : start + sessions] = True
        return np.asarray(np.exp(np.cumsum(np.where(window[:, None], (scale - 1.0) * steps, 0.0), axis=0)))

    return factors


SCENARIOS: Registry[Scenario] = Registry(
    "stress scenario",
    Scenario("gap_20_v1", "The market opens 20 % lower and stays there.", _level([0.8])),
    Scenario("crash_40_v1", "The market falls by 40 % over 20 sessions.", _level(np.linspace(0.98, 0.6, 20).tolist())),
    Scenario("flash_crash_v1", "The market loses 15 % in a session and regains it over ten.", _level(np.linspace(0.85, 1.0, 11).tolist())),
    Scenario("name_gap_50_v1", "The first name loses half of its value overnight.", _first_name(-0.5)),
    Scenario("volatility_x2_v1", "Every return of 60 sessions is doubled.", _wilder(2.0, 60)),
)


def instant_losses(events: Iterable[Entry], feed: Feed, config: StressConfig) -> list[dict[str, object]]:
    """Return, per shock, the worst loss that it would have done to a closing portfolio, and when.

    A position whose beta is unknown counts as 1. Losses are fractions of NAV, positive.
    """
    columns = {symbol: index for index, symbol in enumerate(feed.symbols)}
    rows = {str(day): row for row, day in enumerate(feed.sessions)}
    worst: dict[str, tuple[float, str]] = {}
    for event in events:
        if event["kind"] != "mark" or not event["values"]:
            continue
        row = rows[event["session"]]
        weights = {symbol: value / event["nav"] for symbol, value in event["values"].items()}
        beta = {symbol: float(feed.beta[row, columns[symbol]]) for symbol in weights}
        exposure = sum(weight * (beta[symbol] if np.isfinite(beta[symbol]) else 1.0) for symbol, weight in weights.items())
        losses = {f"market_gap_{gap:g}": gap * exposure for gap in config.market_gaps}
        losses[f"name_gap_{config.name_gap:g}"] = config.name_gap * max(abs(weight) for weight in weights.values())
        for name, loss in losses.items():
            if loss > worst.get(name, (-np.inf, ""))[0]:
                worst[name] = (loss, event["session"])
    return [
        {"shock": name, "loss": loss, "session": session, "limit": config.max_instant_loss, "passed": loss <= config.max_instant_loss}
        for name, (loss, session) in worst.items()
    ]


def historical_windows(rows: Sequence[SessionRow], labels: Sequence[str], config: StressConfig) -> list[dict[str, object]]:
    """Return each stretch of sessions of one regime as a window of its own, with its losses held against the gates.

    Parameters
    ----------
    labels
        One per row.
    """
    found = []
    position = 0
    for label, group in groupby(labels):
        size = len(list(group))
        part = rows[position : position + size]
        position += size
        found.append({"regime": label, **window_losses(part, config)})
    return found


def window_losses(rows: Sequence[SessionRow], config: StressConfig) -> dict[str, object]:
    """Return first and last session, return, worst session and drawdown of a window, and whether the gates hold.

    The drawdown is measured inside the window, from the NAV before it. NaN fails.
    """
    nav = np.array([rows[0].nav_before, *(row.nav for row in rows)])
    returns = nav[1:] / nav[:-1] - 1.0
    drawdown = float((nav / np.maximum.accumulate(nav) - 1.0).min())
    worst = float(returns.min())
    return {
        "first_session": rows[0].session,
        "last_session": rows[-1].session,
        "sessions": len(rows),
        "return": float(nav[-1] / nav[0] - 1.0),
        "worst_session_return": worst,
        "max_drawdown": drawdown,
        "exposure_mean": float(np.mean([row.gross for row in rows])),
        "sessions_halted": sum(row.halted for row in rows),
        "passed": bool(worst >= -config.max_session_loss and drawdown >= -config.max_drawdown),
    }
