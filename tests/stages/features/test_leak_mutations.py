"""The mutation score of the leak proof: what it finds of seeded leaks, and whether it cries wolf."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quanto.core.store import write_json
from quanto.stages.features.proof import prove
from tests.stages.features.leak_catalogue import VIEW, Mutant, controls, leaks

CUTS = np.arange(40, 330, 4)
FEW = ("back_fill", "shift_minus_one", "restated_values", "reads_a_file", "understated_lookback", "plain_return", "expanding_zscore")


def judge(mutant: Mutant) -> dict[str, Any]:
    """Return what the proof says of a mutant: whether it passed, and by which checks it was caught."""
    report = prove(mutant.build, mutant.claims, VIEW, CUTS, seed=5)
    columns: Iterable[dict[str, Any]] = report["columns"].values()  # type: ignore[attr-defined]
    by = sorted({check for column in columns for check, item in column["checks"].items() if not item["passed"]})
    first = next((column["first_mismatch"] for column in columns if column["first_mismatch"]), None)
    return {"name": mutant.name, "what": mutant.sentence, "passed": report["passed"], "failed_checks": by, "first_mismatch": first}


def mutation_table() -> dict[str, Any]:
    """Return the verdicts on all leaks and controls as a JSON value."""
    found, silent = [judge(mutant) for mutant in leaks()], [judge(mutant) for mutant in controls()]
    return {
        "leaks": len(found),
        "caught": sum(not row["passed"] for row in found),
        "controls": len(silent),
        "false_alarms": sum(not row["passed"] for row in silent),
        "sessions": len(CUTS),
        "leak_verdicts": found,
        "control_verdicts": silent,
    }


@pytest.mark.acceptance
def test_every_seeded_leak_is_caught_and_no_honest_column_is_blamed(tmp_path: Path) -> None:
    table = mutation_table()
    write_json(Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "leak_mutations.json", table)
    assert [row["name"] for row in table["leak_verdicts"] if row["passed"]] == []
    assert [(row["name"], row["failed_checks"], row["first_mismatch"]) for row in table["control_verdicts"] if not row["passed"]] == []
    assert table["leaks"] >= 25
    assert table["controls"] >= 6


@pytest.mark.parametrize("name", FEW)
def test_the_proof_knows_a_leak_from_an_honest_column(name: str) -> None:
    mutant = next(mutant for mutant in (*leaks(), *controls()) if mutant.name == name)
    assert judge(mutant)["passed"] is not mutant.leak


def test_a_column_that_is_always_missing_is_not_proved() -> None:
    nothing = next(mutant for mutant in controls() if mutant.name == "plain_return")

    def build(view: Any, names: frozenset[str] | None = None) -> dict[str, np.ndarray]:
        return {"plain_return": np.full(view.panel.close.shape, np.nan)}

    report = prove(build, nothing.claims, VIEW, CUTS[:4], seed=5)
    assert report["passed"] is False
    assert report["mismatches"] == 0


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), mutation_table())
