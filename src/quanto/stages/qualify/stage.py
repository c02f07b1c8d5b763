"""Read what eval, features, canonical and the ledger say, judge it, write the report."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

from quanto.core.digest import JsonValue
from quanto.core.errors import DataError
from quanto.core.store import read_json, read_table, write_json
from quanto.stages.qualify.assemble import Files, assemble
from quanto.stages.qualify.config import QualifyConfig
from quanto.stages.qualify.ledger import SNAPSHOT
from quanto.stages.qualify.report import qualification_report
from quanto.stages.qualify.verdict import judge

REPORT = "reports/promotion/qualification_report.json"
CALIBRATION = "reports/promotion/calibration.json"
CHAMPION = "reports/champion/trial.json"


def run(config: QualifyConfig, workspace: Path, executor: Executor) -> None:  # noqa: ARG001  # every stage is called alike; gates take seconds
    """Judge the evaluation of the workspace and write the qualification report."""
    write_json(workspace / REPORT, judge_workspace(config, workspace))


def judge_workspace(config: QualifyConfig, workspace: Path, sealed: object = None, fresh_sessions: int | None = None) -> dict[str, object]:
    """Return the qualification report of a workspace; writes nothing.

    Parameters
    ----------
    sealed, fresh_sessions
        What only a production request has: the opening record of the sealed block, and the number of shadow or paper
        sessions that did not exist in the candidate's lineage.
    """
    files = read_files(workspace)
    evidence = assemble(files, config, sealed, fresh_sessions)
    judgement = judge(evidence, config.thresholds)
    return qualification_report(evidence, judgement, files, config, read_or_none(workspace / CALIBRATION))


def read_files(workspace: Path) -> Files:
    """Return the inputs of the gates; a missing or unreadable report is None, and fails the gates that need it."""
    evaluation = workspace / "reports/evaluation"
    snapshot = workspace / SNAPSHOT
    return Files(
        evaluation=read_or_none(evaluation / "evaluation.json"),
        slices=read_or_none(evaluation / "regime_slices.json"),
        trial=read_or_none(evaluation / "trial.json"),
        returns=read_table(evaluation / "returns.parquet"),
        leak_proof=read_or_none(workspace / "reports/features/leak_proof.json"),
        canonical_report=read_or_none(workspace / "reports/canonical/canonical_report.json"),
        snapshot=snapshot.read_bytes() if snapshot.is_file() else b"",
        champion=read_or_none(workspace / CHAMPION),
    )


def read_or_none(path: Path) -> JsonValue:
    """Return the value of a JSON file, or None where there is none to read."""
    try:
        return read_json(path)
    except DataError:
        return None
