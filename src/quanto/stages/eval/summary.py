"""From simulated books to the numbers of metrics.json and evaluation.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from quanto.core.rng import generator
from quanto.env.simulation import Simulation
from quanto.portfolio.activity import activity_metrics
from quanto.portfolio.attribution import Flows, attribute
from quanto.portfolio.bootstrap import block_length, bootstrap_intervals, intervals_as_rows, stationary_indices
from quanto.portfolio.metrics import return_metrics
from quanto.portfolio.series import SESSIONS_PER_YEAR
from quanto.portfolio.sharpe import minimum_track_record, probabilistic_sharpe, sharpe_moments
from quanto.portfolio.significance import alpha_test, detectable_ratio
from quanto.stages.eval.arena import Arena
from quanto.stages.eval.books import CANDIDATE, MATCHED, MEMBER, SABOTEUR, fills
from quanto.stages.eval.config import EvalConfig

FloatArray = npt.NDArray[np.float64]

# What `dvc metrics` shows of the candidate.
HEADLINES = ("annual_return", "annual_volatility", "sharpe", "sortino", "max_drawdown", "calmar", "cvar")


def book_numbers(arena: Arena, book: Simulation, baseline: Simulation) -> dict[str, object]:
    """Return the return and activity metrics of one book, as plain numbers."""
    performance = dataclasses.asdict(return_metrics(book.returns, arena.cash, baseline.returns))
    activity = dataclasses.asdict(activity_metrics(book.weights, book.turnover, fills(book)))
    return {**performance, **{name: value for name, value in activity.items() if name != "sessions"}}


def metrics(arena: Arena, books: Mapping[str, Simulation], config: EvalConfig) -> dict[str, object]:
    """Return the content of metrics.json: headline numbers, and the metrics of every book side by side.

    The books stand in a list, which `dvc metrics` leaves out of its table.
    """
    shown = {name: book for name, book in books.items() if not name.startswith(SABOTEUR)}
    rows = {name: book_numbers(arena, book, books[config.baseline]) for name, book in shown.items()}
    own, other = rows[CANDIDATE], rows[config.baseline]
    test = alpha_test(books[CANDIDATE].returns - arena.cash, books[config.baseline].returns - arena.cash)
    return {
        **{name: own[name] for name in HEADLINES},
        "turnover_annual": own["turnover_annual"],
        "exposure_mean": own["gross_mean"],
        "alpha": test.alpha,
        "alpha_t_statistic": test.t_statistic,
        "baseline_annual_return": other["annual_return"],
        "baseline_sharpe": other["sharpe"],
        "baseline_max_drawdown": other["max_drawdown"],
        "sessions": len(arena.sessions),
        "books": [{"book": name, **row} for name, row in rows.items()],
    }


def comparisons(arena: Arena, books: Mapping[str, Simulation]) -> dict[str, object]:
    """Return the alpha test of the candidate against every other book."""
    own = books[CANDIDATE].returns - arena.cash
    others = {name: book for name, book in books.items() if name != CANDIDATE and not name.startswith((SABOTEUR, MEMBER))}
    return {name: dataclasses.asdict(alpha_test(own, book.returns - arena.cash)) for name, book in others.items()}


def intervals(arena: Arena, books: Mapping[str, Simulation], config: EvalConfig) -> dict[str, object]:
    """Return bootstrap intervals of the candidate's metrics and of its differences to baseline and match."""
    own = books[CANDIDATE].returns
    out: dict[str, object] = {}
    for name in (config.baseline, f"{MATCHED}{config.baseline}"):
        other = books[name].returns
        block = block_length(own, other)
        draws = stationary_indices(len(own), block, config.bootstrap_draws, generator(config.seed, "intervals"))
        found = bootstrap_intervals(own, arena.cash, other, draws, config.interval_level)
        out[name] = {"block_sessions": block, "draws": config.bootstrap_draws, "intervals": intervals_as_rows(found)}
    return out


def sharpe_evidence(arena: Arena, book: Simulation) -> dict[str, object]:
    """Return PSR against zero, the minimum track record, and the information ratio that this window could detect."""
    moments = sharpe_moments(book.returns - arena.cash)
    detectable = {str(trials): detectable_ratio(len(book.returns), trials) if len(book.returns) >= 3 else None for trials in (1, 5, 20)}
    if moments is None:
        return {"moments": None, "probabilistic_sharpe": None, "minimum_track_record_sessions": None, "detectable_ratio": detectable}
    return {
        "moments": dataclasses.asdict(moments),
        "probabilistic_sharpe": probabilistic_sharpe(moments),
        "minimum_track_record_sessions": minimum_track_record(moments),
        "detectable_ratio": detectable,
    }


def attribution(arena: Arena, book: Simulation) -> dict[str, object]:
    """Return the candidate's change of NAV by symbol, year and leg."""
    flows = Flows(book.overnight, book.intraday, book.dividends, book.traded, book.cost, book.interest)
    return dataclasses.asdict(attribute(arena.sessions, arena.data.symbols, book.nav_before, book.nav, flows))


def cost_sensitivity(arena: Arena, runs: Mapping[float, tuple[Simulation, Simulation]]) -> dict[str, object]:
    """Return the candidate at each multiple of the costs, and where its growth advantage over the baseline is used up.

    Parameters
    ----------
    runs
        From the multiple to (candidate, baseline) at these costs.
    """
    rows: list[dict[str, object]] = []
    advantage: dict[float, float] = {}
    for factor, (own, other) in sorted(runs.items()):
        test = alpha_test(own.returns - arena.cash, other.returns - arena.cash)
        found = return_metrics(own.returns, arena.cash)
        advantage[factor] = float((np.log1p(own.returns) - np.log1p(other.returns)).mean() * SESSIONS_PER_YEAR)
        rows.append(
            {
                "factor": factor,
                "annual_return": found.annual_return,
                "sharpe": found.sharpe,
                "alpha": test.alpha,
                "alpha_t_statistic": test.t_statistic,
                "growth_advantage": advantage[factor],
            }
        )
    base = float(arena.window(arena.tape.linear_cost).mean())
    factor_out = break_even(advantage)
    return {
        "runs": rows,
        "break_even_factor": factor_out,
        "break_even_bps": None if factor_out is None else factor_out * base * 1e4,
        "linear_cost_bps": base * 1e4,
    }


def break_even(advantage: Mapping[float, float]) -> float | None:
    """Return the multiple of the costs at which the growth advantage is zero, by the line through the first two runs.

    None where there is no advantage without costs, or costs do not take it away.
    """
    factors = sorted(advantage)
    if len(factors) < 2:
        return None
    first, second = factors[0], factors[1]
    slope = (advantage[second] - advantage[first]) / (second - first)
    start = advantage[first] - slope * first
    return -start / slope if start > 0 and slope < 0 else None
