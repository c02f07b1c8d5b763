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
    state, outcome = step_books(tape, t, books, targets, minimum_cash, size_at_open)
    return Books(*state), Outcome(*outcome)


@njit(cache=True, inline="always")
def _fee(value, linear, impact):  # type: ignore[no-untyped-def]  # numba infers the types
    # The root is dear and most markets have no impact; value * (linear + 0 * root) is the same number.
    return value * (linear + impact * np.sqrt(value)) if impact > 0.0 else value * linear


@njit(cache=True)
def _advance(tape, s, b, shares, cash, dividends, overnight):  # type: ignore[no-untyped-def]  # numba infers the types
    """Apply interest, dividends, splits and payouts of the open of session s to book b, in place; return (cash, nav, interest)."""
    close, opens, split, dividend, payout = tape.close[s - 1], tape.open[s], tape.split[s], tape.dividend[s], tape.payout[s]
    interest = cash * tape.cash_rate[s]
    nav = 0.0
    received = 0.0
    for i in range(shares.shape[1]):
        held = shares[b, i]
        before = held * close[i]
        paid = held * dividend[i]
        held *= split[i]
        dividends[b, i] = paid
        received += paid
        if np.isnan(payout[i]):
            value = held * opens[i]
            nav += value
        else:
            value = held * payout[i]
            received += value
            held = 0.0
        shares[b, i] = held
        overnight[b, i] = value - before
    cash += interest + received
    return cash, nav + cash, interest


@njit(cache=True)
def _open_books(tape, t, nav, weights):  # type: ignore[no-untyped-def]  # numba infers the types
    books, symbols = weights.shape
    shares = np.zeros((books, symbols))
    cash = np.empty(books)
    nav_open = np.empty(books)
    held = np.zeros((books, symbols))
    dividends, overnight = np.empty((books, symbols)), np.empty((books, symbols))
    for b in range(books):
        cash[b] = nav[b]
        for i in range(symbols):
            price = tape.close[t[b], i]
            if price > 0.0:
                held[b, i] = weights[b, i]
                shares[b, i] = weights[b, i] * nav[b] / price
                cash[b] -= shares[b, i] * price
        cash[b], nav_open[b], _ = _advance(tape, t[b] + 1, b, shares, cash[b], dividends, overnight)
    return shares, cash, nav_open, nav.copy(), held, nav.copy()


@njit(cache=True)
def _trade(tape, s, b, shares, cash, wanted, floor, traded, unfilled):  # type: ignore[no-untyped-def]  # numba infers the types
    """Fill book b's wanted shares at the open of session s, in place; return (cash, cost)."""
    opens, fillable, impact = tape.open[s], tape.fillable[s], tape.impact[s]
    linear = tape.linear_cost[s]
    cost = 0.0
    spend = 0.0
    for i in range(shares.shape[1]):
        value = (wanted[i] - shares[b, i]) * opens[i]
        traded[b, i] = 0.0
        unfilled[b, i] = 0.0
        if not fillable[i]:
            unfilled[b, i] = value
        elif value < 0.0:
            fee = _fee(-value, linear, impact[i])
            traded[b, i] = value
            shares[b, i] = wanted[i]
            cash += -value - fee
            cost += fee
        elif value > 0.0:
            # What is still to be bought; final below, when all that is to be spent is known.
            traded[b, i] = value
            spend += _fee(value, 1.0 + linear, impact[i])
    # The cost of a smaller purchase is at most proportional (impact grows with the root), so this never overspends.
    # Nothing to buy is share 1: a fully invested book's cash may be a rounding error below the floor.
    share = 1.0 if spend <= max(cash - floor, 0.0) else max(0.0, cash - floor) / spend
    if spend > 0.0:
        for i in range(shares.shape[1]):
            value = traded[b, i]
            if value > 0.0:
                bought = value * share
                fee = _fee(bought, linear, impact[i])
                traded[b, i] = bought
                unfilled[b, i] = value - bought
                shares[b, i] = wanted[i] if share == 1.0 else shares[b, i] + (wanted[i] - shares[b, i]) * share
                cash -= bought + fee
                cost += fee
    return cash, cost


@njit(cache=True)
def step_books(tape, t, books, targets, minimum_cash, size_at_open):  # type: ignore[no-untyped-def]  # numba infers the types
    """Do what `step` says, compiled; return the fields of `Books` and of `Outcome` as two tuples."""
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
        opens, close = tape.open[s], tape.close[s]
        price_of, ratio_of = (opens, opens) if size_at_open else (tape.close[s - 1], tape.split[s])
        nav = books.nav_open[b] if size_at_open else books.nav_close[b]
        for i in range(symbols):
            price = price_of[i]
            ratio = 1.0 if size_at_open else ratio_of[i]
            wanted[i] = targets[b, i] * nav / price * ratio if price > 0.0 else shares[b, i]
        floor = minimum_cash * books.nav_open[b]
        cash[b], cost[b] = _trade(tape, s, b, shares, cash[b], wanted, floor, traded, unfilled)
        value = cash[b]
        moved = 0.0
        for i in range(symbols):
            worth = shares[b, i] * close[i]
            weights[b, i] = worth
            value += worth
            intraday[b, i] = shares[b, i] * (close[i] - opens[i])
            moved += abs(traded[b, i])
        nav_close[b] = value
        # A book without value (a payout of nothing) stays a book of nothing: no weight, no turnover, ruined.
        turnover[b] = 0.5 * moved / books.nav_open[b] if books.nav_open[b] > 0.0 else 0.0
        peak[b] = max(books.peak[b], value)
        for i in range(symbols):
            weights[b, i] = weights[b, i] / value if value > 0.0 else 0.0
        if s == last:
            nav_open[b], log_growth[b] = np.nan, np.nan
            continue
        cash[b], nav_open[b], interest[b] = _advance(tape, s + 1, b, shares, cash[b], dividends, overnight)
        growth = nav_open[b] / books.nav_open[b] if books.nav_open[b] > 0.0 else 0.0
        ruined[b] = growth <= RUIN_FRACTION
        log_growth[b] = np.log(max(growth, RUIN_FRACTION))
    state = (shares, cash, nav_open, nav_close, weights, peak)
    return state, (log_growth, turnover, cost, traded, unfilled, intraday, overnight, dividends, interest, ruined)
