"""The split: one rule for all stages, no overlap, defaults from the fraction."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.config import load_section
from quanto.core.errors import ConfigError
from quanto.market.calendar import sessions_between
from quanto.market.split import SplitConfig, resolve_split

SESSIONS = sessions_between(date(2000, 3, 1), date(2013, 3, 1))


def split(train_start=None, train_end=None, test_start=None, holdout_fraction=0.4):
    raw = {"train_start": train_start, "train_end": train_end, "test_start": test_start, "holdout_fraction": holdout_fraction}
    return load_section("split", raw, SplitConfig)


def test_the_default_experiment_has_the_windows_it_names():
    found = resolve_split(SESSIONS, split("2000-06-01", "2006-12-29", "2007-01-03"))
    assert (found.train_start, found.train_end) == (date(2000, 6, 1), date(2006, 12, 29))
    assert (found.test_start, found.test_end) == (date(2007, 1, 3), date(2013, 3, 1))
    start, stop = found.test_range(SESSIONS)
    assert (SESSIONS[start], SESSIONS[stop - 1]) == (SESSIONS[-(stop - start)], SESSIONS[-1])


def test_the_fraction_holds_the_end_out():
    found = resolve_split(SESSIONS, split(holdout_fraction=0.25))
    start, stop = found.test_range(SESSIONS)
    assert stop - start == round(len(SESSIONS) * 0.25)
    assert found.train_range(SESSIONS) == (0, start)


def test_a_given_train_end_begins_the_test_on_the_session_after_it():
    found = resolve_split(SESSIONS, split(train_end="2006-12-30"))
    assert (found.train_end, found.test_start) == (date(2006, 12, 29), date(2007, 1, 3))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_start": "2020-01-01"}, "the test window is empty"),
        ({"train_start": "2012-01-01", "test_start": "2012-01-04"}, "needs 4 sessions or more, found 1"),
        ({"train_end": "2013-06-01"}, "the test window is empty"),
    ],
)
def test_empty_windows_are_refused_with_their_dates(changes, words):
    with pytest.raises(ConfigError, match=words):
        resolve_split(SESSIONS, split(**changes))


@pytest.mark.parametrize(
    "dates", [("2006-01-01", "2005-01-01", None), (None, "2007-01-03", "2007-01-03"), ("2007-01-03", None, "2001-01-01")]
)
def test_dates_out_of_order_are_refused_when_the_section_loads(dates):
    with pytest.raises(ConfigError, match="must lie after"):
        split(*dates)


days = st.dates(date(2000, 1, 1), date(2013, 12, 31)) | st.none()


@settings(deadline=None, max_examples=200)
@given(start=days, end=days, test=days, fraction=st.floats(0.001, 0.999))
def test_windows_never_overlap_and_always_hold_something(start, end, test, fraction):
    try:
        found = resolve_split(SESSIONS, split(*(day and day.isoformat() for day in (start, end, test)), fraction))
    except ConfigError:
        return
    first, stop = found.train_range(SESSIONS)
    test_first, test_stop = found.test_range(SESSIONS)
    assert 0 <= first < stop <= test_first < test_stop == len(SESSIONS)
    assert stop - first >= 4
