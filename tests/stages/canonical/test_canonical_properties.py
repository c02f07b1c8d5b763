"""What must hold for any vendors: generated gaps, bases, faults and orders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.digest import digest_tree
from quanto.core.store import read_json
from tests.stages.canonical.vendor_tables import Market, build, canonical_config, cells, put, quarantine, raw_actions, raw_bars, true_market

VENDORS = ("one", "two", "three")
NAN = float("nan")


@st.composite
def vendor_plans(draw: st.DrawFn) -> list[dict[str, object]]:
    """Per vendor: a basis, the share of rows it has, a seed, and a few faults."""
    plans = []
    for _ in VENDORS[: draw(st.integers(1, 3))]:
        basis = draw(st.sampled_from([("raw", "raw"), ("split", "split"), ("split", "raw"), ("unknown", "raw")]))
        faults = draw(
            st.lists(
                st.tuples(st.sampled_from(["AAA", "BBB"]), st.integers(0, 29), st.sampled_from(["open", "high", "low", "close", "volume"]),
                          st.sampled_from([NAN, 0.0, -1.0, 1e6, float("inf")])),
                max_size=4,
            )
        )  # fmt: skip
        plans.append({"basis": basis, "share": draw(st.floats(0.1, 1.0)), "seed": draw(st.integers(0, 99)), "faults": faults})
    return plans


def market() -> Market:
    return true_market(("AAA", "BBB"), sessions=30, events=(("AAA", 15, "split", 2.0),))


def tables(plans: list[dict[str, object]]) -> dict[str, pa.Table]:
    truth = market()
    found = {}
    for vendor, plan in zip(VENDORS, plans, strict=False):
        keep = np.random.default_rng(plan["seed"]).random(truth.bars["close"].shape) < plan["share"]
        changes = {(symbol, at, name): value for symbol, at, name, value in plan["faults"]}
        basis, volume_basis = plan["basis"]
        found[vendor] = raw_bars(truth, basis=basis, volume_basis=volume_basis, keep=keep, changes=changes, payload=vendor)
    return found


@contextmanager
def workspace(raw: dict[str, pa.Table], shuffle: int | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        for vendor, table in raw.items():
            order = np.arange(len(table)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(table))
            put(Path(folder), vendor, "equity_ohlcv", table.take(pa.array(order)))
        put(Path(folder), "one", "corporate_actions", raw_actions(market()))
        yield Path(folder)


@settings(deadline=None, max_examples=12)
@given(vendor_plans(), st.integers(0, 5))
def test_rows_are_conserved_each_goes_to_one_place_and_order_does_not_matter(plans: list[dict[str, object]], seed: int) -> None:
    raw = tables(plans)
    with workspace(raw) as one, workspace(raw, shuffle=seed) as other:
        table = build(one)
        build(other)
        assert digest_tree(one / "data/canonical") == digest_tree(other / "data/canonical")
        report = read_json(one / "reports/canonical/canonical_report.json")
        held = {(row["payload"], row["payload_row"]) for row in quarantine(one)}
        chosen = {(row["payload"], row["payload_row"]) for row in table.to_pylist()}
        everything = {(vendor, index) for vendor, rows in raw.items() for index in rows["payload_row"].to_pylist()}
        assert not held & chosen
        assert held | chosen <= everything
        for vendor, rows in raw.items():
            counts = report["domains"]["equity_ohlcv"]["vendors"][vendor]  # type: ignore[index,call-overload]
            assert len(rows) == counts["selected"] + counts["superseded"] + counts["quarantined"]  # type: ignore[index,call-overload,operator]


@settings(deadline=None, max_examples=12)
@given(vendor_plans())
def test_every_chosen_bar_is_the_truth_and_no_better_ranked_valid_bar_was_passed_over(plans: list[dict[str, object]]) -> None:
    raw, truth = tables(plans), market()
    with workspace(raw) as folder:
        table = build(folder)
        held = {(row["payload"], row["payload_row"]) for row in quarantine(folder)}
        for row in table.to_pylist():
            at, column = int(np.searchsorted(truth.sessions, np.datetime64(row["session"]))), truth.column(row["symbol"])
            for name in ("open", "high", "low", "close"):
                np.testing.assert_allclose(row[name], truth.bars[name][at, column], rtol=1e-9)
        vendors = cells(table, "vendor")
        for rank, (vendor, rows) in enumerate(raw.items()):
            for row in rows.to_pylist():
                if (vendor, row["payload_row"]) not in held:
                    chosen = vendors[str(row["session"]), row["symbol"]]
                    assert VENDORS.index(chosen) <= rank


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 3), st.integers(8, 25))
def test_rows_that_arrive_later_do_not_change_the_rows_before_them(count: int, cut: int) -> None:
    """As-of monotonicity: the build of what was known until a session is the later build's beginning.

    Context at the end of the data (spikes, stale fills, gap filling) may be judged later, so the vendors are whole here.
    """
    truth = market()
    whole = {vendor: raw_bars(truth, payload=vendor) for vendor in VENDORS[:count]}
    day = truth.sessions[cut].astype(object)
    known = {
        vendor: pa.Table.from_pylist([r for r in t.to_pylist() if r["known_on"] <= day], schema=t.schema) for vendor, t in whole.items()
    }
    with workspace(known) as early, workspace(whole) as late:
        before, after = build(early), build(late)
        assert after.slice(0, len(before)).equals(before)


@settings(deadline=None, max_examples=8)
@given(st.permutations(VENDORS), st.integers(0, 50))
def test_the_priority_decides_whatever_the_vendors_are_called(order: tuple[str, ...], first: int) -> None:
    truth = market()
    keep = [np.random.default_rng(seed).random(truth.bars["close"].shape) < 0.8 for seed in range(first, first + 3)]
    raw = {vendor: raw_bars(truth, keep=part, payload=vendor) for vendor, part in zip(order, keep, strict=True)}
    with workspace(raw) as folder:
        table = build(folder, canonical_config(priority=order))
        position = {vendor: {(str(r["session"]), r["symbol"]) for r in rows.to_pylist()} for vendor, rows in raw.items()}
        for key, vendor in cells(table, "vendor").items():
            assert vendor == next(name for name in order if key in position[name])
