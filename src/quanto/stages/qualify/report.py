"""The qualification report: every gate, one verdict per tier, what was compared with what, and how far to trust it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from quanto.stages.qualify.assemble import MATCHED, Files
from quanto.stages.qualify.code import gate_digest
from quanto.stages.qualify.config import QualifyConfig
from quanto.stages.qualify.diagnostics import diagnostics
from quanto.stages.qualify.evidence import Evidence
from quanto.stages.qualify.gate import TIERS
from quanto.stages.qualify.verdict import Judgement

SCHEMA_VERSION = 1
# How close an alpha must come to zero, in t, before a plain rule is said to do as well.
AS_WELL = 1.645


def qualification_report(
    evidence: Evidence, judgement: Judgement, files: Files, config: QualifyConfig, calibration: object
) -> dict[str, object]:
    """Return the content of qualification_report.json."""
    digest = gate_digest(config.thresholds)
    measured = calibration_of(calibration, digest)
    trial = files.trial if isinstance(files.trial, Mapping) else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "trial_id": trial.get("trial_id"),
        "policy": trial.get("policy"),
        "baseline": config.baseline,
        "selection": config.selection,
        "window": _window(trial),
        "trials": {"count": evidence.trials.count, "prior": config.prior_trials, "faults": list(evidence.trials.faults)},
        "verdicts": {verdict.tier: {"decision": verdict.decision, "reasons": list(verdict.reasons)} for verdict in judgement.verdicts},
        "gates": [dataclasses.asdict(result) for result in judgement.results],
        "diagnostics": diagnostics(evidence, config.thresholds),
        "beside": challengers(files.evaluation),
        "information_ratio_upper": judgement.information_ratio_upper,
        "gate_digest": digest,
        "calibrated": measured is not None,
        "noise_gets_this_tier": {tier: noise_rate(measured, tier) for tier in TIERS},
        "thresholds": config.thresholds.model_dump(mode="json"),
    }


def calibration_of(calibration: object, digest: str) -> Mapping[str, object] | None:
    """Return the operating characteristics measured for exactly this gate code and these thresholds, or None."""
    found = calibration.get(digest) if isinstance(calibration, Mapping) else None
    return found if isinstance(found, Mapping) else None


def noise_rate(measured: Mapping[str, object] | None, tier: str) -> float | None:
    """Return how often pure noise gets a tier, pooled over the calibrated cells; None where it was not measured."""
    rates = measured.get("false_promotion_pooled") if measured is not None else None
    value = rates.get(tier) if isinstance(rates, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def challengers(evaluation: object) -> list[dict[str, object]]:
    """Return a sentence for every other book on whether the candidate's alpha against it can be told from zero.

    Protection and return are credited to what causes them: where a plain rule does as well, the report says so.
    """
    found = evaluation.get("comparisons") if isinstance(evaluation, Mapping) else None
    rows: list[dict[str, object]] = []
    for name, test in sorted(found.items()) if isinstance(found, Mapping) else ():
        if name.startswith(MATCHED):
            continue  # the same mix as the baseline it belongs to
        t = test.get("t_statistic") if isinstance(test, Mapping) else None
        rows.append({"book": name, "t_statistic": t, "sentence": _sentence(name, t)})
    return rows


def _sentence(name: str, t: object) -> str:
    if not isinstance(t, int | float):
        return f"{name}: the comparison is not defined"
    if t > AS_WELL:
        return f"{name} does not do as well (t {t:.1f}, before any correction for the number of looks)"
    if t < -AS_WELL:
        return f"{name} does better (t {t:.1f})"
    return f"{name} does as well: the candidate's alpha against it cannot be told from 0 (t {t:.1f})"


def _window(trial: Mapping[str, object]) -> dict[str, object]:
    sessions = trial.get("sessions")
    days = sessions if isinstance(sessions, list) and sessions else [None]
    return {"first_session": days[0], "last_session": days[-1], "sessions": len(days) if days != [None] else 0}
