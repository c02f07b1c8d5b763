"""The batched environment against a scalar one that follows DESIGN section 5 sentence by sentence, on fuzzed markets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fakes.books import fuzzed_market, rules

from quanto.env.books import START_NAV, BookSet
from quanto.portfolio.constraints import constrain


class ScalarBook:
    """One book in plain Python numbers; written from the design, not from the kernel."""

    def __init__(self, market, rules_, t, weights):
        self.tape, self.rules, self.market, self.t = market.tape, rules_, market, t
        start = constrain(weights[None], weights[None], market.tape.eligible[t : t + 1], rules_.limits, market.exposure_cap[t : t + 1])[0]
        self.nav_close = self.peak = START_NAV
        self.shares, self.cash = [], START_NAV
        for name, weight in enumerate(start):
            price = float(self.tape.close[t, name])
            self.shares.append(float(weight) * START_NAV / price if price > 0 else 0.0)
            self.cash -= self.shares[-1] * price
        self.weights = [share * float(self.tape.close[t, name]) / START_NAV for name, share in enumerate(self.shares)]
        self.morning(t + 1)

    def morning(self, s):
        """Interest on cash; dividends on yesterday's shares; then the split; then payouts."""
        income = self.cash * float(self.tape.cash_rate[s])
        for name, held in enumerate(self.shares):
            income += held * float(self.tape.dividend[s, name])
            self.shares[name] = held * float(self.tape.split[s, name])
            payout = float(self.tape.payout[s, name])
            if not math.isnan(payout):
                income += self.shares[name] * payout
                self.shares[name] = 0.0
        self.cash += income
        self.nav_open = self.cash + sum(n * float(self.tape.open[s, i]) for i, n in enumerate(self.shares))

    def fee(self, s, name, value):
        return value * (float(self.tape.linear_cost[s]) + float(self.tape.impact[s, name]) * math.sqrt(value))

    def targets(self, action):
        eligible = self.tape.eligible[self.t]
        names = [i for i in range(len(self.shares)) if eligible[i]]
        weight = {i: math.exp(self.rules.action_map.scale * min(max(float(action[i]), -8), 8)) for i in names}
        cash = 0.0
        if self.rules.action_map.cash == "logit":
            cash = math.exp(self.rules.action_map.scale * min(max(float(action[-1]), -8), 8))
        total = sum(weight.values()) + cash
        wanted = np.array([[weight.get(i, 0.0) / total if total else 0.0 for i in range(len(self.shares))]])
        cap = self.market.exposure_cap[self.t : self.t + 1]
        return constrain(wanted, np.array([self.weights]), eligible[None], self.rules.limits, cap)[0]

    def step(self, action):
        """Return (net log growth, one-way turnover, cost) of the action decided after the close of t."""
        t, s = self.t, self.t + 1
        wanted = []
        for name, weight in enumerate(self.targets(action)):
            price = float(self.tape.close[t, name])
            shares = float(weight) * self.nav_close / price * float(self.tape.split[s, name]) if price > 0 else self.shares[name]
            wanted.append(shares if self.tape.fillable[s, name] else self.shares[name])
        before, moved, cost = self.nav_open, 0.0, 0.0
        value = [(wanted[i] - self.shares[i]) * float(self.tape.open[s, i]) for i in range(len(wanted))]
        for name, worth in enumerate(value):
            if worth < 0:
                fee = self.fee(s, name, -worth)
                self.cash += -worth - fee
                self.shares[name], moved, cost = wanted[name], moved - worth, cost + fee
        buys = [name for name, worth in enumerate(value) if worth > 0]
        need = sum(value[name] + self.fee(s, name, value[name]) for name in buys)
        free = max(0.0, self.cash - self.rules.limits.minimum_cash * before)
        share = min(1.0, free / need) if need > 0 else 1.0
        for name in buys:
            worth = value[name] * share
            fee = self.fee(s, name, worth)
            self.cash -= worth + fee
            self.shares[name] += (wanted[name] - self.shares[name]) * share
            moved, cost = moved + worth, cost + fee
        self.nav_close = self.cash + sum(n * float(self.tape.close[s, i]) for i, n in enumerate(self.shares))
        self.peak = max(self.peak, self.nav_close)
        self.weights = [n * float(self.tape.close[s, i]) / self.nav_close for i, n in enumerate(self.shares)]
        self.morning(s + 1)
        self.t = s
        return math.log(max(self.nav_open / before, 1e-4)), 0.5 * moved / before, cost / before


@pytest.mark.parametrize("seed", range(12))
def test_books_equal_the_scalar_reference_on_fuzzed_markets(seed):
    market, setting = fuzzed_market(seed), rules()
    rng = np.random.default_rng([seed, 2])
    books = BookSet(market, setting, episode_sessions=1000, books=3)
    starts = rng.integers(0, 10, size=3)
    weights = rng.dirichlet(np.ones(5), size=3)[:, :-1]
    books.open(np.arange(3), starts, weights)
    scalars = [ScalarBook(market, setting, int(t), w) for t, w in zip(starts, weights, strict=True)]
    for _ in range(40):
        actions = rng.normal(size=(3, 5)).astype(np.float32)
        got = books.step(actions)
        expected = np.array([book.step(action) for book, action in zip(scalars, actions, strict=True)])
        np.testing.assert_allclose(np.stack([got.growth, got.turnover, got.cost], axis=1), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.reward, 100 * expected[:, 0], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(books.books.weights, [book.weights for book in scalars], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(books.books.cash, [book.cash for book in scalars], rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_cash_after_trading_stays_at_the_floor_unless_it_began_below(seed):
    market, setting = fuzzed_market(seed, sessions=120), rules()
    rng = np.random.default_rng([seed, 3])
    books = BookSet(market, setting, episode_sessions=1000, books=16)
    books.open(np.arange(16), np.zeros(16, dtype=np.int64), np.zeros((16, 4)))
    floor = setting.limits.minimum_cash
    for _ in range(100):
        nav = books.books.nav_open
        began_above = books.books.cash >= floor * nav
        books.step(rng.normal(0, 3, size=(16, 5)))
        after = books.books.nav_close - (books.books.weights.sum(axis=1) * books.books.nav_close)
        assert (after[began_above] >= floor * nav[began_above] - 1e-6).all()
