"""Replays of a workspace's policy on shocked markets: prices, features, decisions and orders are all computed anew.

The features of a shocked market come from `build_features`, which is given a workspace with the shocked canonical
tables and writes `data/features/` there: stages do not import each other, so whoever calls this hands in the feature
stage.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.core.store import read_table, write_table
from quanto.execution.evidence import session_rows, summarise
from quanto.execution.journal import Journal
from quanto.execution.stress import SCENARIOS, Scenario, window_losses
from quanto.market.calendar import DateArray
from quanto.market.panel import pivot
from quanto.market.point_in_time import index_series
from quanto.market.schema import PRICES
from quanto.policy.artefact import load_policy
from quanto.stages.shadow.config import ShadowConfig
from quanto.stages.shadow.shadowing import build_stand
from quanto.stages.shadow.stage import read_market

FloatArray = npt.NDArray[np.float64]

# Where in the replayed window a shock begins: late enough that the account holds something, early enough to see what follows.
START = 0.25


def stress_replays(
    config: ShadowConfig,
    workspace: Path,
    build_features: Callable[[Path], None],
    scenarios: Mapping[str, Scenario] = SCENARIOS,
) -> dict[str, object]:
    """Return, per scenario, what the replay of the shocked market lost, and whether the gates of `config.stress` hold."""
    return {name: _replay_shocked(config, workspace, build_features, scenario) for name, scenario in scenarios.items()}


def _replay_shocked(config: ShadowConfig, workspace: Path, build_features: Callable[[Path], None], scenario: Scenario) -> dict[str, object]:
    policy = load_policy(workspace / "models")
    data, tables, _ = read_market(config, workspace)
    plan = build_stand(policy, data, tables, config).setting.plan
    start = plan.start + int((plan.stop - plan.start) * START)
    with TemporaryDirectory() as name:
        place = Path(name)
        shutil.copytree(workspace / "data/canonical", place / "data/canonical")
        _shock(place, scenario, config.index_series, data.sessions, data.symbols, start)
        build_features(place)
        shocked, shocked_tables, _ = read_market(config, place)
    stand = build_stand(policy, shocked, shocked_tables, config)
    journal = Journal(None)
    book = stand.run(stand.setting, journal)
    rows = session_rows(journal.replay(), stand.feed)
    evidence = summarise(rows)
    shown = ("orders_submitted", "orders_denied", "fill_rate", "limits_hit", "sessions_halted")
    return {
        "scenario": scenario.sentence,
        "begins": str(data.sessions[start]),
        **window_losses(rows, config.stress),
        **{name: evidence[name] for name in shown},
        "halted": book.halted,
    }


def _shock(place: Path, scenario: Scenario, series: str | None, sessions: DateArray, symbols: tuple[str, ...], start: int) -> None:
    """Multiply the canonical prices below `place` by a scenario's factors, the index with them."""
    bars, levels = (read_table(place / "data/canonical" / name) for name in ("equity_ohlcv", "index_level"))
    index = np.ones(len(sessions)) if series is None else index_series(levels, series, sessions)
    closes = np.column_stack([pivot(bars, "close", sessions, symbols), index])
    factors = scenario.factors(np.nan_to_num(closes), start)
    lookup = {(day, symbol): factors[row, column] for row, day in enumerate(sessions.tolist()) for column, symbol in enumerate(symbols)}
    scale = np.array([lookup.get(key, 1.0) for key in zip(bars["session"].to_pylist(), bars["symbol"].to_pylist(), strict=True)])
    for name in PRICES:
        bars = bars.set_column(bars.column_names.index(name), bars.schema.field(name), pa.array(bars[name].to_numpy() * scale))
    by_day = dict(zip(sessions.tolist(), factors[:, -1].tolist(), strict=True))
    last = max(by_day)
    keys = zip(levels["session"].to_pylist(), levels["series"].to_pylist(), strict=True)
    moved = np.array([by_day.get(day, by_day[last] if day > last else 1.0) if name == series else 1.0 for day, name in keys])
    values = pa.array(levels["value"].to_numpy() * moved)
    levels = levels.set_column(levels.column_names.index("value"), levels.schema.field("value"), values)
    for name, table in (("equity_ohlcv", bars), ("index_level", levels)):
        folder = place / "data/canonical" / name
        shutil.rmtree(folder)
        write_table(folder / "part.parquet", table)
