"""The default pipeline's real data: what is known about them from elsewhere must come out."""

from __future__ import annotations

import csv
import os
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from quanto.core.config import load_section
from quanto.core.store import read_json
from quanto.runtime.composition import compose_params
from quanto.stages.canonical import stage
from quanto.stages.canonical.config import CanonicalConfig
from quanto.stages.ingest import stage as ingest
from quanto.stages.ingest.config import IngestConfig
from tests.stages.canonical.vendor_tables import ROOT, Serial, canonical


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    (folder / "conf").symlink_to(ROOT / "conf")
    params = compose_params(ROOT)
    here = Path.cwd()
    os.chdir(folder)  # a reference file is named relative to the checkout
    try:
        ingest.run(load_section("ingest", params["ingest"], IngestConfig), folder, Serial())
    finally:
        os.chdir(here)
    stage.run(load_section("canonical", params["canonical"], CanonicalConfig), folder, Serial())
    return folder


def test_every_session_of_every_symbol_is_there_and_nothing_is_quarantined(workspace: Path) -> None:
    report = read_json(workspace / "reports/canonical/canonical_report.json")
    domains = report["domains"]  # type: ignore[index,call-overload]
    assert domains["equity_ohlcv"]["missing_share"] == 0.0  # type: ignore[index,call-overload]
    assert report["quarantine"] == []  # type: ignore[index,call-overload]
    sessions = Counter(canonical(workspace)["symbol"].to_pylist())
    # 2000-03-01 to 2013-03-01 has 3,270 sessions of the New York exchange.
    assert {sessions[name] for name in ("AAPL", "IBM", "MSFT")} == {3270}
    assert sessions["GOOG"] == 2148


def test_dividends_come_out_of_the_adjusted_close_to_the_cent(workspace: Path) -> None:
    rows = [row for row in canonical(workspace, "corporate_actions").to_pylist() if row["kind"] == "cash_dividend"]
    paid = {(row["symbol"], row["ex_date"]): row["cash_usd"] for row in rows}
    # Published by the companies: Apple's 2.65 of 2012, Microsoft's special 3.08 of 2004, IBM's .20 to .60 of 2006 to 2010.
    assert paid["AAPL", date(2012, 8, 9)] == 2.65
    assert paid["MSFT", date(2004, 11, 15)] == 3.08
    assert paid["IBM", date(2006, 2, 8)] == 0.20
    assert paid["IBM", date(2010, 5, 6)] == 0.65
    assert paid["NVDA", date(2012, 11, 20)] == 0.075
    assert Counter(symbol for symbol, _ in paid) == {"IBM": 52, "MSFT": 37, "AAPL": 3, "NVDA": 2}


def test_splits_are_listed_not_implied_a_second_time(workspace: Path) -> None:
    rows = [row for row in canonical(workspace, "corporate_actions").to_pylist() if row["kind"] == "split"]
    assert {row["vendor"] for row in rows} == {"reference"}
    keys = [(row["symbol"], row["ex_date"]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_the_two_vendors_of_goog_differ_in_known_bad_sessions_and_in_the_basis_of_volume(workspace: Path) -> None:
    with (workspace / "reports/canonical/disagreements.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    closes = {row["session"] for row in rows if row["field"] == "close"}
    assert closes == {"2005-04-21", "2006-06-09", "2013-01-24"}
    volumes = [row["class"] for row in rows if row["field"] == "volume"]
    assert Counter(volumes) == {"volume_basis": 2148}


def test_raw_prices_recomputed_from_an_adjusted_vendor_are_prices_in_cents(workspace: Path) -> None:
    # From 2001-04-09 all US shares are quoted in cents. NVDA's vendor gives six digits of prices as low as seven cents:
    # a hundredth of a cent times the factor of 40.
    since = date(2001, 5, 1)
    rows = [row for row in canonical(workspace).to_pylist() if row["symbol"] in ("AMZN", "NVDA") and row["session"] >= since]
    off = [abs(row["close"] * 100 - round(row["close"] * 100)) for row in rows]
    assert sum(value < 0.02 for value in off) / len(off) > 0.99
