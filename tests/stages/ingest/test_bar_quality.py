"""Stale prices and outliers: named where they are, whatever the partition, and never hidden by their own size."""

from __future__ import annotations

from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.market.calendar import sessions_between
from quanto.market.schema import RAW
from quanto.stages.ingest.quality import oddities
from quanto.stages.ingest.spool import Spool, partitions
from quanto.stages.ingest.summary import Summary
from quanto.stages.ingest.validate import validate

FloatArray = npt.NDArray[np.float64]


def walk(count: int, seed: int = 1, volatility: float = 0.01) -> FloatArray:
    return 50 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, volatility, count)))


def bars_of(close: FloatArray) -> FloatArray:
    return np.stack([close, np.arange(len(close), dtype=float)], axis=1)


def table(close: FloatArray, first: date, symbol: str = "AAA") -> pa.Table:
    days = sessions_between(first, date(2020, 12, 31))[: len(close)]
    volume = 1e6 + np.arange(len(close))
    constant = {"symbol": symbol, "basis": "raw", "volume_basis": "raw", "provisional": False, "payload": "p"}
    columns = {name: pa.array(close) for name in ("open", "high", "low", "close")} | {
        name: [value] * len(close) for name, value in constant.items()
    }
    columns |= {"session": days, "known_on": days, "volume": volume, "payload_row": np.arange(len(close))}
    full = {field.name: columns.get(field.name, [None] * len(close)) for field in RAW["equity_ohlcv"]}
    return pa.table(full, schema=RAW["equity_ohlcv"])


def test_a_quiet_walk_is_not_odd() -> None:
    close = walk(500)
    assert oddities(close, bars_of(close)) == oddities(close[:0], bars_of(close[:0]))


@settings(deadline=None, max_examples=30)
@given(at=st.integers(40, 460), size=st.sampled_from([0.3, -0.3, 3.0]), seed=st.integers(0, 100))
def test_a_jump_is_found_where_it_is_and_not_hidden_by_its_own_size(at: int, size: float, seed: int) -> None:
    close = walk(500, seed)
    close[at:] *= np.exp(size)
    (found,) = oddities(close, bars_of(close)).outliers
    assert found[0] == at
    assert found[1] > 15


def test_a_bad_tick_shows_on_both_sides() -> None:
    close = walk(500)
    close[200] *= 100
    assert [at for at, _ in oddities(close, bars_of(close)).outliers] == [200, 201]


def test_a_crash_among_wild_days_is_less_odd_than_one_among_calm_ones() -> None:
    calm, wild = walk(300), walk(300, volatility=0.04)
    calm[150:] *= 0.85
    wild[150:] *= 0.85
    assert oddities(calm, bars_of(calm)).outliers
    assert not oddities(wild, bars_of(wild)).outliers


@pytest.mark.parametrize(("length", "found"), [(3, ()), (4, ((99, 103),)), (30, ((99, 129),))])
def test_bars_that_stand_still_are_stale_from_the_fifth_equal_bar(length: int, found: tuple[tuple[int, int], ...]) -> None:
    bars = bars_of(walk(300))
    bars[100 : 100 + length] = bars[99]
    assert oddities(bars[:, 0], bars).stale == found


def test_oddities_are_found_across_the_turn_of_the_year() -> None:
    close = walk(400)
    days = sessions_between(date(2018, 3, 1), date(2020, 12, 31))[:400]
    new_year = int(np.searchsorted(days, np.datetime64("2019-01-01")))
    close[new_year:] *= 1.5
    rows = table(close, date(2018, 3, 1))
    summary = Summary("equity_ohlcv")
    for part in partitions("equity_ohlcv", [rows]):
        summary.add(validate("equity_ohlcv", "v", part))
    assert list(summary.names["AAA"].outliers) == [days[new_year].astype(object)]
    told = summary.as_json({("AAA", date(2019, 1, 2)): "split"})["symbols"]
    assert isinstance(told, dict)
    assert told["AAA"]["outliers"][0]["action"] == "split"
    assert (told["AAA"]["rows"], told["AAA"]["first"]) == (400, date(2018, 3, 1))


def test_a_stale_run_across_the_turn_of_the_year_is_one_run() -> None:
    rows = table(walk(400), date(2018, 3, 1)).to_pylist()
    days = [row["session"] for row in rows]
    first = days.index(date(2018, 12, 24))
    for row in rows[first + 1 : first + 13]:
        row |= {name: rows[first][name] for name in ("open", "high", "low", "close", "volume")}
    summary = Summary("equity_ohlcv")
    for part in partitions("equity_ohlcv", [pa.Table.from_pylist(rows, schema=RAW["equity_ohlcv"])]):
        summary.add(validate("equity_ohlcv", "v", part))
    assert summary.names["AAA"].stale == {date(2018, 12, 24): days[first + 12]}


def test_partitions_hold_every_row_once_in_the_order_of_years() -> None:
    one, two = table(walk(600), date(2018, 3, 1)), table(walk(300), date(2019, 3, 1), "BBB")
    parts = list(partitions("equity_ohlcv", [two, one]))
    assert [sorted({day.year for day in part["session"].to_pylist()}) for part in parts] == [[2018], [2019], [2020]]
    whole = validate("equity_ohlcv", "v", pa.concat_tables([one, two])).table
    assert pa.concat_tables([validate("equity_ohlcv", "v", part).table for part in parts]).combine_chunks().equals(whole)
    assert [len(part) for part in partitions("equity_ohlcv", [one.slice(0, 0)])] == [0]


@pytest.mark.parametrize(
    ("rows_together", "found"),
    [(0, [211, 252, 137]), (388, [211, 252, 137]), (462, [211, 389]), (463, [463, 137]), (600, [600])],
)
def test_small_years_are_yielded_together(rows_together: int, found: list[int]) -> None:
    rows = table(walk(600), date(2018, 3, 1))
    assert [len(part) for part in partitions("equity_ohlcv", [rows], "Y", rows_together)] == found


def test_a_spooled_table_is_equal_wherever_it_lies(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("spool")
    rows = table(walk(600), date(2018, 3, 1))
    spool = Spool(folder, rows_in_memory=700)
    assert spool.hold(rows) is rows
    assert list(folder.iterdir()) == []
    assert spool.hold(rows).equals(rows)
    assert spool.hold(rows.slice(0, 0)).equals(rows.slice(0, 0))
    assert len(list(folder.iterdir())) == 1
