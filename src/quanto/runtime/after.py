"""What follows a run: MLflow is filled from its files, and a person is told where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quanto.core.config import read_yaml
from quanto.core.errors import QuantoError
from quanto.runtime.git import Git
from quanto.runtime.reporting.page import write_page
from quanto.runtime.revisions import Revision
from quanto.runtime.tracking import Synced, sync

TRIAL = "reports/evaluation/trial.json"
RECORD = "reports/promotion/promotion_record.json"


def after_run(workspace: Path, revision: Revision | None = None) -> dict[str, Any]:
    """Sync one revision (the workspace where None) into MLflow and return the facts of the run."""
    revision = revision or Revision(workspace, None, "workspace")
    page = write_page(workspace, revision)
    synced = sync(revision, run_tags(revision), {"report.html": page.read_bytes()})
    facts = {"experiment_id": synced.experiment_id, "mlflow_run": synced.run_id, "mlflow_written": synced.written, "report": str(page)}
    return {**facts, **verdicts(revision)}


def sync_revision(revision: Revision) -> Synced:
    """Sync one revision into MLflow with its tags."""
    return sync(revision, run_tags(revision))


def run_tags(revision: Revision) -> dict[str, str]:
    """Return the MLflow tags of a revision: name, commit, dirty flag, DVC experiment, verdicts."""
    git = Git(revision.workspace)
    params = revision.read_yaml("params.yaml") if revision.commit else read_yaml(revision.workspace / "params.yaml")
    commit = revision.commit or (git.commit_of("HEAD") or "none")
    dirty = revision.commit is None and not git.is_clean()
    tags = {
        "quanto.name": str(params.get("name", "")),
        "quanto.commit": commit,
        "quanto.dirty": str(dirty).lower(),
        "quanto.revision": revision.label,
    }
    if revision.exists(TRIAL):
        trial = revision.read_json(TRIAL)
        tags["quanto.trial_id"] = str(trial.get("trial_id")) if isinstance(trial, dict) else ""
    return tags | {f"quanto.verdict.{tier}": str(verdict) for tier, verdict in verdicts(revision)["verdicts"].items()}


def verdicts(revision: Revision) -> dict[str, Any]:
    """Return the verdict per tier of a revision's promotion record; empty where it has none."""
    try:
        record = revision.read_json(RECORD)
    except QuantoError:
        return {"verdicts": {}}
    found = record.get("verdicts", {}) if isinstance(record, dict) else {}
    return {"verdicts": found if isinstance(found, dict) else {}}


def summary(workspace: Path, facts: dict[str, Any]) -> tuple[str, ...]:
    """Return the lines that close a run: identity, verdicts, where to look."""
    lines = [f"experiment {facts['experiment_id'][:12]}  (MLflow run {facts['mlflow_run']})"]
    lines += [f"  tier {tier}: {verdict}" for tier, verdict in facts["verdicts"].items()]
    lines += ["look at: reports/promotion/MODEL_CARD.md, reports/evaluation/metrics.json, `make ui` (MLflow)"]
    if facts.get("report"):
        lines.append(f"report: {Path(facts['report']).relative_to(workspace)}")
    return tuple(lines)
