"""Where books compete: one market, one window, one set of limits and costs for the candidate and everything beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.core.digest import digest_bytes, digest_value
from quanto.core.errors import ConfigError
from quanto.env.simulation import Decide, Simulation, simulate
from quanto.env.tape import Tape
from quanto.market.calendar import DateArray, as_date, sessions_between
from quanto.market.point_in_time import index_series
from quanto.market.regimes import LABELLERS, RegimeLabeller, RegimeLabels
from quanto.market.split import resolve_split
from quanto.policy.baselines import BaselineMarket, baseline_market, total_returns
from quanto.policy.market_data import MarketData
from quanto.portfolio.constraints import Limits
from quanto.stages.eval.config import EvalConfig

FloatArray = npt.NDArray[np.float64]

# For a book that no constraint may make sell.
UNLIMITED = Limits(1.0, 1.0, 0.0, 2.0)
UNIVERSE = "equal weight of the universe"


@dataclass(frozen=True)
class Arena:
    """Everything that all books of an evaluation share.

    Attributes
    ----------
    start, stop
        The test window on the session axis of `data`; the first decision follows the close of start-1.
    labels
        On the session axis of `data`, causal; `label_source` names the index they were made from.
    index_level
        Shape (n_sessions,): the market index at each close, NaN where unknown.
    """

    data: MarketData
    start: int
    stop: int
    limits: Limits
    size_at_open: bool
    labels: RegimeLabels
    label_source: str
    index_level: FloatArray
    baselines: BaselineMarket

    @property
    def tape(self) -> Tape:
        """The market as the simulator reads it."""
        return self.data.tape

    @property
    def sessions(self) -> DateArray:
        """The sessions of the window; shape (n,)."""
        return self.data.sessions[self.start : self.stop]

    @property
    def cash(self) -> FloatArray:
        """The return of cash on the window's sessions; shape (n,)."""
        return self.tape.cash_rate[self.start : self.stop]

    def window(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return the rows of the window."""
        return values[self.start : self.stop]

    def run(self, decide: Decide, exposure_cap: FloatArray | None = None, limits: Limits | None = None) -> Simulation:
        """Run one book through the window, from cash."""
        chosen = self.limits if limits is None else limits
        return simulate(self.tape, self.start, self.stop, decide, chosen, exposure_cap, size_at_open=self.size_at_open)

    def at_costs(self, factor: float) -> Arena:
        """Return the same arena with all costs times a factor (they are linear in it)."""
        tape = self.tape._replace(linear_cost=self.tape.linear_cost * factor, impact=self.tape.impact * factor)
        return replace(self, data=replace(self.data, tape=tape))

    def without(self, column: int) -> Arena:
        """Return the same arena in which one name is never eligible."""
        eligible = self.tape.eligible.copy()
        eligible[:, column] = False
        data = replace(self.data, tape=self.tape._replace(eligible=eligible), eligible=eligible)
        return replace(self, data=data, baselines=replace(self.baselines, eligible=eligible))

    def conditions(self) -> dict[str, str]:
        """Return the digests of what every book of a comparison must share."""
        tape = self.tape.window(self.start, self.stop)
        return {
            "sessions": digest_value([str(day) for day in self.sessions]),
            "costs": digest_value([digest_bytes(tape.linear_cost.tobytes()), digest_bytes(tape.impact.tobytes())]),
            "cash": digest_bytes(tape.cash_rate.tobytes()),
            # Known at the close before each open of the window.
            "eligibility": digest_bytes(np.ascontiguousarray(self.tape.eligible[self.start - 1 : self.stop - 1]).tobytes()),
            "sizing": "open" if self.size_at_open else "close",
        }


def build_arena(data: MarketData, index_level: pa.Table, config: EvalConfig) -> Arena:
    """Return the arena of an evaluation.

    Raises
    ------
    ConfigError
        If the test window has no session before it.
    """
    start, stop = resolve_split(data.sessions, config.split).test_range(data.sessions)
    if start < 1:
        raise ConfigError("split: the test window needs a session before it, after whose close the first decision falls; start it later")
    limits = config.constraints.limits()
    labeller = LABELLERS[config.labeller]
    level, history, source = _index(data, index_level, config.index_series)
    labels, volatility = _labels(data.sessions, *history, labeller)
    return Arena(
        data=data,
        start=start,
        stop=stop,
        limits=limits,
        size_at_open=config.sizing == "open",
        labels=labels,
        label_source=source,
        index_level=level,
        baselines=baseline_market(data.tape, data.sessions, limits, volatility),
    )


def _index(data: MarketData, table: pa.Table, series: str | None) -> tuple[FloatArray, tuple[DateArray, FloatArray], str]:
    """Return the index on the data's sessions, the same with all its history, and its name."""
    if series is not None and series in set(table["series"].to_pylist()):
        days = table.filter(pa.compute.equal(table["series"], series))["session"].to_numpy().astype("datetime64[D]")
        first, last = as_date(min(days.min(), data.sessions[0])), as_date(data.sessions[-1])
        sessions = sessions_between(first, last)
        # A value that came later than the evening of its session was not there to label by.
        timely = table.filter(pa.compute.less_equal(table["known_on"], table["session"]))
        level = index_series(timely, series, sessions)
        return level[np.isin(sessions, data.sessions)], (sessions, level), series
    returns = total_returns(data.tape)
    held = np.vstack([np.zeros((1, returns.shape[1]), dtype=bool), data.eligible[:-1]]) & np.isfinite(returns)
    count = held.sum(axis=1)
    mean = np.where(held, returns, 0.0).sum(axis=1) / np.maximum(count, 1)
    level = np.where(np.cumsum(count) > 0, np.cumprod(1 + mean), np.nan)
    return level, (data.sessions, level), UNIVERSE


def _labels(sessions: DateArray, all_sessions: DateArray, level: FloatArray, labeller: RegimeLabeller) -> tuple[RegimeLabels, FloatArray]:
    returns = np.full(len(level), np.nan)
    returns[1:] = level[1:] / level[:-1] - 1
    labels = labeller.label(returns)
    volatility = labeller.volatility(returns)
    rows = np.searchsorted(all_sessions, sessions)
    names = ("high", "known", "volatility", "enter_threshold", "exit_threshold")
    return RegimeLabels(**{name: getattr(labels, name)[rows] for name in names}), volatility[rows]
