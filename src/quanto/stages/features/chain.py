"""From option quotes to implied volatilities: forward by put-call parity, checks against arbitrage, Black-76 inversion.

1. quotes that nobody could trade on are left out (no bid, crossed, too wide);
2. per expiry, call minus put against strike is a line: slope -discount, zero at the forward (put-call parity);
3. pairs off that line by more than their spreads are left out, the furthest first;
4. quotes that offer an executable vertical or butterfly arbitrage are left out, and an expiry that loses a third so;
5. the out-of-the-money side is inverted to a volatility.

Nothing is repaired: what fails a check is not used, and counted by reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import elementwise
from scipy.special import ndtr

from quanto.market.panel import BoolArray, FloatArray

IntArray = npt.NDArray[np.int64]

DAYS_PER_YEAR = 365.0
MAXIMUM_SPREAD = 1.0  # of the mid: wider quotes carry no price
MINIMUM_PAIRS = 3
NEAR_MONEY = 0.2  # parity of American options holds near the money; deep in the money early exercise bends it
DISCOUNTS = (0.80, 1.05)
VOLATILITIES = (0.01, 5.0)
ARBITRAGE_TOLERANCE = 1e-4  # of the forward: quotes of different strikes are not of one instant
MAXIMUM_LOSS = 1.0 / 3.0
PARITY_TOLERANCE = 1e-3  # of the forward, beyond the spreads


@dataclass(frozen=True)
class Quotes:
    """Option quotes, one element per row.

    Attributes
    ----------
    expiry
        Number of the expiry (session, symbol, tenor) that the row belongs to: 0..n-1, in any order.
    years
        Calendar days to expiry over 365.
    strike, bid, ask
        USD.
    call
        Whether the row is a call.
    """

    expiry: IntArray
    years: FloatArray
    strike: FloatArray
    bid: FloatArray
    ask: FloatArray
    call: BoolArray

    def take(self, rows: BoolArray | IntArray) -> Quotes:
        """Return the given rows."""
        return Quotes(self.expiry[rows], self.years[rows], self.strike[rows], self.bid[rows], self.ask[rows], self.call[rows])


@dataclass(frozen=True)
class Smile:
    """Points of implied volatility smiles, one element per point.

    Attributes
    ----------
    moneyness
        k = ln(strike / forward).
    volatility
        Fraction per year.
    delta
        Forward delta of the call of that strike, 0..1.
    """

    expiry: IntArray
    years: FloatArray
    moneyness: FloatArray
    volatility: FloatArray
    delta: FloatArray

    def take(self, rows: BoolArray) -> Smile:
        """Return the given points."""
        return Smile(self.expiry[rows], self.years[rows], self.moneyness[rows], self.volatility[rows], self.delta[rows])

    def join(self, other: Smile) -> Smile:
        """Return the points of both."""
        pairs = zip(self._floats(), other._floats(), strict=True)
        return Smile(np.concatenate([self.expiry, other.expiry]), *(np.concatenate(pair) for pair in pairs))

    def _floats(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        return self.years, self.moneyness, self.volatility, self.delta


def smile_from_quotes(quotes: Quotes, expiries: int, rejected: Counter[str]) -> Smile:
    """Return the smile points of all expiries that pass the checks; reasons of what did not are counted in `rejected`."""
    quotes = _usable(quotes, rejected)
    forward, discount, on_parity = _forwards(quotes, expiries, rejected)
    out_of_the_money = quotes.call == (quotes.strike >= forward[quotes.expiry])
    quotes = quotes.take(on_parity & out_of_the_money & np.isfinite(forward[quotes.expiry]))
    quotes = quotes.take(np.lexsort((quotes.strike, quotes.call, quotes.expiry)))
    quotes = _free_of_arbitrage(quotes, forward, rejected)
    moneyness = np.log(quotes.strike / forward[quotes.expiry])
    price = 0.5 * (quotes.bid + quotes.ask) / (discount * forward)[quotes.expiry]
    volatility = implied_volatility(price, moneyness, quotes.years, quotes.call)
    sound = (volatility > VOLATILITIES[0]) & (volatility < VOLATILITIES[1])
    _reject(rejected, "volatility_out_of_bounds", ~sound)
    total = volatility * np.sqrt(quotes.years)
    delta = ndtr(-moneyness / np.where(total > 0, total, 1.0) + 0.5 * total)
    return Smile(quotes.expiry, quotes.years, moneyness, volatility, delta).take(sound)


def black_price(moneyness: FloatArray, total: FloatArray, call: BoolArray) -> FloatArray:
    """Return the undiscounted Black-76 price over the forward, for total volatility sigma * sqrt(years).

    Black (1976), eq. 16, with k = ln(strike / forward): N(d1) - e^k N(d2) for a call.
    """
    d1 = -moneyness / total + 0.5 * total
    sign = np.where(call, 1.0, -1.0)
    return np.asarray(sign * (ndtr(sign * d1) - np.exp(moneyness) * ndtr(sign * (d1 - total))))


def implied_volatility(price: FloatArray, moneyness: FloatArray, years: FloatArray, call: BoolArray) -> FloatArray:
    """Return the Black-76 volatility that gives an undiscounted price over the forward; fraction per year.

    All of shape (n,). NaN where the price lies outside the arbitrage bounds or no volatility up to 1000 % gives it.
    """
    intrinsic = np.maximum(np.where(call, 1.0 - np.exp(moneyness), np.exp(moneyness) - 1.0), 0.0)
    ceiling = np.where(call, 1.0, np.exp(moneyness))
    possible = (price > intrinsic) & (price < ceiling) & (years > 0) & np.isfinite(price)
    out = np.full(price.shape, np.nan)
    if not possible.any():
        return out
    arguments = (price[possible], moneyness[possible], call[possible])
    scale = np.sqrt(years[possible])
    found = elementwise.find_root(_mispricing, (np.full_like(scale, 1e-6), 10.0 * scale), args=arguments)
    out[possible] = np.where(found.success, found.x / scale, np.nan)
    return out


def _mispricing(total: FloatArray, price: FloatArray, moneyness: FloatArray, call: BoolArray) -> FloatArray:
    return black_price(moneyness, total, call) - price


def _usable(quotes: Quotes, rejected: Counter[str]) -> Quotes:
    known = np.isfinite(quotes.bid) & np.isfinite(quotes.ask) & (quotes.strike > 0) & (quotes.years > 0)
    bid = known & (quotes.bid > 0)
    ordered = bid & (quotes.ask >= quotes.bid)
    narrow = ordered & (quotes.ask - quotes.bid <= MAXIMUM_SPREAD * 0.5 * (quotes.ask + quotes.bid))
    _reject(rejected, "no_quote", ~known)
    _reject(rejected, "no_bid", known & ~bid)
    _reject(rejected, "crossed_quote", bid & ~ordered)
    _reject(rejected, "wide_spread", ordered & ~narrow)
    return quotes.take(narrow)


def _pairs(quotes: Quotes) -> tuple[IntArray, IntArray]:
    """Return the rows of calls and of puts that share expiry and strike."""
    order = np.lexsort((quotes.call, quotes.strike, quotes.expiry))
    first, second = order[:-1], order[1:]
    match = (quotes.expiry[first] == quotes.expiry[second]) & (quotes.strike[first] == quotes.strike[second])
    match &= ~quotes.call[first] & quotes.call[second]
    return second[match], first[match]


@dataclass(frozen=True)
class _Pairs:
    """Calls and puts of one expiry and strike, near the money: rows of the quotes, call minus put, and both spreads."""

    calls: IntArray
    puts: IntArray
    expiry: IntArray
    strike: FloatArray
    gap: FloatArray
    spread: FloatArray


def _near_money_pairs(quotes: Quotes, expiries: int) -> _Pairs:
    calls, puts = _pairs(quotes)
    strike, expiry = quotes.strike[calls], quotes.expiry[calls]
    gap = 0.5 * (quotes.bid[calls] + quotes.ask[calls] - quotes.bid[puts] - quotes.ask[puts])
    spread = quotes.ask[calls] - quotes.bid[calls] + quotes.ask[puts] - quotes.bid[puts]
    smallest = np.full(expiries, np.inf)
    np.minimum.at(smallest, expiry, np.abs(gap))
    centre = np.full(expiries, np.nan)
    nearest = np.abs(gap) == smallest[expiry]
    centre[expiry[nearest]] = strike[nearest]
    near = np.abs(strike / centre[expiry] - 1.0) <= NEAR_MONEY
    return _Pairs(*(array[near] for array in (calls, puts, expiry, strike, gap, spread)))


def _forwards(quotes: Quotes, expiries: int, rejected: Counter[str]) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return forward and discount factor of each expiry (NaN where parity gives none), and which quotes lie on parity.

    Weighted least squares; the pair furthest off the line is left out, and the line drawn again, until none is off.
    """
    pairs = _near_money_pairs(quotes, expiries)
    used = np.ones(len(pairs.expiry), dtype=np.bool_)
    while True:
        forward, discount = _parity_lines(pairs, used, expiries)
        residual = np.abs(pairs.gap - discount[pairs.expiry] * (forward[pairs.expiry] - pairs.strike))
        excess = residual - 0.5 * pairs.spread - PARITY_TOLERANCE * np.abs(forward[pairs.expiry])
        off = used & (excess > 0.0)
        if not off.any():
            break
        worst = np.zeros(expiries)
        np.maximum.at(worst, pairs.expiry[off], excess[off])
        used &= ~(off & (excess == worst[pairs.expiry]))
    offered = np.bincount(pairs.expiry, minlength=expiries)
    kept = np.bincount(pairs.expiry[used], minlength=expiries)
    present = np.bincount(quotes.expiry, minlength=expiries) > 0
    enough = kept >= MINIMUM_PAIRS
    plausible = enough & (discount > DISCOUNTS[0]) & (discount < DISCOUNTS[1]) & (offered - kept <= MAXIMUM_LOSS * offered)
    _reject(rejected, "expiry_without_forward", present & ~enough)
    _reject(rejected, "expiry_off_parity", enough & ~plausible)
    on_parity = np.ones(len(quotes.expiry), dtype=np.bool_)
    on_parity[pairs.calls[~used]] = on_parity[pairs.puts[~used]] = False
    _reject(rejected, "parity_residual", ~on_parity)
    return np.where(plausible, forward, np.nan), np.where(plausible, discount, np.nan), on_parity


def _parity_lines(pairs: _Pairs, used: BoolArray, expiries: int) -> tuple[FloatArray, FloatArray]:
    weight = np.where(used, 1.0 / np.maximum(pairs.spread, 0.01) ** 2, 0.0)
    total = np.bincount(pairs.expiry, weight, expiries)
    safe = np.where(total > 0, total, 1.0)
    mean_strike = np.bincount(pairs.expiry, weight * pairs.strike, expiries) / safe
    mean_gap = np.bincount(pairs.expiry, weight * pairs.gap, expiries) / safe
    apart = pairs.strike - mean_strike[pairs.expiry]
    variance = np.bincount(pairs.expiry, weight * apart * apart, expiries)
    product = np.bincount(pairs.expiry, weight * apart * (pairs.gap - mean_gap[pairs.expiry]), expiries)
    discount = np.where(variance > 0, -product / np.where(variance > 0, variance, 1.0), np.nan)
    return mean_strike + mean_gap / np.where(discount > 0, discount, np.nan), discount


def _free_of_arbitrage(quotes: Quotes, forward: FloatArray, rejected: Counter[str]) -> Quotes:
    """Leave out quotes that offer an executable arbitrage, the worst of its neighbourhood first, until none is left.

    An expiry that loses more than `MAXIMUM_LOSS` of its quotes is quarantined: nobody knows which of them are right.
    """
    before = np.bincount(quotes.expiry, minlength=len(forward))
    while True:
        profit = np.maximum(_vertical_profit(quotes), _butterfly_profit(quotes)) / forward[quotes.expiry]
        padded = np.concatenate([[0.0], profit, [0.0]])
        worst = (profit > ARBITRAGE_TOLERANCE) & (profit >= padded[:-2]) & (profit > padded[2:])
        if not worst.any():
            break
        _reject(rejected, "executable_arbitrage", worst)
        quotes = quotes.take(~worst)
    lost = before - np.bincount(quotes.expiry, minlength=len(forward))
    guilty = lost > MAXIMUM_LOSS * before
    _reject(rejected, "expiry_with_arbitrage", guilty)
    return quotes.take(~guilty[quotes.expiry])


def _vertical_profit(quotes: Quotes) -> FloatArray:
    """Return what selling each quote against a neighbour that must be worth more earns, in USD; sorted quotes."""
    one, two = slice(None, -1), slice(1, None)
    same = (quotes.expiry[one] == quotes.expiry[two]) & (quotes.call[one] == quotes.call[two])
    out = np.full(len(quotes.expiry), -np.inf)
    calls, puts = same & quotes.call[one], same & ~quotes.call[one]
    # A call of the higher strike and a put of the lower strike are the cheaper ones.
    out[two] = np.where(calls, quotes.bid[two] - quotes.ask[one], out[two])
    out[one] = np.where(puts, np.maximum(out[one], quotes.bid[one] - quotes.ask[two]), out[one])
    return out


def _butterfly_profit(quotes: Quotes) -> FloatArray:
    """Return what selling each quote against its two neighbours earns, in USD; sorted quotes."""
    low, middle, high = slice(None, -2), slice(1, -1), slice(2, None)
    same = (quotes.expiry[low] == quotes.expiry[high]) & (quotes.call[low] == quotes.call[high])
    width = np.where(same, quotes.strike[high] - quotes.strike[low], 1.0)
    share = (quotes.strike[high] - quotes.strike[middle]) / np.where(width > 0, width, 1.0)
    profit = quotes.bid[middle] - share * quotes.ask[low] - (1.0 - share) * quotes.ask[high]
    out = np.full(len(quotes.expiry), -np.inf)
    out[middle] = np.where(same, profit, -np.inf)
    return out


def _reject(rejected: Counter[str], reason: str, rows: BoolArray) -> None:
    count = int(rows.sum())
    if count:
        rejected[reason] += count
