"""From files to verdicts: what is missing or contradicts fails closed, and the report says what judged and how well."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes.evaluation import eval_config, qualify_config, write_workspace

from quanto.core.chain import append, chain_bytes
from quanto.core.digest import digest_tree
from quanto.core.errors import ConfigError
from quanto.core.store import read_json, write_bytes, write_json
from quanto.stages.eval.stage import run as run_eval
from quanto.stages.qualify.assemble import assemble, data_faults, leak_facts, sealed_block
from quanto.stages.qualify.code import gate_digest, syntax
from quanto.stages.qualify.gate import evaluate
from quanto.stages.qualify.registry import GATES
from quanto.stages.qualify.report import challengers, noise_rate
from quanto.stages.qualify.stage import judge_workspace, read_files, run

WINDOW: dict[str, Any] = {
    "split__train_start": None, "split__train_end": None, "split__test_start": None, "split__holdout_fraction": 0.4, "stress": [],
    "constraints__max_weight": 0.4, "cost_factors": [1.0, 2.0],
}  # fmt: skip
REPORT = "reports/promotion/qualification_report.json"
CONSERVED = {"rows": 5, "outside_dates": 1, "selected": 3, "superseded": 1, "quarantined": 0}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qualify")
    write_workspace(folder)
    with ThreadPoolExecutor(1) as executor:
        run_eval(eval_config(**WINDOW), folder, executor)
    write_json(folder / "reports/features/leak_proof.json", {"passed": True, "sessions": 64, "mismatches": 0})
    write_json(folder / "reports/canonical/canonical_report.json", {"domains": {"equity_ohlcv": {"vendors": {"x": CONSERVED}}}})
    return folder


@pytest.fixture
def workspace(evaluated: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(evaluated / "reports", tmp_path / "reports")
    return tmp_path


def report_of(workspace: Path, **changes: Any) -> dict[str, Any]:
    with ThreadPoolExecutor(1) as executor:
        run(qualify_config(**changes), workspace, executor)
    found: Any = read_json(workspace / REPORT)
    return dict(found)


def status(report: dict[str, Any], name: str) -> str:
    return str(next(gate["status"] for gate in report["gates"] if gate["name"] == name))


def test_the_report_holds_every_gate_and_one_verdict_per_tier(workspace: Path) -> None:
    report = report_of(workspace)
    assert [gate["name"] for gate in report["gates"]] == list(GATES)
    assert list(report["verdicts"]) == ["candidate", "production", "research"]
    assert report["verdicts"]["research"]["decision"] == "promote"
    assert all(gate["reason"] for gate in report["gates"])
    assert report["trials"]["count"] == 1


def test_the_same_evidence_gives_the_same_bytes(workspace: Path) -> None:
    report_of(workspace)
    before = digest_tree(workspace / REPORT)
    report_of(workspace)
    assert digest_tree(workspace / REPORT) == before


@pytest.mark.parametrize(("missing", "gate"), [
    ("reports/features/leak_proof.json", "leak_proof_v1"),
    ("reports/canonical/canonical_report.json", "data_integrity_v1"),
    ("reports/evaluation/evaluation.json", "constraint_violations_v1"),
    ("reports/evaluation/evaluation.json", "same_conditions_v1"),
    ("reports/evaluation/trial.json", "finite_v1"),
])  # fmt: skip
@pytest.mark.parametrize("how", ["absent", "garbled"])
def test_a_missing_or_unreadable_report_fails_the_gate_that_needs_it(workspace: Path, missing: str, gate: str, how: str) -> None:
    (workspace / missing).unlink()
    if how == "garbled":
        write_bytes(workspace / missing, b"{")
    report = report_of(workspace)
    assert status(report, gate) == "failed"
    assert report["verdicts"]["candidate"]["decision"] == "reject"


def test_missing_labels_leave_too_little_turbulence(workspace: Path) -> None:
    (workspace / "reports/evaluation/regime_slices.json").unlink()
    assert status(report_of(workspace), "regime_exposure_v1") == "insufficient"


def test_looks_of_the_ledger_and_declared_ones_count(workspace: Path) -> None:
    own: Any = read_json(workspace / "reports/evaluation/trial.json")
    other = {**own, "trial_id": "other", "returns": [0.5 * value for value in own["returns"]]}
    write_bytes(workspace / "reports/ledger/snapshot.jsonl", chain_bytes([append((), "trial", other)]))
    assert report_of(workspace)["trials"]["count"] == 2
    assert report_of(workspace, prior_trials=5)["trials"]["count"] == 7


def test_a_broken_ledger_rejects(workspace: Path) -> None:
    write_bytes(workspace / "reports/ledger/snapshot.jsonl", b"{}\n")
    report = report_of(workspace)
    assert status(report, "complete_trials_v1") == "failed"
    assert report["verdicts"]["candidate"]["decision"] == "reject"


def test_the_candidate_can_be_held_against_any_baseline_of_the_registry(workspace: Path) -> None:
    report = report_of(workspace, baseline="trend_200_v1")
    assert report["baseline"] == "trend_200_v1"
    assert status(report, "same_conditions_v1") == "passed"
    with pytest.raises(ConfigError, match="Did you mean 'trend_200_v1'"):
        report_of(workspace, baseline="trend_20_v1")


def test_the_second_charge_of_an_unconfigured_baseline_is_its_cost_to_first_order(workspace: Path) -> None:
    evidence = assemble(read_files(workspace), qualify_config(baseline="momentum_12_1_v1"))
    assert evidence.doubled is not None
    table = pq.read_table(workspace / "reports/evaluation/returns.parquet").to_pandas()
    own = table[table["book"] == "momentum_12_1_v1"]
    before = np.concatenate([[1e6], own["nav"].to_numpy()[:-1]])
    assert evidence.doubled[1] == pytest.approx(own["return"].to_numpy() - own["cost"].to_numpy() / before)


def test_a_champion_must_be_there_to_be_compared_with(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"reports/champion/trial\.json is not there"):
        report_of(workspace, baseline="champion")


def test_a_champion_over_the_same_sessions_is_judged_against(workspace: Path) -> None:
    own: Any = read_json(workspace / "reports/evaluation/trial.json")
    write_json(workspace / "reports/champion/trial.json", own)
    report = report_of(workspace, baseline="champion")
    assert status(report, "same_conditions_v1") == "passed"
    assert status(report, "champion_alpha_inferiority_v1") == "passed"
    assert status(report, "edge_v1") == "failed"


def test_a_champion_over_other_sessions_fails_closed(workspace: Path) -> None:
    own: Any = read_json(workspace / "reports/evaluation/trial.json")
    write_json(workspace / "reports/champion/trial.json", {**own, "sessions": ["1999-01-04", *own["sessions"][1:]]})
    report = report_of(workspace)
    assert status(report, "finite_v1") == status(report, "same_conditions_v1") == "failed"


def test_a_selection_that_eval_did_not_run_on_is_missing_evidence(workspace: Path) -> None:
    assert status(report_of(workspace, selection="point_in_time"), "universe_v1") == "failed"


def test_only_a_production_request_knows_the_sealed_block_and_fresh_sessions(workspace: Path) -> None:
    own: Any = read_json(workspace / "reports/evaluation/trial.json")
    opening = {"policy": own["policy"], "sessions": 63, "violations": 0, "drawdown": -0.1, "p_inferior": 0.4}
    report = judge_workspace(qualify_config(), workspace, opening, 30)
    assert status(report, "sealed_block_v1") == status(report, "fresh_evidence_v1") == "passed"
    graph = report_of(workspace)
    assert status(graph, "sealed_block_v1") == status(graph, "fresh_evidence_v1") == "insufficient"
    assert sealed_block({**opening, "policy": "another"}, own) is None
    assert sealed_block({**opening, "drawdown": None}, own) is None


def test_calibrated_gates_say_how_often_noise_passes_and_others_say_nothing(workspace: Path) -> None:
    digest = gate_digest(qualify_config().thresholds)
    write_json(workspace / "reports/promotion/calibration.json", {digest: {"false_promotion_pooled": {"production": 0.03}}})
    known = report_of(workspace)
    assert known["calibrated"] is True
    assert known["noise_gets_this_tier"] == {"research": None, "candidate": None, "production": 0.03}
    other = report_of(workspace, thresholds__exposure_margin=0.06)
    assert other["calibrated"] is False
    assert other["noise_gets_this_tier"]["production"] is None
    assert noise_rate({"false_promotion_pooled": {"production": True}}, "production") is None


def test_the_gates_digest_ignores_words_and_sees_numbers() -> None:
    one = 'def f(x):\n    """Say."""\n    # why\n    return x < 1\n'
    assert syntax(one) == syntax('def f(x):\n\n    """Say it differently."""\n    return x < 1  # because\n')
    assert syntax(one) != syntax(one.replace("< 1", "<= 1"))
    assert syntax('class A:\n    """Only words."""\n') == syntax("class A:\n    pass\n")
    assert gate_digest(qualify_config().thresholds) != gate_digest(qualify_config(thresholds__seed_share=0.7).thresholds)


def test_the_report_says_what_would_have_done_as_well() -> None:
    tests = {"a": {"t_statistic": 2.0}, "b": {"t_statistic": -1.9}, "c": {"t_statistic": 0.3}, "d": {"t_statistic": None}, "matched_a": {}}
    rows = challengers({"comparisons": tests})
    words = {row["book"]: row["sentence"] for row in rows}
    assert "does not do as well" in str(words["a"])
    assert "does better" in str(words["b"])
    assert "does as well" in str(words["c"])
    assert "not defined" in str(words["d"])
    assert "matched_a" not in words


@pytest.mark.parametrize(("proof", "expected"), [
    ({"passed": True, "sessions": 64, "mismatches": 0}, (64, 0)),
    ({"passed": False, "sessions": 64, "mismatches": 0}, (64, 1)),
    ({"passed": "yes", "sessions": 64, "mismatches": 0}, (64, 1)),
    ({"passed": True, "sessions": "64", "mismatches": -1}, (None, None)),
    (None, (None, None)),
])  # fmt: skip
def test_a_leak_proof_is_read_word_for_word(proof: object, expected: tuple[int | None, int | None]) -> None:
    assert leak_facts(proof) == expected


@pytest.mark.parametrize(("counts", "faults"), [
    (CONSERVED, 0), ({**CONSERVED, "rows": 6}, 1), ({**CONSERVED, "superseded": None}, 1), ({}, 1), (None, 1),
])  # fmt: skip
def test_the_conservation_law_is_added_up_again(counts: object, faults: int) -> None:
    found = data_faults({"domains": {"equity_ohlcv": {"vendors": {"x": counts}}}})
    assert found is not None
    assert len(found) == faults


@pytest.mark.parametrize("report", [None, {}, {"domains": {}}, {"domains": {"equity_ohlcv": {}}}, []])
def test_a_canonical_report_that_says_nothing_is_missing(report: object) -> None:
    assert data_faults(report) is None


def test_a_candidate_that_eval_did_not_run_fails_the_finite_gate(workspace: Path) -> None:
    files = read_files(workspace)
    import dataclasses

    import pyarrow.compute as pc

    rest = files.returns.filter(pc.not_equal(files.returns["book"], "candidate"))
    evidence = assemble(dataclasses.replace(files, returns=rest), qualify_config())
    assert evaluate(GATES["finite_v1"], evidence, qualify_config().thresholds).status == "failed"
