"""From the committed ledger snapshot to K and the trials' daily returns: the only source of how often this holdout was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quanto.core.chain import Link, read_chain
from quanto.core.digest import digest_value
from quanto.core.errors import IntegrityError
from quanto.stages.qualify.evidence import Trials

FloatArray = npt.NDArray[np.float64]

SNAPSHOT = "reports/ledger/snapshot.jsonl"
# The series of a trial that test B needs.
SERIES = ("returns", "baseline_returns", "cash_returns")


@dataclass(frozen=True)
class TrialRecord:
    """One trial as recorded; `series` is None where its daily returns are not whole."""

    trial_id: str
    returns_digest: str
    sessions: tuple[str, ...]
    series: Mapping[str, FloatArray] | None


def trials_of(snapshot: bytes, own: Mapping[str, object], prior_trials: int) -> Trials:
    """Return every look at the sessions of the candidate's own trial.

    A trial counts when it shares one session or more with this holdout, once by its id and once by its daily returns,
    whatever its universe, data or folds. A record that does not say which sessions it saw counts, and is missing.

    Parameters
    ----------
    snapshot
        The content of the committed snapshot; empty where nothing was recorded yet.
    own
        The content of trial.json.
    """
    mine = read_trial(own)
    try:
        chain = read_chain(snapshot, SNAPSHOT)
    except IntegrityError as error:
        return Trials(count=None, faults=(str(error),))
    holdout = set(mine.sessions)
    others: list[TrialRecord] = []
    ids, digests = {mine.trial_id}, {mine.returns_digest}
    for record in _records(chain):
        if record.trial_id in ids or record.returns_digest in digests:
            continue
        if record.sessions and not holdout.intersection(record.sessions):
            continue
        ids.add(record.trial_id)
        digests.add(record.returns_digest)
        others.append(record)
    missing = tuple(record.trial_id for record in (mine, *others) if record.series is None)
    known = {record.trial_id for record in _records(chain)} | {mine.trial_id}
    looks = sorted({_text(link.body, "trial_id") for link in chain if link.kind == "look"} - known)
    faults = tuple(f"a look at trial {name} is recorded, the trial is not" for name in looks)
    candidates, baselines = _vectors(mine, others) if prior_trials == 0 else (None, None)
    return Trials(1 + len(others) + prior_trials, missing, faults, candidates, baselines)


def read_trial(body: object) -> TrialRecord:
    """Return a trial as a value; what is not whole or not finite is no series."""
    if not isinstance(body, Mapping):
        return TrialRecord("unreadable", "unreadable", (), None)
    sessions = body.get("sessions")
    days = tuple(str(day) for day in sessions) if isinstance(sessions, Sequence) and not isinstance(sessions, str) else ()
    series = {name: _series(body.get(name), len(days)) for name in SERIES}
    whole = {name: values for name, values in series.items() if values is not None}
    return TrialRecord(
        trial_id=_text(body, "trial_id"),
        returns_digest=digest_value(body.get("returns")),
        sessions=days,
        series=whole if len(whole) == len(SERIES) and days else None,
    )


def _records(chain: Sequence[Link]) -> list[TrialRecord]:
    return [read_trial(link.body) for link in chain if link.kind == "trial"]


def _vectors(mine: TrialRecord, others: Sequence[TrialRecord]) -> tuple[FloatArray | None, FloatArray | None]:
    """Return candidates and baselines in excess of cash on the holdout's sessions; None where one does not cover them."""
    candidates, baselines = [], []
    for record in (mine, *others):
        rows = {day: row for row, day in enumerate(record.sessions)}
        if record.series is None or not all(day in rows for day in mine.sessions):
            return None, None
        take = np.array([rows[day] for day in mine.sessions])
        returns, baseline, cash = (record.series[name][take] for name in SERIES)
        candidates.append(returns - cash)
        baselines.append(baseline - cash)
    return np.array(candidates), np.array(baselines)


def _series(values: object, sessions: int) -> FloatArray | None:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != sessions:
        return None
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return None
    array = np.array(values, dtype=np.float64)
    return array if np.isfinite(array).all() else None


def _text(body: object, key: str) -> str:
    value = body.get(key) if isinstance(body, Mapping) else None
    return value if isinstance(value, str) else "without id"
