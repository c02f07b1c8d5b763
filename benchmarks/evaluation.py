"""Evaluate one policy over 2,500 sessions x 30 symbols: simulation, all metrics, slices, 2,000 bootstrap draws, one core.

Imports and the compilation of the kernel are not counted. The peer is what one would write with the libraries alone:
empyrical's functions on each draw of arch's stationary bootstrap (measured on some draws, scaled to all).

    PYTHONPATH=src python benchmarks/evaluation.py
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

# One core, also for the matrix products: set before NumPy loads.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import empyrical
import numpy as np
from arch.bootstrap import StationaryBootstrap

from quanto.core.rng import generator
from quanto.env.simulation import Decide, Simulation, simulate
from quanto.env.tape import Tape
from quanto.portfolio.activity import activity_metrics
from quanto.portfolio.attribution import Flows, attribute
from quanto.portfolio.bootstrap import block_length, bootstrap_intervals, stationary_indices, volatility_ratio
from quanto.portfolio.constraints import Limits
from quanto.portfolio.drawdowns import drawdown_episodes, drawdown_within, runs
from quanto.portfolio.metrics import return_metrics
from quanto.portfolio.sharpe import minimum_track_record, probabilistic_sharpe, sharpe_moments
from quanto.portfolio.significance import alpha_test, cvar_tests

SESSIONS, SYMBOLS, DRAWS, SLICES = 2500, 30, 2000, 8
PEER_DRAWS = 40
GOAL_SECONDS = 5.0
LIMITS = Limits(max_weight=0.35, max_exposure=1.0, minimum_cash=0.0, max_turnover=1.0)


def market() -> Tape:
    rng = generator(1, "evaluation benchmark")
    shape = (SESSIONS + 1, SYMBOLS)
    volatility = 0.01 * np.exp(0.5 * np.sin(np.arange(SESSIONS + 1) / 60))[:, None]
    close = 50 * np.exp(np.cumsum(0.0003 + volatility * rng.standard_normal(shape), axis=0))
    opens = np.vstack([close[:1], close[:-1] * np.exp(0.002 * rng.standard_normal((SESSIONS, SYMBOLS)))])
    yes, ones = np.ones(shape, dtype=bool), np.ones(shape)
    dividend = np.where(rng.random(shape) < 0.01, 0.2, 0.0)
    rate, cost = np.full(SESSIONS + 1, 0.0001), np.full(SESSIONS + 1, 5e-4)
    return Tape(opens, close, yes, yes, ones, dividend, np.full(shape, np.nan), rate, cost, np.zeros(shape))


def scorer(tape: Tape) -> Decide:
    """Return a small policy: softmax with cash over a linear score of three trailing returns."""
    logs = np.log(tape.close)
    features = np.stack([logs - np.vstack([np.tile(logs[:1], (lag, 1)), logs[:-lag]]) for lag in (1, 5, 21)])

    def decide(t: int, weights: np.ndarray, _drawdown: float) -> np.ndarray:
        score = np.exp(np.tensordot([0.5, 1.0, -1.0], features[:, t], 1) + weights)
        return np.asarray(score / (score.sum() + 1.0))

    return decide


def equal_weight(_t: int, _weights: np.ndarray, _drawdown: float) -> np.ndarray:
    return np.full(SYMBOLS, 1 / SYMBOLS)


def evaluate(tape: Tape, candidate: Decide, masks: list[np.ndarray]) -> tuple[Simulation, dict[str, object]]:
    """Return the whole evaluation of a policy against equal weight."""
    held = simulate(tape, 1, SESSIONS + 1, candidate, LIMITS)
    equal = simulate(tape, 1, SESSIONS + 1, equal_weight, LIMITS)
    r, b, rf = held.returns, equal.returns, tape.cash_rate[1:]
    rng = generator(1, "draws")
    indices = stationary_indices(SESSIONS, block_length(r - rf, r - b), DRAWS, rng)
    moments = sharpe_moments(r - rf)
    flows = Flows(held.overnight, held.intraday, held.dividends, held.traded, held.cost, held.interest)
    days = np.datetime64("2003-01-01") + np.arange(SESSIONS)
    slices = [
        {
            "metrics": return_metrics(r[mask], rf[mask], b[mask]),
            "drawdown": drawdown_within(r, mask),
            "episodes": len(runs(mask)),
            "activity": activity_metrics(held.weights[mask], held.turnover[mask], held.traded[mask]),
            "volatility_ratio": volatility_ratio(r, b, mask, rng, DRAWS),
        }
        for mask in masks
    ]
    return held, {
        "metrics": return_metrics(r, rf, b),
        "baseline": return_metrics(b, rf),
        "drawdowns": drawdown_episodes(r),
        "activity": activity_metrics(held.weights, held.turnover, held.traded),
        "attribution": attribute(days, [str(i) for i in range(SYMBOLS)], held.nav_before, held.nav, flows),
        "intervals": bootstrap_intervals(r, rf, b, indices),
        "psr": probabilistic_sharpe(moments) if moments else None,
        "track_record": minimum_track_record(moments) if moments else None,
        "alpha": alpha_test(r - rf, b - rf),
        "cvar": cvar_tests(r[None], b),
        "slices": slices,
    }


def peer_draws(r: np.ndarray, b: np.ndarray, draws: int) -> None:
    """Compute the metrics of the intervals with empyrical, draw by draw."""
    functions = (empyrical.annual_return, empyrical.annual_volatility, empyrical.sharpe_ratio, empyrical.sortino_ratio)
    functions += (empyrical.calmar_ratio, empyrical.max_drawdown, empyrical.conditional_value_at_risk)
    for (one, other), _ in StationaryBootstrap(5, r, b, seed=1).bootstrap(draws):
        for function in functions:
            function(one), function(other)
        empyrical.alpha_beta_aligned(one, other)
        empyrical.excess_sharpe(one, other)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    tape = market()
    decide = scorer(tape)
    phase = np.sin(np.arange(SESSIONS) / 60)
    masks = [(phase > low) & (phase <= low + 0.25) for low in np.linspace(-1, 0.75, SLICES)]
    simulate(tape, 1, 3, decide, LIMITS)  # compiles the kernel
    held, _ = evaluate(tape, decide, masks)
    value = min(seconds(lambda: evaluate(tape, decide, masks)) for _ in range(3))
    equal = simulate(tape, 1, SESSIONS + 1, equal_weight, LIMITS)
    r, b, rf = held.returns, equal.returns, tape.cash_rate[1:]
    peer = seconds(lambda: peer_draws(r, b, PEER_DRAWS)) * DRAWS / PEER_DRAWS
    draws = seconds(lambda: bootstrap_intervals(r, rf, b, stationary_indices(SESSIONS, 5, DRAWS, generator(1, "draws"))))
    print(f"evaluation {value:.2f} s, of which draws and intervals {draws:.2f} s; with empyrical draw by draw {peer:.2f} s")
    named = {"unit": "s", "peer": "empyrical on each draw of arch's bootstrap, without simulation and slices"}
    whole = {
        "name": "evaluation",
        "value": round(value, 3),
        "ratio": round(peer / value, 2),
        "goal": GOAL_SECONDS,
        "ok": value <= GOAL_SECONDS,
    }
    part = {"name": "bootstrap_intervals", "value": round(draws, 3), "ratio": round(peer / draws, 2), "goal": 2.0, "ok": draws <= 2.0}
    print(json.dumps([whole | named, part | named]))


if __name__ == "__main__":
    main()
