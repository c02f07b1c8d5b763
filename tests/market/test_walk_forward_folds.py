"""Folds: past before future with a gap, test segments in one piece, nothing of the sealed block."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import ConfigError, DataError
from quanto.market.calendar import as_date, sessions_between
from quanto.market.folds import fold_from, walk_forward_folds
from quanto.market.split import FoldsConfig, SplitConfig, resolve_split

DAYS = sessions_between(date(2001, 1, 2), date(2003, 12, 31))


def config(**changes: object) -> FoldsConfig:
    return FoldsConfig(
        **{"train_sessions": 200, "test_sessions": 60, "purge_sessions": 2, "embargo_sessions": 3, "expanding": False, **changes}
    )  # type: ignore[arg-type]


def row(day: date) -> int:
    return int(np.searchsorted(DAYS, np.datetime64(day)))


@settings(deadline=None, max_examples=40)
@given(
    train=st.integers(4, 300), test=st.integers(2, 120), purge=st.integers(0, 5), embargo=st.integers(0, 20), expanding=st.booleans()
)  # fmt: skip
def test_training_ends_before_the_gap_and_test_segments_follow_each_other(
    train: int, test: int, purge: int, embargo: int, expanding: bool
) -> None:
    chosen = config(train_sessions=train, test_sessions=test, purge_sessions=purge, embargo_sessions=embargo, expanding=expanding)
    folds = walk_forward_folds(DAYS, chosen)
    assert folds
    for fold in folds:
        assert row(fold.test_start) - row(fold.train_end) == purge + embargo + 1
        assert row(fold.test_end) - row(fold.test_start) + 1 == test
        length = row(fold.train_end) - row(fold.train_start) + 1
        assert length == (train + fold.number * test if expanding else train)
    for one, two in pairwise(folds):
        assert row(two.test_start) == row(one.test_end) + 1


def test_too_few_sessions_say_how_many_are_needed() -> None:
    with pytest.raises(ConfigError, match="needs 265 sessions for one fold; found 264"):
        walk_forward_folds(DAYS[:264], config())


def test_a_fold_survives_json() -> None:
    fold = walk_forward_folds(DAYS, config())[1]
    text = {"number": 1, **{name: getattr(fold, name).isoformat() for name in ("train_start", "train_end", "test_start", "test_end")}}
    assert fold_from(text) == fold
    for broken in ({**text, "test_end": "soon"}, {"number": 1}, [1], {**text, "extra": "x"}):
        with pytest.raises(DataError, match="expected a fold"):
            fold_from(broken)


def split(**changes: object) -> SplitConfig:
    return SplitConfig(**{"train_start": None, "train_end": None, "test_start": None, "holdout_fraction": 0.4, **changes})  # type: ignore[arg-type]


def test_the_sealed_block_is_the_end_and_belongs_to_no_window() -> None:
    found = resolve_split(DAYS, split(sealed_sessions=63))
    assert found.sealed_end == as_date(DAYS[-1])
    assert found.sealed_start is not None
    assert row(found.sealed_start) == row(found.test_end) + 1 == len(DAYS) - 63
    assert resolve_split(DAYS, split()).sealed_start is None


def test_a_block_that_leaves_no_test_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="the last 500 are sealed"):
        resolve_split(DAYS, split(sealed_sessions=500))
