"""The page of a comparison: what differs between experiments, verdicts first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from quanto.core.errors import QuantoError
from quanto.core.store import write_bytes
from quanto.runtime.comparison import Row, compare, direction
from quanto.runtime.reporting import figures
from quanto.runtime.reporting.figures import CANDIDATE, Picture, pretty
from quanto.runtime.reporting.files import SERIES
from quanto.runtime.reporting.page import html
from quanto.runtime.reporting.parts import FORMS, GOOD, MISSING, MOODS, Cell, Section, Table, metric, number, plain, status, text_of
from quanto.runtime.revisions import Revision

ARROWS = {1: "higher is better", -1: "lower is better", 0: ""}


def write_comparison(revisions: Sequence[Revision], out: Path) -> Path:
    """Write the comparison of revisions as one HTML page and return its path.

    Raises
    ------
    MissingDataError
        If a revision has no params.yaml.
    """
    write_bytes(out, render_comparison(revisions))
    return out


def render_comparison(revisions: Sequence[Revision]) -> bytes:
    """Return the comparison of revisions as one HTML page; differences are against the first one."""
    labels = [f"{item.label}" for item in revisions]
    rows = compare(revisions)
    return html("Comparison", " · ".join(labels), _sections(rows, labels, _pictures(revisions, labels)))


def _sections(rows: Sequence[Row], labels: Sequence[str], pictures: Sequence[Picture]) -> tuple[Section, ...]:
    by_section = {name: [row for row in rows if row.section == name] for name in {row.section for row in rows}}
    gates = by_section.get("gates", [])
    identity = tuple(
        (Cell(label), Cell(str(value)[:16], value)) for label, value in zip(labels, by_section["identity"][0].values, strict=True)
    )
    return (
        Section("gates", "Verdicts and gates", (), (Table(("experiment", "id"), identity), _gates(gates, labels))),
        Section(
            "metrics",
            "Metrics",
            (f"Differences are against {labels[0]}; green is better. Brackets: 95 % bootstrap interval of the value itself.",),
            (_numbers("metric", by_section.get("metrics", []), labels),),
            tuple(pictures),
        ),
        Section("regimes", "Regimes", (), (_numbers("slice and metric", by_section.get("regimes", []), labels),)),
        Section("configuration", "Configuration", *_configuration(by_section.get("configuration", []), labels)),
    )


def _gates(rows: Sequence[Row], labels: Sequence[str]) -> Table:
    by_name = {row.name: row for row in rows}
    body = []
    for row in rows:
        if not row.name.endswith((".value", ".threshold")):
            beside = by_name.get(f"{row.name}.value")
            values = beside.values if beside else (None,) * len(labels)
            cells = [status(text) if text in MOODS else Cell(str(text or MISSING)) for text in row.values]
            numbers = [number(value) for value in values] if beside else [Cell("") for _ in values]
            body.append((Cell(pretty(row.name), row.name), *(cell for pair in zip(cells, numbers, strict=True) for cell in pair)))
    return Table(("gate", *(name for label in labels for name in (label, "value"))), tuple(body))


def _numbers(title: str, rows: Sequence[Row], labels: Sequence[str]) -> Table:
    head = (title, "", *labels, *(f"{label} - {labels[0]}" for label in labels[1:]))
    return Table(head, tuple(_number_row(row) for row in rows))


def _number_row(row: Row) -> tuple[Cell, ...]:
    last = row.name.rsplit(".", 1)[-1]
    values = [
        _with_interval(last, value, bounds) for value, bounds in zip(row.values, row.intervals or (None,) * len(row.values), strict=True)
    ]
    sign = direction(last)
    differences = []
    for difference in row.differences[1:]:
        mood = "" if not sign or not difference else (GOOD if sign * difference > 0 else "bad")
        text = MISSING if difference is None else plain(format(difference, "+" + FORMS.get(last, ".2f")))
        differences.append(Cell(text, difference, mood if any(digit in text for digit in "123456789") else "", numeric=True))
    return (Cell(pretty(row.name.replace(".", ": ")), row.name), Cell(ARROWS[sign]), *values, *differences)


def _with_interval(name: str, value: object, bounds: tuple[float, float] | None) -> Cell:
    cell = metric(name, value)
    if bounds is None:
        return cell
    low, high = (metric(name, bound).text for bound in bounds)
    return Cell(f"{cell.text} [{low}, {high}]", value, numeric=True)


def _configuration(rows: Sequence[Row], labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    if not rows:
        return ("No setting differs.",), ()
    body = tuple((Cell(row.name), *(Cell(text_of(value)) for value in row.values)) for row in rows)
    return (f"Settings that differ: {len(rows)}.",), (Table(("setting", *labels), body, prose=True),)


def _pictures(revisions: Sequence[Revision], labels: Sequence[str]) -> list[Picture]:
    pictures = []
    for name, title, form in (("equity", "Equity of the candidates", ".2f"), ("drawdown", "Drawdown of the candidates", ".0%")):
        columns = {}
        for revision, label in zip(revisions, labels, strict=True):
            try:
                columns[label] = figures.frame(revision.open_tracked(SERIES[name]))[CANDIDATE]
            except (QuantoError, KeyError):
                continue  # its tables are in no cache at hand; the rows of the page do not need them
        if columns:
            table = pd.DataFrame(columns)
            pictures.append(figures.lines(title, "Out of sample, net of costs.", table, list(columns), (), form, log=name == "equity"))
    return pictures
