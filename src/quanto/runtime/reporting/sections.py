"""The sections of the report as plain values: what the files of a revision say, formatted for people."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from quanto.core.errors import MissingDataError, QuantoError
from quanto.runtime.pipeline import STAGES
from quanto.runtime.reporting import figures
from quanto.runtime.reporting.figures import CANDIDATE, Picture, pretty
from quanto.runtime.revisions import Revision

GOOD, BAD, OPEN = "good", "bad", "open"
STATUS = {"passed": GOOD, "failed": BAD, "insufficient": OPEN, "vacuous": OPEN, "promote": GOOD, "reject": BAD}
SLICES = ("all", "high_volatility", "normal_volatility", "trend_up", "trend_down")
BOOK_COLUMNS = {
    "annual_return": ("return a year", ".1%"),
    "annual_volatility": ("volatility", ".1%"),
    "sharpe": ("Sharpe", ".2f"),
    "max_drawdown": ("worst drawdown", ".1%"),
    "cvar": ("CVaR 95 % a session", ".2%"),
    "turnover_annual": ("turnover a year", ".1f"),
    "gross_mean": ("mean exposure", ".0%"),
    "alpha": ("alpha a year", ".1%"),
}

SLICE_COLUMNS = {
    "annual_return": ("return a year", ".1%"),
    "annual_volatility": ("volatility", ".1%"),
    "sharpe": ("Sharpe", ".2f"),
    "drawdown_within_episodes": ("drawdown in an episode", ".1%"),
    "exposure_mean": ("mean exposure", ".0%"),
}


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the text for people, the raw value behind it, and a mood (good, bad, open) if it has one."""

    text: str
    raw: object = None
    mood: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Section:
    """One section: a title, sentences, tables and pictures; `anchor` names it in links."""

    anchor: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Files:
    """The files of one revision that the report reads; what a revision lacks is an empty mapping or None."""

    revision: Revision
    json: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


JSON_FILES = {
    "metrics": "reports/evaluation/metrics.json",
    "evaluation": "reports/evaluation/evaluation.json",
    "slices": "reports/evaluation/regime_slices.json",
    "qualification": "reports/promotion/qualification_report.json",
    "record": "reports/promotion/promotion_record.json",
    "canonical": "reports/canonical/canonical_report.json",
    "ingest": "reports/ingest/ingest_report.json",
    "features": "reports/features/features.json",
    "leak_proof": "reports/features/leak_proof.json",
    "shadow": "reports/shadow/metrics.json",
    "training": "reports/training/summary.json",
}
TABLES = {
    "equity": "reports/evaluation/equity.csv",
    "drawdown": "reports/evaluation/drawdown.csv",
    "exposure": "reports/evaluation/exposure.csv",
    "curves": "reports/training/curves.csv",
}


def read_files(revision: Revision) -> Files:
    """Return the files of a revision.

    Raises
    ------
    MissingDataError
        If the revision has not been evaluated, or its tables are in no cache at hand.
    """
    if not revision.exists(JSON_FILES["metrics"]):
        raise MissingDataError(f"{revision.label} holds no evaluation; run `dvc repro` there first")
    json = {name: _mapping(revision, path) for name, path in JSON_FILES.items()}
    tables = {name: figures.frame(revision.open_tracked(path)) for name, path in TABLES.items() if name != "curves"}
    tables["curves"] = pd.read_csv(io.BytesIO(revision.open_tracked(TABLES["curves"])))
    return Files(revision, json, tables)


def sections(files: Files) -> tuple[Section, ...]:
    """Return all sections in the order in which a reviewer needs them: the verdict first."""
    makers = (_verdict, _performance, _regimes, _robustness, _seeds, _training, _data, _features, _shadow, _lineage, _reproduce)
    return tuple(maker(files) for maker in makers)


def _verdict(files: Files) -> Section:
    report, record = files.json["qualification"], files.json["record"]
    tiers = [
        (Cell(tier), _status(verdict.get("decision")), Cell("; ".join(verdict.get("reasons", [])) or "every gate of the tier is passed"))
        for tier, verdict in report.get("verdicts", {}).items()
    ]
    gates = [
        (
            Cell(pretty(gate["name"]), gate["name"]),
            Cell(str(gate.get("tier", ""))),
            _status(gate.get("status")),
            number(gate.get("value")),
            number(gate.get("threshold")),
            number(gate.get("sample"), ",.0f"),
            Cell(str(gate.get("reason", ""))),
        )
        for gate in report.get("gates", [])
    ]
    noise = report.get("noise_gets_this_tier") or {}
    known = {tier: share for tier, share in noise.items() if share is not None}
    rates = "; ".join(f"pure noise gets tier {tier} {share:.1%} of the time" for tier, share in known.items())
    sentences = [
        *_banner(report),
        f"{rates}." if known else "How often pure noise would get these tiers is not calibrated for exactly these gates.",
        f"Trials that looked at this holdout: {report.get('trials', {}).get('count', 'unknown')}.",
        *[row["sentence"] for row in report.get("beside", []) if "sentence" in row],
    ]
    if record.get("blocked_by"):
        sentences.append("Not eligible because: " + "; ".join(record["blocked_by"]))
    return Section(
        "verdict",
        "Verdict",
        tuple(sentences),
        (
            Table(("tier", "verdict", "why"), tuple(tiers)),
            Table(("gate", "tier", "status", "value", "threshold", "sample", "reason"), tuple(gates)),
        ),
    )


def _banner(report: Mapping[str, Any]) -> Iterator[str]:
    if report.get("selection") == "hindsight":
        yield (
            "The universe was chosen with hindsight: these names survived. Nothing here supports a claim on absolute return, "
            "and the production tier is refused."
        )


def _performance(files: Files) -> Section:
    baseline = str(files.json["evaluation"].get("baseline", ""))
    names = (CANDIDATE, baseline, f"matched_{baseline}", "volatility_target_v1", "buy_and_hold_v1", "cash_v1")
    bands = episodes(files.json["slices"].get("labels", {}))
    books = [row for row in files.json["metrics"].get("books", []) if "_double_costs" not in row["book"] and "member_" not in row["book"]]
    rows = tuple(
        (Cell(pretty(row["book"]), row["book"]), *(number(row.get(key), form) for key, (_, form) in BOOK_COLUMNS.items())) for row in books
    )
    return Section(
        "performance",
        "Performance, out of sample and net of costs",
        ("Shaded: sessions that were labelled as of high volatility before they began.",),
        (Table(("book", *(title for title, _ in BOOK_COLUMNS.values())), rows),),
        (
            figures.lines("Equity", "Growth of one dollar (log scale).", files.tables["equity"], names, bands, ".2f", log=True),
            figures.lines("Drawdown", "Fall from the running peak.", files.tables["drawdown"], names[:4], bands, ".0%"),
            figures.lines("Exposure", "Gross exposure at the close.", files.tables["exposure"], names[:4], bands, ".0%"),
        ),
    )


def _regimes(files: Files) -> Section:
    slices = files.json["slices"].get("slices", {})
    rows: list[tuple[Cell, ...]] = []
    bars: dict[str, dict[str, Any]] = {}
    for name in [item for item in SLICES if item in slices]:
        part = slices[name]
        books = part.get("books", {})
        shown = {book: numbers for book, numbers in _named(books) if book in (CANDIDATE, files.json["evaluation"].get("baseline"))}
        bars[name] = shown
        for book, numbers in shown.items():
            metrics = numbers.get("metrics", numbers)
            rows.append(
                (
                    Cell(pretty(name), name),
                    number(part.get("sessions"), ",.0f"),
                    Cell(pretty(book), book),
                    *(number(metrics.get(key), form) for key, (_, form) in SLICE_COLUMNS.items()),
                )
            )
    head = ("slice", "sessions", "book", *(title for title, _ in SLICE_COLUMNS.values()))
    flat = {name: {book: numbers.get("metrics", numbers) for book, numbers in part.items()} for name, part in bars.items()}
    picture = figures.regime_bars(
        flat, "annual_volatility", "Volatility by regime", "Annual volatility in each slice: what protection looks like."
    )
    return Section(
        "regimes", "Regimes", ("Labels are causal: known before the session they label.",), (Table(head, tuple(rows)),), (picture,)
    )


def _robustness(files: Files) -> Section:
    evaluation = files.json["evaluation"]
    keys = {"annual_return": ".1%", "sharpe": ".2f", "max_drawdown": ".1%", "alpha": ".1%", "alpha_t_statistic": ".2f"}
    rows = [
        (Cell(name), *(number(numbers.get(key), form) for key, form in keys.items()))
        for name, numbers in _stress_rows(evaluation.get("stress", {}))
    ]
    costs = [
        (number(run.get("factor"), ".1f"), *(number(run.get(key), form) for key, form in keys.items()))
        for run in evaluation.get("costs", {}).get("runs", [])
    ]
    first_interval: Mapping[str, Any] = next(iter(evaluation.get("intervals", {}).values()), {})
    intervals = [
        (Cell(pretty(name), name), number(item.get("estimate")), number(item.get("low")), number(item.get("high")))
        for name, item in first_interval.get("intervals", {}).items()
    ]
    break_even = evaluation.get("costs", {}).get("break_even_bps")
    sentences = (
        "Break-even cost against the baseline: "
        + (f"{break_even:.2f} bps a side." if break_even is not None else "none within the range tried."),
    )
    heads = tuple(pretty(key) for key in keys)
    return Section(
        "robustness",
        "Robustness: stress on the evaluation, costs, intervals",
        sentences,
        (
            Table(("stress", *heads), tuple(rows)),
            Table(("costs x", *heads), tuple(costs)),
            Table(("metric (95 % bootstrap over sessions)", "estimate", "low", "high"), tuple(intervals)),
        ),
    )


def _seeds(files: Files) -> Section:
    seeds = files.json["evaluation"].get("seeds", {})
    alphas = {name: value for name, value in seeds.get("alpha", {}).items() if value is not None}
    spread = seeds.get("spread", {})
    rows = tuple((Cell(pretty(name), name), number(value)) for name, value in spread.items())
    return Section(
        "seeds",
        "Seeds",
        ("The ensemble of seeds is what is judged, promoted and traded.",),
        (Table(("spread", "value"), rows),),
        (figures.seed_bars(alphas),),
    )


def _training(files: Files) -> Section:
    table = files.tables["curves"]
    return Section(
        "training", "Training", (), (), tuple(figures.curves(table, [name for name in table.columns if name not in ("seed", "step")][:6]))
    )


def _data(files: Files) -> Section:
    report = files.json["canonical"]
    rows: list[tuple[Cell, ...]] = []
    for domain, part in report.get("domains", {}).items():
        for name, item in part.get("coverage", {}).items():
            present, expected = item.get("present"), item.get("expected")
            share = present / expected if expected else None
            rows.append(
                (
                    Cell(domain),
                    Cell(name),
                    number(present, ",.0f"),
                    number(expected, ",.0f"),
                    number(share, ".1%"),
                    Cell(f"{item.get('first')} to {item.get('last')}"),
                )
            )
    classes = [
        (
            Cell(str(item.get("vendor"))),
            Cell(str(item.get("other"))),
            Cell(str(item.get("field"))),
            Cell(pretty(str(item.get("class")))),
            number(item.get("rows"), ",.0f"),
            number(item.get("largest"), ".2%"),
        )
        for item in report.get("disagreement", {}).get("classes", [])
    ]
    holds = "holds" if report.get("conserved") else "does NOT hold"
    reasons = len(report.get("quarantine", []))
    sentences = (f"Rows in = selected + superseded + quarantined: {holds}. Reasons for quarantine: {reasons}.",)
    return Section(
        "data",
        "Data quality",
        sentences,
        (
            Table(("domain", "name", "sessions", "expected", "coverage", "range"), tuple(rows)),
            Table(("vendor", "other", "field", "class of disagreement", "rows", "largest"), tuple(classes)),
        ),
    )


def _features(files: Files) -> Section:
    report, proof = files.json["features"], files.json["leak_proof"]
    proved = proof.get("columns", {})
    rows = [
        (
            Cell(pretty(name), name),
            Cell(str(column.get("formula", ""))),
            number(column.get("coverage"), ".1%"),
            number(column.get("drift", {}).get("stability_index") if column.get("drift") else None, ".2f"),
            _status("passed" if proved.get(name, {}).get("passed") else "failed") if name in proved else Cell("not observed"),
        )
        for name, column in report.get("columns", {}).items()
    ]
    passed = "holds" if proof.get("passed") else "does NOT hold"
    found = f"{proof.get('comparisons', 0):,} comparisons at {proof.get('sessions', 0)} sessions, {proof.get('mismatches')} mismatches"
    sentence = f"The leak proof {passed}: {found}."
    matrix = report.get("correlation", {})
    pictures = (figures.heatmap(matrix["names"], matrix["matrix"]),) if matrix.get("names") else ()
    return Section(
        "features",
        "Features and leak proof",
        (sentence,),
        (Table(("column", "formula", "coverage", "drift (PSI)", "proof"), tuple(rows)),),
        pictures,
    )


def _shadow(files: Files) -> Section:
    shadow = files.json["shadow"]
    rows = tuple((Cell(name), number(value) if isinstance(value, int | float) else Cell(str(value))) for name, value in _flat(shadow))
    return Section("shadow", "Shadow replay", (f"Status: {shadow.get('status', 'not run')}.",), (Table(("evidence", "value"), rows[:60]),))


def _lineage(files: Files) -> Section:
    manifests = files.revision.manifests()
    rows: list[tuple[Cell, ...]] = []
    for stage in reversed(STAGES):
        if stage in manifests:
            manifest = manifests[stage]
            rows += [(Cell(stage), Cell("reads"), Cell(name), Cell(digest[:16], digest)) for name, digest in manifest.inputs.items()]
            rows += [
                (Cell(stage), Cell("writes"), Cell(name), Cell(item.sha256[:16], item.sha256))
                for name, item in list(manifest.outputs.items())[:40]
            ]
    payloads = [
        (
            Cell(str(item.get("vendor", ""))),
            Cell(str(item.get("sha256", ""))[:16], item.get("sha256")),
            Cell(str(item.get("request", item.get("shard", "")))[:120]),
        )
        for item in files.json["ingest"].get("payloads", [])[:60]
    ]
    return Section(
        "lineage",
        "Lineage, from the model to the vendors' bytes",
        (),
        (Table(("stage", "", "file", "SHA-256"), tuple(rows)), Table(("vendor", "payload", "request"), tuple(payloads))),
    )


def _reproduce(files: Files) -> Section:
    revision = files.revision
    commit = revision.commit or "the commit of this workspace"
    return Section(
        "reproduce",
        "How to reproduce",
        (
            f"Experiment {files.revision.experiment_id()}.",
            f"git checkout {commit} && make repro    (the same bytes: compare dvc.lock)",
            f"quanto verify {revision.commit or 'HEAD'} --rebuild    (runs it again in a temporary clone and compares)",
        ),
    )


def number(value: object, form: str = "") -> Cell:
    """Return a number as people read it, with the raw value behind it; n/a where there is none."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return Cell("n/a" if value is None else str(value), value)
    if not form:
        form = ",.0f" if float(value).is_integer() and abs(value) < 1e9 else ".4g"
    return Cell(format(value, form), value)


def episodes(labels: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return first and last session of every contiguous run of high volatility."""
    sessions, high = labels.get("sessions", []), np.asarray(labels.get("high_volatility", []), dtype=float)
    runs: list[tuple[str, str]] = []
    start: int | None = None
    for index, flag in enumerate([*(high == 1), False]):
        if flag and start is None:
            start = index
        elif not flag and start is not None:
            runs.append((sessions[start], sessions[index - 1]))
            start = None
    return runs


def _status(text: object) -> Cell:
    return Cell(str(text), text, STATUS.get(str(text), OPEN))


def _stress_rows(stress: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, numbers in stress.items():
        if "sharpe" in numbers:
            yield pretty(name), numbers
        else:
            yield from ((f"{pretty(name)}: {part}", item) for part, item in numbers.items() if isinstance(item, Mapping))


def _named(books: object) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if isinstance(books, Mapping):
        return books.items()
    return [(str(row.get("book")), row) for row in books] if isinstance(books, Sequence) and not isinstance(books, str) else []


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix} · {pretty(str(key))}" if prefix else pretty(str(key)))
    elif not isinstance(value, list):
        yield prefix, value


def _mapping(revision: Revision, path: str) -> Mapping[str, Any]:
    try:
        value = revision.read_json(path)
    except QuantoError:
        return {}
    return value if isinstance(value, dict) else {}
