"""What every vendor kind must keep to; a new entry of the registry is tested here by itself."""

from __future__ import annotations

import pickle
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from quanto.core.config import load_section
from quanto.core.digest import digest_bytes
from quanto.core.errors import ConfigError
from quanto.market.schema import DATE_COLUMN, DOMAINS, KEYS, RAW
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.registry import VENDORS
from quanto.stages.ingest.validate import validate
from quanto.stages.ingest.vendor import IngestRequest, Vendor
from quanto.stages.ingest.vendors.synthetic_markets import FAMILIES

REPOSITORY = Path(__file__).parents[2]
AS_OF = date(2026, 11, 1)
MODES = {"rest", "flatfile", "package", "file", "synthetic"}

# Vendors that answer without a network are run; the others have a fake server (a wheel: an index) and their own suite.
LOCAL: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name, kind in VENDORS.items() if "package" in kind.modes and name != "wheel"),
    ("reference", {"path": "conf/reference/corporate_actions.csv"}),
    *(
        ("synthetic", {"family": family, "seed": 5, "market_start": "2008-01-02", "corporate_actions": True})
        for family, recipe in FAMILIES.items()
        if recipe.symbols is None
    ),
]
NAMES = ("AAPL", "AMZN", "GOOG", "IBM", "MSFT", "NVDA", "SPX", "TBILL_1M")


def make(name: str, options: dict[str, Any]) -> Vendor:
    kind = VENDORS[name]
    return kind.build("my_name", load_section("options", options, kind.options), REPOSITORY)


def request(domain: str) -> IngestRequest:
    return IngestRequest(domain, NAMES, date(2009, 1, 2), date(2010, 12, 31), AS_OF)


@pytest.mark.parametrize("name", list(VENDORS))
def test_an_entry_says_what_it_is(name: str) -> None:
    kind = VENDORS[name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", kind.name)
    assert len(kind.summary) > 20
    assert kind.domains
    assert kind.domains <= set(DOMAINS)
    assert kind.modes
    assert kind.modes <= MODES
    assert kind.options.model_config["extra"] == "forbid"


@pytest.mark.parametrize("name", list(VENDORS))
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"options\.no_such_option: unknown key"):
        load_section("options", {"no_such_option": 1}, VENDORS[name].options)


def test_every_local_vendor_is_run_here() -> None:
    local = {name for name, kind in VENDORS.items() if kind.modes & {"package", "synthetic"}}
    assert {name for name, _ in LOCAL} == (local - {"wheel"}) | {"reference"}


@pytest.mark.parametrize(("name", "options"), LOCAL)
def test_a_vendor_carries_the_name_and_the_domains_of_its_entry(name: str, options: dict[str, Any]) -> None:
    vendor = make(name, options)
    assert vendor.name == "my_name"
    assert vendor.domains == VENDORS[name].domains


@pytest.mark.parametrize(("name", "options"), LOCAL)
def test_a_plan_is_pure_and_its_shards_have_their_own_keys(name: str, options: dict[str, Any]) -> None:
    vendor = make(name, options)
    for domain in sorted(vendor.domains):
        shards = vendor.plan(request(domain))
        assert shards == vendor.plan(request(domain))
        assert len({shard.key for shard in shards}) == len(shards)
        assert all((shard.vendor, shard.domain) == ("my_name", domain) for shard in shards)
        assert all(set(shard.symbols) <= set(NAMES) for shard in shards)


@pytest.mark.parametrize(("name", "options"), LOCAL)
def test_rows_follow_the_contract_lie_in_the_request_and_lead_to_their_bytes(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    vendor, landing = make(name, options), LandingStore(tmp_path, AS_OF)
    for domain in sorted(vendor.domains):
        for shard in vendor.plan(request(domain)):
            payloads = vendor.fetch(shard, landing)
            parsed = vendor.parse(shard, payloads)
            assert parsed.table.schema.equals(RAW[domain])
            days = parsed.table[DATE_COLUMN[domain]].to_pylist()
            assert all(shard.start <= day <= shard.end for day in days)
            name_column = "series" if domain == "index_level" else "symbol"
            assert set(parsed.table[name_column].to_pylist()) <= set(shard.symbols)
            assert {digest_bytes(payload.body) for payload in payloads} >= set(parsed.table["payload"].to_pylist())
            assert all(value is not None for key in KEYS[domain][:2] for value in parsed.table[key].to_pylist())
            assert len(validate(domain, vendor.name, parsed.table, parsed.rejected).quarantine) == 0


@pytest.mark.parametrize(("name", "options"), LOCAL)
def test_what_was_fetched_once_is_parsed_alike_offline_at_any_date_and_in_another_process(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    vendor = make(name, options)
    for domain in sorted(vendor.domains):
        for shard in vendor.plan(request(domain)):
            first = vendor.fetch(shard, LandingStore(tmp_path, AS_OF))
            again = vendor.fetch(shard, LandingStore(tmp_path, date(2026, 12, 1), offline=True))
            assert [payload.sha256 for payload in first] == [payload.sha256 for payload in again]
            elsewhere = pickle.loads(pickle.dumps((vendor, shard, again)))
            assert elsewhere[0].parse(elsewhere[1], elsewhere[2]).table.equals(vendor.parse(shard, first).table)


# A synthetic market has whatever symbol is asked of it.
@pytest.mark.parametrize(("name", "options"), [case for case in LOCAL if case[0] != "synthetic"])
def test_a_vendor_asked_for_what_it_lacks_has_no_rows(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    vendor, landing = make(name, options), LandingStore(tmp_path, AS_OF)
    for domain in sorted(vendor.domains):
        asked = IngestRequest(domain, ("NO_SUCH_NAME",), date(2009, 1, 2), date(2010, 12, 31), AS_OF)
        assert sum(len(vendor.parse(shard, vendor.fetch(shard, landing)).table) for shard in vendor.plan(asked)) == 0
