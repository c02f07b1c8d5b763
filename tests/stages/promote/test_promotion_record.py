"""The record: eligible only where verdict, lower tier and calibration agree; and a card whose claims name their evidence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.evaluation import ROOT, section
from hypothesis import given
from hypothesis import strategies as st

from quanto.core.digest import digest_tree, digest_value
from quanto.core.errors import DataError, MissingDataError
from quanto.core.store import read_json, write_json
from quanto.stages.promote.card import model_card
from quanto.stages.promote.config import PromoteConfig
from quanto.stages.promote.record import promotion_record
from quanto.stages.promote.stage import run

POLICY = {"train_start": "2000-06-01", "train_end": "2006-12-29", "members": [{}, {}], "observation": {"feature_set": "core_v1_regime"}}
DECISIONS = ("promote", "reject", "insufficient evidence")


def report(
    research: str = "promote", candidate: str = "promote", production: str = "insufficient evidence", **changes: Any
) -> dict[str, Any]:
    verdicts = {"research": research, "candidate": candidate, "production": production}
    return {
        "policy": digest_value(POLICY),
        "trial_id": "t" * 64,
        "selection": "hindsight",
        "calibrated": True,
        "gate_digest": "g" * 64,
        "verdicts": {
            tier: {"decision": decision, "reasons": [f"{tier} why"] * (decision != "promote")} for tier, decision in verdicts.items()
        },
        "noise_gets_this_tier": {"research": None, "candidate": 0.9, "production": 0.031},
        **changes,
    }


def record(value: dict[str, Any]) -> dict[str, Any]:
    return promotion_record(value, {"models": "m" * 64}, digest_value(POLICY), "r" * 64)


def test_a_promoted_candidate_is_eligible_for_both_graph_tiers_and_never_for_production() -> None:
    found = record(report(production="promote"))
    assert found["eligible_tiers"] == ["research", "candidate"]
    assert found["verdicts"]["production"] == "promote"
    assert found["risk_policy"] == "r" * 64


@given(research=st.sampled_from(DECISIONS), candidate=st.sampled_from(DECISIONS), calibrated=st.booleans())
def test_only_promote_promotes_and_no_tier_stands_without_the_one_before(research: str, candidate: str, calibrated: bool) -> None:
    found = record(report(research, candidate, calibrated=calibrated))
    assert ("research" in found["eligible_tiers"]) == (research == "promote")
    assert ("candidate" in found["eligible_tiers"]) == (research == candidate == "promote" and calibrated)


def test_uncalibrated_gates_block_every_tier_above_research_and_say_so() -> None:
    found = record(report(calibrated="yes"))
    assert found["eligible_tiers"] == ["research"]
    assert "calibrate-gates" in found["blocked_by"][0]


def test_a_report_on_another_policy_is_refused() -> None:
    with pytest.raises(DataError, match="judges policy other"):
        record(report(policy="other"))


@pytest.mark.parametrize(
    "verdicts",
    [None, {}, {"research": {"decision": "promote"}}, {tier: {"decision": "yes"} for tier in ("research", "candidate", "production")}],
)
def test_a_report_without_a_verdict_is_refused(verdicts: object) -> None:
    with pytest.raises(DataError, match="no verdict for tier"):
        record(report(verdicts=verdicts))


def test_no_commit_tag_reason_time_or_person_is_in_the_record() -> None:
    assert set(record(report())) == {
        "schema_version", "policy", "risk_policy", "trial_id", "selection", "verdicts", "reasons", "eligible_tiers", "blocked_by",
        "gate_digest", "calibrated", "subjects",
    }  # fmt: skip


def write_inputs(folder: Path, value: dict[str, Any]) -> None:
    write_json(folder / "models/policy.json", POLICY)
    write_json(folder / "reports/promotion/qualification_report.json", value)
    write_json(folder / "reports/evaluation/metrics.json", {"books": [{"book": "candidate", "sharpe": 0.5}, {"book": "member_0"}]})
    write_json(folder / "reports/evaluation/evaluation.json", {"symbols": ["A", "B"]})


def config() -> PromoteConfig:
    found: PromoteConfig = section("promote", PromoteConfig)
    return found


@pytest.mark.parametrize("candidate", DECISIONS)
def test_the_stage_writes_record_and_card_whatever_the_verdict(tmp_path: Path, candidate: str) -> None:
    write_inputs(tmp_path, report(candidate=candidate))
    with ThreadPoolExecutor(1) as executor:
        run(config(), tmp_path, executor)
        before = digest_tree(tmp_path / "reports/promotion")
        run(config(), tmp_path, executor)
    assert digest_tree(tmp_path / "reports/promotion") == before
    found: Any = read_json(tmp_path / "reports/promotion/promotion_record.json")
    assert found["subjects"]["models"] == digest_tree(tmp_path / "models")
    card = (tmp_path / "reports/promotion/MODEL_CARD.md").read_text()
    assert f"| candidate | {candidate} | 90.0% |" in card
    assert found["subjects"]["reports/evaluation/metrics.json"][:12] in card


def test_a_missing_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"qualification_report\.json"), ThreadPoolExecutor(1) as executor:
        run(config(), tmp_path, executor)


def test_the_card_carries_the_banner_only_where_the_universe_was_chosen_with_hindsight() -> None:
    value = report()
    card = model_card("For tests.", record(value), value, {}, {}, POLICY)
    assert "Hindsight universe" in card
    assert "not measured" in card
    fair = report(selection="point_in_time")
    assert "Hindsight universe" not in model_card("For tests.", record(fair), fair, {}, {}, POLICY)


def test_every_section_of_the_card_names_its_evidence() -> None:
    value = report()
    sections = model_card("For tests.", record(value), value, {"books": []}, {}, POLICY).split("\n## ")[1:]
    assert all("[" in part and "]" in part for part in sections if not part.startswith("Evidence"))


def test_every_leaf_of_the_group_has_a_comment_above_it() -> None:
    for group in ("eval", "qualify", "promote"):
        lines = (ROOT / f"conf/{group}/default.yaml").read_text().splitlines()
        leaves = [
            row for row, line in enumerate(lines) if ":" in line and not line.strip().startswith("#") and not line.rstrip().endswith(":")
        ]
        assert all(lines[row - 1].strip().startswith("#") for row in leaves), group
        assert yaml.safe_load((ROOT / f"conf/{group}/default.yaml").read_text())
