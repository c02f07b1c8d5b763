"""What variance reduction subtracts: the gross growth of a portfolio that no action of the book can move.

It depends on the market alone, so subtracting it changes no gradient in expectation, whatever the discount: neither
this session's action nor, through the holdings, any later one enters it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quanto.env.kernel import RUIN_FRACTION
from quanto.env.tape import Tape
from quanto.portfolio.constraints import Limits, constrain

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def open_to_open(tape: Tape) -> FloatArray:
    """Return what 1 USD in a name at the open of t+1 is worth just before the open of t+2; shape (n_sessions, n_symbols).

    Dividends, splits and payouts included. NaN on the last two sessions, whose outcome lies beyond the tape.
    """
    out = np.full(tape.close.shape, np.nan)
    price = np.where(np.isnan(tape.payout), tape.open, tape.payout)
    worth = tape.dividend[2:] + tape.split[2:] * price[2:]
    start = tape.open[1:-1]
    # A name that never had a price holds nothing.
    out[:-2] = np.where(start > 0, worth / np.where(start > 0, start, 1.0), 1.0)
    return out


def reference_growth(tape: Tape, relatives: FloatArray, t: IntArray, weights: FloatArray) -> FloatArray:
    """Return the log growth of weights (n, n_symbols) from the open of t+1 to that of t+2, the rest in cash; shape (n,).

    Ruin is floored as a book's own is.
    """
    cash = (1 - weights.sum(axis=1)) * (1 + tape.cash_rate[np.minimum(t + 2, len(tape.close) - 1)])
    worth = cash + (weights * relatives[t]).sum(axis=1)
    return np.asarray(np.log(np.maximum(worth, RUIN_FRACTION)))


def allowed(wanted: FloatArray, eligible: BoolArray, limits: Limits, exposure_cap: FloatArray) -> FloatArray:
    """Return wanted weights within every limit but that on turnover: a reference trades nothing."""
    return constrain(wanted, wanted, eligible, limits, exposure_cap)


def equal_weights(eligible: BoolArray) -> FloatArray:
    """Return equal weights over the eligible names, 0 where there is none; shape as `eligible`."""
    return np.asarray(eligible / np.maximum(eligible.sum(axis=1, keepdims=True), 1))
