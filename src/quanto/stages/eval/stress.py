"""Stress on the evaluation: late signals, wrong names, shifted labels, one name less. Side by side, nothing is hidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quanto.env.simulation import Simulation
from quanto.policy.artefact import Policy
from quanto.policy.baselines import BASELINES
from quanto.policy.decision import Prepared, prepare
from quanto.portfolio.metrics import return_metrics
from quanto.portfolio.significance import alpha_test
from quanto.stages.eval.arena import Arena
from quanto.stages.eval.books import CANDIDATE, MATCHED, baseline_book, lagged, permuted, policy_book
from quanto.stages.eval.config import EvalConfig
from quanto.stages.eval.slices import arena_masks, record, slice_numbers


def stress(arena: Arena, policy: Policy, config: EvalConfig, books: Mapping[str, Simulation]) -> dict[str, object]:
    """Return every configured stress beside the unstressed candidate."""
    baseline = books[config.baseline]
    out: dict[str, object] = {"unstressed": numbers(arena, books[CANDIDATE], baseline)}
    for name in config.stress:
        out[name] = _STRESSES[name](arena, policy, config, books)
    return out


def numbers(arena: Arena, book: Simulation, baseline: Simulation) -> dict[str, object]:
    """Return the few numbers by which stressed books are compared."""
    found = return_metrics(book.returns, arena.cash)
    test = alpha_test(book.returns - arena.cash, baseline.returns - arena.cash)
    return {
        "annual_return": found.annual_return,
        "sharpe": found.sharpe,
        "max_drawdown": found.max_drawdown,
        "alpha": test.alpha,
        "alpha_t_statistic": test.t_statistic,
        "exposure_mean": float(book.exposure.mean()),
    }


def _reshaped(
    change: Callable[[Prepared], Prepared],
) -> Callable[[Arena, Policy, EvalConfig, Mapping[str, Simulation]], dict[str, object]]:
    def run(arena: Arena, policy: Policy, config: EvalConfig, books: Mapping[str, Simulation]) -> dict[str, object]:
        book = policy_book(arena, policy, change(prepare(policy, arena.data)))
        return numbers(arena, book, books[config.baseline])

    return run


def _leave_one_out(arena: Arena, policy: Policy, config: EvalConfig, _books: Mapping[str, Simulation]) -> dict[str, object]:
    out: dict[str, object] = {}
    for column, symbol in enumerate(arena.data.symbols):
        rest = arena.without(column)
        out[symbol] = numbers(rest, policy_book(rest, policy), baseline_book(rest, BASELINES[config.baseline]))
    return out


def _shifted_labels(arena: Arena, _policy: Policy, config: EvalConfig, books: Mapping[str, Simulation]) -> dict[str, object]:
    """Return the high-volatility slice with labels one session early, in place, and one session late."""
    own, other = record(books[CANDIDATE]), record(books[f"{MATCHED}{config.baseline}"])
    return {
        name: {
            book: slice_numbers(row, other, arena.cash, arena_masks(arena, shift)["high_volatility"])
            for book, row in (("candidate", own), ("matched", other))
        }
        for name, shift in (("one_early", -1), ("in_place", 0), ("one_late", 1))
    }


_STRESSES: dict[str, Callable[[Arena, Policy, EvalConfig, Mapping[str, Simulation]], dict[str, object]]] = {
    "lagged_signals": _reshaped(lagged),
    "permuted_symbols": _reshaped(permuted),
    "leave_one_out": _leave_one_out,
    "shifted_labels": _shifted_labels,
}
