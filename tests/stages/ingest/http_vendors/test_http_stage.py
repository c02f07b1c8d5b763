"""The whole stage against vendors on loopback, by configuration alone."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from fakes.polygon import Bar
from fakes.scenarios import AS_OF, DAYS, END, KEYS, SCENARIOS, START, Scenario
from fakes.server import Reply, edit, status

from quanto.core.config import load_section
from quanto.core.errors import QuantoError
from quanto.stages.ingest import stage
from quanto.stages.ingest.config import IngestConfig
from quanto.stages.ingest.landing import LandingStore

REPOSITORY = Path(__file__).parents[4]
SHARED: dict[str, Any] = {
    "symbols": ["ZZZ", "YYY"], "start": str(START), "end": str(END), "as_of": str(AS_OF), "history_sessions": 0, "index_start": str(START),
    "series": [], "interval": "day", "mode": "rest", "offline": False, "tail_tolerance_sessions": 2,
}  # fmt: skip
HURRY = {"attempts": 2, "backoff_seconds": 0.01, "requests": 1000, "window_seconds": 0.05}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    (tmp_path / "workspace").mkdir()


def entry(scenario: Scenario, *domains: str, **options: object) -> dict[str, object]:
    given = {"base_url": scenario.fake.base_url, "transport": HURRY, **options}
    return {"name": scenario.name, "domains": list(domains or ("equity_ohlcv",)), "options": given}


def run(tmp_path: Path, *entries: dict[str, object], **changes: object) -> dict[str, bytes]:
    config = load_section("ingest", {**SHARED, "vendors": list(entries), **changes}, IngestConfig)
    with ThreadPoolExecutor(2) as pool:
        stage.run(config, tmp_path / "workspace", pool)
    return contents(tmp_path / "workspace")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_shipped_polygon_configuration_runs_against_another_host(tmp_path: Path) -> None:
    raw = yaml.safe_load((REPOSITORY / "conf/ingest/polygon_equity_backfill.yaml").read_text())
    with SCENARIOS["polygon"]() as scenario:
        raw["vendors"][0]["options"]["base_url"] = scenario.fake.base_url
        shared = {name: SHARED[name] for name in ("symbols", "start", "end", "as_of", "index_start", "history_sessions")}
        files = run(tmp_path, **{**raw, **shared})
        table = pq.read_table(tmp_path / "workspace/data/raw/polygon/equity_ohlcv/part.parquet")
    assert sorted(set(table["symbol"].to_pylist())) == ["YYY", "ZZZ"]
    assert len(table) == 2 * len(DAYS)
    assert "reports/ingest/ingest_report.json" in files


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario, SCENARIOS["tiingo"]() as second:
        entries = (entry(scenario, "equity_ohlcv", "corporate_actions"), entry(second, "equity_ohlcv", "corporate_actions"))
        first = run(tmp_path, *entries)
        asked = len(scenario.fake.calls), len(second.fake.calls)
        assert run(tmp_path, *entries) == first
        assert (len(scenario.fake.calls), len(second.fake.calls)) == asked
    offline = run(tmp_path, *entries, offline=True)
    changed = {name for name in first if offline[name] != first[name]}
    assert changed <= {"reports/ingest/ingest_report.json"}


def test_the_key_is_in_no_file_log_or_error(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    canaries = {name: f"c4nary-{number}-k3y" for number, name in enumerate(KEYS)}
    for name, value in canaries.items():
        monkeypatch.setenv(name, value)
    texts = [""]
    with ExitStack() as stack:
        polygon, fred, ivolatility = (stack.enter_context(SCENARIOS[name]()) for name in ("polygon", "fred", "ivolatility"))
        polygon.fake.keys = {canaries["POLYGON_API_KEY"]}
        fred.fake.key, ivolatility.fake.key = canaries["FRED_API_KEY"], canaries["IVOLATILITY_API_KEY"]
        # The vendors give the key back where they can: in the next page's URL, in a header, in the body.
        polygon.fake.fault(edit(lambda document: document.update(echo=canaries["POLYGON_API_KEY"])), calls=None)
        ivolatility.fake.fault(lambda reply: replace(reply, headers={"X-Echo": canaries["IVOLATILITY_API_KEY"]}), calls=None)
        series = {"series": [{"name": "VIX", "code": "VIXCLS", "unit": "percent"}]}
        entries = [entry(polygon), entry(fred, "index_level", **series), entry(ivolatility)]
        entries[2]["options"]["transport"] = HURRY  # type: ignore[index]
        run(tmp_path, *entries, series=["VIX"])
        for scenario, key in ((polygon, "POLYGON_API_KEY"), (fred, "FRED_API_KEY")):
            scenario.fake.fault(status(403, f'{{"message":"key {canaries[key]} may not"}}'.encode()), calls=None)
        with pytest.raises(QuantoError) as caught:
            run(tmp_path, *entries, series=["VIX"], as_of=str(AS_OF + timedelta(days=1)))
        texts.append(f"{caught.value} {caught.value!r}")
    for canary in canaries.values():
        found = [str(path) for path in tmp_path.rglob("*") if path.is_file() and canary.encode() in path.read_bytes()]
        assert found == []
        assert canary not in caplog.text
        assert all(canary not in text for text in texts)
    assert any((tmp_path / "root/failures/ingest").iterdir())


def test_one_symbols_failure_does_not_lose_the_others_and_is_resumed(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        scenario.fake.fault(status(500), "/YYY/", None)
        with pytest.raises(QuantoError, match="failures") as caught:
            run(tmp_path, entry(scenario))
        assert "YYY" in str(caught.value)
        asked = [call.path for call in scenario.fake.calls]
        assert any("/ZZZ/" in path for path in asked)
        scenario.fake.faults.clear()
        scenario.fake.calls.clear()
        files = run(tmp_path, entry(scenario))
        assert all("/YYY/" in call.path for call in scenario.fake.calls)
    with SCENARIOS["polygon"]() as undisturbed:
        (tmp_path / "other").mkdir()
        again = run(tmp_path, entry(undisturbed))
    same = [name for name in files if name.endswith("part.parquet")]
    assert [pq.read_table(tmp_path / "workspace" / name).drop(["payload"]) for name in same]
    assert set(again) - {name for name in again if "payloads" in name} == set(files) - {name for name in files if "payloads" in name}


def test_a_used_up_quota_stops_the_vendor_and_the_next_run_goes_on(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        scenario.fake.fault(status(429), calls=None)
        options = {"transport": {**HURRY, "concurrency": 1}}
        with pytest.raises(QuantoError):
            run(tmp_path, entry(scenario, **options), symbols=[f"S{number}" for number in range(50)])
        assert len(scenario.fake.calls) <= 8 * 2
        scenario.fake.faults.clear()
        assert run(tmp_path, entry(scenario))


@pytest.mark.parametrize("vendor", ["polygon", "tiingo"])
def test_a_changed_answer_is_a_recorded_restatement(tmp_path: Path, vendor: str) -> None:
    with SCENARIOS[vendor]() as scenario:
        first = run(tmp_path, entry(scenario))
        changed = scenario.fake.market.bars["ZZZ"]  # type: ignore[attr-defined]
        changed[DAYS[2]] = Bar(1.0, 2.0, 0.5, 1.5, 10.0)
        assert run(tmp_path, entry(scenario)) == first
        later = AS_OF + timedelta(days=1)
        scenario.fake.today = later  # type: ignore[attr-defined]
        run(tmp_path, entry(scenario), as_of=str(later))
    restated = [item for item in LandingStore(tmp_path / "root/landing", later).restatements() if "ZZZ" in item.request["url"]]
    table = pq.read_table(tmp_path / f"workspace/data/raw/{vendor}/equity_ohlcv/part.parquet").to_pylist()
    assert next(row["close"] for row in table if row["symbol"] == "ZZZ" and row["session"] == DAYS[2]) == 1.5
    if vendor == "polygon":  # Tiingo is asked up to as_of, which makes another question of it
        assert [(item.old_as_of, item.new_as_of) for item in restated] == [(str(AS_OF), str(later))]


def test_a_split_after_the_range_restates_an_adjusted_history(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        run(tmp_path, entry(scenario, adjusted=True))
        later = AS_OF + timedelta(days=2)
        scenario.fake.market.splits.append(  # type: ignore[attr-defined]
            {"id": "s", "ticker": "ZZZ", "execution_date": str(later), "split_from": 1, "split_to": 2}
        )
        scenario.fake.today = later  # type: ignore[attr-defined]
        run(tmp_path, entry(scenario, adjusted=True), as_of=str(later))
    rows = pq.read_table(tmp_path / "workspace/data/raw/polygon/equity_ohlcv/part.parquet").to_pylist()
    first = next(row for row in rows if row["symbol"] == "ZZZ")
    assert (first["close"], first["basis"], first["basis_as_of"]) == (25.375, "split", later)
    assert len(list(LandingStore(tmp_path / "root/landing", later).restatements())) == 1


def test_every_row_leads_to_its_place_in_the_vendors_bytes(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        run(tmp_path, entry(scenario, bars_per_page=5))
    data = tmp_path / "workspace/data"
    for row in pq.read_table(data / "raw/polygon/equity_ohlcv/part.parquet").to_pylist():
        document = json.loads((data / "payloads" / row["payload"]).read_bytes())
        record = document["results"][row["payload_row"]]
        assert (record["c"], record["v"]) == (row["close"], row["volume"])


def test_a_body_that_is_no_text_at_all_does_not_break_the_report(tmp_path: Path) -> None:
    with SCENARIOS["polygon"]() as scenario:
        scenario.fake.fault(lambda _: Reply(bytes(range(256)) * 4), calls=None)
        with pytest.raises(QuantoError, match="expected JSON"):
            run(tmp_path, entry(scenario))
