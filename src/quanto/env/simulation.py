"""One book through a window of sessions: evaluation, baselines and validation run their decisions through this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from quanto.core.errors import DataError
from quanto.env.kernel import open_books, step_books
from quanto.env.tape import Tape
from quanto.portfolio.constraints import Limits, constrain, constrain_books, sound

FloatArray = npt.NDArray[np.float64]

# (t, weights at the close of t, drawdown at the close of t) -> wanted weights; arrays of shape (n_symbols,).
Decide = Callable[[int, FloatArray, float], FloatArray]


@dataclass(frozen=True)
class Simulation:
    """What one book did on the sessions start..stop-1; row k belongs to session start+k.

    Shapes (n_sessions,) and (n_sessions, n_symbols). USD unless said otherwise. NAV change per session is
    overnight + dividends + interest - cost + intraday, exactly up to rounding.

    Attributes
    ----------
    nav
        At each close. `nav_before` is the value at the close before the first session.
    nav_open
        Just before trading at each open.
    weights
        At each close, after drift, as fractions of NAV.
    targets
        What was decided (constrained) after the close before, for this session's open.
    turnover
        One-way, a fraction of nav_open.
    """

    start: int
    stop: int
    nav_before: float
    nav: FloatArray
    nav_open: FloatArray
    weights: FloatArray
    targets: FloatArray
    shares: FloatArray
    turnover: FloatArray
    cost: FloatArray
    traded: FloatArray
    unfilled: FloatArray
    intraday: FloatArray
    overnight: FloatArray
    dividends: FloatArray
    interest: FloatArray

    @property
    def returns(self) -> FloatArray:
        """Simple close-to-close returns; shape (n_sessions,)."""
        before = np.concatenate([[self.nav_before], self.nav[:-1]])
        return np.asarray(self.nav / before - 1)

    @property
    def exposure(self) -> FloatArray:
        """Gross exposure at each close, as a fraction of NAV; shape (n_sessions,)."""
        return np.asarray(np.abs(self.weights).sum(axis=1))


def simulate(
    tape: Tape,
    start: int,
    stop: int,
    decide: Decide,
    limits: Limits,
    exposure_cap: FloatArray | None = None,
    nav: float = 1e6,
    weights: FloatArray | None = None,
    size_at_open: bool = False,
) -> Simulation:
    """Run one book from the close of session start-1 through session stop-1, deciding after each close.

    Parameters
    ----------
    exposure_cap
        Shape (n_sessions of the tape,): the cap that the decision of session t must keep; None for no cap.
    weights
        Held at the close of start-1; cash where None.

    Raises
    ------
    DataError
        If start is 0 (there is no close before) or the window leaves the tape.
    """
    sessions, symbols = tape.close.shape
    if not 1 <= start < stop <= sessions:
        raise DataError(f"a window needs a session before it and must end inside the tape; found {start}..{stop} of {sessions}")
    cap = np.ones(sessions) if exposure_cap is None else exposure_cap
    held = np.zeros((1, symbols)) if weights is None else weights[None, :]
    books = open_books(tape, np.array([start - 1]), np.array([nav]), held)
    trail = _empty_trail(stop - start, symbols)
    # The advance before the first session happened when the book was opened.
    first = _opening(tape, start - 1, held[0] * nav, nav)
    trail.overnight[0], trail.dividends[0], trail.interest[0] = first
    before = books.weights[0].copy()
    for row in range(stop - start):
        t = start - 1 + row
        drawdown = float(books.nav_close[0] / books.peak[0] - 1)
        wanted = decide(t, before, drawdown)
        if not _session(tape, t, row, books, wanted[None, :], limits, cap, size_at_open, trail):
            # One pass found a fault; this names it.
            constrain(wanted[None, :], books.weights, tape.eligible[t : t + 1], limits, cap[t : t + 1])
        before = trail.weights[row]
    close = tape.close[start:stop]
    shares = trail.weights * trail.nav[:, None] / np.where(close > 0, close, 1.0)
    return Simulation(start=start, stop=stop, nav_before=nav, shares=shares, **trail._asdict())


class _Trail(NamedTuple):
    """What `Simulation` records, filled row by row."""

    nav: FloatArray
    nav_open: FloatArray
    weights: FloatArray
    targets: FloatArray
    turnover: FloatArray
    cost: FloatArray
    traded: FloatArray
    unfilled: FloatArray
    intraday: FloatArray
    overnight: FloatArray
    dividends: FloatArray
    interest: FloatArray


def _empty_trail(rows: int, symbols: int) -> _Trail:
    flat = ("nav", "nav_open", "turnover", "cost", "interest")
    return _Trail(**{name: np.empty(rows if name in flat else (rows, symbols)) for name in _Trail._fields})


@njit(cache=True)
def _session(tape, t, row, books, wanted, limits, cap, size_at_open, trail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Constrain, trade and record one session of one book, in place; return whether the inputs were sound.

    One call instead of three: at a single book most of the time goes into handing arrays over.
    """
    if not sound(wanted, books.weights, cap[t : t + 1]):
        return False
    targets = constrain_books(wanted, books.weights, tape.eligible[t : t + 1], limits, cap[t : t + 1])
    trail.nav_open[row] = books.nav_open[0]
    state, outcome = step_books(tape, np.array([t]), books, targets, limits.minimum_cash, size_at_open)
    shares, cash, nav_open, nav_close, weights, peak = state
    _, turnover, cost, traded, unfilled, intraday, overnight, dividends, interest, _ = outcome
    books.shares[:], books.cash[:], books.nav_open[:] = shares, cash, nav_open
    books.nav_close[:], books.weights[:], books.peak[:] = nav_close, weights, peak
    trail.nav[row], trail.weights[row], trail.targets[row] = nav_close[0], weights[0], targets[0]
    trail.turnover[row], trail.cost[row], trail.intraday[row] = turnover[0], cost[0], intraday[0]
    trail.traded[row], trail.unfilled[row] = traded[0], unfilled[0]
    if row + 1 < len(trail.nav):
        # The flows of an open belong to the session that begins with it.
        trail.overnight[row + 1], trail.dividends[row + 1], trail.interest[row + 1] = overnight[0], dividends[0], interest[0]
    return True


def _opening(tape: Tape, t: int, held_usd: FloatArray, nav: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return overnight result, dividends and interest of the first open, which `open_books` already credited."""
    shares = np.where(tape.close[t] > 0, held_usd / np.where(tape.close[t] > 0, tape.close[t], 1.0), 0.0)
    price = np.where(np.isnan(tape.payout[t + 1]), tape.open[t + 1], tape.payout[t + 1])
    overnight = shares * tape.split[t + 1] * price - shares * tape.close[t]
    cash = nav - (shares * tape.close[t]).sum()
    return overnight, shares * tape.dividend[t + 1], np.asarray(cash * tape.cash_rate[t + 1])
