"""The promotion record: which tiers a candidate is eligible for, and the digests of all that this rests on.

It holds no commit, tag, reason or person: those belong to the signed tag. A rejected candidate is a result.
"""

from __future__ import annotations

from collections.abc import Mapping

from quanto.core.errors import DataError

SCHEMA_VERSION = 1
# Lowest first. The graph never makes a candidate eligible for production: that opens the sealed block, by a person.
TIERS = ("research", "candidate", "production")
GRAPH_TIERS = ("research", "candidate")
PROMOTE, REJECT, INSUFFICIENT = "promote", "reject", "insufficient evidence"


def promotion_record(report: Mapping[str, object], subjects: Mapping[str, str], policy: str, risk_policy: str) -> dict[str, object]:
    """Return the content of promotion_record.json.

    Parameters
    ----------
    report
        The qualification report.
    subjects
        SHA-256 by path of the files and folders that the verdicts rest on.
    policy
        The digest of the policy in models/, as `Policy.digest` gives it.
    risk_policy
        The digest of the account's risk policy.

    Raises
    ------
    DataError
        If the report lacks a verdict, or judges another policy.
    """
    if report.get("policy") != policy:
        raise DataError(
            f"the qualification report judges policy {report.get('policy')}, models/ holds {policy}; run eval and qualify again"
        )
    verdicts = read_verdicts(report)
    blocked = blockers(report)
    eligible: list[str] = []
    for tier in GRAPH_TIERS:
        # A tier stands on the one before it, and research alone needs no calibrated gates.
        if verdicts[tier] != PROMOTE or (blocked and tier != "research") or len(eligible) != GRAPH_TIERS.index(tier):
            break
        eligible.append(tier)
    return {
        "schema_version": SCHEMA_VERSION,
        "policy": policy,
        "risk_policy": risk_policy,
        "trial_id": report.get("trial_id"),
        "selection": report.get("selection"),
        "verdicts": verdicts,
        "reasons": {tier: _reasons(report, tier) for tier in TIERS},
        "eligible_tiers": eligible,
        "blocked_by": list(blocked),
        "gate_digest": report.get("gate_digest"),
        "calibrated": report.get("calibrated") is True,
        "subjects": dict(sorted(subjects.items())),
    }


def read_verdicts(report: Mapping[str, object]) -> dict[str, str]:
    """Return the decision of every tier.

    Raises
    ------
    DataError
        If one is missing or no known decision.
    """
    found = report.get("verdicts")
    values = found if isinstance(found, Mapping) else {}
    out: dict[str, str] = {}
    for tier in TIERS:
        entry = values.get(tier)
        decision = entry.get("decision") if isinstance(entry, Mapping) else None
        if decision not in (PROMOTE, REJECT, INSUFFICIENT):
            raise DataError(f"the qualification report has no verdict for tier {tier}; found {decision!r}. Run the qualify stage again")
        out[tier] = str(decision)
    return out


def blockers(report: Mapping[str, object]) -> tuple[str, ...]:
    """Return what forbids every tier above research whatever the verdicts: gates whose error rates nobody measured."""
    if report.get("calibrated") is True:
        return ()
    return ("no calibration was measured for exactly this gate code and these thresholds; run `quanto calibrate-gates` and commit it",)


def _reasons(report: Mapping[str, object], tier: str) -> list[str]:
    found = report.get("verdicts")
    entry = found.get(tier) if isinstance(found, Mapping) else None
    reasons = entry.get("reasons") if isinstance(entry, Mapping) else None
    return [str(reason) for reason in reasons] if isinstance(reasons, list) else []
