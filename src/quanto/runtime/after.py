"""What follows a run: MLflow is filled from its files, and a person is told where to look."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quanto.core.config import read_yaml
from quanto.core.errors import QuantoError
from quanto.runtime.git import Git
from quanto.runtime.promotion import TIERS, is_revoked
from quanto.runtime.reporting.page import render, write_page
from quanto.runtime.revisions import Revision
from quanto.runtime.signing import read_tag, stage_tags
from quanto.runtime.tracking import Synced, mirror_promotions, sync

TRIAL = "reports/evaluation/trial.json"
PAGE = "report.html"
RECORD = "reports/promotion/promotion_record.json"


def after_run(workspace: Path, revision: Revision | None = None) -> dict[str, Any]:
    """Sync one revision (the workspace where None) into MLflow and return the facts of the run."""
    revision = revision or Revision(workspace, None, "workspace")
    page = write_page(workspace, revision)
    synced = sync(revision, run_tags(revision), lambda: {PAGE: page.read_bytes()})
    facts = {"experiment_id": synced.experiment_id, "mlflow_run": synced.run_id, "mlflow_written": synced.written, "report": str(page)}
    return {**facts, **verdicts(revision)}


def sync_revision(revision: Revision) -> Synced:
    """Sync one revision into MLflow with its tags and its report, so that it equals what a run of it leaves."""
    return sync(revision, run_tags(revision), lambda: {PAGE: render(revision)})


def sync_all(revisions: Iterable[Revision]) -> list[tuple[Revision, Synced]]:
    """Sync every experiment among the revisions once: from a commit that holds it where there is one, else the workspace."""
    chosen: dict[str, Revision] = {}
    for revision in revisions:
        try:
            identity = revision.experiment_id()
        except QuantoError:
            continue  # the pipeline has not run to eval there: no experiment to show
        if identity not in chosen or chosen[identity].commit is None:
            chosen[identity] = revision
    return [(revision, sync_revision(revision)) for revision in chosen.values()]


def promoted_tiers(workspace: Path) -> dict[str, str]:
    """Return the experiment id that each tier's latest tag names and no revocation withdraws."""
    return {tier: revision.experiment_id() for tier, revision in _promoted(workspace).items()}


def mirror(workspace: Path) -> dict[str, str]:
    """Sync the promoted experiments into MLflow, let its aliases say what the tags say, and return tier to experiment id.

    Raises
    ------
    QuantoError
        If a promoted revision's tables are in no cache at hand, or MLflow does not answer; the tags stand regardless.
    """
    sync_all(_promoted(workspace).values())
    promoted = promoted_tiers(workspace)
    mirror_promotions(promoted)
    return promoted


def mirror_line(workspace: Path) -> str:
    """Mirror the promotions and return a line on it; the tags are the decision, so an MLflow that fails is no error."""
    try:
        promoted = mirror(workspace)
    except QuantoError as error:
        return f"MLflow does not show the promotions yet ({error}); the tags stand, and `quanto mlflow sync` tries again"
    aliases = ", ".join(f"{tier} {identity[:12]}" for tier, identity in sorted(promoted.items()))
    return f"MLflow: aliases of the model `policy`: {aliases or 'none'}"


def _promoted(workspace: Path) -> dict[str, Revision]:
    found: dict[str, Revision] = {}
    for tier in TIERS:
        for name in stage_tags(workspace, tier):
            tag = read_tag(workspace, name)
            if tag is not None and not is_revoked(workspace, tag):
                found[tier] = Revision(workspace, tag.commit, tag.name)
    return found


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
    found = verdicts(revision)["verdicts"]
    tags["mlflow.note.content"] = "\n".join(
        [f"**{tags['quanto.name']}**", *(f"- tier {tier}: {verdict}" for tier, verdict in found.items())]
    )
    return tags | {f"quanto.verdict.{tier}": str(verdict) for tier, verdict in found.items()}


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
