"""How often the gates are wrong: every tier on worlds without an edge, and the power to find a planted one.

What runs here is `judge`, the same function that the qualify stage calls, on thousands of drawn records. The result
belongs to one digest of gate code and thresholds; promotion refuses any other.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor, Future, as_completed
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from quanto.core.errors import DataError, IntegrityError
from quanto.core.registry import Registry
from quanto.core.rng import generator
from quanto.market.panel import build_panel
from quanto.portfolio.significance import alpha_test_power
from quanto.stages.qualify.code import gate_digest
from quanto.stages.qualify.config import Thresholds
from quanto.stages.qualify.gate import TIERS
from quanto.stages.qualify.verdict import judge
from quanto.stages.qualify.worlds import FAMILIES, HISTORY, NOTHING, Planting, draw_world, record

FloatArray = npt.NDArray[np.float64]
# (world, family, sessions, trials, what was counted)
Where = tuple[str, str, int, int, str]

NULL = "null"

TRIALS = (1, 5, 20)
NULL_SESSIONS = 756
POWER_SESSIONS = (500, 1000)
POWER_TRIALS = 20
# Planted edges pay costs, noise does not (which makes its rates upper bounds).
COST = 5e-4
RATIO = 2.0


@dataclass(frozen=True)
class Planted:
    """A kind of planted world: which family, and whose edge."""

    name: str
    family: str
    planting: Planting


PLANTED: Registry[Planted] = Registry(
    "planted world",
    # The hardest case: 19 looks at nothing beside the one that has the edge, which asks.
    Planted("one_of_unrelated", "garch", Planting(RATIO, everywhere=False, cost=COST)),
    # A policy class with an edge, seen through variants of one idea, as sweeps make them; the best asks.
    Planted("variants_of_one_idea", "near_copies", Planting(RATIO, everywhere=True, cost=COST)),
)
# Markets of one task: large enough that its overhead does not count, small enough to share out.
BLOCK = 50
EDGE = "edge_v1"

ASSUMPTIONS = (
    "the record is in order (limits, leak proof, ledger, point-in-time universe): only returns are judged",
    "the sealed block raises no veto and fresh sessions exist, so production rates are upper bounds",
    "of K trials the one with the highest alpha asks; noise pays no costs; trials cut exposure in labelled high volatility",
)


@dataclass(frozen=True)
class Block:
    """One task: the markets first..last-1 of one family, judged for each number of trials."""

    family: str
    sessions: int
    trials: tuple[int, ...]
    first: int
    last: int
    world: str
    planting: Planting
    thresholds: Thresholds
    real: FloatArray
    seed: int

    @property
    def key(self) -> str:
        """What an error names."""
        return f"{self.family}, markets {self.first} to {self.last - 1}"


@dataclass(frozen=True)
class Cell:
    """The counts of one cell: markets judged, promoted and left open by tier, and edge tests passed."""

    world: str
    family: str
    sessions: int
    trials: int
    markets: int
    promoted: dict[str, int]
    insufficient: dict[str, int]
    edge_passed: int

    def row(self) -> dict[str, object]:
        """Return the cell with its rates as a JSON value."""
        rates = {tier: count / self.markets for tier, count in self.promoted.items()}
        return {**asdict(self), "rate": rates, "edge_rate": self.edge_passed / self.markets}


def calibrate_gates(
    thresholds: Thresholds, real: FloatArray, executor: Executor, markets: int = 2000, power_markets: int = 1000, seed: int = 7
) -> dict[str, object]:
    """Return the operating characteristics of the gates, keyed by their digest: the content to merge into calibration.json.

    Parameters
    ----------
    real
        Shape (n_sessions, n_names): session returns of the canonical data in excess of cash, no NaN.
    markets, power_markets
        Drawn per null family, and per planted cell.

    Raises
    ------
    DataError
        If the real returns are too few or not finite.
    IntegrityError
        If the gates' code changed under the measurement.
    """
    if len(real) < HISTORY or not np.isfinite(real).all():
        raise DataError(f"calibration needs {HISTORY} or more sessions of finite canonical returns; found shape {real.shape}")
    nulls = [
        Block(name, NULL_SESSIONS, TRIALS, first, last, NULL, NOTHING, thresholds, real, seed)
        for name in FAMILIES
        for first, last in _ranges(markets)
    ]
    planted = [
        Block(item.family, sessions, (POWER_TRIALS,), first, last, item.name, item.planting, thresholds, real, seed)
        for item in PLANTED.values()
        for sessions in POWER_SESSIONS
        for first, last in _ranges(power_markets)
    ]
    digest = gate_digest(thresholds)
    counts = _run([*nulls, *planted], executor)
    if gate_digest(thresholds) != digest:
        raise IntegrityError("the gates' code changed while they were measured; the result belongs to neither version. Run it again")
    cells = [_cell(counts, NULL, name, NULL_SESSIONS, trials) for name in FAMILIES for trials in TRIALS]
    power = [_cell(counts, item.name, item.family, sessions, POWER_TRIALS) for item in PLANTED.values() for sessions in POWER_SESSIONS]
    return {
        digest: {
            "false_promotion": [cell.row() for cell in cells],
            "false_promotion_pooled": _pooled(cells),
            "false_promotion_by_trials": {str(trials): _pooled([cell for cell in cells if cell.trials == trials]) for trials in TRIALS},
            "power": [cell.row() for cell in power],
            "power_information_ratio": RATIO,
            "power_of_test_a_in_theory": {
                str(sessions): alpha_test_power(RATIO, sessions, POWER_TRIALS, thresholds.evidence_level) for sessions in POWER_SESSIONS
            },
            "level": thresholds.evidence_level,
            "seed": seed,
            "assumptions": list(ASSUMPTIONS),
        }
    }


def measure(block: Block) -> dict[Where, int]:
    """Return how often each tier was promoted and the edge test passed, by cell."""
    counts: Counter[Where] = Counter()
    family = FAMILIES[block.family]
    for market in range(block.first, block.last):
        rng = generator(block.seed, "calibration", block.family, block.sessions, block.world, market)
        world = draw_world(family, block.sessions, max(block.trials), rng, block.real)
        for trials in block.trials:
            judgement = judge(record(world, trials, block.thresholds, block.seed, block.planting), block.thresholds)
            where = (block.world, block.family, block.sessions, trials)
            counts[*where, "markets"] += 1
            for verdict in judgement.verdicts:
                counts[*where, verdict.tier] += verdict.decision == "promote"
                counts[*where, f"insufficient_{verdict.tier}"] += verdict.decision == "insufficient evidence"
            counts[*where, EDGE] += any(result.name == EDGE and result.status == "passed" for result in judgement.results)
    return dict(counts)


def canonical_returns(bars: pa.Table, actions: pa.Table) -> FloatArray:
    """Return session returns of the canonical data with splits and dividends, on the sessions where every name has one.

    Shape (n_sessions, n_names).
    """
    symbols = sorted(set(bars["symbol"].to_pylist()))
    sessions = np.unique(bars["session"].to_numpy().astype("datetime64[D]"))
    panel = build_panel(bars, actions, sessions, symbols)
    value = panel.close[1:] * panel.split[1:] + panel.dividend_usd[1:]
    returns = value / panel.close[:-1] - 1
    return np.asarray(returns[np.isfinite(returns).all(axis=1)])


def _ranges(markets: int) -> list[tuple[int, int]]:
    return [(first, min(first + BLOCK, markets)) for first in range(0, markets, BLOCK)]


def _run(blocks: list[Block], executor: Executor) -> Counter[Where]:
    futures: list[Future[dict[Where, int]]] = [executor.submit(measure, block) for block in blocks]
    done: Iterable[Future[dict[Where, int]]] = as_completed(futures)
    total: Counter[Where] = Counter()
    # Sums do not depend on the order in which tasks end.
    for future in tqdm(done, total=len(futures), desc="calibrate gates", disable=not sys.stderr.isatty()):
        total.update(future.result())
    return total


def _cell(counts: Counter[Where], world: str, family: str, sessions: int, trials: int) -> Cell:
    where = (world, family, sessions, trials)
    return Cell(
        world=world,
        family=family,
        sessions=sessions,
        trials=trials,
        markets=counts[*where, "markets"],
        promoted={tier: counts[*where, tier] for tier in TIERS},
        insufficient={tier: counts[*where, f"insufficient_{tier}"] for tier in TIERS},
        edge_passed=counts[*where, EDGE],
    )


def _pooled(cells: list[Cell]) -> dict[str, float]:
    markets = sum(cell.markets for cell in cells)
    return {tier: sum(cell.promoted[tier] for cell in cells) / markets for tier in TIERS}
