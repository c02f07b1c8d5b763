"""The quality report: conservation, coverage against the calendar, quarantine by reason, disagreement by pair and class. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.errors import DataError
from quanto.market.calendar import DateArray, sessions_between
from quanto.stages.canonical.bars import BoolArray
from quanto.stages.canonical.config import CanonicalConfig

SCHEMA_VERSION = 1

# Ranges per name in the JSON report; the CSV has all.
MOST_RANGES = 20


@dataclass(frozen=True)
class VendorCount:
    """The conservation law of one vendor and domain: rows = outside + selected + superseded + quarantined."""

    domain: str
    vendor: str
    rows: int
    outside: int
    selected: int
    superseded: int
    quarantined: int

    @property
    def holds(self) -> bool:
        """Whether no row was lost or counted twice."""
        return self.rows == self.outside + self.selected + self.superseded + self.quarantined


@dataclass(frozen=True)
class Coverage:
    """One symbol's (or series') canonical sessions against the calendar, between its own first and last."""

    name: str
    first: str
    last: str
    expected: int
    present: int
    ranges: tuple[tuple[str, str, int], ...]  # first and last missing session, and how many

    @property
    def missing(self) -> int:
        """Sessions without a row."""
        return self.expected - self.present


def check_conservation(counts: Sequence[VendorCount]) -> None:
    """Refuse counts that do not add up.

    Raises
    ------
    DataError
        Naming each vendor and domain whose rows in are not selected + superseded + quarantined (+ outside the dates).
    """
    broken = [
        f"{c.vendor}/{c.domain}: {c.rows} rows in, {c.selected} selected + {c.superseded} superseded"
        f" + {c.quarantined} quarantined + {c.outside} outside the dates"
        for c in counts
        if not c.holds
    ]
    if broken:
        raise DataError(f"the conservation law is broken (a fault of this program): {'; '.join(broken)}")


def coverage(names: Sequence[str], sessions: DateArray, present: BoolArray) -> list[Coverage]:
    """Return the coverage of each name; `present` has shape (n_sessions, n_names) on consecutive sessions."""
    found = []
    for column, name in enumerate(names):
        rows = np.flatnonzero(present[:, column])
        if len(rows):
            gaps = np.flatnonzero(~present[rows[0] : rows[-1] + 1, column]) + rows[0]
            runs = np.split(gaps, np.flatnonzero(np.diff(gaps) > 1) + 1) if len(gaps) else []
            ranges = tuple((str(sessions[run[0]]), str(sessions[run[-1]]), len(run)) for run in runs)
            bounds = str(sessions[rows[0]]), str(sessions[rows[-1]])
            found.append(Coverage(name, *bounds, int(rows[-1] - rows[0] + 1), len(rows), ranges))
    return found


def table_coverage(table: pa.Table, name_column: str) -> list[Coverage]:
    """Return the coverage of a canonical table by the distinct sessions of each name; monthly series are left out."""
    if "unit" in table.column_names:
        table = table.filter(pc.not_equal(table["unit"], "fraction_per_month"))
    if not len(table):
        return []
    names = sorted(pc.unique(table[name_column]).to_pylist())
    bounds = pc.min_max(table["session"]).as_py()
    sessions = sessions_between(bounds["min"], bounds["max"])
    rows = np.searchsorted(sessions, table["session"].to_numpy().astype("datetime64[D]"))
    order = {name: column for column, name in enumerate(names)}
    columns = np.array([order[name] for name in table[name_column].to_pylist()])
    present = np.zeros((len(sessions), len(names)), dtype=np.bool_)
    present[rows, columns] = True
    return coverage(names, sessions, present)


def missing_share(items: Iterable[Coverage]) -> float:
    """Return the share of expected sessions that are missing, over all names; 0 without any."""
    expected = missing = 0
    for item in items:
        expected, missing = expected + item.expected, missing + item.missing
    return missing / expected if expected else 0.0


def class_counts(details: pa.Table) -> list[dict[str, object]]:
    """Return how many differences beyond tolerance each vendor pair, field and class has, in sorted order."""
    keys = ["vendor", "other", "field", "class"]
    if not len(details):
        return []
    grouped = details.group_by(keys).aggregate([("field", "count"), ("difference", "max")])
    grouped = grouped.sort_by([(name, "ascending") for name in keys])
    return [
        {**{name: row[name] for name in keys}, "rows": row["field_count"], "largest": row["difference_max"]} for row in grouped.to_pylist()
    ]


def compared_counts(compared: pa.Table) -> list[dict[str, object]]:
    """Return cells compared and beyond tolerance per vendor pair and field, with the share, in sorted order."""
    keys = ["vendor", "other", "field"]
    grouped = compared.group_by(keys).aggregate([("cells", "sum"), ("above", "sum")])
    grouped = grouped.sort_by([(name, "ascending") for name in keys])
    counted = [(row, row["cells_sum"], row["above_sum"]) for row in grouped.to_pylist()]
    return [{**{name: row[name] for name in keys}, "cells": cells, "above": above, "share": above / cells} for row, cells, above in counted]


def reason_counts(quarantine: pa.Table) -> list[dict[str, object]]:
    """Return quarantined rows by domain, vendor and reason, in sorted order."""
    if not len(quarantine):
        return []
    keys = ["domain", "vendor", "reason"]
    grouped = quarantine.group_by(keys).aggregate([("key", "count")]).sort_by([(name, "ascending") for name in keys])
    return [{**{name: row[name] for name in keys}, "rows": row["key_count"]} for row in grouped.to_pylist()]


def domain_report(
    canonical_rows: int, counts: Sequence[VendorCount], covered: Sequence[Coverage], compared: int, above: int
) -> dict[str, object]:
    """Return the report of one domain as a JSON value."""
    return {
        "canonical_rows": canonical_rows,
        "vendors": {
            c.vendor: {
                "rows": c.rows, "outside_dates": c.outside, "selected": c.selected,
                "superseded": c.superseded, "quarantined": c.quarantined, "conserved": c.holds,
            }
            for c in counts
        },
        "coverage": {
            item.name: {
                "first": item.first, "last": item.last, "expected": item.expected, "present": item.present,
                "missing": item.missing, "missing_ranges": [list(span) for span in item.ranges[:MOST_RANGES]],
            }
            for item in covered
        },
        "missing_share": missing_share(covered),
        "compared": compared,
        "disagreements": above,
        "disagreement_share": above / compared if compared else None,
    }  # fmt: skip


def exceeded(config: CanonicalConfig, domains: Mapping[str, dict[str, object]]) -> list[str]:
    """Return a sentence for every threshold that a domain exceeds."""
    found = []
    for name, report in domains.items():
        limits = (("missing_share", "max_missing", config.max_missing), ("disagreement_share", "max_disagreement", config.max_disagreement))
        for key, setting, thresholds in limits:
            share, limit = report[key], thresholds.domain(name)
            if isinstance(share, float) and not share <= limit:
                found.append(f"{name}: {key} is {share:.4f}, canonical.{setting}.{name} allows {limit}")
    return found
