"""Walk-forward folds: train, purge, embargo, test, again and again, with test segments that follow each other without a gap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from skfolio.model_selection import WalkForward

from quanto.core.errors import ConfigError, DataError
from quanto.market.calendar import DateArray, as_date
from quanto.market.split import FoldsConfig


@dataclass(frozen=True)
class Fold:
    """One fold as session dates, all bounds included."""

    number: int
    train_start: date
    train_end: date
    test_start: date
    test_end: date


def walk_forward_folds(sessions: DateArray, config: FoldsConfig) -> tuple[Fold, ...]:
    """Return the folds on an ascending session axis, by `skfolio.model_selection.WalkForward`; pure.

    Every fold trains on `train_sessions` (on all sessions from the first on where `expanding`), leaves out purge and
    embargo, and tests on the next `test_sessions`; a rest shorter than that is no fold.

    Raises
    ------
    ConfigError
        If the sessions give no fold; says how many are needed.
    """
    gap = config.purge_sessions + config.embargo_sessions
    needed = config.train_sessions + gap + config.test_sessions
    if len(sessions) < needed:
        raise ConfigError(f"walk-forward needs {needed} sessions for one fold; found {len(sessions)}: shorten the windows")
    cutter = WalkForward(test_size=config.test_sessions, train_size=config.train_sessions, purged_size=gap, expand_train=config.expanding)
    found = []
    for number, (train, test) in enumerate(cutter.split(np.zeros((len(sessions), 1)))):
        bounds = (train[0], train[-1], test[0], test[-1])
        found.append(Fold(number, *(as_date(sessions[int(row)]) for row in bounds)))
    return tuple(found)


def fold_from(value: object) -> Fold:
    """Return the fold that a parsed JSON value holds (the form of `dataclasses.asdict`, dates as ISO text).

    Raises
    ------
    DataError
        If a field is missing, unknown or no date.
    """
    names = ("train_start", "train_end", "test_start", "test_end")
    try:
        if not isinstance(value, dict) or set(value) != {"number", *names}:
            raise TypeError("other fields")
        return Fold(int(value["number"]), *(date.fromisoformat(value[name]) for name in names))
    except (TypeError, ValueError) as error:
        raise DataError(f"expected a fold with number and four dates; found {value!r} ({error})") from error
