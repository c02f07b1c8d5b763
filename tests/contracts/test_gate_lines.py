"""The line that every gate writes into the report, word for word: for a good record, for its own fault, and without evidence.

tests/golden/gate_lines.json was written by this test (QUANTO_UPDATE_GOLDEN=1) and read by a person. What must hold
whatever the words are stands in test_gate_registry.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.test_gate_registry import CROWNED, GOOD, NEGATIVE
from fakes.verdicts import SESSIONS, THRESHOLDS, thresholds, with_candidate, with_facts

from quanto.stages.qualify.evidence import Evidence, Facts, Labels, SealedBlock, Trials
from quanto.stages.qualify.gate import evaluate
from quanto.stages.qualify.registry import GATES

GOLDEN = Path(__file__).parents[1] / "golden/gate_lines.json"
NOTHING_KNOWN = replace(CROWNED, facts=Facts(), trials=Trials(None), doubled=None, members=np.empty((0, SESSIONS)))
THIN = replace(GOOD, labels=Labels(np.arange(SESSIONS) < 100, np.ones(SESSIONS, dtype=bool)))
UNLABELLED = replace(GOOD, labels=Labels(np.zeros(SESSIONS, dtype=bool), np.zeros(SESSIONS, dtype=bool)))
RAGGED = replace(GOOD, cash=GOOD.cash[:-1])
IDLE_MATCH = replace(GOOD, matched=replace(GOOD.matched, returns=np.zeros(SESSIONS)))
ALL_TURBULENT = replace(
    GOOD, labels=Labels(np.ones(SESSIONS, dtype=bool), np.isin(np.arange(SESSIONS), [100, 200, 300], invert=True))
)  # fmt: skip
COPIES = np.tile(GOOD.excess(GOOD.candidate), (4, 1)) + 2e-5 * np.random.default_rng(0).standard_normal((4, SESSIONS))
CROWD = replace(GOOD, trials=Trials(4, (), (), COPIES, np.tile(GOOD.excess(GOOD.baseline), (4, 1))))
BAD_SEAL = with_facts(GOOD, sealed=SealedBlock(63, 2, -0.6, 0.4))
LOST = replace(GOOD, trials=Trials(3, ("abc", "def"), ("record 2 does not match its digest",)))
FEW_LEAK_SESSIONS = with_facts(GOOD, leak_sessions=63)
UNCHECKED = with_facts(GOOD, decisions=SESSIONS - 1)
NO_CHAMPION_CONDITIONS = replace(GOOD, champion=GOOD.baseline)
EMPTY_CONDITIONS = with_facts(GOOD, conditions={name: {} for name in ("candidate", "baseline", "matched")})
LOSING_SEEDS = replace(GOOD, members=GOOD.members - 0.01)
UNKNOWN_EXPOSURE = with_candidate(GOOD, exposure=np.full(SESSIONS, np.nan))

RECORDS: dict[str, Evidence] = {
    "good": CROWNED, "nothing known": NOTHING_KNOWN, "thin": THIN, "unlabelled": UNLABELLED, "ragged": RAGGED, "idle match": IDLE_MATCH,
    "all turbulent": ALL_TURBULENT, "crowd": CROWD, "bad seal": BAD_SEAL, "lost": LOST, "few leak sessions": FEW_LEAK_SESSIONS,
    "unchecked": UNCHECKED, "no champion conditions": NO_CHAMPION_CONDITIONS, "empty conditions": EMPTY_CONDITIONS,
    "losing seeds": LOSING_SEEDS, "unknown exposure": UNKNOWN_EXPOSURE,
}  # fmt: skip


def lines() -> dict[str, Any]:
    def rounded(value: object) -> object:
        return float(f"{value:.9g}") if isinstance(value, float) else value

    def line(gate: str, evidence: Evidence) -> dict[str, object]:
        return {key: rounded(value) for key, value in asdict(evaluate(GATES[gate], evidence, THRESHOLDS)).items()}

    changes: dict[str, Callable[[Evidence], Evidence]] = {name: change for name, (change, _) in NEGATIVE.items()}
    out: dict[str, Any] = {name: {"own fault": line(name, changes[name](GOOD))} for name in changes}
    good = {name: line(name, CROWNED) for name in GATES}
    for name in GATES:
        entry = out.setdefault(name, {})
        for label, evidence in RECORDS.items():
            found = line(name, evidence)
            # A record that the gate does not mind says nothing new.
            if label == "good" or found != good[name]:
                entry[label] = found
    short = thresholds(minimum_sessions=SESSIONS + 1)
    out["minimum_sessions_v1"]["own fault"] = {
        key: rounded(value) for key, value in asdict(evaluate(GATES["minimum_sessions_v1"], GOOD, short)).items()
    }
    return out


def test_every_gate_writes_its_line_word_for_word() -> None:
    found = json.loads(json.dumps(lines(), sort_keys=True))
    if os.environ.get("QUANTO_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    expected = json.loads(GOLDEN.read_text())
    assert set(found) == set(expected) == set(GATES)
    for name, entry in expected.items():
        assert set(found[name]) == set(entry), name
        for label, line in entry.items():
            for key, value in line.items():
                wanted = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
                assert found[name][label][key] == wanted, (name, label, key)
