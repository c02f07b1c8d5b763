"""The learning curves as CSV: one row per seed and rollout, no times in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from quanto.stages.train.task import Row, TrainResult


def curves_csv(results: Sequence[TrainResult]) -> bytes:
    """Return the curves of all members as CSV; columns in the order in which they first appear, None is empty."""
    rows: list[Row] = [row for result in results for row in result.curves]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: repr(value) if isinstance(value, float) else value for name, value in row.items()})
    return sink.getvalue().encode()
