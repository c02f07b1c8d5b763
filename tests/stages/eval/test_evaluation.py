"""The evaluation on a small market: complete, out of sample, the same twice, and every book under the same conditions."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fakes.evaluation import eval_config, make_data, make_policy, write_workspace

from quanto.core.digest import digest_tree
from quanto.core.errors import ConfigError, DataError
from quanto.core.store import read_json
from quanto.policy.baselines import BASELINES
from quanto.stages.eval.arena import UNIVERSE, build_arena
from quanto.stages.eval.books import CANDIDATE, check_book, policy_book, saboteur_books
from quanto.stages.eval.config import EvalConfig
from quanto.stages.eval.evaluation import evaluate
from quanto.stages.eval.stage import run
from quanto.stages.eval.summary import break_even
from quanto.stages.eval.trial import trial

WINDOW: dict[str, Any] = {
    "split__train_start": None,
    "split__train_end": None,
    "split__test_start": None,
    "split__holdout_fraction": 0.4,
    "constraints__max_weight": 0.4,
}
CONFIG = eval_config(**WINDOW)
BRIEF = {**WINDOW, "stress": [], "cost_factors": [1.0, 2.0]}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_workspace(folder)
    with ThreadPoolExecutor(1) as executor:
        run(CONFIG, folder, executor)
    return folder


def read(workspace: Path, name: str) -> Any:
    return read_json(workspace / "reports/evaluation" / name)


def test_every_declared_file_is_written(workspace: Path) -> None:
    names = {path.name for path in (workspace / "reports/evaluation").iterdir()}
    assert names == {
        "metrics.json", "evaluation.json", "regime_slices.json", "trial.json", "returns.parquet", "weights.parquet",
        "equity.csv", "drawdown.csv", "exposure.csv", "regimes.csv", "weights.csv",
    }  # fmt: skip


def test_the_plotted_weights_are_those_of_each_weeks_last_session_and_add_up_to_one(workspace: Path) -> None:
    drawn = pd.read_csv(workspace / "reports/evaluation/weights.csv", parse_dates=["session"]).pivot(
        index="session", columns="symbol", values="weight"
    )
    assert drawn.sum(axis=1).to_numpy() == pytest.approx(np.ones(len(drawn)))
    table = pq.read_table(workspace / "reports/evaluation/weights.parquet").to_pandas()
    own = table[table["book"] == CANDIDATE].assign(session=lambda rows: pd.to_datetime(rows["session"]))
    every = own.pivot(index="session", columns="symbol", values="weight")
    last = every.groupby(every.index.to_period("W-SUN")).tail(1)
    pd.testing.assert_frame_equal(drawn.drop(columns="cash")[list(last)], last, check_names=False, check_freq=False, check_index_type=False)


def test_the_plotted_regimes_are_those_of_the_slices(workspace: Path) -> None:
    drawn = pd.read_csv(workspace / "reports/evaluation/regimes.csv")
    slices = read(workspace, "regime_slices.json")["slices"]
    assert set(drawn["slice"]) == set(slices)
    assert set(drawn["book"]) == {CANDIDATE, CONFIG.baseline} | ({"candidate_unshielded"} & set(slices["all"]["books"]))
    for row in drawn.to_dict("records"):
        book = slices[row["slice"]]["books"][row["book"]]
        assert row["sessions"] == slices[row["slice"]]["sessions"]
        if book.get("annual_return") is None:
            assert math.isnan(row["annual_return"])
        else:
            assert row["annual_return"] == book["annual_return"]


def test_the_same_evaluation_gives_the_same_bytes(workspace: Path) -> None:
    before = digest_tree(workspace / "reports/evaluation")
    with ThreadPoolExecutor(2) as executor:
        run(CONFIG, workspace, executor)
    assert digest_tree(workspace / "reports/evaluation") == before


def test_the_window_is_the_test_window_and_starts_in_cash(workspace: Path) -> None:
    trial = read(workspace, "trial.json")
    assert len(trial["sessions"]) == 280
    assert trial["exposure"][0] > 0.5
    weights = pq.read_table(workspace / "reports/evaluation/weights.parquet")
    assert weights["session"][0].as_py().isoformat() == trial["sessions"][0]
    returns = pq.read_table(workspace / "reports/evaluation/returns.parquet")
    first = returns.filter(pc.equal(returns["book"], CANDIDATE)).slice(0, 1)
    assert first["nav"][0].as_py() == pytest.approx(1e6 * (1 + trial["returns"][0]))


def test_all_books_stand_beside_the_candidate(workspace: Path) -> None:
    books = {row["book"] for row in read(workspace, "metrics.json")["books"]}
    assert set(BASELINES) < books
    assert {"candidate", "candidate_unshielded", "member_0", "member_1", "member_2", "matched_equal_weight_v1"} < books
    assert not any(name.startswith("saboteur") for name in books)


def test_the_matched_baseline_holds_the_candidates_mean_exposure(workspace: Path) -> None:
    rows = {row["book"]: row for row in read(workspace, "metrics.json")["books"]}
    assert rows["matched_equal_weight_v1"]["gross_mean"] == pytest.approx(rows["candidate"]["gross_mean"], abs=2e-3)


def test_headlines_are_few_and_agree_with_the_candidates_row(workspace: Path) -> None:
    metrics = read(workspace, "metrics.json")
    own = next(row for row in metrics["books"] if row["book"] == "candidate")
    assert metrics["sharpe"] == own["sharpe"]
    assert metrics["max_drawdown"] == own["max_drawdown"]
    assert len([value for value in metrics.values() if isinstance(value, float | int)]) <= 20


def test_all_books_ran_under_the_same_conditions(workspace: Path) -> None:
    conditions = read(workspace, "evaluation.json")["conditions"]
    assert len({tuple(sorted(item.items())) for item in conditions.values()}) == 1
    assert conditions["candidate"] == read(workspace, "trial.json")["conditions"]


def test_contributions_add_up_to_the_change_of_nav(workspace: Path) -> None:
    found = read(workspace, "evaluation.json")["attribution"]
    assert sum(found["total"].values()) == pytest.approx(found["nav_after"] - found["nav_before"], rel=1e-9)
    for leg in ("overnight", "intraday", "dividend", "cost"):
        assert sum(item[leg] for item in found["symbols"].values()) == pytest.approx(found["total"][leg], abs=1e-4)
        assert sum(item["legs"][leg] for item in found["years"].values()) == pytest.approx(found["total"][leg], abs=1e-4)


def test_dearer_trading_never_pays(workspace: Path) -> None:
    runs = read(workspace, "evaluation.json")["costs"]["runs"]
    returns = [run["annual_return"] for run in runs]
    assert [run["factor"] for run in runs] == [0.0, 0.5, 1.0, 2.0]
    assert returns == sorted(returns, reverse=True)


def test_the_curves_can_be_plotted(workspace: Path) -> None:
    equity = pyarrow.csv.read_csv(workspace / "reports/evaluation/equity.csv")
    assert equity.column_names[:2] == ["session", "candidate"]
    assert len(equity) == 280
    drawdown = pyarrow.csv.read_csv(workspace / "reports/evaluation/drawdown.csv")
    assert pc.max(drawdown["candidate"]).as_py() <= 0
    worst = pc.min(drawdown["candidate"]).as_py()
    assert worst == pytest.approx(read(workspace, "metrics.json")["max_drawdown"])


def test_a_trial_is_named_by_parameters_data_and_sessions(workspace: Path, tmp_path: Path) -> None:
    data, index = make_data()
    policy = make_policy(tmp_path, data)
    own = evaluate(policy, data, index, CONFIG, {"a": "1"}).trial
    assert read(workspace, "trial.json")["returns"] == own["returns"]
    arena = build_arena(data, index, CONFIG)
    book, other = policy_book(arena, policy), policy_book(arena, policy.without_shield())
    assert trial(arena, policy, CONFIG, {"a": "1"}, other, other)["trial_id"] == own["trial_id"]
    shorter = eval_config(**{**WINDOW, "split__holdout_fraction": 0.41})
    others = [
        trial(arena, policy, CONFIG, {"a": "2"}, book, book),
        trial(arena, policy, eval_config(**{**WINDOW, "costs__commission_bps": 2.0}), {"a": "1"}, book, book),
        trial(build_arena(data, index, shorter), policy, shorter, {"a": "1"}, book, book),
    ]
    assert len({own["trial_id"], *(item["trial_id"] for item in others)}) == 4


def test_a_changed_future_changes_nothing_before_it(tmp_path: Path) -> None:
    data, index = make_data()
    policy = make_policy(tmp_path, data)
    arena = build_arena(data, index, CONFIG)
    tape = data.tape
    later = {name: np.concatenate([getattr(tape, name)[:600], 1.3 * getattr(tape, name)[600:]]) for name in ("open", "close")}
    changed = replace(arena, data=replace(data, tape=tape._replace(**later)))
    own, other = policy_book(arena, policy).returns, policy_book(changed, policy).returns
    row = 600 - arena.start
    assert np.array_equal(own[:row], other[:row])
    assert own[row] != other[row]


def test_the_candidates_decisions_are_checked_apart_from_the_code_that_makes_them(tmp_path: Path) -> None:
    data, index = make_data()
    arena = build_arena(data, index, CONFIG)
    book = policy_book(arena, make_policy(tmp_path, data))
    caps = np.ones(len(data.sessions))
    assert check_book(arena, book, caps).violations == 0
    book.targets[5, 0] = 0.7
    book.targets[6, 1] = np.nan
    found = check_book(arena, book, caps)
    assert found.violations >= 2
    assert found.first_violation is not None
    assert str(arena.sessions[4]) in found.first_violation


def test_the_harmful_books_keep_every_limit_and_do_harm(tmp_path: Path) -> None:
    data, index = make_data()
    arena = build_arena(data, index, CONFIG)
    books = saboteur_books(arena)
    for book in books.values():
        assert check_book(arena, book, np.ones(len(data.sessions))).violations == 0
    assert books["saboteur_ruinous"].nav[-1] < 0.2 * books["saboteur_unmoved"].nav[-1]
    assert books["saboteur_reckless"].returns.std() > 1.2 * books["saboteur_unmoved"].returns.std()


def test_an_edge_of_same_bar_execution_dies_when_signals_come_late(tmp_path: Path) -> None:
    """Features that hold the return that is about to happen: a fortune in place, nothing one session late."""
    data, index = make_data(3)
    policy = make_policy(tmp_path, data, shield="none")
    after = np.zeros(data.tape.close.shape)
    bought = data.tape.open[1:-1]
    after[:-2] = np.where(bought > 0, data.tape.open[2:] * data.tape.split[2:] / np.where(bought > 0, bought, 1.0) - 1, 0.0)
    features = data.features.copy()
    features[..., 0] = 60 * after
    weight, bias = policy.networks.actor[0]
    first = np.zeros_like(weight)
    first[:, 0, :] = 1.0
    rest = [(np.ones_like(w), np.zeros_like(b)) for w, b in policy.networks.actor[1:]]
    clever = replace(policy, networks=replace(policy.networks, actor=((first, np.zeros_like(bias)), *rest)))
    found = evaluate(
        clever, replace(data, features=features), index, eval_config(**{**BRIEF, "stress": ["lagged_signals", "permuted_symbols"]}), {}
    ).evaluation["stress"]
    assert found["unstressed"]["alpha_t_statistic"] > 5  # type: ignore[index]
    assert found["lagged_signals"]["alpha_t_statistic"] < 2.5  # type: ignore[index]
    assert found["permuted_symbols"]["alpha_t_statistic"] < 2.5  # type: ignore[index]


def test_without_an_index_the_universe_labels_the_sessions(tmp_path: Path) -> None:
    data, index = make_data()
    bills = index.filter(pc.equal(index["series"], "TBILL_1M"))
    arena = build_arena(data, bills, CONFIG)
    assert arena.label_source == UNIVERSE
    assert arena.labels.known[arena.start :].any()


def test_an_index_value_that_came_late_labels_nothing(tmp_path: Path) -> None:
    data, index = make_data()
    late = pc.and_(
        pc.equal(index["series"], "SPX"), pc.greater(index["session"], pa.scalar(data.sessions[500].astype(object), pa.date32()))
    )
    known = pc.if_else(late, pa.scalar(data.sessions[-1].astype(object), pa.date32()), index["known_on"])
    moved = index.set_column(index.column_names.index("known_on"), index.schema.field("known_on"), known)
    assert not build_arena(data, moved, CONFIG).labels.known[530:].any()


@pytest.mark.parametrize(("advantage", "expected"), [
    ({0.0: 0.04, 0.5: 0.03, 1.0: 0.02}, 2.0), ({0.0: -0.01, 1.0: -0.02}, None), ({0.0: 0.01, 1.0: 0.02}, None), ({1.0: 0.01}, None),
])  # fmt: skip
def test_the_break_even_is_where_costs_eat_the_advantage(advantage: dict[float, float], expected: float | None) -> None:
    assert break_even(advantage) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("changes", "message"), [
    ({"baseline": "equal_wieght_v1"}, "Did you mean 'equal_weight_v1'"),
    ({"baseline": "cash_v1"}, "no mix"),
    ({"labeller": "hindsight"}, "no regime labeller"),
    ({"cost_factors": [0.0, 1.0]}, "hold 1 and 2"),
    ({"cost_factors": [-1.0, 1.0, 2.0]}, "0 or above"),
    ({"sizing": "vwap"}, "sizing"),
    ({"stress": ["astrology"]}, "stress"),
])  # fmt: skip
def test_a_configuration_that_cannot_be_run_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        eval_config(**changes)


def test_a_window_without_a_session_before_it_is_refused() -> None:
    data, index = make_data()
    config: EvalConfig = eval_config(**{**WINDOW, "split__train_start": None, "split__test_start": None})
    arena = build_arena(data, index, config)
    assert arena.start == 420


def test_other_symbols_than_the_policys_are_refused(tmp_path: Path) -> None:
    data, index = make_data()
    policy = make_policy(tmp_path, data)
    other, _ = make_data(symbols=3)
    with pytest.raises(DataError, match="trained on"):
        evaluate(policy, other, index, CONFIG, {})
