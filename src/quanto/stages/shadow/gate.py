"""Whether the promotion record lets a policy be replayed in shadow."""

from __future__ import annotations

from quanto.core.digest import JsonValue
from quanto.policy.artefact import Policy
from quanto.stages.shadow.config import ShadowConfig

TIER = "candidate"


def blocked(record: JsonValue, policy: Policy) -> str:
    """Return why the policy may not be replayed, "" if it may; a record that does not say so blocks."""
    found = record.get("eligible_tiers") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(found, list):
        return "the promotion record has no list eligible_tiers; run the promote stage"
    tiers = [str(tier) for tier in found]
    if TIER not in tiers:
        eligible = ", ".join(tiers) or "no tier"
        return f"the promotion record makes the policy eligible for {eligible}, not for {TIER}; see the qualification report beside it"
    if record.get("policy") != policy.digest:
        return f"the promotion record judges policy {record.get('policy')}, models/ holds {policy.digest}; run eval, qualify and promote"
    return ""


def blocked_metrics(reason: str, policy: Policy, config: ShadowConfig) -> dict[str, object]:
    """Return the metrics of a replay that did not take place."""
    return {
        "status": "blocked",
        "reason": reason,
        "sessions": 0,
        "orders_submitted": 0,
        "policy": policy.digest,
        "risk_policy": config.risk.digest(),
    }
