"""Where the change of NAV came from: by symbol, by calendar year and by leg; the parts sum to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.portfolio.series import FloatArray, finite, same_length

# Of NAV, per session: what rounding of some hundred positions may leave.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Legs:
    """Contributions in USD that add up; `cost` is 0 or below here, as it takes away."""

    overnight: float
    intraday: float
    dividend: float
    cost: float
    cash: float

    @property
    def total(self) -> float:
        """Return the sum of the legs."""
        return self.overnight + self.intraday + self.dividend + self.cost + self.cash


@dataclass(frozen=True)
class Year:
    """One calendar year of the window: its legs, the NAV it began with, and its return."""

    legs: Legs
    nav_before: float
    period_return: float


@dataclass(frozen=True)
class Attribution:
    """The change of NAV over a window, three ways.

    Attributes
    ----------
    total
        The legs of the whole window; their sum is `nav_after` - `nav_before`.
    symbols
        By symbol, without interest: `cash` is 0 for each, and `total.cash` belongs to none.
    years
        By calendar year of the session.
    """

    nav_before: float
    nav_after: float
    total: Legs
    symbols: dict[str, Legs]
    years: dict[int, Year]


@dataclass(frozen=True)
class Flows:
    """What moved NAV, session by session, in USD.

    Attributes
    ----------
    overnight, intraday, dividend, traded
        Shape (n_sessions, n_symbols). `traded` is the signed value of fills, by which costs are shared out.
    cost, interest
        Shape (n_sessions,); costs are 0 or above.
    """

    overnight: FloatArray
    intraday: FloatArray
    dividend: FloatArray
    traded: FloatArray
    cost: FloatArray
    interest: FloatArray


def attribute(sessions: npt.ArrayLike, symbols: Sequence[str], nav_before: float, nav: npt.ArrayLike, flows: Flows) -> Attribution:
    """Return the contributions of every symbol, year and leg to the change of NAV.

    The cost of a session is shared among its fills by traded value: exact for linear costs, a convention for impact.

    Parameters
    ----------
    sessions
        Shape (n_sessions,), dates.
    nav_before
        USD, at the close before the first session.
    nav
        Shape (n_sessions,), USD, at each close.

    Raises
    ------
    DataError
        If a value is NaN or infinite, shapes do not fit, a cost is negative or has no fill, or the flows of a session
        do not add up to its change of NAV (names the first): then the accounting has a hole, and no split of it is true.
    """
    days = np.asarray(sessions, dtype="datetime64[D]")
    values = same_length("nav", nav, len(days))
    checked = _checked(flows, len(days), len(symbols))
    before = np.append(nav_before, values)[:-1]
    _balanced(days, before, values, checked)
    shared = _shared_cost(days, checked)
    by_symbol = {
        symbol: Legs(
            overnight=float(checked.overnight[:, column].sum()),
            intraday=float(checked.intraday[:, column].sum()),
            dividend=float(checked.dividend[:, column].sum()),
            cost=float(shared[:, column].sum()),
            cash=0.0,
        )
        for column, symbol in enumerate(symbols)
    }
    calendar = days.astype("datetime64[Y]").astype(int) + 1970
    years = {}
    for year in sorted(set(calendar.tolist())):
        rows = np.flatnonzero(calendar == year)
        start, end = float(before[rows[0]]), float(values[rows[-1]])
        years[year] = Year(_legs(checked, rows), start, end / start - 1)
    nav_after = float(values[-1]) if len(days) else nav_before
    return Attribution(nav_before, nav_after, _legs(checked, np.arange(len(days))), by_symbol, years)


def _legs(flows: Flows, rows: npt.NDArray[np.intp]) -> Legs:
    parts = (flows.overnight, flows.intraday, flows.dividend, -flows.cost, flows.interest)
    return Legs(*[float(part[rows].sum()) + 0.0 for part in parts])


def _checked(flows: Flows, sessions: int, symbols: int) -> Flows:
    tables = [finite(name, getattr(flows, name), 2) for name in ("overnight", "intraday", "dividend", "traded")]
    for table in tables:
        if table.shape != (sessions, symbols):
            raise DataError(f"flows by symbol must have shape {(sessions, symbols)}; found {table.shape}")
    cost = same_length("cost", flows.cost, sessions)
    if (cost < 0).any():
        raise DataError(f"costs must be 0 or above; found {cost.min()} at session {int(cost.argmin())}")
    overnight, intraday, dividend, traded = tables
    return Flows(overnight, intraday, dividend, traded, cost, same_length("interest", flows.interest, sessions))


def _balanced(days: npt.NDArray[np.datetime64], before: FloatArray, nav: FloatArray, flows: Flows) -> None:
    moved = (flows.overnight + flows.intraday + flows.dividend).sum(axis=1) - flows.cost + flows.interest
    gap = np.abs(nav - before - moved) / np.maximum(np.abs(before), 1.0)
    if not (gap <= TOLERANCE).all():
        first = int(np.flatnonzero(~(gap <= TOLERANCE))[0])
        change = nav[first] - before[first]
        raise DataError(
            f"the flows of a session must add up to its change of NAV; on {days[first]} they give {moved[first]}, NAV changed {change}"
        )


def _shared_cost(days: npt.NDArray[np.datetime64], flows: Flows) -> FloatArray:
    value = np.abs(flows.traded)
    total = value.sum(axis=1, keepdims=True)
    orphans = (flows.cost > 0) & (total[:, 0] == 0)
    if orphans.any():
        raise DataError(f"a cost must belong to a fill; {days[np.flatnonzero(orphans)[0]]} has a cost and no fill")
    return np.asarray(-flows.cost[:, None] * value / np.where(total > 0, total, 1.0))
