"""The step kernel: what one session does to a book. Training, evaluation, baselines and the simulated broker run it.

The order of events (session t decides):

1. after the close of t: quantities q = target x NAV(close t) / close(t), fixed now;
2. at the open of t+1, before trading: cash earns its rate, holdings receive dividends on the shares held at the
   close of t, shares are multiplied by splits, symbols that end pay out; `nav_open` is the value here;
3. at the open of t+1: sales, then purchases, cut pro rata so that cash after costs stays at or above the floor;
4. at the close of t+1: NAV, weights, peak;
5. at the open of t+2, before trading: as 2. The reward of t's action is log nav_open(t+2) / nav_open(t+1): its
   cost, its intraday leg, its own overnight leg.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from quanto.env.tape import Tape

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# A book that lost all but this fraction within one session is ruined: the log return stays finite.
RUIN_FRACTION = 1e-4


class Books(NamedTuple):
    """The state of n books between the close of session t and the open of t+1, actions of t+1 already applied.

    Attributes
    ----------
    shares, cash
        Shapes (n_books, n_symbols) and (n_books,): after the corporate actions and interest of the open of t+1.
    nav_open
        Shape (n_books,): value just before trading at the open of t+1, USD.
    nav_close, weights, peak
        Shapes (n_books,), (n_books, n_symbols), (n_books,): at the close of t.
    """

    shares: FloatArray
    cash: FloatArray
    nav_open: FloatArray
    nav_close: FloatArray
    weights: FloatArray
    peak: FloatArray


class Outcome(NamedTuple):
    """What the session t+1 did to the books; shape (n_books,) or (n_books, n_symbols), USD unless said otherwise.

    `log_growth` is log nav_open(t+2)/nav_open(t+1); `turnover` one-way, as a fraction of nav_open(t+1). `interest`,
    `dividends` and `overnight` belong to the open of t+2 (the advance after the session).
    """

    log_growth: FloatArray
    turnover: FloatArray
    cost: FloatArray
    traded: FloatArray  # signed value of each fill at the open of t+1
    unfilled: FloatArray  # signed value of what was wanted and did not trade
    intraday: FloatArray
    overnight: FloatArray
    dividends: FloatArray
    interest: FloatArray
    ruined: npt.NDArray[np.bool_]


def open_books(tape: Tape, t: IntArray, nav: FloatArray, weights: FloatArray) -> Books:
    """Return books that hold `weights` (the rest cash) at the close of session t, and are ready for the open of t+1.

    Shapes: t (n_books,), nav (n_books,) USD, weights (n_books, n_symbols). Names without a price take weight 0.
    """
    return Books(*_open_books(tape, t, nav, weights))


def step(
    tape: Tape, t: IntArray, books: Books, targets: FloatArray, minimum_cash: float, size_at_open: bool = False
) -> tuple[Books, Outcome]:
    """Trade constrained `targets` decided after the close of session t; return the books after t+1 and the outcome.

    Where t+2 lies beyond the tape the book is not advanced: `nav_open` and `log_growth` are NaN, shares and cash
    those after trading.

    Parameters
    ----------
    t
        Shape (n_books,): each book's own session.
    targets
        Shape (n_books, n_symbols): fractions of NAV, constrained before (`portfolio.constraints`). Finite.
    minimum_cash
        The cash floor as a fraction of NAV before trading.
    size_at_open
        The diagnostic `sizing: open`: quantities from NAV and price at the open instead of the close.
    """
    state, outcome = _step(tape, t, books, targets, minimum_cash, size_at_open)
    return Books(*state), Outcome(*outcome)


@njit(cache=True)
def _advance(tape, s, shares, cash, dividends, overnight):  # type: ignore[no-untyped-def]  # numba infers the types
    """Apply interest, dividends, splits and payouts of the open of session s to one book, in place; return (cash, nav, interest)."""
    interest = cash * tape.cash_rate[s]
    nav = 0.0
    received = 0.0
    for i in range(shares.shape[0]):
        before = shares[i] * tape.close[s - 1, i]
        paid = shares[i] * tape.dividend[s, i]
        shares[i] *= tape.split[s, i]
        dividends[i] = paid
        received += paid
        if np.isnan(tape.payout[s, i]):
            value = shares[i] * tape.open[s, i]
            nav += value
        else:
            value = shares[i] * tape.payout[s, i]
            received += value
            shares[i] = 0.0
        overnight[i] = value - before
    cash += interest + received
    return cash, nav + cash, interest


@njit(cache=True)
def _open_books(tape, t, nav, weights):  # type: ignore[no-untyped-def]  # numba infers the types
    books, symbols = weights.shape
    shares = np.zeros((books, symbols))
    cash = np.empty(books)
    nav_open = np.empty(books)
    held = np.zeros((books, symbols))
    scratch = np.empty((2, symbols))
    for b in range(books):
        cash[b] = nav[b]
        for i in range(symbols):
            price = tape.close[t[b], i]
            if price > 0.0:
                held[b, i] = weights[b, i]
                shares[b, i] = weights[b, i] * nav[b] / price
                cash[b] -= shares[b, i] * price
        cash[b], nav_open[b], _ = _advance(tape, t[b] + 1, shares[b], cash[b], scratch[0], scratch[1])
    return shares, cash, nav_open, nav.copy(), held, nav.copy()


@njit(cache=True)
def _trade(tape, s, shares, cash, wanted, floor, traded, unfilled):  # type: ignore[no-untyped-def]  # numba infers the types
    """Fill one book's wanted shares at the open of session s, in place; return (cash, cost)."""
    linear = tape.linear_cost[s]
    cost = 0.0
    spend = 0.0
    for i in range(shares.shape[0]):
        price = tape.open[s, i]
        value = (wanted[i] - shares[i]) * price
        traded[i] = 0.0
        unfilled[i] = 0.0
        if not tape.fillable[s, i]:
            unfilled[i] = value
        elif value < 0.0:
            fee = -value * (linear + tape.impact[s, i] * np.sqrt(-value))
            traded[i] = value
            shares[i] = wanted[i]
            cash += -value - fee
            cost += fee
        elif value > 0.0:
            spend += value * (1.0 + linear + tape.impact[s, i] * np.sqrt(value))
    # The cost of a smaller purchase is at most proportional (impact grows with the root), so this never overspends.
    # Nothing to buy is share 1: a fully invested book's cash may be a rounding error below the floor.
    share = 1.0 if spend <= max(cash - floor, 0.0) else max(0.0, cash - floor) / spend
    for i in range(shares.shape[0]):
        price = tape.open[s, i]
        value = (wanted[i] - shares[i]) * price
        if tape.fillable[s, i] and value > 0.0:
            bought = value * share
            fee = bought * (linear + tape.impact[s, i] * np.sqrt(bought))
            traded[i] = bought
            unfilled[i] = value - bought
            shares[i] = wanted[i] if share == 1.0 else shares[i] + (wanted[i] - shares[i]) * share
            cash -= bought + fee
            cost += fee
    return cash, cost


@njit(cache=True)
def _step(tape, t, books, targets, minimum_cash, size_at_open):  # type: ignore[no-untyped-def]  # numba infers the types
    n, symbols = targets.shape
    last = tape.close.shape[0] - 1
    shares, cash = books.shares.copy(), books.cash.copy()
    nav_open, nav_close, peak = np.empty(n), np.empty(n), np.empty(n)
    weights = np.empty((n, symbols))
    log_growth, turnover, cost, interest = np.empty(n), np.empty(n), np.empty(n), np.zeros(n)
    traded, unfilled = np.empty((n, symbols)), np.empty((n, symbols))
    intraday, overnight, dividends = np.empty((n, symbols)), np.zeros((n, symbols)), np.zeros((n, symbols))
    ruined = np.zeros(n, dtype=np.bool_)
    wanted = np.empty(symbols)
    for b in range(n):
        s = t[b] + 1
        for i in range(symbols):
            price = tape.open[s, i] if size_at_open else tape.close[t[b], i]
            nav = books.nav_open[b] if size_at_open else books.nav_close[b]
            ratio = 1.0 if size_at_open else tape.split[s, i]
            wanted[i] = targets[b, i] * nav / price * ratio if price > 0.0 else shares[b, i]
        floor = minimum_cash * books.nav_open[b]
        cash[b], cost[b] = _trade(tape, s, shares[b], cash[b], wanted, floor, traded[b], unfilled[b])
        value = cash[b]
        moved = 0.0
        for i in range(symbols):
            value += shares[b, i] * tape.close[s, i]
            intraday[b, i] = shares[b, i] * (tape.close[s, i] - tape.open[s, i])
            moved += abs(traded[b, i])
        nav_close[b] = value
        # A book without value (a payout of nothing) stays a book of nothing: no weight, no turnover, ruined.
        turnover[b] = 0.5 * moved / books.nav_open[b] if books.nav_open[b] > 0.0 else 0.0
        peak[b] = max(books.peak[b], value)
        for i in range(symbols):
            weights[b, i] = shares[b, i] * tape.close[s, i] / value if value > 0.0 else 0.0
        if s == last:
            nav_open[b], log_growth[b] = np.nan, np.nan
            continue
        cash[b], nav_open[b], interest[b] = _advance(tape, s + 1, shares[b], cash[b], dividends[b], overnight[b])
        growth = nav_open[b] / books.nav_open[b] if books.nav_open[b] > 0.0 else 0.0
        ruined[b] = growth <= RUIN_FRACTION
        log_growth[b] = np.log(max(growth, RUIN_FRACTION))
    state = (shares, cash, nav_open, nav_close, weights, peak)
    return state, (log_growth, turnover, cost, traded, unfilled, intraday, overnight, dividends, interest, ruined)
