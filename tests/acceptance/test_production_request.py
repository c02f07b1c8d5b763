"""From a candidate with a sealed block to production: what is refused before the block is opened, and what opening it spends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fakes.desk import Desk, calibrated, prepare

pytestmark = pytest.mark.acceptance

CANDIDATE, PRODUCTION = "policy#candidate#2", "policy#production#3"
EXPERIMENT = """# @package _global_
defaults:
  - planted_edge
  - override /universe: point_in_time
  - _self_
name: planted_production
split:
  sealed_sessions: 126
"""


def request(desk: Desk, check: bool = True, reason: str = "evidence, fresh sessions, sealed block"):  # a finished process
    return desk.quanto("promote-experiment", "--experiment-id", CANDIDATE, "--tier", "production", "--reason", reason, check=check)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose candidate passes all evidence gates; branch `newer` holds the same market some months on."""
    folder = tmp_path_factory.mktemp("production") / "desk"
    folder.mkdir()
    desk = prepare(folder, "planted_edge")
    (desk.clone / "conf/experiment/planted_production.yaml").write_text(EXPERIMENT)
    members = "".join(f"listed,{name * 3},1999-01-04,\n" for name in "ABCDEF")
    (desk.clone / "conf/reference/members.csv").write_text(f"universe,symbol,start,end\n{members}")
    for path, old, new in (
        ("conf/data_sources.yaml", "membership_files: []", "membership_files: [conf/reference/members.csv]"),
        ("conf/config.yaml", "experiment: planted_edge", "experiment: planted_production"),
    ):
        file = desk.clone / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    desk.quanto("params")
    calibrated(desk)
    desk.dvc("repro")
    desk.quanto("ledger", "seal")
    desk.dvc("repro")
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "a candidate with a sealed block")
    for tier in ("research", "candidate"):
        desk.quanto("promote-experiment", "--experiment-id", "HEAD", "--tier", tier, "--reason", "gates passed")
    desk.git("checkout", "-q", "-b", "newer")
    experiment = desk.clone / "conf/experiment/planted_edge.yaml"
    experiment.write_text(experiment.read_text().replace('end_date: "2012-12-31"', 'end_date: "2013-04-30"'))
    desk.quanto("params")
    desk.dvc("repro", "features")
    desk.git("add", "-A")
    desk.git("commit", "-q", "-m", "newer sessions")
    desk.git("checkout", "-q", "-")
    desk.dvc("checkout")
    return desk


def test_without_fresh_sessions_the_block_stays_shut(candidate: Desk) -> None:
    done = request(candidate, check=False)
    assert done.returncode == 1
    assert "fresh_evidence_v1: 0 shadow or paper sessions newer" in done.stderr
    unsigned = candidate.quanto(
        "promote-experiment", "--experiment-id", CANDIDATE, "--tier", "production", "--reason", "r", "--unsigned", check=False
    )
    assert "production is never promoted unsigned" in unsigned.stderr
    assert not (candidate.clone / "reports/promotion/sealed").exists()
    assert '"kind":"opening"' not in (candidate.root / "ledger/ledger.jsonl").read_text()


def test_a_replay_on_newer_data_takes_only_sessions_that_the_candidate_never_had(candidate: Desk) -> None:
    early = candidate.quanto(
        "run-shadow", "--experiment-id", CANDIDATE, "--replay", "--data", "newer", "--start-date", "2012-11-01", check=False
    )
    assert early.returncode == 1
    assert "the policy has seen it" in early.stderr
    done = candidate.quanto("run-shadow", "--experiment-id", CANDIDATE, "--replay", "--data", "newer", "--json")
    assert json.loads(done.stdout)["first_session"] > "2012-12-31"


def test_a_block_that_another_policy_opened_is_spent(candidate: Desk, tmp_path: Path) -> None:
    other = candidate.copy(tmp_path / "other")
    program = "from quanto.runtime.ledger import record_opening; record_opening('f' * 64, 'e' * 64, '2012-09-03', '2012-12-31')"
    other.run(sys.executable, "-c", program)
    done = request(other, check=False)
    assert done.returncode == 1
    assert "was opened for policy ffffffffffff" in done.stderr
    assert "is spent" in done.stderr


def test_production_opens_the_block_once_and_anyone_verifies_the_judgement(candidate: Desk, tmp_path: Path) -> None:
    desk = candidate.copy(tmp_path / "requested")
    assert "commit reports/promotion/sealed/" in request(desk).stdout
    (record,) = (desk.clone / "reports/promotion/sealed").glob("*.json")
    opened = json.loads(record.read_text())
    assert (opened["sessions"], opened["last_session"]) == (126, "2012-12-31")
    ledger = (desk.root / "ledger/ledger.jsonl").read_text()
    assert ledger.count('"kind":"opening"') == 1
    assert ledger.index('"kind":"opening"') < ledger.index('"sealed":true'), "the opening is recorded before anything is seen"
    assert "nothing changed" in request(desk).stdout
    assert request(desk, check=False, reason="another").returncode == 1
    done = desk.verify(PRODUCTION)
    assert done.returncode == 0, done.stdout
    assert "sealed block and fresh sessions, judged again" in done.stdout
