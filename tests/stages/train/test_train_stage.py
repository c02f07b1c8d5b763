"""The stage from tables to the artefact: the same files twice, with any executor, and clear errors for bad input."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date
from shutil import copytree

import numpy as np
import pyarrow as pa
import pytest
from fakes.training import quick_config, train_config

from quanto.core.digest import digest_tree
from quanto.core.errors import DataError, MissingDataError
from quanto.core.store import read_json, write_table
from quanto.market.calendar import as_date, sessions_between
from quanto.market.folds import fold_from
from quanto.market.schema import CANONICAL
from quanto.policy.artefact import YARDSTICK, load_policy
from quanto.stages.train import stage
from quanto.stages.train.folds import train_folds

SESSIONS = sessions_between(date(2001, 1, 2), date(2002, 6, 28))
SYMBOLS = ("AAA", "BBB", "CCC")


@pytest.fixture(autouse=True)
def _own_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))


def table(schema, rows):
    filled = [{field.name: row.get(field.name, _default(field)) for field in schema} for row in rows]
    return pa.Table.from_pylist(filled, schema=schema)


def _default(field):
    if field.nullable:
        return None
    return {"string": "x", "date32[day]": date(2001, 1, 1)}.get(str(field.type), 0)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Canonical tables and features of three names, with a split and a dividend."""
    root = tmp_path_factory.mktemp("workspace")
    rng = np.random.default_rng(0)
    shape = (len(SESSIONS), len(SYMBOLS))
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, shape), axis=0))
    opens = close * np.exp(rng.normal(0, 0.003, shape))
    bars, features = [], []
    for t, day in enumerate(SESSIONS):
        for i, symbol in enumerate(SYMBOLS):
            prices = {
                "open": opens[t, i],
                "high": max(opens[t, i], close[t, i]),
                "low": min(opens[t, i], close[t, i]),
                "close": close[t, i],
            }
            bars.append({"session": as_date(day), "symbol": symbol, "volume": 1e6, "known_on": as_date(day), **prices})
            values = {"return_1": rng.normal(), "volatility_21": rng.uniform(0.1, 0.5)}
            features.append({"session": as_date(day), "symbol": symbol, **values, "eligible": bool(t > 5 or i > 0)})
    actions = [
        {"symbol": "AAA", "ex_date": as_date(SESSIONS[100]), "kind": "cash_dividend", "cash_usd": 0.3},
        {"symbol": "BBB", "ex_date": as_date(SESSIONS[150]), "kind": "split", "ratio": 1.0},
    ]
    months = [date(2000, month, 28) for month in range(10, 13)] + [date(2001 + m // 12, m % 12 + 1, 28) for m in range(18)]
    bills = [{"session": day, "series": "TBILL_1M", "value": 0.003, "unit": "fraction_per_month", "known_on": day} for day in months]
    write_table(root / "data/canonical/equity_ohlcv/year=2001/part.parquet", table(CANONICAL["equity_ohlcv"], bars))
    write_table(root / "data/canonical/corporate_actions/year=2001/part.parquet", table(CANONICAL["corporate_actions"], actions))
    write_table(root / "data/canonical/index_level/year=2001/part.parquet", table(CANONICAL["index_level"], bills))
    write_table(root / "data/features/features.parquet", pa.Table.from_pylist(features))
    regime = [{"session": as_date(day), "index_volatility_21": rng.uniform(0.1, 0.5), "index_trend_20": rng.normal()} for day in SESSIONS]
    write_table(root / "data/features/regime.parquet", pa.Table.from_pylist(regime))
    return root


def outputs(root):
    return digest_tree(root / "models"), digest_tree(root / "reports/training")


def test_the_stage_writes_the_policy_and_its_curves_and_the_same_bytes_with_any_workers(workspace):
    config = quick_config()
    with ThreadPoolExecutor(1) as executor:
        stage.run(config, workspace, executor)
    first = outputs(workspace)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        stage.run(config, workspace, executor)
    assert outputs(workspace) == first
    policy = load_policy(workspace / "models")
    assert [member.seed for member in policy.spec.members] == [0, 1, 2]
    assert policy.scaler.asset_columns == ("return_1", "volatility_21")
    assert read_json(workspace / "reports/training/summary.json")["policy"] == policy.digest
    lines = (workspace / "reports/training/curves.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 8


def test_walk_forward_trains_a_policy_for_every_fold_on_its_own_past_alone(workspace, tmp_path):
    folds = {"train_sessions": 120, "test_sessions": 60, "purge_sessions": 1, "embargo_sessions": 2, "expanding": False}
    config = quick_config(split__train_end="2001-12-31", split__walk_forward=folds, seeds=[0, 1])
    workspace = copytree(workspace / "data", tmp_path / "own/data").parent
    with ThreadPoolExecutor(1) as executor:
        stage.run(config, workspace, executor)
    found = [fold_from(value) for value in read_json(workspace / "models/folds.json")]
    assert len(found) >= 3
    policies = [load_policy(workspace / "models" / f"fold-{fold.number:03d}") for fold in found]
    assert len({policy.digest for policy in policies}) == len(found)
    assert all(policy.spec.train_end < str(fold.test_start) for policy, fold in zip(policies, found, strict=True))
    assert not list((tmp_path / "root/checkpoints").glob("*")), "what is written needs no checkpoint"
    # What comes after a fold's train window changes nothing in its policy.
    data = stage.read_market(workspace, config.costs)
    after = int(data.sessions.searchsorted(np.datetime64(str(found[0].test_start))))
    data.features[after:] *= -2.0
    for array in (data.tape.close, data.tape.open):
        array[after:] *= 3.0
    with ThreadPoolExecutor(1) as executor:
        train_folds(config, config.split.walk_forward, data, tmp_path / "models", stage.source_digest(), executor)
    changed = [load_policy(tmp_path / "models" / f"fold-{fold.number:03d}") for fold in found]
    assert changed[0].digest == policies[0].digest
    assert changed[-1].digest != policies[-1].digest


def test_the_yardstick_is_trained_beside_with_the_same_network_and_seeds(workspace, tmp_path):
    tiny = {"learning_rate": {"start": 0.005, "end": 0.001}, "direct": {"windows": 8, "unroll_sessions": 4, "max_grad_norm": 0.5}}
    config = quick_config(yardstick=tiny, reward__variance_reduction="self_critical")
    workspace = copytree(workspace / "data", tmp_path / "own/data").parent
    with ThreadPoolExecutor(1) as executor:
        stage.run(config, workspace, executor)
    policy, yardstick = load_policy(workspace / "models"), load_policy(workspace / "models" / YARDSTICK)
    assert (policy.spec.algorithm, yardstick.spec.algorithm) == ("ppo", "direct")
    assert yardstick.spec.architecture == policy.spec.architecture
    assert [member.seed for member in yardstick.spec.members] == [0, 1, 2]


def test_the_policy_learns_nothing_from_the_test_window(workspace, tmp_path):
    config = quick_config(split__train_end="2001-12-31")
    with ThreadPoolExecutor(1) as executor:
        stage.run(config, workspace, executor)
    before = digest_tree(workspace / "models")
    data = stage.read_market(workspace, config.costs)
    start, _ = data.sessions.searchsorted(np.array(["2002-01-01", "2002-06-28"], dtype="datetime64[D]"))
    data.features[start:], data.market[start:] = 7.0, 7.0
    for array in (data.tape.close, data.tape.open):
        array[start:] *= 3.0
    plan = stage.plan_training(config, data, stage.source_digest())
    results = [stage.ALGORITHMS["ppo"].train(task) for task in plan.tasks]
    stage.save_policy(tmp_path / "models", stage.policy_spec(config, data, plan), {item.member: item.parameters for item in results})
    assert digest_tree(tmp_path / "models") == before


def test_missing_and_unfit_tables_are_one_clear_error(workspace, tmp_path):
    with ThreadPoolExecutor(1) as executor, pytest.raises(MissingDataError, match="run the stage"):
        stage.run(quick_config(), tmp_path, executor)
    data = workspace / "data/features/regime.parquet"
    regime = pa.Table.from_pylist([{"session": as_date(SESSIONS[0]), "index_volatility_21": 0.2}])
    kept = data.read_bytes()
    write_table(data, regime)
    try:
        with ThreadPoolExecutor(1) as executor, pytest.raises(DataError, match="both must be the same"):
            stage.run(quick_config(), workspace, executor)
    finally:
        data.write_bytes(kept)


@pytest.mark.parametrize("name", list(stage.ALGORITHMS))
def test_every_algorithm_trains_the_same_bytes_twice_into_a_policy_that_loads(workspace, tmp_path, name):
    tiny = {
        "ppo": {},
        "sac": {"sac__learning_starts": 64, "sac__batch_size": 32, "sac__buffer_size": 1000},
        "direct": {"direct__windows": 8, "direct__unroll_sessions": 4},
    }[name]
    preset = {"ppo": "default"}.get(name, name)
    small = {"timesteps": 512, "seeds": [0, 1], "episodes__books": 8, "shield__kind": "none", **tiny}
    if name == "ppo":
        small |= {"ppo__n_steps": 8, "ppo__batch_size": 32}
    config = train_config(preset, **small)
    with ThreadPoolExecutor(1) as executor:
        stage.run(config, workspace, executor)
        first = outputs(workspace)
        stage.run(config, workspace, executor)
    assert outputs(workspace) == first
    assert load_policy(workspace / "models").spec.algorithm == name
