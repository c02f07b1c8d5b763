"""A request for the production tier: no run of the graph, but its evidence beside what only such a request may look at.

It judges the committed evaluation again with what the graph cannot know: shadow or paper sessions that are newer than the
candidate's data, and the sealed final block. The block is opened last, when nothing else stands against production; the
opening is written to the ledger before anything is computed, shows the block to one policy only, and is spent afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from quanto.core.config import load_section, read_yaml
from quanto.core.digest import JsonValue
from quanto.core.errors import DataError, GovernanceError
from quanto.core.store import data_root, read_table, write_json
from quanto.execution.journal import read_journal
from quanto.market.calendar import next_session
from quanto.market.schema import CANONICAL
from quanto.policy.artefact import load_policy
from quanto.policy.market_data import market_data
from quanto.runtime.ledger import SEALED, TRIAL, opened_blocks, opening_records, record_opened, record_opening
from quanto.runtime.materialise import EVALUATION_INPUTS, QUALIFICATION_INPUTS, materialised
from quanto.runtime.revisions import Revision
from quanto.stages.eval.config import EvalConfig
from quanto.stages.eval.sealed import open_sealed_block
from quanto.stages.qualify.config import QualifyConfig
from quanto.stages.qualify.stage import judge_workspace

TIER = "production"
SEALED_GATE = "sealed_block_v1"
DOMAINS = ("equity_ohlcv", "corporate_actions", "index_level")


@dataclass(frozen=True)
class FreshSessions:
    """The sessions after a candidate's data that its policy was run on, and the heads of the journals that say so."""

    sessions: tuple[str, ...]
    journals: Mapping[str, str]


@dataclass(frozen=True)
class Production:
    """What a request found: the opening record of the sealed block, the fresh sessions, and the judgement with both."""

    sealed: Mapping[str, object]
    fresh: FreshSessions
    report: Mapping[str, Any]

    def predicate(self) -> dict[str, object]:
        """Return what the statement says of it."""
        return {
            "sealed": dict(self.sealed),
            "fresh_sessions": len(self.fresh.sessions),
            "fresh_first": self.fresh.sessions[0],
            "fresh_last": self.fresh.sessions[-1],
            "journals": dict(self.fresh.journals),
        }


def production_faults(revision: Revision) -> Iterator[str]:
    """Yield everything but the sealed block that stands against production; nothing is opened."""
    verdict = _judge(revision, None, fresh_sessions(revision))["verdicts"][TIER]
    if verdict["decision"] != "promote":
        yield from (reason for reason in verdict["reasons"] if not reason.startswith(f"{SEALED_GATE}:"))
    config = _section(revision, "eval")
    if not _mapping(config.get("split")).get("sealed_sessions"):
        yield "the experiment keeps no sealed block (split.sealed_sessions is 0), so nothing is left that no look has touched"
    else:
        yield from _spent(revision)


def request_production(revision: Revision) -> Production:
    """Open the sealed block for this policy, once, and judge; the opening record is written to `reports/promotion/sealed/`.

    A policy that opened the block before sees what it saw then.

    Raises
    ------
    GovernanceError
        If another policy opened these sessions before, or the judgement with the block is not `promote`.
    """
    faults = list(_spent(revision))
    if faults:
        raise GovernanceError("; ".join(faults))
    fresh = fresh_sessions(revision)
    sealed = _open(revision)
    report = _judge(revision, sealed, fresh)
    verdict = report["verdicts"][TIER]
    if verdict["decision"] != "promote":
        why = "; ".join(verdict["reasons"])
        raise GovernanceError(f"the verdict with the sealed block opened is {verdict['decision']!r}: {why}. The block is spent")
    return Production(sealed, fresh, report)


def judged_again(revision: Revision, predicate: Mapping[str, Any]) -> str | None:
    """Return why the committed evaluation, with the block and the sessions that a statement names, is not `promote`; None if it is."""
    found = _mapping(predicate.get("production"))
    sealed, count = found.get("sealed"), found.get("fresh_sessions")
    if not isinstance(sealed, Mapping) or not isinstance(count, int):
        return "the statement says nothing of the sealed block and of fresh sessions"
    verdict = _judge(revision, sealed, FreshSessions(("",) * count, {}))["verdicts"][TIER]
    if verdict["decision"] == "promote":
        return None
    return f"judged again, the verdict is {verdict['decision']!r}: {'; '.join(verdict['reasons'])}"


def fresh_sessions(revision: Revision) -> FreshSessions:
    """Return the sessions of paper and shadow journals below the data root that this policy ran after its data ended.

    Raises
    ------
    IntegrityError
        If a byte of such a journal was changed.
    """
    policy, end = _trial(revision).get("policy"), lineage_end(revision)
    found: set[str] = set()
    journals: dict[str, str] = {}
    for path in sorted([*data_root().glob("paper/*/journal.jsonl"), *data_root().glob("shadow/*/*/journal.jsonl")]):
        sessions: set[str] = set()
        for event in read_journal(path):
            if event["kind"] == "start" and event.get("experiment") != policy:
                break
            if event["kind"] == "end" and date.fromisoformat(str(event["session"])) > end:
                sessions.add(str(event["session"]))
        if sessions:
            found |= sessions
            journals[path.relative_to(data_root()).parent.as_posix()] = _last_hash(path)
    return FreshSessions(tuple(sorted(found)), journals)


def lineage_end(revision: Revision) -> date:
    """Return the last day whose data can have entered the candidate: the end of its canonical data.

    Raises
    ------
    DataError
        If the revision does not say it.
    """
    end = revision.read_yaml("params.yaml").get("end_date")
    if end is None:
        raise DataError(f"{revision.label} has no end_date in params.yaml; what is newer than its data cannot be told")
    return date.fromisoformat(str(end))


def _open(revision: Revision) -> dict[str, JsonValue]:
    body = _trial(revision)
    policy = str(body["policy"])
    path = f"{SEALED}/{policy[:16]}.json"
    record_opening(policy, str(body["trial_id"]), *_block(revision))
    with materialised(revision, EVALUATION_INPUTS) as place:
        config = load_section("eval", read_yaml(place / "params.yaml").get("eval"), EvalConfig)
        tables = {name: read_table(place / "data/canonical" / name, CANONICAL[name]) for name in DOMAINS}
        features, regime = (read_table(place / f"data/features/{name}.parquet") for name in ("features", "regime"))
        bars, actions, index_level = tables.values()
        data = market_data(bars, actions, index_level, features, regime, config.costs)
        record = open_sealed_block(load_policy(place / "models"), data, index_level, config)
    record_opened(record)
    write_json(revision.workspace / path, record)
    return record


def _block(revision: Revision) -> tuple[str, str]:
    """Return the bounds of the sealed block: the session after the test window, and the data's end."""
    sessions = _trial(revision).get("sessions")
    if not isinstance(sessions, list) or not sessions:
        raise DataError(f"{TRIAL} of {revision.label} names no sessions; evaluate again")
    return next_session(date.fromisoformat(str(sessions[-1]))).isoformat(), lineage_end(revision).isoformat()


def _spent(revision: Revision) -> Iterator[str]:
    """Yield why another policy has spent sessions of this block, as ledger, git and tags know."""
    own = str(_trial(revision).get("policy"))
    start, end = _block(revision)
    committed = [
        tuple(str(record[name]) for name in ("policy", "first_session", "last_session")) for record in opening_records(revision.workspace)
    ]
    for policy, first, last in (*opened_blocks(), *committed):
        if policy != own and first <= end and last >= start:
            yield (
                f"the sealed block up to {end} was opened for policy {policy[:12]} ({first} to {last}) and is spent; "
                "train on data up to its end and seal newer sessions"
            )
            return


def _judge(revision: Revision, sealed: object, fresh: FreshSessions) -> Mapping[str, Any]:
    with materialised(revision, QUALIFICATION_INPUTS) as place:
        config = load_section("qualify", read_yaml(place / "params.yaml").get("qualify"), QualifyConfig)
        return judge_workspace(config, place, sealed, len(fresh.sessions))


def _trial(revision: Revision) -> Mapping[str, Any]:
    return _mapping(revision.read_json(TRIAL))


def _section(revision: Revision, name: str) -> Mapping[str, Any]:
    return _mapping(revision.read_yaml("params.yaml").get(name))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _last_hash(path: Path) -> str:
    return str(json.loads(path.read_bytes().splitlines()[-1])["hash"])
