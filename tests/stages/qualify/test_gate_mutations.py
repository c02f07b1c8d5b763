"""The mutation score of gates and metrics, by cosmic-ray: of the changes that it makes to their code, nine of ten fail a test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fakes.mutation_score import Subject, mutation_score

from quanto.core.store import write_json

COMMON = ("numpy", "scipy.stats", "pyarrow.compute", "pydantic", "hypothesis.extra.numpy", "yaml", "omegaconf", "numba", "arch.bootstrap")
# What no test can notice, by line and operator; read by a person.
EQUIVALENTS = (
    ("", "lru_cache", "NumberReplacer", "the size of a cache changes no result"),
    ("", "lru_cache", "RemoveDecorator", "what is not cached is computed again, to the same result"),
    ("", 'kind == "regime"', "ReplaceComparisonOperator_Eq_GtE", "no other kind stands after `regime` in the alphabet"),
    ("", 'kind == "evidence"', "ReplaceComparisonOperator_Eq_LtE", "no other kind stands before `evidence` in the alphabet"),
    ("", 'protection == "none"', "ReplaceComparisonOperator_Eq_LtE", "the only other word, `required`, stands after it"),
    ("", 'protection == "required"', "ReplaceComparisonOperator_Eq_GtE", "the only other word, `none`, stands before it"),
    ("edge", 'selection != "point_in_time"', "ReplaceComparisonOperator_NotEq_Lt", "the only other word, `hindsight`, stands before it"),
    ("edge", "is None or", "ReplaceOrWithAnd", "both are there, or neither is"),
    ("edge", "fresh_sessions=0", "NumberReplacer", "one session or minus one is as far from enough as none"),
    ("hard", "violations=1", "NumberReplacer", "two breaches stop what one stops"),
    ("hard", "cash_breaches=1", "NumberReplacer", "two breaches stop what one stops"),
    ("hard", "leak_mismatches=1", "NumberReplacer", "two mismatches stop what one stops"),
    ("hard", "trades=0", "NumberReplacer", "one trade or minus one is as idle as none"),
    ("", "float(test", "NumberReplacer", "the array has one element, so [-1] is [0]"),
    ("", '== "failed"', "ReplaceComparisonOperator_Eq_LtE", "no other status stands before `failed` in the alphabet"),
    ("", '== "vacuous"', "ReplaceComparisonOperator_Eq_GtE", "no other status stands after `vacuous` in the alphabet"),
    ("", '== "passed"', "ReplaceComparisonOperator_Eq_GtE", "a measure is never `vacuous`, the only status after `passed`"),
    ("", "[0])", "NumberReplacer", "the array has one element, so [-1] is [0]"),
    ("", "== 0", "ReplaceComparisonOperator_Eq_LtE", "a count or a deviation is never negative"),
    ("regime", "other == 0", "ReplaceComparisonOperator_Eq_LtE", "a deviation is never negative"),
    ("edge", "max(len(evidence.members), 1)", "NumberReplacer", "the gate is insufficient before there are no members"),
    ("edge", "size > 0", "ReplaceComparisonOperator_Gt_NotEq", "a length is never negative"),
    ("verdict", 'kind != "evidence"', "ReplaceComparisonOperator_NotEq_Gt", "every other kind stands after `evidence` in the alphabet"),
    ("verdict", 'result.kind == "hard"', "ReplaceComparisonOperator_Eq_LtE", "guards are never `evidence`, the only kind before `hard`"),
    ("edge", "p_inferior=0.0", "NumberReplacer", "a p below every level, whatever it is"),
    ("hard", "returns[:1] = np.nan", "NumberReplacer", "one missing return or two: either is missing"),
)
SUBJECTS = {
    "gates": Subject(
        modules=tuple(f"quanto.stages.qualify.{name}" for name in ("hard", "regime", "inferiority", "edge", "gate", "verdict", "evidence")),
        tests=(
            "tests/contracts/test_gate_lines.py",
            "tests/contracts/test_gate_boundaries.py",
            "tests/contracts/test_gate_registry.py",
            "tests/stages/qualify/test_verdicts.py",
        ),
        preload=(
            *COMMON,
            "fakes.evaluation",
            "quanto.portfolio.bootstrap",
            "quanto.portfolio.multiplicity",
            "quanto.portfolio.significance",
        ),
        equivalents=EQUIVALENTS,
    ),
    "metrics": Subject(
        modules=tuple(f"quanto.portfolio.{name}" for name in ("metrics", "sharpe", "drawdowns", "activity")),
        tests=(
            "tests/portfolio/test_return_metrics.py",
            "tests/portfolio/test_sharpe_inference.py",
            "tests/portfolio/test_drawdowns.py",
            "tests/portfolio/test_activity_and_attribution.py",
        ),
        preload=(*COMMON, "pandas", "empyrical", "statsmodels.api", "skfolio.measures", "arch.data.sp500"),
    ),
}


@pytest.mark.acceptance
@pytest.mark.parametrize("name", SUBJECTS)
def test_nine_of_ten_changes_fail_a_test(tmp_path: Path, name: str) -> None:
    score = mutation_score(tmp_path / "copy", SUBJECTS[name])
    write_json(Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / f"{name}_mutation_score.json", score)
    assert score["mutants"] > 300
    assert score["score"] >= 0.9, score["survivors"]


if __name__ == "__main__":
    write_json(Path(sys.argv[3]), mutation_score(Path(sys.argv[2]), SUBJECTS[sys.argv[1]]))
