"""Every fault of the catalogue against the vendors that it can reach: quickly one vendor each, as evidence all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fakes.faults import CASES, Case
from fakes.scenarios import KEYS, SCENARIOS, Outcome

# Where vendors differ in how they read, every vendor is tried each time.
EVERY_VENDOR = (
    "429-without-a-word",
    "gzip-cut",
    "half-a-body-then-fine",
    "field-renamed",
    "conflicting-row-twice",
    "not-available",
    "sunday",
)
CELLS = [(case, vendor) for case in CASES for vendor in case.vendors]
QUICK = [cell for cell in CELLS if cell[1] == cell[0].vendors[0] or any(name in str(cell[0]) for name in EVERY_VENDOR)]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def _end(case: Case, vendor: str) -> Outcome:
    with SCENARIOS[vendor]() as scenario:
        case.plan(scenario)
        planned = list(scenario.fake.faults)
        outcome = scenario.run()
        assert all(fault.seen for fault in planned), "a planned fault was never met"
        case.right(vendor)(scenario, outcome)
    return outcome


@pytest.mark.parametrize(("case", "vendor"), QUICK, ids=[f"{case}-{vendor}" for case, vendor in QUICK])
def test_a_fault_ends_as_the_contract_sheet_says(case: Case, vendor: str) -> None:
    _end(case, vendor)


@pytest.mark.acceptance
def test_the_matrix_of_fault_and_vendor_and_outcome_is_written(tmp_path: Path) -> None:
    table: dict[str, dict[str, str]] = {}
    for case, vendor in CELLS:
        table.setdefault(str(case), {})[vendor] = _end(case, vendor).word
    path = Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "ingest_fault_matrix.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    assert {int(name[:2]) for name in table} == set(range(1, 31)) - {29}  # the broker's, tested with the brokers
