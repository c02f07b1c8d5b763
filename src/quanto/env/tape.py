"""The market as the step kernel reads it: prices to trade and to value at, actions, masks, rates and costs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.core.errors import DataError
from quanto.market.panel import Panel
from quanto.portfolio.costs import BPS, CostConfig, average_daily_volume, linear_cost

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Kinds of corporate actions that end a symbol and pay cash.
ENDINGS = ("delisting", "cash_merger")


class Tape(NamedTuple):
    """Arrays on the sessions of the calendar; shape (n_sessions, n_symbols) unless said otherwise. Never NaN but `payout`.

    Attributes
    ----------
    open, close
        USD, raw. Where a symbol did not trade: its last price, converted for splits (what a holding is valued at).
    fillable
        Whether an order can fill at this open: there is a bar.
    eligible
        Whether the name may be held, as known at the close of the session.
    split, dividend
        As in `market.panel.Panel`: effective at this open.
    payout
        USD per share (after that day's split) paid at this open when the symbol ends; NaN otherwise.
    cash_rate
        Shape (n_sessions,): return of cash from the previous close to this one, credited at this open.
    linear_cost
        Shape (n_sessions,): fraction of traded value.
    impact
        Fraction of traded value at traded value 1 USD: cost is impact * sqrt(traded USD); from volumes known at the
        previous close.
    """

    open: FloatArray
    close: FloatArray
    fillable: BoolArray
    eligible: BoolArray
    split: FloatArray
    dividend: FloatArray
    payout: FloatArray
    cash_rate: FloatArray
    linear_cost: FloatArray
    impact: FloatArray

    def window(self, start: int, stop: int) -> Tape:
        """Return the sessions start..stop-1 as a tape that shares this one's memory."""
        return Tape(**{name: array[start:stop] for name, array in self._asdict().items()})


def build_tape(panel: Panel, eligible: BoolArray, cash_rate: FloatArray, costs: CostConfig, actions: pa.Table | None = None) -> Tape:
    """Return the tape of a panel.

    Parameters
    ----------
    eligible
        Shape (n_sessions, n_symbols), known at each close. A name without a bar today can still be eligible.
    cash_rate
        Shape (n_sessions,). NaN is refused: unknown interest is no zero.
    actions
        Canonical corporate actions: endings (`delisting`, `cash_merger`) pay their `cash_usd`, or the last price
        where the amount is null.

    Raises
    ------
    DataError
        If the cash rate is NaN somewhere (names the first session), or shapes differ.
    """
    shape = panel.close.shape
    if eligible.shape != shape or cash_rate.shape != shape[:1]:
        raise DataError(f"eligible {eligible.shape} and cash rate {cash_rate.shape} do not fit the panel {shape}")
    if not np.isfinite(cash_rate).all():
        first = panel.sessions[np.flatnonzero(~np.isfinite(cash_rate))[0]]
        raise DataError(f"the cash rate is missing on {first}; extend the index_level series or start later")
    marks_open, marks_close = _carry(panel)
    adv = average_daily_volume(panel.close, panel.volume)
    known_adv = np.vstack([np.full((1, shape[1]), np.nan), adv[:-1]])
    if costs.impact_bps > 0:
        # Without a known volume an order would have an unknown price: it does not fill.
        impact = costs.impact_bps * BPS / np.sqrt(np.where(known_adv > 0, known_adv, np.nan))
        fillable = panel.traded & np.isfinite(impact)
        impact = np.nan_to_num(impact)
    else:
        impact, fillable = np.zeros(shape), panel.traded
    return Tape(
        open=marks_open,
        close=marks_close,
        fillable=fillable,
        eligible=np.ascontiguousarray(eligible),
        split=np.ascontiguousarray(panel.split),
        dividend=np.ascontiguousarray(panel.dividend_usd),
        payout=_payouts(panel, actions, marks_open),
        cash_rate=np.ascontiguousarray(cash_rate),
        linear_cost=linear_cost(costs, panel.sessions),
        impact=impact,
    )


def _carry(panel: Panel) -> tuple[FloatArray, FloatArray]:
    opens, closes = panel.open.copy(), panel.close.copy()
    last = np.zeros(closes.shape[1])
    for t in range(len(closes)):
        last = last / panel.split[t]
        traded = np.isfinite(opens[t]) & np.isfinite(closes[t])
        opens[t] = np.where(traded, opens[t], last)
        closes[t] = np.where(traded, closes[t], last)
        last = closes[t]
    return opens, closes


def _payouts(panel: Panel, actions: pa.Table | None, opens: FloatArray) -> FloatArray:
    payouts = np.full(opens.shape, np.nan)
    if actions is None:
        return payouts
    order = {symbol: index for index, symbol in enumerate(panel.symbols)}
    rows = zip(*(actions[name].to_pylist() for name in ("symbol", "ex_date", "kind", "cash_usd")), strict=True)
    for symbol, ex_date, kind, cash in rows:
        row = int(np.searchsorted(panel.sessions, np.datetime64(ex_date)))
        if kind in ENDINGS and symbol in order and row < len(opens):
            payouts[row, order[symbol]] = opens[row, order[symbol]] if cash is None else cash
    return payouts
