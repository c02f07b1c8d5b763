"""What the session engine knows about the market: arrays whose row t was known when session t was decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.env.tape import Tape
from quanto.market.calendar import DateArray, as_date
from quanto.market.panel import Panel
from quanto.portfolio.costs import average_daily_volume

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Feed:
    """The market on the sessions of a tape; shape (n_sessions, n_symbols) unless said otherwise.

    Row t holds what was known after the close of t; `split`, `linear_cost` and `impact` of row t+1 are announced or
    computed before the open of t+1 and belong to what a decision of t knows.

    Attributes
    ----------
    close
        USD, raw, carried where a symbol did not trade; 0 where it never did.
    price_age
        Sessions since the last bar; NaN where there never was one.
    adv_usd, beta
        Average daily traded value, and beta to the market; NaN where unknown.
    missing_share
        Shape (n_sessions,): share of the listed names without a bar.
    """

    sessions: DateArray
    symbols: tuple[str, ...]
    close: FloatArray
    price_age: FloatArray
    adv_usd: FloatArray
    beta: FloatArray
    missing_share: FloatArray
    eligible: BoolArray
    split: FloatArray
    linear_cost: FloatArray
    impact: FloatArray

    def day(self, t: int) -> date:
        """Return the date of a session."""
        return self._days[t]

    @cached_property
    def _days(self) -> list[date]:
        return [as_date(day) for day in self.sessions]


def build_feed(panel: Panel, tape: Tape, beta_sessions: int, index_level: FloatArray | None = None) -> Feed:
    """Return the feed of a panel and its tape.

    Parameters
    ----------
    beta_sessions
        Betas come from the returns of this many sessions, at least half of which must be there.
    index_level
        Shape (n_sessions,): the market index; NaN where missing. None takes the mean return of the symbols.

    Raises
    ------
    DataError
        If panel, tape and index differ in shape.
    """
    if tape.close.shape != panel.close.shape or (index_level is not None and index_level.shape != panel.sessions.shape):
        raise DataError(f"panel {panel.close.shape}, tape {tape.close.shape} and index do not lie on the same sessions and symbols")
    returns = total_returns(panel)
    market = _mean_return(returns) if index_level is None else _change(index_level)
    traded = panel.traded
    listed = np.cumsum(traded, axis=0) > 0
    ended = np.cumsum(np.isfinite(tape.payout), axis=0) > 0
    expected = (listed & ~ended).sum(axis=1)
    missing = (listed & ~ended & ~traded).sum(axis=1)
    return Feed(
        sessions=panel.sessions,
        symbols=panel.symbols,
        close=tape.close,
        price_age=price_age(traded),
        adv_usd=average_daily_volume(panel.close, panel.volume),
        beta=trailing_beta(returns, market, beta_sessions),
        # Where nothing is listed yet there is nothing to know: everything is missing.
        missing_share=np.where(expected > 0, missing / np.maximum(expected, 1), 1.0),
        eligible=tape.eligible,
        split=tape.split,
        linear_cost=tape.linear_cost,
        impact=tape.impact,
    )


def price_age(traded: BoolArray) -> FloatArray:
    """Return the sessions since the last bar, 0 on a session with one, NaN before the first; shape as given."""
    rows = np.arange(len(traded))[:, None]
    last = np.maximum.accumulate(np.where(traded, rows, -1), axis=0)
    return np.where(last >= 0, rows - last, np.nan).astype(np.float64)


def total_returns(panel: Panel) -> FloatArray:
    """Return simple close-to-close returns with splits and dividends; NaN without a bar on both sessions."""
    returns = np.full(panel.close.shape, np.nan)
    if len(returns) > 1:
        value = panel.close[1:] * panel.split[1:] + panel.dividend_usd[1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            returns[1:] = value / np.where(panel.close[:-1] > 0, panel.close[:-1], np.nan) - 1
    return returns


def trailing_beta(returns: FloatArray, market: FloatArray, sessions: int) -> FloatArray:
    """Return the slope of each name's returns on the market's over the last `sessions` sessions.

    Shape of `returns`; a session counts where both are known; NaN with fewer than half of them or a constant market.
    """
    present = np.isfinite(returns) & np.isfinite(market)[:, None]
    x = np.where(present, np.nan_to_num(market)[:, None], 0.0)
    y = np.where(present, np.nan_to_num(returns), 0.0)
    count, sum_x, sum_y, sum_xx, sum_xy = (_trailing(block, sessions) for block in (present.astype(np.float64), x, y, x * x, x * y))
    enough = count >= max(2.0, sessions / 2)
    safe = np.where(enough, count, 1.0)
    variance = sum_xx / safe - (sum_x / safe) ** 2
    covariance = sum_xy / safe - sum_x * sum_y / safe**2
    known = enough & (variance > 0)
    return np.where(known, covariance / np.where(known, variance, 1.0), np.nan)


def _trailing(block: FloatArray, sessions: int) -> FloatArray:
    total = np.cumsum(block, axis=0)
    total[sessions:] -= total[:-sessions].copy()
    return np.asarray(total)


def _mean_return(returns: FloatArray) -> FloatArray:
    count = np.isfinite(returns).sum(axis=1)
    return np.where(count > 0, np.nan_to_num(returns).sum(axis=1) / np.maximum(count, 1), np.nan)


def _change(level: FloatArray) -> FloatArray:
    change = np.full(len(level), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        change[1:] = level[1:] / level[:-1] - 1
    return change
