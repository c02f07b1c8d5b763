"""The shadow stage on a small market: equal to evaluation, blocked without promotion, the same twice, explained with frictions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes.evaluation import eval_config, feature_tables, write_workspace
from fakes.shadow import WINDOW, shadow_config

from quanto.core.digest import digest_tree
from quanto.core.errors import ConfigError, ExecutionError, IntegrityError
from quanto.core.store import read_json, read_table, write_json, write_table
from quanto.execution.attribution import CAUSES
from quanto.execution.engine import observation_faults
from quanto.execution.journal import read_journal
from quanto.execution.stress import SCENARIOS, Scenario
from quanto.market.schema import CANONICAL
from quanto.policy.artefact import Policy, load_policy
from quanto.policy.decision import decide, prepare
from quanto.stages.eval.arena import build_arena
from quanto.stages.shadow.shadowing import build_stand
from quanto.stages.shadow.stage import read_market, replay_into, run
from quanto.stages.shadow.stress import stress_replays


def promote(folder: Path, judged: Policy, **changes: Any) -> None:
    record = {"eligible_tiers": ["research", "candidate"], "policy": judged.digest}
    write_json(folder / "reports/promotion/promotion_record.json", {**record, **changes})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shadow")
    policy = write_workspace(folder)
    path = folder / "data/features/regime.parquet"
    regime = read_table(path)
    rows = np.arange(len(regime))
    labels = [None if row < 5 else bool(row % 60 < 20) for row in rows.tolist()]
    write_table(path, regime.append_column("high_volatility", [labels]))
    promote(folder, policy)
    return folder


@pytest.fixture(scope="module")
def finished(workspace: Path) -> Path:
    with ThreadPoolExecutor(1) as executor:
        run(shadow_config(), workspace, executor)
    return workspace


def metrics_of(folder: Path) -> dict[str, Any]:
    value: Any = read_json(folder / "metrics.json")
    return value


def test_shadow_has_the_nav_of_evaluation_on_every_session(finished: Path) -> None:
    shared = {key.replace(".", "__"): value for key, value in WINDOW.items() if not key.startswith("execution")}
    config = eval_config(**shared)
    data, tables, _ = read_market(shadow_config(), finished)
    arena = build_arena(data, tables["index_level"], config)
    policy = load_policy(finished / "models")
    prepared = prepare(policy, data)
    candidate = arena.run(lambda t, weights, drawdown: decide(policy, prepared, t, weights, drawdown), prepared.exposure_cap)
    sessions = pq.read_table(finished / "reports/shadow/sessions.parquet")
    np.testing.assert_allclose(sessions["nav"].to_numpy(), candidate.nav, rtol=1e-9)
    assert [str(day) for day in sessions["session"].to_pylist()] == [str(day) for day in arena.sessions]
    assert (data.tape.split[arena.start : arena.stop] != 1).any()
    assert (data.tape.dividend[arena.start : arena.stop] > 0).any()


def test_the_evidence_is_complete_and_its_parts_add_up(finished: Path) -> None:
    metrics = metrics_of(finished / "reports/shadow")
    assert metrics["status"] == "complete"
    assert metrics["orders_submitted"] > 100
    assert metrics["fill_rate"] == 1.0
    assert metrics["slippage_mean_bps"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["parity"]["max_relative_difference"] < 1e-9
    assert metrics["observations_that_differ"] == []
    for name in ("sessions", "orders", "orders_filled", "orders_submitted", "fees_usd", "dividends_usd"):
        assert sum(part[name] for part in metrics["regimes"].values()) == pytest.approx(metrics[name])
    assert set(metrics["regimes"]) == {"high_volatility", "other"}


def test_the_journal_is_sealed_by_the_metrics(finished: Path) -> None:
    metrics = metrics_of(finished / "reports/shadow")
    path = finished / "reports/shadow/journal.jsonl"
    assert sum(1 for _ in read_journal(path, metrics["journal"]["head"])) == metrics["journal"]["events"]


def test_what_the_policy_knew_that_day_can_be_asked_later(finished: Path) -> None:
    data, tables, _ = read_market(shadow_config(), finished)
    stand = build_stand(load_policy(finished / "models"), data, tables, shadow_config())
    events = list(read_journal(finished / "reports/shadow/journal.jsonl"))
    assert observation_faults(events, stand.feed, stand.strategy) == []
    days = [event["decided_on"] for event in events if event["kind"] == "decision"]
    known = stand.strategy.observation
    other = replace(stand.strategy, observation=lambda t: known(t) + b"x" if str(data.sessions[t]) == days[7] else known(t))
    sessions = [event["session"] for event in events if event["kind"] == "decision"]
    assert observation_faults(events, stand.feed, other) == [sessions[7]]


def test_two_runs_leave_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    replay_into(tmp_path / "again", shadow_config(), finished)
    assert digest_tree(tmp_path / "again") == digest_tree(finished / "reports/shadow")


def test_a_cut_journal_is_continued_and_a_changed_one_is_refused(finished: Path, tmp_path: Path) -> None:
    content = (finished / "reports/shadow/journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(content[: len(content) * 2 // 3])
    replay_into(tmp_path, shadow_config(), finished)
    assert digest_tree(tmp_path) == digest_tree(finished / "reports/shadow")
    changed = bytearray(content)
    changed[len(content) // 3] ^= 1
    (tmp_path / "journal.jsonl").write_bytes(bytes(changed))
    with pytest.raises(IntegrityError, match=r"line \d+"):
        replay_into(tmp_path, shadow_config(), finished)
    replay_into(tmp_path, shadow_config(), finished, reset=True)
    assert digest_tree(tmp_path) == digest_tree(finished / "reports/shadow")


def test_a_journal_of_other_terms_is_not_continued(finished: Path, tmp_path: Path) -> None:
    content = (finished / "reports/shadow/journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(content[: len(content) // 2])
    for changes in (
        {"nav_usd": 5e5},
        {"risk__max_beta": 1.5},
        {"orders__minimum_notional_usd": 1.0},
        {"broker__fee_bps": 1.0},
        {"seed": 8},
    ):
        with pytest.raises(ExecutionError, match="other terms"):
            replay_into(tmp_path, shadow_config(**changes), finished)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"eligible_tiers": ["research"]}, "eligible for research, not for candidate"),
        ({"eligible_tiers": []}, "no tier"),
        ({"eligible_tiers": None}, "no list eligible_tiers"),
        ({"policy": "0" * 64}, "judges policy 0000"),
    ],
)
def test_without_promotion_the_stage_says_why_and_replays_nothing(workspace: Path, record: dict[str, Any], words: str) -> None:
    policy = load_policy(workspace / "models")
    promote(workspace, policy, **record)
    try:
        out = workspace / "blocked"
        metrics = replay_into(out, shadow_config(), workspace)
    finally:
        promote(workspace, policy)
    assert metrics["status"] == "blocked"
    assert words in str(metrics["reason"])
    assert (out / "journal.jsonl").read_bytes() == b""
    assert pq.read_table(out / "sessions.parquet").num_rows == 0
    assert metrics["orders_submitted"] == 0


def test_with_frictions_the_whole_difference_has_named_causes(workspace: Path, tmp_path: Path) -> None:
    tables = read_table(workspace / "data/canonical/equity_ohlcv", CANONICAL["equity_ohlcv"])
    days = sorted(set(tables["session"].to_pylist()))
    config = shadow_config(
        "frictions",
        late_sessions=[str(days[-100]), str(days[-50])],
        broker__reject_rate=0.05,
        broker__volume_share=0.0005,
        risk__max_order_notional_usd=20_000.0,
        risk__reduce_only_drawdown=0.05,
        risk__halt_drawdown=0.9,
        nav_usd=1_000_003.0,
    )
    metrics = replay_into(tmp_path, config, workspace)
    parity: Any = metrics["parity"]
    causes = parity["attribution_usd"]
    assert list(causes) == ["engine", *CAUSES]
    assert abs(causes["engine"]) < 1e-3
    assert sum(causes.values()) == pytest.approx(parity["difference_usd"], abs=1e-6)
    assert abs(parity["attribution_residual_usd"]) < 1e-9
    assert {name for name, value in causes.items() if value != 0.0} >= set(CAUSES) - {"buying_power"}
    assert metrics["sessions_missed"] == 2
    assert all(metrics[name] for name in ("orders_rejected", "orders_partially_filled", "limits_hit"))
    assert float(str(metrics["slippage_mean_bps"])) == pytest.approx(2.0, rel=0.05)
    assert 0.0 < float(str(metrics["fill_rate"])) < 1.0


def test_nothing_submitted_is_no_evidence(workspace: Path, tmp_path: Path) -> None:
    days = sorted(set(read_table(workspace / "data/features/regime.parquet")["session"].to_pylist()))[-3:]
    config = shadow_config(start_date=str(days[0]), late_sessions=[str(day) for day in days])
    metrics = replay_into(tmp_path, config, workspace)
    assert metrics["status"] == "no_evidence"
    assert (metrics["fill_rate"], metrics["reject_rate"], metrics["slippage_mean_bps"]) == (None, None, None)
    assert metrics["sessions_missed"] == 3


def test_a_halt_is_the_status(workspace: Path, tmp_path: Path) -> None:
    metrics = replay_into(tmp_path, shadow_config(risk__reduce_only_drawdown=0.01, risk__halt_drawdown=0.02), workspace)
    assert metrics["status"] == "halted"
    halts: Any = metrics["halts"]
    assert len(halts) == 1
    assert "drawdown" in halts[0]
    events = list(read_journal(tmp_path / "journal.jsonl"))
    after = events[next(index for index, event in enumerate(events) if event["kind"] == "halt") :]
    assert not [event for event in after if event["kind"] in ("orders", "fills")]


def test_stress_stands_in_the_evidence(finished: Path) -> None:
    stress = metrics_of(finished / "reports/shadow")["stress"]
    assert sum(window["sessions"] for window in stress["historical_windows"]) == metrics_of(finished / "reports/shadow")["sessions"]
    assert {item["shock"] for item in stress["instant_shocks"]} == {"market_gap_0.05", "market_gap_0.1", "market_gap_0.2", "name_gap_0.5"}
    assert isinstance(stress["passed"], bool)


def test_shocked_markets_are_decided_on_features_computed_anew(workspace: Path) -> None:
    built: list[Path] = []

    def build_features(place: Path) -> None:
        tables = {
            name: read_table(place / "data/canonical" / name, CANONICAL[name])
            for name in ("equity_ohlcv", "corporate_actions", "index_level")
        }
        features, regime = feature_tables(tables)
        write_table(place / "data/features/features.parquet", features)
        write_table(place / "data/features/regime.parquet", regime)
        built.append(place)

    before = digest_tree(workspace / "data")
    calm = stress_replays(
        shadow_config(), workspace, build_features, {"none": Scenario("none", "Nothing.", lambda closes, _: np.ones(closes.shape))}
    )
    found = stress_replays(shadow_config(), workspace, build_features, {name: SCENARIOS[name] for name in ("gap_20_v1", "name_gap_50_v1")})
    assert len(built) == 3
    assert digest_tree(workspace / "data") == before
    crash: Any = found["gap_20_v1"]
    quiet: Any = calm["none"]
    assert crash["worst_session_return"] < quiet["worst_session_return"] - 0.05
    assert crash["max_drawdown"] < quiet["max_drawdown"]
    assert crash["orders_submitted"] > 0
    assert crash["passed"] is (crash["worst_session_return"] >= -0.2 and crash["max_drawdown"] >= -0.6)
    assert found["name_gap_50_v1"]["worst_session_return"] != quiet["worst_session_return"]  # type: ignore[index]  # a mapping


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start_date": "2001-01-02"}, "before the test window"),
        ({"start_date": "2030-01-02"}, "no session"),
        ({"late_sessions": ["2001-01-03"]}, "no sessions of the replay"),
    ],
)
def test_dates_outside_the_test_window_are_refused(workspace: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replay_into(tmp_path, shadow_config(**changes), workspace)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"broker__whole_shares": True}, "whole_shares"),
        ({"broker__slippage_bps": 3.0}, "worst_case_slippage_bps"),
        ({"start_date": "2005-01-03", "end_date": "2004-01-05"}, "lies before start_date"),
        ({"late_sessions": ["2004-01-06", "2004-01-05"]}, "must ascend"),
        ({"risk__max_name_weight": 2.0}, "max_name_weight"),
        ({"broker__slipage_bps": 3.0}, "unknown key"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        shadow_config(**changes)


def test_dates_of_the_configuration_limit_the_replay(workspace: Path, tmp_path: Path) -> None:
    days = sorted(set(read_table(workspace / "data/features/regime.parquet")["session"].to_pylist()))
    first, last = days[-60], days[-20]
    metrics = replay_into(tmp_path, shadow_config(start_date=str(first), end_date=str(last)), workspace)
    assert (metrics["first_session"], metrics["last_session"]) == (str(first), str(last))
    assert isinstance(first, date)
