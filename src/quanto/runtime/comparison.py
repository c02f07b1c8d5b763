"""Experiments side by side: configuration, metrics with the direction that is better, regimes, gates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quanto.core.errors import QuantoError
from quanto.runtime.pipeline import STAGES
from quanto.runtime.revisions import Revision

METRICS = "reports/evaluation/metrics.json"
EVALUATION = "reports/evaluation/evaluation.json"
SLICES = "reports/evaluation/regime_slices.json"
REPORT = "reports/promotion/qualification_report.json"
SECTIONS = ("identity", "configuration", "metrics", "regimes", "gates")
CANDIDATE = "candidate"
# Only a metric that is listed has a direction; drawdown is 0 or below, so higher is better.
HIGHER_IS_BETTER = frozenset(
    {
        "alpha",
        "alpha_t_statistic",
        "annual_log_growth",
        "annual_return",
        "calmar",
        "drawdown_within_episodes",
        "hit_rate",
        "information_ratio",
        "max_drawdown",
        "sharpe",
        "sortino",
        "total_return",
        "worst_session",
    }
)
LOWER_IS_BETTER = frozenset(
    {
        "annual_volatility",
        "cvar",
        "longest_drawdown_sessions",
        "max_drawdown_sessions",
        "turnover_annual",
        "turnover_mean",
        "value_at_risk",
    }
)
STATUS_RANK = {"passed": 2, "vacuous": 1, "insufficient": 1, "failed": 0}
VERDICT_RANK = {"promote": 2, "insufficient evidence": 1, "reject": 0}


@dataclass(frozen=True)
class Row:
    """One compared value.

    `values` has one value per revision (None: it has none), `best` the index of the better one (None: no direction, or
    no difference), `differences` the differences to the first revision, and `intervals` low and high of each value
    where the evaluation has them.
    """

    section: str
    name: str
    values: tuple[object, ...]
    best: int | None = None
    intervals: tuple[tuple[float, float] | None, ...] = ()

    @property
    def differences(self) -> tuple[float | None, ...]:
        """The differences to the first revision; None where either is no number."""
        numbers = [_number(value) for value in self.values]
        known = [math.isfinite(value) and math.isfinite(numbers[0]) for value in numbers]
        return tuple(value - numbers[0] if both else None for value, both in zip(numbers, known, strict=True))


def compare(revisions: Sequence[Revision]) -> list[Row]:
    """Return identity, differing settings, all metrics of the candidate, its regime slices, and every gate."""
    return [
        Row("identity", "experiment_id", tuple(_identity(item) for item in revisions)),
        *_configuration(revisions),
        *_metrics(revisions),
        *_regimes([_value(item, SLICES) for item in revisions]),
        *_gates([_value(item, REPORT) for item in revisions]),
    ]


def direction(name: str) -> int:
    """Return 1 where higher is better, -1 where lower is, 0 where neither or not known, by the last word of a name."""
    last = name.rsplit(".", 1)[-1]
    return int(last in HIGHER_IS_BETTER) - int(last in LOWER_IS_BETTER)


def _configuration(revisions: Sequence[Revision]) -> Iterator[Row]:
    params = [dict(_flat({key: value for key, value in item.read_yaml("params.yaml").items() if key in STAGES})) for item in revisions]
    for key in sorted({key for one in params for key in one}):
        values = tuple(one.get(key, "absent") for one in params)
        if len({repr(value) for value in values}) > 1:
            yield Row("configuration", key, values)


def _metrics(revisions: Sequence[Revision]) -> Iterator[Row]:
    numbers = [{key: value for key, value in _value(item, METRICS).items() if _is_number(value)} for item in revisions]
    bounds = [_intervals(_value(item, EVALUATION)) for item in revisions]
    for key in dict.fromkeys(key for one in numbers for key in one):
        values = tuple(one.get(key) for one in numbers)
        yield Row("metrics", key, values, _best(key, values), tuple(one.get(key) for one in bounds))


def _intervals(evaluation: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    by_baseline = evaluation.get("intervals", {})
    found = by_baseline.get(evaluation.get("baseline"), {}).get("intervals", {})
    return {
        name: (item["low"], item["high"]) for name, item in found.items() if _is_number(item.get("low")) and _is_number(item.get("high"))
    }


def _regimes(files: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    slices = [file.get("slices", {}) for file in files]
    for name in dict.fromkeys(name for one in slices for name in one):
        parts = [one.get(name, {}) for one in slices]
        yield Row("regimes", f"{name}.sessions", tuple(part.get("sessions") for part in parts))
        books = [part.get("books", {}).get(CANDIDATE, {}) for part in parts]
        for key in dict.fromkeys(key for book in books for key in book):
            values = tuple(book.get(key) for book in books)
            yield Row("regimes", f"{name}.{key}", values, _best(key, values))


def _gates(reports: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    verdicts = [{tier: item.get("decision") for tier, item in report.get("verdicts", {}).items()} for report in reports]
    for tier in dict.fromkeys(tier for one in verdicts for tier in one):
        values = tuple(one.get(tier) for one in verdicts)
        yield Row("gates", f"tier {tier}", values, _best_rank(values, VERDICT_RANK))
    gates = [{gate["name"]: gate for gate in report.get("gates", [])} for report in reports]
    for name in dict.fromkeys(name for one in gates for name in one):
        found = tuple(one.get(name, {}) for one in gates)
        statuses = tuple(gate.get("status") for gate in found)
        yield Row("gates", name, statuses, _best_rank(statuses, STATUS_RANK))
        for key in ("value", "threshold"):
            yield Row("gates", f"{name}.{key}", tuple(gate.get(key) for gate in found))


def _best(name: str, values: Sequence[object]) -> int | None:
    sign = direction(name)
    return _unique_best([sign * _number(value) for value in values]) if sign else None


def _best_rank(values: Sequence[object], ranks: Mapping[str, int]) -> int | None:
    return _unique_best([float(ranks[value]) if isinstance(value, str) and value in ranks else math.nan for value in values])


def _unique_best(scores: Sequence[float]) -> int | None:
    known = [index for index, score in enumerate(scores) if math.isfinite(score)]
    if len(known) < 2:
        return None
    top = max(scores[index] for index in known)
    first, *others = [index for index in known if scores[index] == top]
    return None if others else first


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _is_number(value: object) -> bool:
    return math.isfinite(_number(value))


def _identity(revision: Revision) -> str:
    try:
        return revision.experiment_id()
    except QuantoError:
        return "none"


def _value(revision: Revision, path: str) -> Mapping[str, Any]:
    value = revision.read_json(path) if revision.exists(path) else {}
    return value if isinstance(value, dict) else {}


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
