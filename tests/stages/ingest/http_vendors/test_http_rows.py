"""Numbers, stamps and sessions: what must always hold."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.stages.ingest.bars import session_bars
from quanto.stages.ingest.rows import MISSING, Records, iso_day, parse_integer, parse_number
from quanto.stages.ingest.stamps import local_stamps, provisional, rfc3339_day

ODD = [math.nan, math.inf, "NaN", "inf", "1_000", "0x1", "1e999", "\u0661\u0662"]
NO_NUMBERS = [*ODD, " ", "Infinity", "--1", "1,00", "1,0000", "$5", "5%", "1e", True, None, MISSING, [1], {}]
DAYS = st.dates(date(1986, 1, 1), date(2035, 12, 30))


@settings(deadline=None, max_examples=200)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_as_number_and_as_text(value: float) -> None:
    assert parse_number(value) == value
    assert parse_number(repr(value)) == value
    assert Records("", [{"x": value}]).numbers("x")[0] == value


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.text(), st.booleans(), st.none(), st.lists(st.integers()), st.sampled_from(ODD)))
def test_what_is_no_number_is_a_sentence_and_never_a_guess(value: object) -> None:
    found = parse_number(value)
    if isinstance(found, float):
        assert isinstance(value, str)
        assert math.isfinite(found)
        assert set(value.strip()) <= set("+-.,0123456789eE")
    else:
        assert found


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_these_are_no_numbers(value: object) -> None:
    assert isinstance(parse_number(value), str)


@pytest.mark.parametrize(
    ("value", "number"), [("1,234.5", 1234.5), ("-1,234,567", -1234567.0), (" 5 ", 5.0), (".5", 0.5), ("5.", 5.0), ("+1e3", 1000.0)]
)
def test_these_are_numbers(value: str, number: float) -> None:
    assert parse_number(value) == number


@settings(deadline=None, max_examples=200)
@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_never_passes_through_a_float(value: int) -> None:
    assert parse_integer(value) == value
    assert parse_integer(str(value)) == value
    assert Records("", [{"x": value}, {"x": str(value)}]).integers("x").tolist() == [value, value]


def test_missing_null_and_zero_are_three_facts() -> None:
    records = Records("", [{}, {"x": None}, {"x": 0}])
    records.numbers("x")
    assert records.faults == {0: "x is missing", 1: "x is null"}


@settings(deadline=None, max_examples=200)
@given(DAYS, st.sampled_from(["s", "ms", "us", "ns"]))
def test_midnight_in_new_york_is_its_own_session_in_every_unit(day: date, unit: str) -> None:
    moment = datetime.combine(day, time(0), ZoneInfo("America/New_York"))
    stamp = int(moment.timestamp()) * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    day_at_four = stamp + 16 * 3600 * (stamp // int(moment.timestamp()))
    found = local_stamps(np.array([stamp, day_at_four]), unit).astype("datetime64[D]")  # type: ignore[arg-type]
    assert found.tolist() == [day, day]


@settings(deadline=None, max_examples=100)
@given(DAYS, st.sampled_from([("ms", "s"), ("ms", "us"), ("ms", "ns"), ("ns", "ms"), ("s", "ms")]))
def test_a_stamp_in_another_unit_is_found(day: date, units: tuple[str, str]) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    stamp = int(datetime.combine(day, time(0), UTC).timestamp()) * per_second[units[1]]
    assert np.isnat(local_stamps(np.array([stamp]), units[0])[0])  # type: ignore[arg-type]


@settings(deadline=None, max_examples=200)
@given(DAYS, st.integers(0, 9))
def test_rfc_3339_stamps_read_alike_with_z_with_offset_and_with_fractions(day: date, digits: int) -> None:
    moment = datetime.combine(day, time(0), ZoneInfo("America/New_York"))
    fraction = "." + "123456789"[:digits] if digits else ""
    utc = moment.astimezone(UTC)
    for text in (f"{utc:%Y-%m-%dT%H:%M:%S}{fraction}Z", f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}{moment:%z}"):
        assert rfc3339_day(text, "America/New_York") == day


def test_a_stamp_without_an_offset_has_no_day_in_a_zone() -> None:
    with pytest.raises(ValueError, match="2026"):
        rfc3339_day("2026-01-06T05:00:00", "America/New_York")


@pytest.mark.parametrize("text", ["2021-12-16", "2021-12-16 00:00:00", "2021-12-16 00:00:00.0", "2021-12-16T00:00:00.0000-0500"])
def test_dates_as_ivolatility_writes_them(text: str) -> None:
    assert iso_day(text) == date(2021, 12, 16)


@pytest.mark.parametrize("text", ["20211216", "2021-12-167", "16.12.2021", "2021-13-01", "soon"])
def test_these_are_no_dates(text: str) -> None:
    with pytest.raises(ValueError, match=r"|".join([text, "month", "day"])):
        iso_day(text)


def test_a_session_is_final_so_many_days_later() -> None:
    days = np.array(["2026-01-05", "2026-01-06", "2026-01-07"], dtype="datetime64[D]")
    as_of = date(2026, 1, 7)
    assert provisional(days, as_of, 0).tolist() == [False, False, False]
    assert provisional(days, as_of, 1).tolist() == [False, False, True]
    assert provisional(days, as_of, 2).tolist() == [False, True, True]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(1, 100), st.floats(0, 1000)), max_size=40))
def test_session_bars_are_the_first_last_extremes_and_sum_of_their_minutes(minutes: list[tuple[int, float, float]]) -> None:
    minutes = sorted(minutes, key=lambda item: item[0])
    days = np.array([date(2026, 1, 5) + timedelta(days=item[0]) for item in minutes], dtype="datetime64[D]")
    price = np.array([item[1] for item in minutes], dtype=np.float64)
    volume = np.array([item[2] for item in minutes], dtype=np.float64)
    first, sessions, bars, total = session_bars(days, dict.fromkeys(("open", "high", "low", "close"), price), volume)
    assert sessions.tolist() == sorted(set(days.tolist()))
    for index, day in enumerate(sessions):
        inside = price[days == day]
        assert (bars["open"][index], bars["close"][index]) == (inside[0], inside[-1])
        assert (bars["high"][index], bars["low"][index]) == (inside.max(), inside.min())
        assert total[index] == pytest.approx(volume[days == day].sum())
        assert days[first[index]] == day
