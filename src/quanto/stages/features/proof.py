"""The leak proof: no value of a session may depend on anything that was not known in its evening.

For a builder (a function from a view to named arrays) and cuts t:

a. right truncation: the values up to t are the same when the sessions after t do not exist;
b. left truncation: the value at t is the same when only the declared look-back before t exists;
c. knowledge: the values up to t are the same when everything known after t is hidden, no session being cut;
d. perturbation: the values up to t are the same when bars, splits, index levels and surfaces after t are others; at
   every second cut one name keeps its own future, so that the others' alone is tested;
e. existence: where a name has no known bar there is no value of its own;
f. dependence: another market gives other values: what ignores its input proves nothing.

Comparisons are bitwise. The proof runs on the market itself and on a stressed copy (bars missing, late listings and
endings, splits, halts, rows known late), because many leaks are silent on complete data. A column of which nothing was
compared has failed. On the market itself run a, c and d; on the stressed copy, where windows reach furthest, a, b and d;
on a copy with late rows a and c beside those rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.market.calendar import DateArray
from quanto.market.panel import BoolArray, FloatArray
from quanto.stages.features.stress import another_market, perturb_after, stressed, with_late_rows
from quanto.stages.features.view import MarketView

RIGHT, LEFT, KNOWLEDGE, PERTURBATION, EXISTENCE, DEPENDENCE = CHECKS = (
    "right_truncation",
    "left_truncation",
    "knowledge",
    "perturbation",
    "existence",
    "dependence",
)

GIVEN, STRESSED, LATE = MARKETS = ("given", "stressed", "late")

RUNS = {
    GIVEN: (RIGHT, KNOWLEDGE, PERTURBATION),
    STRESSED: (RIGHT, LEFT, PERTURBATION),
    LATE: (RIGHT, KNOWLEDGE),
}

# Cuts that one task of the executor takes: the reference of a task costs as much as a third of a cut.
CUTS_PER_TASK = 16


class Builder(Protocol):
    """From a view to arrays by name: (n_sessions, n_symbols) or (n_sessions,), float64; `names` asks for some only."""

    def __call__(self, view: MarketView, names: frozenset[str] | None = None) -> Mapping[str, FloatArray]: ...


@dataclass(frozen=True)
class Claim:
    """What an output claims about itself.

    Attributes
    ----------
    lookback
        Sessions before t that it reads; None: all (then left truncation does not apply).
    absent
        What stands where the name has no bar (NaN or 0); None: the output does not need one.
    first_session
        Values before it are not compared: a scaled value is fitted on the whole train window.
    varies
        Whether another market must give another output.
    """

    lookback: int | None
    absent: float | None
    first_session: np.datetime64 | None = None
    varies: bool = True

    def checks(self) -> tuple[str, ...]:
        """Return the checks that apply."""
        out = [RIGHT, KNOWLEDGE, PERTURBATION]
        out += [LEFT] * (self.lookback is not None) + [EXISTENCE] * (self.absent is not None) + [DEPENDENCE] * self.varies
        return tuple(name for name in CHECKS if name in out)


@dataclass
class Tally:
    """Comparisons and mismatches by (output, check), the cuts that compared something, the first mismatch by output."""

    compared: Counter[tuple[str, str]] = field(default_factory=Counter)
    mismatched: Counter[tuple[str, str]] = field(default_factory=Counter)
    cuts: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    example: dict[str, str] = field(default_factory=dict)

    def count(self, key: tuple[str, str], cut: int, compared: int, wrong: BoolArray | None, sessions: DateArray) -> None:
        """Count one comparison of arrays whose first axis are `sessions`, made for one cut."""
        bad = 0 if wrong is None else int(wrong.sum())
        self.compared[key] += compared
        self.mismatched[key] += bad
        if compared:
            self.cuts.setdefault(key, set()).add(cut)
        if wrong is not None and bad:
            self.example.setdefault(key[0], f"{key[1]} at {sessions[np.argwhere(wrong)[0][0]]}")

    def add(self, other: Tally) -> None:
        """Count another tally's comparisons into this one."""
        self.compared.update(other.compared)
        self.mismatched.update(other.mismatched)
        for key, cuts in other.cuts.items():
            self.cuts.setdefault(key, set()).update(cuts)
        for name, text in other.example.items():
            self.example.setdefault(name, text)


@dataclass(frozen=True)
class ProofTask:
    """Some cuts of one market, for one worker; a pure value."""

    build: Builder
    claims: Mapping[str, Claim]
    view: MarketView
    cuts: tuple[int, ...]
    seed: int
    market: str
    first: bool


def choose_cuts(rows: npt.NDArray[np.int64], first_test: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return ascending cuts: `count` of the `rows` from position `first_test` on, and a quarter as many before.

    The observation is compared after the train window only, so most cuts lie there. All rows where there are fewer. The
    last row but one is always among them: what has values at the very end only is compared too.
    """
    rng = generator(seed, "leak proof", "cuts")
    parts = [(rows[rows >= first_test], count), (rows[rows < first_test], max(1, count // 4))]
    drawn = [part if wanted >= len(part) else rng.choice(part, wanted, replace=False) for part, wanted in parts]
    return np.unique(np.concatenate([*drawn, rows[-2:][:1]]))


def prove(
    build: Builder,
    claims: Mapping[str, Claim],
    view: MarketView,
    cuts: npt.NDArray[np.int64],
    seed: int,
    executor: Executor | None = None,
) -> dict[str, object]:
    """Return the report of all checks at the given cuts (positions of sessions), on the market and on a stressed copy.

    The result does not depend on the executor. With an executor, `build` must be picklable.

    Raises
    ------
    DataError
        If there is no cut or no claim.
    """
    if len(cuts) == 0 or not claims:
        raise DataError(f"a leak proof needs cuts and columns; found {len(cuts)} cuts and {len(claims)} columns")
    stress = stressed(view, generator(seed, "leak proof", "stress"))
    late, around = with_late_rows(stress, cuts, generator(seed, "leak proof", "late"))
    markets = {GIVEN: (view, cuts), STRESSED: (stress, cuts), LATE: (late, around)}
    tasks = [
        ProofTask(build, claims, market, tuple(places[start : start + CUTS_PER_TASK].tolist()), seed, name, start == 0)
        for name, (market, places) in markets.items()
        for start in range(0, len(places), CUTS_PER_TASK)
    ]
    tally = Tally()
    for part in map(run_task, tasks) if executor is None else executor.map(run_task, tasks):
        tally.add(part)
    return _report(claims, tally, cuts)


class Reference:
    """What a builder gave for the whole market; copies, so that a builder that keeps its arrays cannot change them."""

    def __init__(self, outputs: Mapping[str, FloatArray], claims: Mapping[str, Claim]) -> None:
        missing = sorted(set(claims) - set(outputs))
        if missing:
            raise DataError(f"the builder gave no {', '.join(missing)}; every claimed output must be proved")
        self.values = {name: np.array(outputs[name], dtype=np.float64) for name in claims}
        self._finite = {name: _running_count(values) for name, values in self.values.items()}

    def compare(self, name: str, start: int, stop: int, other: FloatArray) -> tuple[int, BoolArray | None]:
        """Return how many values of sessions start..stop-1 were compared with `other`, and where they differ (None: nowhere)."""
        mine = self.values[name][start:stop]
        if mine.shape != other.shape:
            return 1, np.ones(1, dtype=np.bool_)
        if np.array_equal(_bits(mine), _bits(other)):
            finite = self._finite[name]
            return int(finite[stop] - finite[start]), None
        return int((np.isfinite(mine) | np.isfinite(other)).sum()), _differs(mine, other)


def run_task(task: ProofTask) -> Tally:
    """Return the comparisons of one task."""
    tally = Tally()
    base = Reference(task.build(task.view), task.claims)
    if task.first:
        _existence(task, base.values, tally)
        _dependence(task, base.values, tally)
    for cut in task.cuts:
        for check in RUNS[task.market]:
            _check(task, check, cut, base, tally)
    # Once more at the end: a builder that remembers earlier calls gives the reference again, or is found out.
    again = task.build(task.view)
    for name in task.claims:
        _compare(task, (name, RIGHT), task.cuts[-1], base, slice(0, len(task.view.sessions)), again[name], tally)
    return tally


def _check(task: ProofTask, check: str, cut: int, base: Reference, tally: Tally) -> None:
    if check == LEFT:
        _left(task, cut, base, tally)
        return
    if check == RIGHT:
        other = task.view.until(cut + 1)
    elif check == KNOWLEDGE:
        other = task.view.known_by(cut)
    else:
        rng = generator(task.seed, "leak proof", task.market, cut)
        other = perturb_after(task.view, cut, rng, None if cut % 2 else int(rng.integers(0, len(task.view.symbols))))
    _prefix(task, cut, base, task.build(other), check, tally)


def _prefix(task: ProofTask, cut: int, base: Reference, other: Mapping[str, FloatArray], check: str, tally: Tally) -> None:
    for name, claim in task.claims.items():
        first = 0 if claim.first_session is None else int(np.searchsorted(task.view.sessions, claim.first_session))
        if first <= cut:
            rows = slice(first, cut + 1)
            _compare(task, (name, check), cut, base, rows, other[name][rows], tally)


def _left(task: ProofTask, cut: int, base: Reference, tally: Tally) -> None:
    by_lookback: dict[int, list[str]] = {}
    for name, claim in task.claims.items():
        if claim.lookback is not None and claim.lookback <= cut:
            by_lookback.setdefault(claim.lookback, []).append(name)
    for lookback, names in by_lookback.items():
        part = task.view.until(cut + 1).since(cut - lookback)
        other = task.build(part, frozenset(names))
        for name in names:
            _compare(task, (name, LEFT), cut, base, slice(cut, cut + 1), other[name][-1:], tally)


def _existence(task: ProofTask, base: Mapping[str, FloatArray], tally: Tally) -> None:
    absent = ~(task.view.panel.traded & (task.view.first_known <= task.view.days[:, None]))
    for name, claim in task.claims.items():
        if claim.absent is not None:
            fine = np.isnan(base[name]) | (base[name] == claim.absent)
            tally.count((name, EXISTENCE), 0, int(absent.sum()), absent & ~fine, task.view.sessions)


def _dependence(task: ProofTask, base: Mapping[str, FloatArray], tally: Tally) -> None:
    other = task.build(another_market(task.view, generator(task.seed, "leak proof", task.market, "other")))
    for name, claim in task.claims.items():
        if claim.varies:
            finite = np.isfinite(base[name]) & np.isfinite(other[name])
            same = finite.any() and not _differs(base[name], other[name]).any()
            tally.count((name, DEPENDENCE), 0, int(finite.sum()), finite & same, task.view.sessions)


def _compare(task: ProofTask, key: tuple[str, str], cut: int, base: Reference, rows: slice, other: FloatArray, tally: Tally) -> None:
    total, wrong = base.compare(key[0], rows.start, rows.stop, other)
    tally.count(key, cut, total, wrong, task.view.sessions[rows])


def _running_count(values: FloatArray) -> npt.NDArray[np.int64]:
    finite = np.isfinite(values).reshape(len(values), -1).sum(axis=1)
    return np.concatenate([[0], np.cumsum(finite)]).astype(np.int64)


def _bits(values: FloatArray) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(values).view(np.int64)


def _differs(one: FloatArray, other: FloatArray) -> BoolArray:
    """Bitwise, but for NaN: one missing value is as good as another."""
    differs: BoolArray = _bits(one) != _bits(other)
    return differs & ~(np.isnan(one) & np.isnan(other))


def _report(claims: Mapping[str, Claim], tally: Tally, cuts: npt.NDArray[np.int64]) -> dict[str, object]:
    columns = {name: _column_report(name, claim, tally) for name, claim in claims.items()}
    return {
        "passed": all(column["passed"] is True for column in columns.values()),
        "sessions": len(cuts),
        "comparisons": sum(tally.compared.values()),
        "mismatches": sum(tally.mismatched.values()),
        "markets": list(MARKETS),
        "columns": columns,
    }


def _column_report(name: str, claim: Claim, tally: Tally) -> dict[str, object]:
    checks = {
        check: {
            "comparisons": tally.compared[name, check],
            "mismatches": tally.mismatched[name, check],
            "passed": tally.compared[name, check] > 0 and tally.mismatched[name, check] == 0,
        }
        for check in claim.checks()
    }
    return {
        "passed": all(item["passed"] for item in checks.values()),
        "sessions": min(len(tally.cuts.get((name, check), ())) for check in (RIGHT, KNOWLEDGE, PERTURBATION)),
        "comparisons": sum(int(item["comparisons"]) for item in checks.values()),
        "mismatches": sum(int(item["mismatches"]) for item in checks.values()),
        "lookback": "expanding" if claim.lookback is None else claim.lookback,
        "checks": checks,
        "first_mismatch": tally.example.get(name),
    }


def failed(report: Mapping[str, object]) -> list[str]:
    """Return the names of the outputs that did not pass, in order."""
    columns = report["columns"]
    items: Iterable[tuple[str, object]] = columns.items() if isinstance(columns, Mapping) else ()
    return [name for name, item in items if not (isinstance(item, Mapping) and item["passed"] is True)]
