"""Where training ends and the out-of-sample window begins: one rule for training, evaluation and shadow replay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.errors import ConfigError
from quanto.market.calendar import DateArray, as_date

# An action needs the opens of the two sessions after its own to be rewarded.
MINIMUM_TRAIN_SESSIONS = 4


class FoldsConfig(Section):
    """How the sessions before the sealed block are cut into walk-forward folds (`market.folds`).

    The purge is the reward's horizon: the last action of a train window may not be paid by its test window.
    """

    train_sessions: int = Field(ge=MINIMUM_TRAIN_SESSIONS)
    test_sessions: int = Field(ge=2)
    purge_sessions: int = Field(ge=0)
    embargo_sessions: int = Field(ge=0)
    expanding: bool


class SplitConfig(Section):
    """The train window and the start of the test window; null means: take the default that `resolve_split` documents.

    The last `sealed_sessions` belong to no window: nothing computes on them before a production request opens them.
    """

    train_start: date | None
    train_end: date | None
    test_start: date | None
    holdout_fraction: float = Field(gt=0, lt=1)
    sealed_sessions: int = Field(default=0, ge=0)
    walk_forward: FoldsConfig | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        given = [(name, getattr(self, name)) for name in ("train_start", "train_end", "test_start")]
        known = [(name, day) for name, day in given if day is not None]
        for (earlier, first), (later, second) in pairwise(known):
            if first >= second:
                raise ValueError(f"{later} must lie after {earlier}; found {second} and {first}")
        return self


@dataclass(frozen=True)
class Split:
    """The windows as session dates, all bounds included; the test window begins after the train window ended.

    `sealed_start` and `sealed_end` bound the sealed final block; None where there is none.
    """

    train_start: date
    train_end: date
    test_start: date
    test_end: date
    sealed_start: date | None = None
    sealed_end: date | None = None

    def train_range(self, sessions: DateArray) -> tuple[int, int]:
        """Return (start, stop) of the train window on a session axis; no outcome at or after `stop` may be used."""
        return _positions(sessions, self.train_start, self.train_end)

    def test_range(self, sessions: DateArray) -> tuple[int, int]:
        """Return (start, stop) of the test window on a session axis."""
        return _positions(sessions, self.test_start, self.test_end)


def resolve_split(sessions: DateArray, split: SplitConfig) -> Split:
    """Return the windows on an ascending session axis of shape (n_sessions,).

    Dates that are no sessions move inwards. Defaults: train_start is the first session; the test window takes the
    last `holdout_fraction` of the sessions, or what follows train_end; train_end is the session before test_start.

    Raises
    ------
    ConfigError
        If a window is empty, the train window is shorter than 4 sessions, or the windows overlap; gives the dates.
    """
    n = len(sessions)
    if n < MINIMUM_TRAIN_SESSIONS + 1:
        raise ConfigError(f"split: {n} sessions are too few; a train and a test window need {MINIMUM_TRAIN_SESSIONS + 1}")
    if split.test_start is not None:
        test_first = _first(sessions, split.test_start)
    elif split.train_end is not None:
        test_first = _first(sessions, split.train_end, after=True)
    else:
        test_first = n - max(1, round(n * split.holdout_fraction))
    train_first = 0 if split.train_start is None else _first(sessions, split.train_start)
    train_stop = test_first if split.train_end is None else _first(sessions, split.train_end, after=True)
    window = f"the sessions run from {as_date(sessions[0])} to {as_date(sessions[-1])}"
    test_stop = n - split.sealed_sessions
    if test_first >= test_stop:
        sealed = f", of which the last {split.sealed_sessions} are sealed" if split.sealed_sessions else ""
        raise ConfigError(f"split: the test window is empty ({window}{sealed}); set split.test_start or split.train_end earlier")
    if train_stop - train_first < MINIMUM_TRAIN_SESSIONS:
        found = f"found {max(0, train_stop - train_first)}"
        raise ConfigError(f"split: the train window needs {MINIMUM_TRAIN_SESSIONS} sessions or more, {found} ({window})")
    if train_stop > test_first:
        raise ConfigError(
            f"split: training until {as_date(sessions[train_stop - 1])} overlaps the test from {as_date(sessions[test_first])}"
        )
    bounds = (train_first, train_stop - 1, test_first, test_stop - 1)
    block = (test_stop, n - 1) if split.sealed_sessions else ()
    return Split(*(as_date(sessions[index]) for index in (*bounds, *block)))


def _first(sessions: DateArray, day: date, after: bool = False) -> int:
    return int(np.searchsorted(sessions, np.datetime64(day, "D"), side="right" if after else "left"))


def _positions(sessions: DateArray, first: date, last: date) -> tuple[int, int]:
    return _first(sessions, first), _first(sessions, last, after=True)
