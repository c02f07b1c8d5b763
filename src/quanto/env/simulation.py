"""One book through a window of sessions: evaluation, baselines and validation run their decisions through this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.env.kernel import Books, Outcome, open_books, step
from quanto.env.tape import Tape
from quanto.portfolio.constraints import Limits, constrain

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
    # The advance before the first session happened when the book was opened.
    advance = _opening(tape, start - 1, held[0] * nav, nav)
    trail: list[tuple[Books, Outcome, FloatArray]] = []
    nav_open: list[FloatArray] = []
    for t in range(start - 1, stop - 1):
        drawdown = float(books.nav_close[0] / books.peak[0] - 1)
        wanted = decide(t, books.weights[0], drawdown)
        targets = constrain(wanted[None, :], books.weights, tape.eligible[t : t + 1], limits, cap[t : t + 1])
        nav_open.append(books.nav_open)
        books, outcome = step(tape, np.array([t]), books, targets, limits.minimum_cash, size_at_open)
        trail.append((books, outcome, targets))
    return _record(tape, start, nav, trail, np.concatenate(nav_open), advance)


def _record(
    tape: Tape,
    start: int,
    nav_before: float,
    trail: list[tuple[Books, Outcome, FloatArray]],
    nav_open: FloatArray,
    advance: tuple[FloatArray, FloatArray, FloatArray],
) -> Simulation:
    """Return the trail of one book as arrays; the flows of an open belong to the step before, hence the shift."""
    stop = start + len(trail)
    nav = np.concatenate([books.nav_close for books, _, _ in trail])
    weights = np.concatenate([books.weights for books, _, _ in trail])
    close = tape.close[start:stop]
    flows = {name: np.concatenate([getattr(outcome, name) for _, outcome, _ in trail]) for name in _FLOWS}
    for name, first in zip(("overnight", "dividends", "interest"), advance, strict=True):
        flows[name] = np.concatenate([np.asarray(first)[None], flows[name][:-1]])
    return Simulation(
        start=start,
        stop=stop,
        nav_before=nav_before,
        nav=nav,
        nav_open=nav_open,
        weights=weights,
        targets=np.concatenate([targets for _, _, targets in trail]),
        shares=weights * nav[:, None] / np.where(close > 0, close, 1.0),
        **flows,
    )


_FLOWS = ("turnover", "cost", "traded", "unfilled", "intraday", "overnight", "dividends", "interest")


def _opening(tape: Tape, t: int, held_usd: FloatArray, nav: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return overnight result, dividends and interest of the first open, which `open_books` already credited."""
    shares = np.where(tape.close[t] > 0, held_usd / np.where(tape.close[t] > 0, tape.close[t], 1.0), 0.0)
    price = np.where(np.isnan(tape.payout[t + 1]), tape.open[t + 1], tape.payout[t + 1])
    overnight = shares * tape.split[t + 1] * price - shares * tape.close[t]
    cash = nav - (shares * tape.close[t]).sum()
    return overnight, shares * tape.dividend[t + 1], np.asarray(cash * tape.cash_rate[t + 1])
