"""From canonical options rows to the measures of one surface per session and symbol.

Rows come as a delta grid of a vendor, or as a chain of quotes (`chain`). Per expiry: the at-the-money volatility at
k = ln(K/F) = 0, linear in total variance between the neighbouring points, and the 25-delta volatilities. Across
expiries: linear in total variance between the two that bracket a tenor; never beyond them. Expiries of fewer than 7
calendar days are left out. A surface whose total variance falls with the tenor (calendar arbitrage) is quarantined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import ndtri

from quanto.market.calendar import DateArray
from quanto.market.panel import BoolArray, FloatArray
from quanto.stages.features.chain import DAYS_PER_YEAR, VOLATILITIES, IntArray, Quotes, Smile, black_price, smile_from_quotes

TENORS = (30.0, 60.0, 90.0)
SHORTEST_TENOR = 7.0
WING_DELTA = 0.25
MEASURES = (
    *(f"atm_{tenor:.0f}" for tenor in TENORS),
    "call_25_30",
    "put_25_30",
    "call_open_interest",
    "put_open_interest",
    "call_volume",
    "put_volume",
)

# Total variance may fall by rounding of the volatilities that vendors publish (four digits), not by more.
CALENDAR_TOLERANCE = 1e-3

# As a fraction of the forward: vendors round volatilities, and two of their points may differ by as much.
CONVEXITY_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Surfaces:
    """Measures by name and knowledge days, shape (n_sessions, n_symbols), NaN where missing; rejections by reason."""

    measures: dict[str, FloatArray]
    known: FloatArray
    rejected: dict[str, int]


@dataclass(frozen=True)
class _Rows:
    """Canonical rows as arrays; `cell` is session x symbol, `expiry` numbers the distinct (cell, tenor)."""

    cell: IntArray
    expiry: IntArray
    tenor: FloatArray
    side: npt.NDArray[np.str_]
    delta: FloatArray
    strike: FloatArray
    iv: FloatArray
    bid: FloatArray
    ask: FloatArray

    def take(self, rows: BoolArray) -> _Rows:
        return _Rows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def surfaces(table: pa.Table, sessions: DateArray, symbols: Sequence[str]) -> Surfaces:
    """Return the measures of a canonical `options_surface` table on the given sessions and symbols."""
    shape = (len(sessions), len(symbols))
    cells = shape[0] * shape[1]
    cell, inside = _cells(table, sessions, symbols)
    table, cell = table.filter(pa.array(inside)), cell[inside]
    rejected: Counter[str] = Counter()
    known = np.full(cells, np.nan)
    np.fmax.at(known, cell, table["known_on"].to_numpy().astype("datetime64[D]").astype(np.float64))
    measures = {name: np.full(cells, np.nan) for name in MEASURES}
    side = np.asarray(table["side"].to_pylist(), dtype=np.str_)
    for letter, kind in (("C", "call"), ("P", "put")):
        for column in ("open_interest", "volume"):
            measures[f"{kind}_{column}"] = _sums(_numbers(table, column), side == letter, cell, cells)
    rows = _rows(table, cell, side, rejected)
    _volatilities(rows, measures, rejected)
    shaped = {name: values.reshape(shape) for name, values in measures.items()}
    return Surfaces(shaped, known.reshape(shape), dict(sorted(rejected.items())))


def _volatilities(rows: _Rows, measures: dict[str, FloatArray], rejected: Counter[str]) -> None:
    if not len(rows.cell):
        return
    expiries = int(rows.expiry.max()) + 1
    cell_of, tenor_of = np.zeros(expiries, dtype=np.int64), np.zeros(expiries)
    cell_of[rows.expiry], tenor_of[rows.expiry] = rows.cell, rows.tenor
    quoted = np.isfinite(rows.strike) & np.isfinite(rows.bid) & np.isfinite(rows.ask) & np.isin(rows.side, ("C", "P"))
    chain = rows.take(quoted)
    quotes = Quotes(chain.expiry, chain.tenor / DAYS_PER_YEAR, chain.strike, chain.bid, chain.ask, chain.side == "C")
    from_quotes = smile_from_quotes(quotes, expiries, rejected)
    has_quotes = np.zeros(expiries, dtype=np.bool_)
    has_quotes[chain.expiry] = True
    grid = rows.take(np.isfinite(rows.iv) & np.isfinite(rows.delta) & ~has_quotes[rows.expiry])
    from_grid = _grid_smile(grid, expiries, rejected)
    smile = from_quotes.join(from_grid)
    variance = smile.volatility**2 * smile.years
    at_money = _at(smile.expiry, smile.moneyness, variance, 0.0, expiries)
    at_money = np.where(np.isfinite(at_money), at_money, _fifty_delta(grid, expiries))
    call, put = (_at(smile.expiry, smile.delta, variance, delta, expiries) for delta in (WING_DELTA, 1.0 - WING_DELTA))
    bad = _calendar(cell_of, tenor_of, at_money, len(measures["atm_30"]), rejected)
    at_money = np.where(bad[cell_of], np.nan, at_money)
    for tenor in TENORS:
        measures[f"atm_{tenor:.0f}"] = _tenor(cell_of, tenor_of, at_money, tenor, len(bad))
    for name, values in (("call_25_30", call), ("put_25_30", put)):
        measures[name] = _tenor(cell_of, tenor_of, np.where(bad[cell_of], np.nan, values), 30.0, len(bad))


def _grid_smile(grid: _Rows, expiries: int, rejected: Counter[str]) -> Smile:
    """Return a vendor's delta grid as smile points: the out-of-the-money side where both are given; M counts as calls."""
    delta = np.where(grid.side == "P", 1.0 + grid.delta, grid.delta)
    sound = (grid.iv > VOLATILITIES[0]) & (grid.iv < VOLATILITIES[1]) & (delta > 0.0) & (delta < 1.0)
    _count(rejected, "volatility_out_of_bounds", ~sound)
    grid, delta = grid.take(sound), delta[sound]
    calls, puts = (np.bincount(grid.expiry[grid.side == side], minlength=expiries) > 0 for side in ("C", "P"))
    wing = np.where(grid.side == "P", delta >= 0.5, delta <= 0.5) & (grid.side != "M")
    keep = wing | ~(calls & puts)[grid.expiry]
    grid, delta = grid.take(keep), delta[keep]
    years = grid.tenor / DAYS_PER_YEAR
    total = grid.iv * np.sqrt(years)
    # delta = N(d1), d1 = -k / total + total / 2.
    smile = Smile(grid.expiry, years, total * (0.5 * total - ndtri(delta)), grid.iv, delta)
    guilty = _concave(smile, grid.side == "P", expiries)
    _count(rejected, "expiry_with_arbitrage", guilty)
    return smile.take(~guilty[smile.expiry])


def _concave(smile: Smile, wing: BoolArray, expiries: int) -> BoolArray:
    """Return which expiries have call prices that are not convex in the strike (butterfly arbitrage).

    Each wing is checked by itself: at 50 delta vendors join volatilities of calls and puts that differ by the borrow.
    """
    order = np.lexsort((smile.moneyness, wing, smile.expiry))
    expiry, moneyness, wing = smile.expiry[order], smile.moneyness[order], wing[order]
    total = (smile.volatility * np.sqrt(smile.years))[order]
    price, strike = black_price(moneyness, total, np.ones(len(order), dtype=np.bool_)), np.exp(moneyness)
    low, middle, high = slice(None, -2), slice(1, -1), slice(2, None)
    triple = (expiry[low] == expiry[middle]) & (expiry[middle] == expiry[high]) & (wing[low] == wing[high])
    width = np.where(triple, strike[high] - strike[low], 1.0)
    share = (strike[high] - strike[middle]) / np.where(width > 0, width, 1.0)
    bent = triple & (price[middle] > share * price[low] + (1.0 - share) * price[high] + CONVEXITY_TOLERANCE)
    guilty = np.zeros(expiries, dtype=np.bool_)
    guilty[expiry[middle][bent]] = True
    return guilty


def _fifty_delta(grid: _Rows, expiries: int) -> FloatArray:
    """Total variance of 50-delta rows, for vendors that give nothing else: M, else the mean of call and put."""
    fifty = grid.take(np.abs(np.abs(grid.delta) - 0.5) < 1e-9)
    variance = fifty.iv**2 * fifty.tenor / DAYS_PER_YEAR
    volatility = {side: _means(np.sqrt(variance), fifty.side == side, fifty.expiry, expiries) for side in ("M", "C", "P")}
    both = 0.5 * (volatility["C"] + volatility["P"])
    return np.where(np.isfinite(volatility["M"]), volatility["M"], both) ** 2


def _at(group: IntArray, x: FloatArray, y: FloatArray, target: float, groups: int) -> FloatArray:
    """Linear interpolation of y at x = target within each group; NaN where target lies outside the group's points."""
    order = np.lexsort((x, group))
    group, x, y = group[order], x[order], y[order]
    below = np.bincount(group[x <= target], minlength=groups)
    size = np.bincount(group, minlength=groups)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    low = start + below - 1
    usable = below > 0
    last = max(len(x) - 1, 0)
    at = np.clip(low, 0, last)
    exact = usable & (np.append(x, np.nan)[at] == target)
    inner = usable & (below < size)
    after = np.clip(low + 1, 0, last)
    x, y = np.append(x, np.nan), np.append(y, np.nan)
    gap = np.where(inner, x[after] - x[at], 1.0)
    share = (target - x[at]) / np.where(gap > 0, gap, 1.0)
    value = y[at] + share * (y[after] - y[at])
    return np.where(exact, y[at], np.where(inner, value, np.nan))


def _tenor(cell_of: IntArray, tenor_of: FloatArray, variance: FloatArray, tenor: float, cells: int) -> FloatArray:
    seen = np.isfinite(variance)
    total = _at(cell_of[seen], tenor_of[seen], variance[seen], tenor, cells)
    return np.sqrt(total / (tenor / DAYS_PER_YEAR))


def _calendar(cell_of: IntArray, tenor_of: FloatArray, variance: FloatArray, cells: int, rejected: Counter[str]) -> BoolArray:
    seen = np.isfinite(variance)
    cell, tenor, total = cell_of[seen], tenor_of[seen], variance[seen]
    order = np.lexsort((tenor, cell))
    cell, total = cell[order], total[order]
    falls = (cell[1:] == cell[:-1]) & (total[1:] < total[:-1] * (1.0 - CALENDAR_TOLERANCE))
    bad = np.zeros(cells, dtype=np.bool_)
    bad[cell[1:][falls]] = True
    _count(rejected, "surface_with_calendar_arbitrage", bad)
    return bad


def _rows(table: pa.Table, cell: IntArray, side: npt.NDArray[np.str_], rejected: Counter[str]) -> _Rows:
    tenor = _numbers(table, "tenor_days")
    columns = (_numbers(table, name) for name in ("delta", "strike", "iv", "bid", "ask"))
    rows = _Rows(cell, np.zeros(len(cell), dtype=np.int64), tenor, side, *columns)
    long = tenor >= SHORTEST_TENOR
    _count(rejected, "expiry_too_short", ~long)
    rows = rows.take(long)
    _, expiry = np.unique(np.stack([rows.cell.astype(np.float64), rows.tenor]), axis=1, return_inverse=True)
    return _Rows(rows.cell, expiry.reshape(-1).astype(np.int64), *(getattr(rows, name) for name in list(rows.__dataclass_fields__)[2:]))


def _cells(table: pa.Table, sessions: DateArray, symbols: Sequence[str]) -> tuple[IntArray, BoolArray]:
    days = table["session"].to_numpy().astype("datetime64[D]")
    row = np.searchsorted(sessions, days)
    inside = (row < len(sessions)) & (sessions[np.minimum(row, len(sessions) - 1)] == days)
    order = {symbol: column for column, symbol in enumerate(symbols)}
    column = np.array([order.get(symbol, -1) for symbol in table["symbol"].to_pylist()], dtype=np.int64)
    return row.astype(np.int64) * len(symbols) + column, inside & (column >= 0)


def _numbers(table: pa.Table, name: str) -> FloatArray:
    values: FloatArray = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def _count(rejected: Counter[str], reason: str, rows: BoolArray) -> None:
    count = int(rows.sum())
    if count:
        rejected[reason] += count


def _sums(values: FloatArray, rows: BoolArray, group: IntArray, groups: int) -> FloatArray:
    used = rows & np.isfinite(values)
    count = np.bincount(group[used], minlength=groups)
    return np.where(count > 0, np.bincount(group[used], values[used], groups), np.nan)


def _means(values: FloatArray, rows: BoolArray, group: IntArray, groups: int) -> FloatArray:
    used = rows & np.isfinite(values)
    count = np.bincount(group[used], minlength=groups)
    return np.where(count > 0, np.bincount(group[used], values[used], groups) / np.maximum(count, 1), np.nan)
