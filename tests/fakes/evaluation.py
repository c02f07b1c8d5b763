"""A seeded market with splits, dividends, a listing and regimes, a policy with random networks, and the stages' sections."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from fakes.training import train_config
from omegaconf import OmegaConf

from quanto.core.config import Section, load_section
from quanto.core.store import write_table
from quanto.market.calendar import sessions_between
from quanto.market.schema import CANONICAL, DATE_COLUMN
from quanto.policy.artefact import Policy, save_policy
from quanto.policy.market_data import MarketData, market_data
from quanto.policy.network import Sizes, layer_shapes
from quanto.policy.observation import fit_scaler
from quanto.stages.eval.config import EvalConfig
from quanto.stages.qualify.config import QualifyConfig

ROOT = Path(__file__).parents[2]
ASSET_COLUMNS = ("return_1", "volatility_21")
MARKET_COLUMNS = ("index_volatility_21", "index_trend_20")
LINEAGE = {"vendor": "test", "vendors_seen": "test", "method": "only", "flags": "", "payload": "0" * 64, "payload_row": 0}
HISTORY = 420


def section(name: str, kind: type[Section], **changes: Any) -> Any:
    """Return the composed section of a stage; `changes` are dotted keys with `__` for the dot."""
    base = OmegaConf.create(yaml.safe_load((ROOT / "conf/config.yaml").read_text()))
    base.universe = OmegaConf.load(ROOT / "conf/universe/hindsight.yaml")
    base.execution = OmegaConf.load(ROOT / "conf/execution/risk.yaml")
    for group in ("features", "eval", "qualify", "promote"):
        base[group] = OmegaConf.load(ROOT / f"conf/{group}/default.yaml")
    for key, value in changes.items():
        dotted = key.replace("__", ".")
        shared = dotted.split(".")[0] in ("split", "costs", "constraints", "universe")
        OmegaConf.update(base, dotted if shared else f"{name}.{dotted}", value)
    resolved: Any = OmegaConf.to_container(base, resolve=True)
    return load_section(name, resolved[name], kind)


def eval_config(**changes: Any) -> EvalConfig:
    """Return the section `eval`, with few draws."""
    config: EvalConfig = section("eval", EvalConfig, **{"bootstrap_draws": 100, **changes})
    return config


def qualify_config(**changes: Any) -> QualifyConfig:
    """Return the section `qualify`, with few draws."""
    config: QualifyConfig = section("qualify", QualifyConfig, **{"thresholds__bootstrap_draws": 200, **changes})
    return config


def canonical_tables(seed: int = 0, sessions: int = 700, symbols: int = 4) -> dict[str, pa.Table]:
    """Return bars, actions and index levels; the index has 420 sessions more of history."""
    rng = np.random.default_rng(seed)
    days = sessions_between(date(2000, 1, 3), date(2012, 12, 31))[: HISTORY + sessions]
    wild = (np.arange(len(days)) // 45) % 4 == 3
    market = np.where(wild, 0.025, 0.008) * rng.standard_normal(len(days)) + 3e-4
    index = 1000 * np.exp(np.cumsum(market))
    own, names = days[HISTORY:].astype(object), [f"S{number}" for number in range(symbols)]
    steps = market[HISTORY:, None] + 0.012 * rng.standard_normal((sessions, symbols))
    close = 40 * np.exp(np.cumsum(steps, axis=0))
    open_ = close * np.exp(0.004 * rng.standard_normal(close.shape))
    splits = {(sessions // 2, 0): 2.0, (sessions - 40, 1): 0.5}
    ratio = np.ones_like(close)
    for (row, column), value in splits.items():
        ratio[row:, column] *= value
    bars = [
        {
            "session": own[row], "symbol": names[column], "known_on": own[row], **LINEAGE, "volume": 1e6,
            "open": open_[row, column] / ratio[row, column], "close": close[row, column] / ratio[row, column],
            "high": max(open_[row, column], close[row, column]) / ratio[row, column],
            "low": min(open_[row, column], close[row, column]) / ratio[row, column],
        }
        for row in range(sessions) for column in range(symbols) if not (column == symbols - 1 and row < 100)
    ]  # fmt: skip
    actions = [
        {"symbol": names[column], "ex_date": own[row], "kind": "split", "ratio": value, "known_on": own[row], **LINEAGE}
        for (row, column), value in splits.items()
    ]
    actions += [
        {"symbol": names[0], "ex_date": own[row], "kind": "cash_dividend", "cash_usd": 0.25, "known_on": own[row], **LINEAGE}
        for row in range(30, sessions, 63)
    ]
    levels = [
        {"session": day, "series": "SPX", "value": float(value), "unit": "level", "known_on": day, **LINEAGE}
        for day, value in zip(days.astype(object), index, strict=True)
    ]
    months = sorted({(day.year, day.month) for day in days.astype(object)})
    bill = {"series": "TBILL_1M", "value": 0.002, "unit": "fraction_per_month", **LINEAGE}
    ends = [date(year, month, 28) for year, month in [(1999, 12), *months]]
    levels += [{**bill, "session": day, "known_on": day} for day in ends]
    rows = {"equity_ohlcv": bars, "corporate_actions": actions, "index_level": levels}
    return {name: pa.Table.from_pylist(part, schema=CANONICAL[name]) for name, part in rows.items()}


def feature_tables(tables: dict[str, pa.Table], seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """Return random features with an honest index volatility; the last name becomes eligible 20 sessions after its listing."""
    rng = np.random.default_rng([seed, 1])
    bars = tables["equity_ohlcv"]
    days = np.unique(bars["session"].to_numpy()).astype("datetime64[D]")
    names = sorted(set(bars["symbol"].to_pylist()))
    keys = [(day, name) for day in days for name in names]
    listed = {name: row for row, name in reversed(list(zip(range(len(bars)), bars["symbol"].to_pylist(), strict=True)))}
    first = {name: bars["session"][row].as_py() for name, row in listed.items()}
    ready = {name: np.busday_offset(first[name], 20, roll="forward") for name in names}
    eligible = [bool(np.datetime64(day) >= ready[name]) for day, name in keys]
    values = rng.normal(size=(len(keys), len(ASSET_COLUMNS)))
    features = pa.table({
        "session": pa.array(np.array([day for day, _ in keys])), "symbol": [name for _, name in keys],
        **{name: values[:, column] for column, name in enumerate(ASSET_COLUMNS)}, "eligible": eligible,
    })  # fmt: skip
    spx = tables["index_level"].filter(pa.compute.equal(tables["index_level"]["series"], "SPX"))
    level, sessions = spx["value"].to_numpy(), spx["session"].to_numpy()
    returns = level[1:] / level[:-1] - 1
    volatility = np.array([returns[max(0, row - 20) : row + 1].std() for row in range(len(returns))]) * np.sqrt(252)
    regime = pa.table({
        "session": pa.array(days), "index_volatility_21": volatility[np.isin(sessions[1:], days)],
        "index_trend_20": rng.normal(size=len(days)),
    })  # fmt: skip
    return features, regime


def make_data(seed: int = 0, sessions: int = 700, symbols: int = 4) -> tuple[MarketData, pa.Table]:
    """Return market data and the index levels behind it."""
    tables = canonical_tables(seed, sessions, symbols)
    bars, actions, index_level = tables.values()
    features, regime = feature_tables(tables, seed)
    return market_data(bars, actions, index_level, features, regime, eval_config().costs), index_level


def make_policy(folder: Path, data: MarketData, seed: int = 0, shield: str = "volatility_target", members: int = 3) -> Policy:
    """Write and return a policy whose per-asset networks are random: far from equal weight, without any skill."""
    stop = len(data.sessions) // 2
    scaler = fit_scaler(data.features[:stop], data.market[:stop], data.eligible[:stop], data.asset_columns, data.market_columns, 5.0)
    symbols = len(data.symbols)
    config = train_config(policy="PerAssetPolicy")
    architecture, action_map = config.architecture, config.action_map
    sizes = Sizes(symbols, len(data.asset_columns), len(data.market_columns), action_map.size(symbols))
    spec = {
        "algorithm": "ppo",
        "architecture": architecture.model_dump(mode="json"),
        "action_map": action_map.model_dump(mode="json"),
        "observation": {"feature_set": "test", "regime_feature_set": "test", "symbols": list(data.symbols), "scaler": scaler.to_dict()},
        "shield": {"kind": shield, "target_volatility": 0.25, "column": "index_volatility_21"},
        "constraints": eval_config().constraints.model_dump(mode="json"),
        "train_start": str(data.sessions[0]),
        "train_end": str(data.sessions[stop - 1]),
        "training": {"seed": seed, "members": members, "yardstick": None},
    }
    rng = np.random.default_rng([seed, 2])
    shapes = layer_shapes(architecture, sizes)
    parameters = {m: {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for m in range(members)}
    return save_policy(folder, spec, parameters)


def write_workspace(folder: Path, seed: int = 0, sessions: int = 700, **policy: Any) -> Policy:
    """Write canonical tables, features, a policy and the reports that qualify reads, as the stages before eval do."""
    tables = canonical_tables(seed, sessions)
    for name, table in tables.items():
        years = np.array([day.year for day in table[DATE_COLUMN[name]].to_pylist()])
        for year in np.unique(years):
            write_table(folder / "data/canonical" / name / f"year={year}" / "part.parquet", table.filter(pa.array(years == year)))
    features, regime = feature_tables(tables, seed)
    write_table(folder / "data/features/features.parquet", features)
    write_table(folder / "data/features/regime.parquet", regime)
    bars, actions, index_level = tables.values()
    return make_policy(folder / "models", market_data(bars, actions, index_level, features, regime, eval_config().costs), seed, **policy)
