"""Split and dividend factors, adjusted views as of a date, and actions that a vendor's adjusted close implies.

Raw prices are stored; every adjusted series is derived from them and from the actions known at the time, so a later
action never changes an earlier view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.errors import DataError
from quanto.market.calendar import DateArray, sessions_between
from quanto.market.panel import Panel, build_panel
from quanto.market.point_in_time import known_by

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

SPLIT_KINDS = ("split", "stock_dividend")
CASH_KINDS = ("cash_dividend", "special_dividend")
ENDING_KINDS = ("cash_merger", "stock_merger", "delisting", "symbol_change")

# A split that no table of actions has is believed only if it is a ratio that companies use, and not a tiny one.
_SIMPLE_DENOMINATORS = 10
_LEAST_IMPLIED_SPLIT = 1.04
_SIMPLE_TOLERANCE = 1e-4
# Half a cent: a smaller step of the adjustment factor is rounding, not a dividend.
_LEAST_DIVIDEND_USD = 0.005
# A step must stand out this many times from the rounding noise of the sessions around it.
_NOISE_MULTIPLE = 8.0
_NOISE_WINDOW = 10
# Below a twentieth of a cent of noise, fractions of a cent are the dividend's own.
_EXACT_USD = 5e-4


@dataclass(frozen=True)
class SplitHistory:
    """The splits of many symbols, laid out for vectorised look-up.

    Attributes
    ----------
    symbols
        Sorted names; a symbol's code is its position.
    keys
        Shape (n_events,), ascending: code x 2**20 + ex-date in days since 1970.
    ratios
        Shape (n_events,): new shares per old share of each event.
    cumulative
        Shape (n_events,): the product of the symbol's ratios up to and including this event.
    """

    symbols: tuple[str, ...]
    keys: IntArray
    ratios: FloatArray
    cumulative: FloatArray

    def codes(self, names: Sequence[str]) -> IntArray:
        """Return the code of each name, -1 where a symbol has no split; shape (n_names,)."""
        order = {name: code for code, name in enumerate(self.symbols)}
        return np.array([order.get(name, -1) for name in names], dtype=np.int64)

    def ratio_until(self, codes: IntArray, days: DateArray) -> FloatArray:
        """Return the product of the ratios with an ex-date at or before each day; shape as given, 1 where none."""
        if not len(self.keys):
            return np.ones(len(codes))
        wanted = codes * _CODE_STEP + days.astype("datetime64[D]").astype(np.int64)
        position = np.searchsorted(self.keys, wanted, side="right") - 1
        at = np.maximum(position, 0)
        own = (position >= 0) & (self.keys[at] // _CODE_STEP == codes)
        return np.where(own, self.cumulative[at], 1.0)

    def ratio_between(self, codes: IntArray, after: DateArray, until: DateArray) -> FloatArray:
        """Return new shares per old share over (after, until] for each row; shape as given."""
        return self.ratio_until(codes, until) / self.ratio_until(codes, after)

    def events(self) -> list[tuple[str, int, float]]:
        """Return (symbol, ex-date in days since 1970, ratio) of every event, in order."""
        named = [(self.symbols[code], day) for code, day in zip(*(part.tolist() for part in np.divmod(self.keys, _CODE_STEP)), strict=True)]
        return [(symbol, day, ratio) for (symbol, day), ratio in zip(named, self.ratios.tolist(), strict=True)]

    def within(self, symbols: Sequence[str], after: date, until: date) -> SplitHistory:
        """Return the events of some symbols with an ex-date in (after, until]."""
        wanted, low, high = set(symbols), _day_number(after), _day_number(until)
        return history_of([event for event in self.events() if event[0] in wanted and low < event[1] <= high])


_CODE_STEP = 1 << 20


def history_of(events: Sequence[tuple[str, int, float]]) -> SplitHistory:
    """Return the look-up for (symbol, ex-date in days since 1970, ratio) events in any order."""
    symbols = tuple(sorted({symbol for symbol, _, _ in events}))
    order = {symbol: code for code, symbol in enumerate(symbols)}
    ordered = sorted((order[symbol] * _CODE_STEP + day, ratio) for symbol, day, ratio in events)
    keys = np.array([key for key, _ in ordered], dtype=np.int64)
    ratios = np.array([ratio for _, ratio in ordered], dtype=np.float64)
    cumulative = ratios.copy()
    for index in range(1, len(cumulative)):
        if keys[index] // _CODE_STEP == keys[index - 1] // _CODE_STEP:
            cumulative[index] *= cumulative[index - 1]
    return SplitHistory(symbols, keys, ratios, cumulative)


def split_history(actions: pa.Table) -> SplitHistory:
    """Return the splits and stock dividends of a table of corporate actions (columns symbol, ex_date, kind, ratio).

    Raises
    ------
    DataError
        If a ratio is missing, NaN, zero or negative; names the symbol and the date.
    """
    rows = actions.filter(pc.is_in(actions["kind"], pa.array(SPLIT_KINDS))).select(["symbol", "ex_date", "ratio"])
    rows = rows.sort_by([("symbol", "ascending"), ("ex_date", "ascending")]).combine_chunks()
    ratios = pc.fill_null(rows["ratio"], float("nan")).to_numpy()
    wrong = ~(ratios > 0) | ~np.isfinite(ratios)
    if wrong.any():
        faults = [f"{rows['symbol'][int(i)]} {rows['ex_date'][int(i)]}" for i in np.flatnonzero(wrong)[:10]]
        raise DataError(f"a split needs a positive ratio; found none at {', '.join(faults)}")
    days = rows["ex_date"].cast(pa.int32()).to_pylist()
    return history_of(list(zip(rows["symbol"].to_pylist(), days, ratios.tolist(), strict=True)))


def adjustment_factors(panel: Panel, dividends: bool) -> tuple[FloatArray, FloatArray]:
    """Return the factors that bring raw prices and raw volumes to the basis of the panel's last session.

    Both have shape (n_sessions, n_symbols). Price factor of D: product over splits with ex-date after D of 1 / ratio,
    times, with `dividends`, product over dividends with ex-date E after D of 1 - d / close(E-1) (CRSP), d and close on
    one split basis. Where close(E-1) is missing the last close before it stands in; a dividend before the first close
    changes nothing. Volume factor: the product of the split ratios alone. Never NaN.
    """
    per_split = 1.0 / panel.split
    factor = per_split.copy()
    if dividends:
        previous = _last_known(panel.close)
        kept = np.ones_like(factor)
        paid = (panel.dividend_usd != 0) & np.isfinite(previous)
        kept[paid] = 1.0 - panel.dividend_usd[paid] / previous[paid]
        factor = per_split * kept
    return _product_after(factor), 1.0 / _product_after(per_split)


def adjusted_view(bars: pa.Table, actions: pa.Table, symbols: Sequence[str], day: date, basis: str, start: date | None = None) -> Panel:
    """Return the bars that were known on the evening of `day`, on a basis as of that day.

    basis `raw` gives prices as traded, `split` undoes splits, `total` splits and dividends. Only sessions and actions
    up to `day` that were known by then count, so a later action or restatement never changes an earlier view.

    Raises
    ------
    DataError
        If the basis is another, or no bar was known by then.
    """
    if basis not in ("raw", "split", "total"):
        raise DataError(f"a view is raw, split or total; found {basis!r}")
    until = pa.scalar(day, pa.date32())
    bars = known_by(bars, day)
    bars = bars.filter(pc.less_equal(bars["session"], until))
    actions = known_by(actions, day)
    actions = actions.filter(pc.less_equal(actions["ex_date"], until))
    if not len(bars):
        raise DataError(f"no bar was known on {day}; the table begins later")
    first = start or pc.min(bars["session"]).as_py()
    panel = build_panel(bars, actions, sessions_between(first, day), symbols)
    if basis == "raw":
        return panel
    price, volume = adjustment_factors(panel, dividends=basis == "total")
    prices = {name: getattr(panel, name) * price for name in ("open", "high", "low", "close")}
    arrays = {**prices, "volume": panel.volume * volume}
    for array in arrays.values():
        array.setflags(write=False)
    return replace(panel, **arrays)


def delisting_returns(bars: pa.Table, actions: pa.Table) -> dict[str, tuple[date, float | None]]:
    """Return for each symbol that ended by merger or delisting its ex-date and last return, a fraction.

    The return is cash paid per share over the last close before the ex-date, minus one; None where the payment is not
    known (then the consumer's configured delisting return holds) or where no close precedes it.
    """
    closes: dict[str, list[tuple[date, float]]] = {}
    ends = actions.filter(pc.is_in(actions["kind"], pa.array(["cash_merger", "delisting"])))
    names = set(ends["symbol"].to_pylist())
    rows = bars.filter(pc.is_in(bars["symbol"], pa.array(sorted(names), pa.string())))
    for symbol, session, close in zip(*(rows[name].to_pylist() for name in ("symbol", "session", "close")), strict=True):
        closes.setdefault(symbol, []).append((session, close))
    found: dict[str, tuple[date, float | None]] = {}
    for symbol, day, cash in zip(*(ends[name].to_pylist() for name in ("symbol", "ex_date", "cash_usd")), strict=True):
        before = [item for item in closes.get(symbol, []) if item[0] < day]
        known = cash is not None and bool(before)
        found[symbol] = (day, cash / max(before)[1] - 1.0 if known else None)
    return found


@dataclass(frozen=True)
class ImpliedActions:
    """What the adjustment factor of one series reveals, one entry per event; arrays of shape (n_events,).

    Attributes
    ----------
    position
        Index of the ex-date's row in the series.
    split_ratio
        An implied split that the given ratios did not contain; 1 where none.
    dividend_usd
        Cash per share held at the close before, before that day's split; 0 where none.
    uncertainty_usd
        By how much the rounding of the series may have moved `dividend_usd`; a listed amount within it is no contradiction.
    refused
        Rows where the factor steps the wrong way or back again: a fault of the series, not an action.
    convention
        `previous_close` (CRSP: 1 - d / close(E-1)) or `ex_close` (close(E) / (close(E) + d)).
    """

    position: IntArray
    split_ratio: FloatArray
    dividend_usd: FloatArray
    uncertainty_usd: FloatArray
    refused: IntArray
    convention: str


def implied_actions(close: FloatArray, adj_close: FloatArray, split: FloatArray) -> ImpliedActions:
    """Return the dividends and splits that one vendor's adjusted close implies for one symbol.

    Parameters
    ----------
    close, adj_close
        Shape (n,), positive, finite, consecutive rows of one vendor and symbol: raw close, and the close adjusted for
        splits and dividends.
    split
        Shape (n,): the ratio of the known splits that take effect between the row before and this one; 1 where none.

    Notes
    -----
    r = f(E-1) / f(E) x split with f = adj_close / close is 1 but for dividends and unknown splits. A dividend is
    d = close(E-1) (1 - r) under CRSP's rule, or close(E) x split x (1 / r - 1) where the vendor divides by the close of
    the ex-date (the Quandl WIKI set does): the rule that gives whole quarter-cents decides for the series. Steps below
    half a cent, or within the rounding noise of the ten rows on either side (the row itself left out), are ignored.
    Cents are rounded to whole cents unless the noise is too small for the remainder to be rounding; then to 1/100 cent.
    """
    n = len(close)
    if n < 2:
        return _nothing()
    factor = adj_close / close
    step = np.ones(n)
    step[1:] = factor[:-1] / factor[1:] * split[1:]
    noise = _noise(step)
    previous = np.concatenate([[np.nan], close[:-1]])
    threshold = np.maximum(_NOISE_MULTIPLE * noise, _LEAST_DIVIDEND_USD / previous)
    events = np.flatnonzero(np.abs(1.0 - step) > threshold)
    ratios = np.array([_plausible_split(step[i], close[i] / previous[i] * split[i]) for i in events])
    step = step.copy()
    step[events] *= ratios
    refused = _refused(events, step, ratios)
    kept = ~np.isin(events, refused)
    events, ratios = events[kept], ratios[kept]
    left = step[events]
    by_previous = previous[events] * (1.0 - left)
    by_ex = close[events] * split[events] * ratios * (1.0 / left - 1.0)
    convention = "ex_close" if _off_grid(by_ex, ratios) < 0.25 * _off_grid(by_previous, ratios) else "previous_close"
    cash = by_ex if convention == "ex_close" else by_previous
    spread = noise[events] * previous[events]
    cash = _round_cents(cash, spread)
    cash = np.where(np.abs(1.0 - left) > threshold[events], cash, 0.0)
    keep = (cash > 0) | (ratios != 1.0)
    # Four scales cover the largest step that rounding makes; the rounding to cents itself adds half a cent.
    uncertainty = np.where(spread > _EXACT_USD, 4.0 * spread + _LEAST_DIVIDEND_USD, 0.0)
    return ImpliedActions(events[keep], ratios[keep], cash[keep], uncertainty[keep], refused, convention)


def simple_fraction(ratio: float, tolerance: float = _SIMPLE_TOLERANCE) -> float | None:
    """Return the ratio p/q that companies use for splits (p or q up to 100, the other up to 10) nearest to `ratio`, or None.

    None where the nearest differs by more than `tolerance`, relative, or where the ratio is no split (near 1).
    """
    if not np.isfinite(ratio) or ratio <= 0:
        return None
    best: float | None = None
    for denominator in range(1, _SIMPLE_DENOMINATORS + 1):
        for value in (round(ratio * denominator) / denominator, _inverse(round(denominator / ratio), denominator)):
            if value and abs(ratio / value - 1.0) <= tolerance and (best is None or abs(ratio / value - 1) < abs(ratio / best - 1) - 1e-12):
                best = value
    if best is None or max(best, 1.0 / best) < _LEAST_IMPLIED_SPLIT:
        return None
    return best


def _inverse(count: int, denominator: int) -> float:
    return denominator / count if count else 0.0


def _plausible_split(step: float, jump: float) -> float:
    """Return the split ratio that a factor step and the price's own jump both show, else 1."""
    ratio = simple_fraction(1.0 / step)
    if ratio is None:
        return 1.0
    # The raw price must have moved with the split: nearer to 1 / ratio than to no change.
    return ratio if abs(np.log(jump * ratio)) < 0.5 * abs(np.log(ratio)) else 1.0


def _refused(events: IntArray, step: FloatArray, ratios: FloatArray) -> IntArray:
    """Return the events that step upwards, and those that the next row undoes: a bad value, not a dividend."""
    upward = events[(step[events] > 1.0) & (ratios == 1.0)]
    undone = [i for i in upward - 1 if i in events and abs(step[i] * step[i + 1] - 1.0) < 0.1 * abs(step[i] - 1.0)]
    follow = [i for i in upward + 1 if i in events and abs(step[i] * step[i - 1] - 1.0) < 0.1 * abs(step[i] - 1.0)]
    return np.unique(np.concatenate([upward, np.array(undone, dtype=np.int64), np.array(follow, dtype=np.int64)]))


def _noise(step: FloatArray) -> FloatArray:
    """Return a robust scale of the factor's rounding noise around each row, that row left out; shape (n,)."""
    deviation = np.abs(step - 1.0)
    padded = np.full(len(step) + 2 * _NOISE_WINDOW, np.nan)
    padded[_NOISE_WINDOW:-_NOISE_WINDOW] = deviation
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NOISE_WINDOW + 1).copy()
    windows[:, _NOISE_WINDOW] = np.nan
    known = np.isfinite(windows).any(axis=1)
    scale = np.zeros(len(step))
    scale[known] = 1.4826 * np.nanmedian(windows[known], axis=1)
    return scale


def _off_grid(cash: FloatArray, ratios: FloatArray) -> float:
    """Return the median distance of pure dividends to whole quarter-cents, in USD; infinite where there is none."""
    pure = cash[ratios == 1.0]
    if not len(pure):
        return float("inf")
    return float(np.median(np.abs(pure * 400 - np.round(pure * 400))) / 400)


def _round_cents(cash: FloatArray, noise_usd: FloatArray) -> FloatArray:
    whole = np.round(cash, 2)
    exact = np.abs(cash - whole) > np.maximum(3.0 * noise_usd, _EXACT_USD)
    return np.where(exact & (noise_usd < _EXACT_USD), np.round(cash, 4), whole)


def _nothing() -> ImpliedActions:
    empty = np.empty(0)
    none = np.empty(0, dtype=np.int64)
    return ImpliedActions(none, empty, empty, empty, none, "previous_close")


def _day_number(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()


def _product_after(per_session: FloatArray) -> FloatArray:
    """Return for each row the product of all later rows; the last row has 1."""
    out = np.ones_like(per_session)
    out[:-1] = np.cumprod(per_session[::-1], axis=0)[::-1][1:]
    return out


def _last_known(close: FloatArray) -> FloatArray:
    """Return the last finite close strictly before each row; NaN before the first."""
    rows = np.where(np.isfinite(close), np.arange(len(close))[:, None], -1)
    last = np.maximum.accumulate(rows, axis=0)
    filled = np.where(last >= 0, np.take_along_axis(close, np.maximum(last, 0), axis=0), np.nan)
    out = np.full_like(close, np.nan)
    out[1:] = filled[:-1]
    return out
