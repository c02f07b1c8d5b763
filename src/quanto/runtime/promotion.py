"""The decision as a signed tag: the statement it carries, the rules it must keep, its revocation, its verification."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quanto.core.chain import head, read_chain
from quanto.core.digest import canonical_json, digest_bytes
from quanto.core.errors import GovernanceError, QuantoError, UnknownNameError
from quanto.core.manifest import Manifest, outputs_digest
from quanto.core.registry import unknown_name
from quanto.runtime.git import Git
from quanto.runtime.ledger import SNAPSHOT, TRIAL, ledger_faults, require_sealed
from quanto.runtime.production import Production, judged_again, production_faults, request_production
from quanto.runtime.revisions import Revision
from quanto.runtime.signing import (
    SIGNERS,
    STAGE_TAG,
    VERSION_TAG,
    Tag,
    create_tag,
    next_stage_tag,
    next_version,
    read_tag,
    signature_fault,
    stage_tags,
    version_tag,
)
from quanto.runtime.verify import Check, verify_files, verify_ledger

TIERS = ("research", "candidate", "production")
RECORD = "reports/promotion/promotion_record.json"
REPORT = "reports/promotion/qualification_report.json"
CALIBRATION = "reports/promotion/calibration.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROMOTION, REVOCATION = "quanto/promotion/v1", "quanto/revocation/v1"
REVOKED = "revoked"
SUBJECTS = (
    "dvc.lock",
    "params.yaml",
    "reports/evaluation/metrics.json",
    "reports/evaluation/trial.json",
    "reports/promotion/MODEL_CARD.md",
    RECORD,
    REPORT,
)


@dataclass(frozen=True)
class Promoted:
    """What a promotion did: the tags, the statement, and whether anything was new."""

    version: str
    tag: str
    statement: Mapping[str, Any]
    created: bool


def promote(revision: Revision, tier: str, reason: str, *, signed: bool) -> Promoted:
    """Promote the experiment of a commit to a tier by a version tag and a stage tag that carries the statement.

    The same statement again changes nothing. Production opens the sealed block, after every other rule is kept.

    Raises
    ------
    GovernanceError
        Naming every rule that is broken and what would satisfy it.
    """
    workspace = revision.workspace
    commit = _committed(revision)
    statement = build_statement(revision, tier, reason, signed=signed)
    for name in stage_tags(workspace, tier):
        tag = read_tag(workspace, name)
        if tag is None or tag.commit != commit:
            continue
        if _same_decision(parse_statement(tag), statement):
            return Promoted(version_tag(workspace, commit) or "", name, statement, created=False)
        if not is_revoked(workspace, tag):
            raise GovernanceError(
                f"{name} already promotes this commit with another statement; a decision is not rewritten (quanto revoke {name})"
            )
    faults = list(promotion_faults(revision, tier, reason, signed=signed))
    if faults:
        raise GovernanceError("\n  ".join([f"{revision.label} is not promoted to {tier}:", *faults]))
    if tier == "production":
        statement["predicate"] |= _opened(request_production(revision))
    version = version_tag(workspace, commit)
    if version is None:
        version = next_version(workspace)
        create_tag(workspace, version, commit, canonical_json({"experiment_id": revision.experiment_id()}).decode(), signed=signed)
    name = next_stage_tag(workspace, tier)
    create_tag(workspace, name, commit, canonical_json(statement).decode(), signed=signed)
    return Promoted(version, name, statement, created=True)


def promotion_faults(revision: Revision, tier: str, reason: str, *, signed: bool) -> Iterator[str]:
    """Yield every rule that forbids to promote this revision to the tier."""
    if tier not in TIERS:
        yield unknown_name("tier", tier, list(TIERS))
        return
    workspace, git = revision.workspace, Git(revision.workspace)
    if not reason.strip():
        yield "a promotion needs a reason (--reason)"
    if tier == "production" and not signed:
        yield "production is never promoted unsigned"
    if not git.is_clean():
        yield "the working tree has changes; commit them or set them aside, so that what is promoted is what you see"
    broken = [f"{check.link} {check.detail}: {check.fault}" for check in verify_files(revision) if check.fault]
    yield from broken
    if broken:
        yield "files and records of this commit disagree: run `dvc repro`, commit what it writes, and promote that commit"
    yield from _verdict_faults(revision, tier)
    yield from _calibration_faults(revision)
    try:
        require_sealed(workspace, revision.read(SNAPSHOT), _mapping(revision.read_json(TRIAL)).get("policy"))
    except QuantoError as error:
        yield str(error)
    yield from ledger_faults(workspace)
    before = TIERS[TIERS.index(tier) - 1] if tier != TIERS[0] else None
    if before is not None and not _promoted(revision, before):
        yield f"tier {before} comes before {tier}, and no standing tag promotes this commit to it"
    if tier == "production":
        yield from production_faults(revision)


def build_statement(revision: Revision, tier: str, reason: str, *, signed: bool) -> dict[str, Any]:
    """Return the statement of a promotion in in-toto's shape: subjects by digest, and what is said of them."""
    record, report = revision.read_json(RECORD), revision.read_json(REPORT)
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest_bytes(revision.read(name))}} for name in SUBJECTS],
        "predicateType": PROMOTION,
        "predicate": {
            "commit": _committed(revision),
            "experiment_id": revision.experiment_id(),
            "tier": tier,
            "reason": reason,
            "signed": signed,
            "verdicts": _mapping(record).get("verdicts"),
            "gates": {str(gate["name"]): gate.get("status") for gate in _gates(report)},
            "ledger_head": head(read_chain(revision.read(SNAPSHOT), SNAPSHOT)),
            "record": digest_bytes(revision.read(RECORD)),
            "risk_policy": _mapping(record).get("risk_policy"),
            "calibration": digest_bytes(revision.read(CALIBRATION)) if revision.exists(CALIBRATION) else None,
        },
    }


def revoke(workspace: Path, name: str, reason: str, *, signed: bool) -> str:
    """Revoke a promotion by a further tag; it stops shadow, paper and any later order. Return the tag's name.

    Raises
    ------
    UnknownNameError
        If there is no such promotion.
    GovernanceError
        If it is revoked already, or the reason is empty.
    """
    tag = read_tag(workspace, name)
    if tag is None or not STAGE_TAG.match(name):
        raise UnknownNameError(unknown_name("promotion tag", name, stage_tags(workspace)))
    if not reason.strip():
        raise GovernanceError("a revocation needs a reason (--reason)")
    if is_revoked(workspace, tag):
        raise GovernanceError(f"{name} is revoked already")
    body = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest_bytes(tag.message.encode())}}],
        "predicateType": REVOCATION,
        "predicate": {"tag": name, "commit": tag.commit, "reason": reason, "signed": signed},
    }
    made = next_stage_tag(workspace, REVOKED)
    create_tag(workspace, made, tag.commit, canonical_json(body).decode(), signed=signed)
    return made


def is_revoked(workspace: Path, tag: Tag) -> bool:
    """Whether a revocation of this very statement stands in the repository (one made elsewhere needs a fetch)."""
    for name in stage_tags(workspace, REVOKED):
        revocation = read_tag(workspace, name)
        subjects = parse_statement(revocation).get("subject", []) if revocation else []
        if any(item.get("digest", {}).get("sha256") == digest_bytes(tag.message.encode()) for item in subjects):
            return True
    return False


def require_not_revoked(workspace: Path, commit: str) -> None:
    """Refuse to go on with a commit of which any promotion was revoked.

    Raises
    ------
    GovernanceError
        Naming the revoked tag.
    """
    for name in stage_tags(workspace):
        tag = read_tag(workspace, name)
        if tag is not None and tag.commit == commit and not name.startswith(f"policy#{REVOKED}#") and is_revoked(workspace, tag):
            raise GovernanceError(f"{name} was revoked; nothing may run on this commit until it is promoted again")


def verify(workspace: Path, name: str, signers: Path | None = None) -> list[Check]:
    """Return every link from a tag, or a commit, down to the vendors' bytes; the chain holds if all checks are ok.

    Raises
    ------
    UnknownNameError
        If the name is no tag and no revision.
    """
    git = Git(workspace)
    commit = git.commit_of(f"refs/tags/{name}") or git.commit_of(name)
    if commit is None:
        raise UnknownNameError(unknown_name("tag or revision", name, stage_tags(workspace)))
    revision = Revision(workspace, commit, name)
    tag = read_tag(workspace, name)
    checks: list[Check] = []
    expected: str | None = None
    if tag is not None and (STAGE_TAG.match(name) or VERSION_TAG.match(name)):
        checks += _verify_tag(revision, tag, signers or workspace / SIGNERS)
        if STAGE_TAG.match(name):
            expected = str(_mapping(parse_statement(tag).get("predicate")).get("ledger_head"))
    checks += [_verify_record(revision), *verify_files(revision), verify_ledger(revision, expected)]
    checks += [Check("gates", "calibration", fault) for fault in _calibration_faults(revision)]
    return checks


def parse_statement(tag: Tag) -> dict[str, Any]:
    """Return the statement of a tag; empty where its message is none in canonical form."""
    try:
        value = json.loads(tag.message)
    except ValueError:
        return {}
    if not isinstance(value, dict) or canonical_json(value).decode() != tag.message:
        return {}
    return value


def _verify_tag(revision: Revision, tag: Tag, signers: Path) -> Iterator[Check]:
    statement = parse_statement(tag)
    predicate = _mapping(statement.get("predicate"))
    if tag.signed:
        yield Check("tag/signature", tag.name, signature_fault(revision.workspace, tag.name, signers))
    elif VERSION_TAG.match(tag.name) or predicate.get("signed") is not False:
        yield Check("tag/signature", tag.name, "the tag is not signed, and does not say so")
    else:
        fault = "production is never promoted unsigned" if predicate.get("tier") == "production" else None
        yield Check("tag/signature", f"{tag.name} is unsigned, as its statement says", fault)
    if VERSION_TAG.match(tag.name):
        same = statement.get("experiment_id") == revision.experiment_id()
        yield Check("tag/experiment", tag.name, None if same else "the tag names another experiment id than the commit holds")
        return
    kind = statement.get("predicateType")
    if kind == REVOCATION:
        yield Check("tag/statement", tag.name, "this tag is a revocation: it promotes nothing")
        return
    if kind != PROMOTION or predicate.get("commit") != tag.commit:
        yield Check("tag/statement", tag.name, "the message is no promotion statement for the commit that the tag points to")
        return
    match = STAGE_TAG.match(tag.name)
    if match is None or match.group(1) != predicate.get("tier"):
        yield Check("tag/statement", tag.name, "the tag's name and its statement speak of different tiers")
    same = predicate.get("experiment_id") == revision.experiment_id()
    yield Check("tag/experiment", str(predicate.get("experiment_id"))[:12], None if same else "the commit holds another experiment")
    found = {str(item.get("name")): item.get("digest", {}).get("sha256") for item in statement.get("subject", [])}
    for name in SUBJECTS:
        digest = digest_bytes(revision.read(name)) if revision.exists(name) else None
        yield Check(
            "statement/subject", name, None if digest == found.get(name) else "the commit holds other bytes than the statement names"
        )
    if predicate.get("tier") == "production":
        yield Check("statement/production", "sealed block and fresh sessions, judged again", _production_fault(revision, predicate))
    revoked = is_revoked(revision.workspace, tag)
    yield Check(
        "tag/revocation", "none known here (one made elsewhere needs `git fetch --tags`)", "the promotion was revoked" if revoked else None
    )


def _production_fault(revision: Revision, predicate: Mapping[str, Any]) -> str | None:
    try:
        return judged_again(revision, predicate)
    except QuantoError as error:
        return str(error)


def _verify_record(revision: Revision) -> Check:
    try:
        record = _mapping(revision.read_json(RECORD))
        evidence = _mapping(record.get("subjects"))
        manifests = revision.manifests()
        wrong = [name for name, digest in evidence.items() if _evidence_digest(revision, manifests, name) != digest]
    except QuantoError as error:
        return Check("record", RECORD, str(error))
    return Check(
        "record",
        f"{RECORD} names {len(evidence)} pieces of evidence",
        f"{wrong[0]} is not the evidence that the record names" if wrong else None,
    )


def _evidence_digest(revision: Revision, manifests: Mapping[str, Manifest], name: str) -> str | None:
    """Return the digest of a piece of evidence: of the committed file, or as the manifest of its stage attests it."""
    if revision.exists(name):
        return digest_bytes(revision.read(name))
    producer = next((item for item in manifests.values() if any(f == name or f.startswith(f"{name}/") for f in item.outputs)), None)
    return outputs_digest(producer, name) if producer else None


def _verdict_faults(revision: Revision, tier: str) -> Iterator[str]:
    if tier in ("research", "production"):
        return  # any evaluated experiment may be kept for research; production is judged again by `production_faults`
    record = _mapping(revision.read_json(RECORD))
    verdict = _mapping(record.get("verdicts")).get(tier)
    if verdict != "promote":
        yield f"the verdict at tier {tier} is {verdict!r}, not 'promote' (see {REPORT})"
    if tier == "candidate" and tier not in (record.get("eligible_tiers") or []):
        yield f"the promotion record does not make it eligible for {tier}"


def _calibration_faults(revision: Revision) -> Iterator[str]:
    if not revision.exists(CALIBRATION):
        yield f"{CALIBRATION} is missing: the gates' error rates are not known (quanto calibrate-gates)"
        return
    used = _mapping(revision.read_json(REPORT)).get("gate_digest")
    if used not in _mapping(revision.read_json(CALIBRATION)):
        yield f"the gates that judged ({str(used)[:12]}) are not calibrated; run quanto calibrate-gates"


def _opened(found: Production) -> dict[str, Any]:
    """Return what the opening of the sealed block changes in a statement's predicate."""
    verdicts = {tier: verdict["decision"] for tier, verdict in found.report["verdicts"].items()}
    gates = {str(gate["name"]): gate.get("status") for gate in _gates(found.report)}
    return {"verdicts": verdicts, "gates": gates, "production": found.predicate()}


def _same_decision(standing: Mapping[str, Any], statement: Mapping[str, Any]) -> bool:
    """Whether a standing statement says what the new one says; what only the opening of a sealed block adds is left out."""
    opened = ("verdicts", "gates", "production") if "production" in _mapping(standing.get("predicate")) else ()

    def plain(value: Mapping[str, Any]) -> dict[str, Any]:
        predicate = _mapping(value.get("predicate"))
        return {**value, "predicate": {name: item for name, item in predicate.items() if name not in opened}}

    return plain(standing) == plain(statement)


def _promoted(revision: Revision, tier: str) -> bool:
    tags = [read_tag(revision.workspace, name) for name in stage_tags(revision.workspace, tier)]
    return any(tag is not None and tag.commit == revision.commit and not is_revoked(revision.workspace, tag) for tag in tags)


def _committed(revision: Revision) -> str:
    if revision.commit is None:
        raise GovernanceError("the workspace is no commit; commit the result (git commit), or name a revision or DVC experiment")
    return revision.commit


def _gates(report: object) -> list[dict[str, Any]]:
    gates = _mapping(report).get("gates", [])
    return [gate for gate in gates if isinstance(gate, dict) and "name" in gate] if isinstance(gates, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
