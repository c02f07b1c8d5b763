"""The sections on what the judgement rests on: data, features, shadow replay, lineage, how to reproduce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from quanto.core.manifest import Manifest
from quanto.runtime.pipeline import STAGES
from quanto.runtime.reporting import figures
from quanto.runtime.reporting.figures import Picture, pretty
from quanto.runtime.reporting.files import Files
from quanto.runtime.reporting.parts import Cell, Section, Table, digest, flat, mapping, number, status, text_of

MOST_ROWS = 400  # of a table that a person opens; the rest stands in the file that the table names
SHADOW_FORMS = {"_rate": ".1%", "_return": ".2%", "drawdown": ".1%", "exposure": ".0%", "_usd": ",.2f", "_bps": ".2f", "difference": ".2e"}

# What a row of a stress table is about comes before what happened in it.
FIRST_OF_STRESS = frozenset({"first_session", "last_session", "regime", "session", "shock"})


def data(files: Files) -> Section:
    """Return what arrived, what was chosen, what disagreed, and what is missing."""
    report, arrived = files.json["canonical"], files.json["ingest"]
    domains = report.get("domains", {})
    holds = "holds" if report.get("conserved") else "does NOT hold"
    actions = report.get("actions", {})
    sentences = (
        (
            f"Data as of {arrived.get('as_of', 'unknown')}, {arrived.get('start', '?')} to {arrived.get('end', '?')}; "
            f"{len(arrived.get('payloads', []))} payloads kept byte for byte."
        ),
        f"Rows in = selected + superseded + quarantined + outside the dates: {holds}. Faults: {len(report.get('faults', []))}.",
        (
            f"Corporate actions: {actions.get('derived_from_adjusted_closes', 0)} derived from adjusted closes, "
            f"{len(actions.get('disagreements', []))} disagreements, {len(actions.get('blocked_symbols', {}))} symbols blocked."
        ),
    )
    return Section(
        "data",
        "Data quality",
        sentences,
        (
            Table(("domain", "rows", "missing", "cells compared", "disagreements", "share"), tuple(_domains(domains)), "Canonical data"),
            Table(
                ("domain", "vendor", "rows", "chosen", "superseded", "quarantined", "conserved", "rejected on arrival"),
                tuple(_vendors(domains, arrived.get("domains", {}))),
                "Vendors",
            ),
            Table(("domain", "name", "sessions", "expected", "coverage", "range", "missing"), tuple(_coverage(domains)), "Coverage"),
            Table(
                ("domain", "name", "wanted", "covered", "gaps before canonical"),
                tuple(_gaps(arrived.get("coverage", {}))),
                "Gaps on arrival",
            ),
            Table(
                ("chosen", "other", "field", "class", "rows", "largest"),
                tuple(_classes(report.get("disagreement", {}))),
                "Disagreements between vendors",
            ),
            Table(("quarantined", "rows"), tuple(_reasons(report.get("quarantine", []))), "Quarantine"),
            Table(("fault",), tuple((Cell(text_of(item)),) for item in report.get("faults", [])), "Faults", prose=True),
        ),
        page=("The canonical stage's own page: where every row went, how often vendors differ, the largest differences", files.quality),
    )


def _domains(domains: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for name, part in domains.items():
        yield (
            Cell(name),
            number(part.get("canonical_rows"), ",.0f"),
            number(part.get("missing_share"), ".2%"),
            number(part.get("compared"), ",.0f"),
            number(part.get("disagreements"), ",.0f"),
            number(part.get("disagreement_share"), ".2%"),
        )


def _vendors(domains: Mapping[str, Any], arrived: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for domain, part in domains.items():
        for vendor, item in part.get("vendors", {}).items():
            yield (
                Cell(domain),
                Cell(vendor),
                *(number(item.get(key), ",.0f") for key in ("rows", "selected", "superseded", "quarantined")),
                status("holds" if item.get("conserved") else "does not hold"),
                number(mapping(mapping(arrived.get(domain)).get(vendor)).get("rejected"), ",.0f"),
            )


def _coverage(domains: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for domain, part in domains.items():
        for name, item in part.get("coverage", {}).items():
            present, expected = item.get("present"), item.get("expected")
            yield (
                Cell(domain),
                Cell(name),
                number(present, ",.0f"),
                number(expected, ",.0f"),
                number(present / expected if expected else None, ".1%"),
                Cell(f"{item.get('first')} to {item.get('last')}"),
                Cell("; ".join(text_of(gap) for gap in item.get("missing_ranges", [])[:5]) or "none", item.get("missing")),
            )


def _gaps(coverage: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for domain, names in coverage.items():
        for name, item in names.items():
            if item.get("gaps") or item.get("fault"):
                gaps = [f"{gap.get('first')} to {gap.get('last')}" for gap in item.get("gaps", [])]
                shown = "; ".join(
                    [*gaps[:5], *([f"and {len(gaps) - 5} more"] if len(gaps) > 5 else []), *filter(None, [item.get("fault")])]
                )
                yield Cell(domain), Cell(name), number(item.get("wanted"), ",.0f"), number(item.get("covered"), ",.0f"), Cell(shown)


def _classes(disagreement: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for item in disagreement.get("classes", []):
        yield (
            *(Cell(str(item.get(key))) for key in ("vendor", "other", "field")),
            Cell(pretty(str(item.get("class"))), item.get("class")),
            number(item.get("rows"), ",.0f"),
            number(item.get("largest"), ".2%"),
        )


def _reasons(quarantine: object) -> Iterator[tuple[Cell, ...]]:
    for item in quarantine if isinstance(quarantine, list) else []:
        rows = item.get("rows") if isinstance(item, Mapping) else None
        rest = {key: value for key, value in item.items() if key != "rows"} if isinstance(item, Mapping) else item
        yield Cell(text_of(rest)), number(rows, ",.0f")


def features(files: Files) -> Section:
    """Return every feature with its coverage and drift, the leak proof, and the correlations."""
    report, proof = files.json["features"], files.json["leak_proof"]
    proved = proof.get("columns", {})
    rows = [
        (
            Cell(pretty(name), name),
            Cell(str(column.get("formula", "")), column.get("nan_rule")),
            Cell(str(column.get("known", ""))),
            number(column.get("coverage"), ".1%"),
            number(mapping(column.get("drift")).get("stability_index"), ".2f"),
            number(mapping(proved.get(name)).get("comparisons"), ",.0f"),
            status("passed" if proved[name].get("passed") else "failed") if name in proved else Cell("not observed"),
        )
        for name, column in report.get("columns", {}).items()
    ]
    passed = "holds" if proof.get("passed") else "does NOT hold"
    sentences = (
        (
            f"The leak proof {passed}: {proof.get('comparisons', 0):,} comparisons at {proof.get('sessions', 0)} of "
            f"{proof.get('sessions_available', 0):,} sessions, {proof.get('mismatches', 'unknown')} mismatches."
        ),
        "Drift is the population stability index from train to test window: above 0.25 the column moved.",
    )
    eligible = tuple((Cell(name), number(share, ".1%")) for name, share in report.get("eligible_share", {}).items())
    return Section(
        "features",
        "Features and leak proof",
        sentences,
        (
            Table(("column", "formula", "known", "coverage", "drift (PSI)", "comparisons", "proof"), tuple(rows), prose=True),
            Table(("name", "share of sessions that it may be traded"), eligible),
        ),
        tuple(_feature_pictures(report.get("columns", {}), report.get("correlation", {}))),
    )


def _feature_pictures(columns: Mapping[str, Any], correlation: Mapping[str, Any]) -> Iterator[Picture]:
    if columns:
        yield figures.distributions(columns)
        yield figures.drift_bars(columns)
    if correlation.get("names"):
        yield figures.heatmap(correlation["names"], correlation["matrix"])


def shadow(files: Files) -> Section:
    """Return what the replay proved, or why it was blocked."""
    found = files.json["shadow"]
    if not found:
        return Section("shadow", "Shadow replay", ("Not run: the revision holds no reports/shadow/metrics.json; run `dvc repro`.",))
    grouped = ("regimes", "parity", "journal", "stress")
    stress = mapping(found.get("stress"))
    plain = {name: value for name, value in found.items() if name not in grouped}
    rows = tuple(_facts(plain))
    parity = tuple(
        _facts({**mapping(found.get("parity")), **{f"journal.{key}": value for key, value in mapping(found.get("journal")).items()}})
    )
    sentences = [f"Status: {found.get('status', 'unknown')}."]
    if found.get("reason"):
        sentences.append(f"Nothing was replayed: {found['reason']}.")
    return Section(
        "shadow",
        "Shadow replay",
        tuple(sentences),
        (
            Table(("evidence", "value"), rows),
            _by_regime(mapping(found.get("regimes"))),
            Table(("parity with the evaluation", "value"), parity),
            *_stressed(stress),
        ),
        tuple(_shadow_pictures(files)),
    )


def _stressed(stress: Mapping[str, object]) -> Iterator[Table]:
    titles = {
        "historical_windows": "Stress: every regime window of the replay by itself",
        "instant_shocks": "Stress: instant shocks to the book",
    }
    for key, title in titles.items():
        items = stress.get(key)
        rows = [mapping(item) for item in items] if isinstance(items, list) else []
        names = sorted({name for row in rows for name in row}, key=lambda name: (name not in FIRST_OF_STRESS, name))
        cells = tuple(tuple(_stress_cell(name, row.get(name)) for name in names) for row in rows)
        yield Table(tuple(pretty(name) for name in names), cells, title)


def _stress_cell(name: str, value: object) -> Cell:
    if isinstance(value, bool):
        return status("passed" if value else "failed")
    if isinstance(value, float):
        return number(value, ".0%" if "exposure" in name else ".1%")
    return number(value, ",.0f") if isinstance(value, int) else Cell(text_of(value) if value is not None else "n/a", value)


def _facts(values: Mapping[str, object]) -> Iterator[tuple[Cell, ...]]:
    for name, value in flat(values):
        # Texts and numbers share the column: all stand to the left.
        yield Cell(pretty(name.replace(".", ": ")), name), replace(_fact(name, value), numeric=False)


def _fact(name: str, value: object) -> Cell:
    if isinstance(value, int | float) and not isinstance(value, bool):
        form = next((form for part, form in SHADOW_FORMS.items() if part in name), "")
        return number(value, ",.0f" if isinstance(value, int) else form)
    text = "n/a" if value is None else text_of(value) or "none"
    return digest(value) if len(text) == 64 and " " not in text else Cell(text, value)


def _by_regime(regimes: Mapping[str, Any]) -> Table:
    names = list(regimes)
    keys = list(dict.fromkeys(key for part in regimes.values() for key, _ in flat(part)))
    values = {name: dict(flat(part)) for name, part in regimes.items()}
    rows = tuple((Cell(pretty(key.replace(".", ": ")), key), *(_fact(key, values[name].get(key)) for name in names)) for key in keys)
    return Table(("by regime", *(pretty(name) for name in names)), rows, "By regime", folded=True)


def _shadow_pictures(files: Files) -> Iterator[Picture]:
    table = files.tables.get("shadow")
    if table is not None and len(table):
        dated = table.assign(session=pd.to_datetime(table["session"])).set_index("session")
        yield figures.lines("Net asset value of the replay", "USD at the close.", dated[["nav"]], ("nav",), (), ",.0f")
        yield figures.lines("Drawdown of the replay", "Fall from the running peak.", dated[["drawdown"]], ("drawdown",), (), ".0%")


def lineage(files: Files) -> Section:
    """Return the chain from the shadow replay down to the vendors' bytes, each link by its digest."""
    manifests = files.revision.manifests()
    known = [manifests[stage] for stage in reversed(STAGES) if stage in manifests]
    short = tuple(
        (Cell(item.stage), Cell(", ".join(item.inputs) or "vendors' answers"), number(len(item.outputs)), digest(item.digest()))
        for item in known
    )
    sources = tuple((Cell(item.stage), Cell(name), digest(value)) for item in known for name, value in item.sources.items())
    payloads = tuple(
        (
            Cell(str(item.get("vendor", ""))),
            Cell(str(item.get("domain", ""))),
            digest(item.get("sha256", "")),
            number(item.get("bytes"), ",.0f"),
            Cell(str(item.get("shard", "")), text_of(item.get("request", ""))),
        )
        for item in files.json["ingest"].get("payloads", [])[:MOST_ROWS]
    )
    return Section(
        "lineage",
        "Lineage, from the model to the vendors' bytes",
        ("`quanto verify` follows these links, offline, and names each that does not hold.",),
        (
            Table(("stage", "reads", "files written", "manifest"), short),
            Table(("stage", "", "file", "SHA-256", "rows", "bytes"), tuple(_links(known)), "Every file read and written", folded=True),
            Table(("vendor", "domain", "SHA-256", "bytes", "asked for"), payloads, "Vendors' answers (data/payloads)", folded=True),
            Table(("stage", "source", "SHA-256"), sources, "Code of every stage", folded=True),
        ),
    )


def _links(manifests: list[Manifest]) -> Iterator[tuple[Cell, ...]]:
    for manifest in manifests:
        for name, value in manifest.inputs.items():
            yield Cell(manifest.stage), Cell("reads"), Cell(name), digest(value), number(None), number(None)
        for name, item in list(manifest.outputs.items())[:MOST_ROWS]:
            rows = number(item.rows, ",.0f")
            yield Cell(manifest.stage), Cell("writes"), Cell(name), digest(item.sha256), rows, number(item.bytes, ",.0f")


def reproduce(files: Files, commit: str, *, clean: bool) -> Section:
    """Return the commands that make these numbers again from `commit`."""
    sentence = "The same commit gives the same bytes: compare dvc.lock."
    warning = () if clean else ("The workspace had uncommitted changes: commit them first, this commit alone does not give these numbers.",)
    return Section(
        "reproduce",
        "How to reproduce",
        (f"Experiment {files.revision.experiment_id()}.", sentence),
        commands=(f"git checkout {commit}", "make repro", f"quanto verify {commit} --rebuild"),
        warnings=warning,
    )
