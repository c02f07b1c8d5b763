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
SLICES = "reports/evaluation/regime_slices.json"
REPORT = "reports/promotion/qualification_report.json"
# Keys that name the rows of a list.
LABELS = frozenset({"name", "book", "slice", "gate"})
# A number whose name ends so is better when lower; drawdown and losses are told apart by their sign rule (<= 0).
LOWER_IS_BETTER = ("volatility", "turnover", "cost", "costs", "cvar", "var", "drawdown_sessions", "p_value", "violations", "concentration")
NEITHER = ("sessions", "count", "skew", "kurtosis", "beta", "exposure", "episodes", "trades", "first", "last", "year")


@dataclass(frozen=True)
class Row:
    """One compared value: where it stands, the value of each revision, and which is best (None: no direction)."""

    section: str
    name: str
    values: tuple[object, ...]
    best: int | None = None


def compare(revisions: Sequence[Revision]) -> list[Row]:
    """Return every row in which the revisions differ, and all metrics of the candidate."""
    rows = [Row("identity", "experiment_id", tuple(_identity(item) for item in revisions))]
    rows += list(_configuration(revisions))
    for section, path, every in (("metrics", METRICS, True), ("regimes", SLICES, False), ("gates", REPORT, False)):
        rows += list(_file_rows(section, [_value(item, path) for item in revisions], every=every))
    return rows


def direction(name: str) -> int:
    """Return 1 where higher is better, -1 where lower is, 0 where neither, from the last word of a metric's name."""
    last = name.rsplit(".", 1)[-1]
    if any(word in last for word in NEITHER):
        return 0
    return -1 if any(last == word or last.endswith(f"_{word}") for word in LOWER_IS_BETTER) else 1


def _configuration(revisions: Sequence[Revision]) -> Iterator[Row]:
    params = [dict(_flat({key: value for key, value in item.read_yaml("params.yaml").items() if key in STAGES})) for item in revisions]
    for key in sorted({key for one in params for key in one}):
        values = tuple(one.get(key, "absent") for one in params)
        if len({repr(value) for value in values}) > 1:
            yield Row("configuration", key, values)


def _file_rows(section: str, values: Sequence[object], *, every: bool) -> Iterator[Row]:
    flat = [dict(_flat(value)) for value in values]
    for key in dict.fromkeys(key for one in flat for key in one):
        found = tuple(one.get(key) for one in flat)
        if every or len({repr(item) for item in found}) > 1:
            yield Row(section, key, found, _best(key, found) if section != "gates" else None)


def _best(name: str, values: Sequence[object]) -> int | None:
    numbers = [float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan for value in values]
    sign = direction(name)
    known = [index for index, value in enumerate(numbers) if math.isfinite(value)]
    if sign == 0 or len(known) < 2 or len({numbers[index] for index in known}) == 1:
        return None
    return max(known, key=lambda index: sign * numbers[index])


def _identity(revision: Revision) -> str:
    try:
        return revision.experiment_id()
    except QuantoError:
        return "none"


def _value(revision: Revision, path: str) -> Any:
    return revision.read_json(path) if revision.exists(path) else {}


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) and LABELS & set(item) for item in value):
        for item in value:
            label = next(key for key in item if key in LABELS)
            rest = {key: part for key, part in item.items() if key != label}
            yield from _flat(rest, f"{prefix}.{item[label]}" if prefix else str(item[label]))
    else:
        yield prefix, value
