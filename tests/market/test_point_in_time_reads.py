"""What was known when, and what cash earned."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import DataError, MissingDataError
from quanto.market.calendar import sessions_between
from quanto.market.point_in_time import as_of, cash_rate, index_series, known_by, sessions_in_month
from quanto.market.schema import CANONICAL


def levels(*rows: tuple[date, float, date], series: str = "TBILL_1M", unit: str = "fraction_per_month") -> pa.Table:
    found = [
        {"session": day, "series": series, "value": value, "unit": unit, "vendor": "v", "vendors_seen": "v", "method": "only", "flags": "",
         "known_on": known, "payload": "p", "payload_row": 0}
        for day, value, known in rows
    ]  # fmt: skip
    return pa.Table.from_pylist(found, schema=CANONICAL["index_level"])


JAN, FEB = date(2010, 1, 31), date(2010, 2, 28)


def test_a_month_earns_the_bill_of_the_month_before_and_no_more() -> None:
    table = levels((JAN, 0.0004, JAN), (FEB, 0.0009, FEB))
    sessions = sessions_between(date(2010, 2, 1), date(2010, 3, 31))
    rate = cash_rate(sessions, table)
    february = sessions.astype("datetime64[M]") == np.datetime64("2010-02")
    # 19 sessions in February 2010 (Presidents' Day), 23 in March: the published calendar.
    assert february.sum() == 19
    assert (~february).sum() == 23
    assert np.prod(1 + rate[february]) - 1 == pytest.approx(0.0004, rel=1e-9)
    assert np.prod(1 + rate[~february]) - 1 == pytest.approx(0.0009, rel=1e-9)


def test_a_part_of_a_month_earns_its_part() -> None:
    table = levels((JAN, 0.0004, JAN))
    whole = cash_rate(sessions_between(date(2010, 2, 1), date(2010, 2, 28)), table)
    part = cash_rate(sessions_between(date(2010, 2, 10), date(2010, 2, 12)), table)
    np.testing.assert_array_equal(part, whole[7:10])


def test_a_bill_that_was_published_late_is_not_earned_before() -> None:
    table = levels((JAN, 0.0004, JAN), (FEB, 0.0009, date(2010, 3, 15)))
    sessions = sessions_between(date(2010, 3, 1), date(2010, 3, 31))
    rate = cash_rate(sessions, table) * 23
    assert rate[sessions <= np.datetime64("2010-03-15")] == pytest.approx(0.0004, rel=1e-3)
    assert rate[sessions > np.datetime64("2010-03-15")] == pytest.approx(0.0009, rel=1e-3)


def test_an_annual_rate_is_spread_over_252_sessions() -> None:
    table = levels((date(2010, 1, 29), 0.05, date(2010, 2, 1)), unit="fraction")
    rate = cash_rate(sessions_between(date(2010, 2, 2), date(2010, 2, 3)), table)
    np.testing.assert_allclose((1 + rate) ** 252, 1.05)


def test_an_unknown_rate_is_not_zero() -> None:
    table = levels((JAN, 0.0004, JAN))
    rate = cash_rate(np.array(["2010-01-29", "2010-02-01", "2010-12-01"], dtype="datetime64[D]"), table)
    assert np.isnan(rate[[0, 2]]).all()
    assert np.isfinite(rate[1])
    with pytest.raises(MissingDataError, match="no series TBILL_1M"):
        cash_rate(sessions_between(date(2010, 2, 1), date(2010, 2, 5)), levels((JAN, 1.0, JAN), series="SPX"))
    with pytest.raises(DataError, match="is given in level"):
        cash_rate(sessions_between(date(2010, 2, 1), date(2010, 2, 5)), levels((JAN, 1.0, JAN), unit="level"))


def test_sessions_in_a_month_count_the_whole_month_whatever_is_asked_for() -> None:
    days = np.array(["2010-02-26", "2001-09-28"], dtype="datetime64[D]")
    assert sessions_in_month(days).tolist() == [19, 15]  # September 2001 lost four sessions


def test_a_series_has_its_value_on_its_sessions_and_nan_elsewhere() -> None:
    table = levels((date(2010, 1, 5), 1136.5, date(2010, 1, 5)), (date(2010, 1, 4), 1133.0, date(2010, 1, 6)), series="SPX", unit="level")
    sessions = sessions_between(date(2010, 1, 4), date(2010, 1, 6))
    np.testing.assert_array_equal(index_series(table, "SPX", sessions), [1133.0, 1136.5, np.nan])
    np.testing.assert_array_equal(index_series(table, "SPX", sessions, known_on=date(2010, 1, 5)), [np.nan, 1136.5, np.nan])
    assert np.isnan(index_series(table, "VIX", sessions)).all()


def test_two_values_of_one_session_are_refused() -> None:
    table = levels((JAN, 1.0, JAN), (JAN, 2.0, JAN), series="SPX")
    with pytest.raises(DataError, match="two values of SPX"):
        index_series(table, "SPX", sessions_between(date(2010, 1, 4), date(2010, 1, 29)))


def test_the_version_known_last_is_read() -> None:
    table = levels((JAN, 3.0, date(2010, 4, 1)), (JAN, 1.0, date(2010, 2, 1)), (JAN, 2.0, date(2010, 3, 1)), series="SPX")
    for day, value in ((date(2010, 2, 15), 1.0), (date(2010, 3, 1), 2.0), (date(2010, 5, 1), 3.0)):
        assert as_of(table, day, ("series", "session"))["value"].to_pylist() == [value]
    assert len(as_of(table, date(2010, 1, 31), ("series", "session"))) == 0


versions = st.lists(
    st.tuples(st.integers(0, 5), st.floats(1, 9), st.integers(0, 40)).map(
        lambda item: (JAN + timedelta(days=item[0]), item[1], JAN + timedelta(days=item[2]))
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(versions, st.integers(0, 45), st.integers(0, 45))
def test_time_only_adds_keys_and_the_future_never_changes_a_view(rows: list[tuple[date, float, date]], one: int, other: int) -> None:
    first, second = sorted((JAN + timedelta(days=one), JAN + timedelta(days=other)))
    table, key = levels(*rows, series="SPX"), ("series", "session")
    early, late = as_of(table, first, key), as_of(table, second, key)
    assert set(early["session"].to_pylist()) <= set(late["session"].to_pylist())
    assert as_of(known_by(table, first), second, key).equals(early)
    assert len(set(late["session"].to_pylist())) == len(late)
    assert all(known <= second for known in late["known_on"].to_pylist())
