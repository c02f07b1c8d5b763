"""Splits and dividends laid over a total-return market: holders of the traded prices earn the market's returns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from quanto.stages.ingest.vendors.synthetic_markets import FloatArray, Market

DIVIDEND_EVERY = 63  # sessions; the first symbol pays in session 31, each following symbol 7 sessions later
DIVIDEND_YIELD = 0.004  # of the close before the ex-date, rounded to cents
SPLIT_ABOVE_USD = 150.0  # a close above it is followed by a 2:1 split, at most one in SPLIT_REST sessions
SPLIT_REST = 20


@dataclass(frozen=True)
class Action:
    """A split (`ratio`) or a cash dividend (`cash_usd`) of a symbol with effect at the open of a session's position."""

    symbol: str
    session: int
    kind: str
    ratio: float | None
    cash_usd: float | None


def as_traded(market: Market, symbols: tuple[str, ...]) -> tuple[Market, tuple[Action, ...]]:
    """Return the market as it would have traded with splits and dividends, and those actions by symbol and session.

    A dividend d lowers all later prices by the factor 1 - d / close before it; a split divides them and multiplies
    volumes. Total returns are those of the given market.
    """
    price = np.ones_like(market.close)
    shares = np.ones_like(market.close)
    actions: list[Action] = []
    for column, symbol in enumerate(symbols):
        price[:, column], shares[:, column], found = _one(market.close[:, column], symbol, 31 + 7 * column % DIVIDEND_EVERY)
        actions += found
    traded = replace(
        market,
        open=market.open * price,
        high=market.high * price,
        low=market.low * price,
        close=market.close * price,
        volume=np.rint(market.volume * shares),
    )
    return traded, tuple(actions)


def _one(close: FloatArray, symbol: str, first: int) -> tuple[FloatArray, FloatArray, list[Action]]:
    price, shares = np.ones(len(close)), np.ones(len(close))
    factor, held, rested = 1.0, 1.0, 0
    actions: list[Action] = []
    for t in range(1, len(close)):
        before = close[t - 1] * factor
        cash = round(before * DIVIDEND_YIELD, 2)
        if t >= first and (t - first) % DIVIDEND_EVERY == 0 and cash > 0:
            actions.append(Action(symbol, t, "cash_dividend", None, cash))
            factor *= 1 - cash / before
        elif before > SPLIT_ABOVE_USD and t - rested > SPLIT_REST:
            actions.append(Action(symbol, t, "split", 2.0, None))
            factor, held, rested = factor / 2, held * 2, t
        price[t], shares[t] = factor, held
    return price, shares, actions
