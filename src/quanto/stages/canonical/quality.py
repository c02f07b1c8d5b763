"""From what the tasks counted to one quality report. Pure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from quanto.market.calendar import as_date, sessions_between
from quanto.market.schema import DOMAINS
from quanto.stages.canonical.build import BarsPart
from quanto.stages.canonical.config import CanonicalConfig
from quanto.stages.canonical.disagreement import DETAILS
from quanto.stages.canonical.identity import Derived
from quanto.stages.canonical.minute_tasks import minute_counts
from quanto.stages.canonical.minutes import MinutesPart
from quanto.stages.canonical.raw import Outline, RawFile
from quanto.stages.canonical.report import (
    SCHEMA_VERSION,
    Coverage,
    VendorCount,
    class_counts,
    compared_counts,
    coverage,
    domain_report,
    exceeded,
    reason_counts,
    table_coverage,
)
from quanto.stages.canonical.rows import RowsResult
from quanto.stages.canonical.tasks import ActionsBuilt

_LONG_GAP_SESSIONS = 200

_ACTION_DETAILS = pa.schema(
    [pa.field(name, pa.string()) for name in
     ("symbol", "ex_date", "kind", "field", "vendor", "other", "chosen_value", "other_value", "class")]
)  # fmt: skip


@dataclass(frozen=True)
class Quality:
    """The report as a JSON value, the tables behind it, the counts to check, and the thresholds that are exceeded."""

    report: dict[str, object]
    tables: dict[str, pa.Table]
    counts: tuple[VendorCount, ...]
    quarantine: pa.Table
    faults: tuple[str, ...]
    listed: tuple[Coverage, ...]

    @property
    def largest(self) -> list[dict[str, object]]:
        """The differences of closes beyond tolerance, the largest first."""
        details = self.tables["disagreements"]
        closes = details.filter(pc.equal(details["field"], "close"))
        order = [("difference", "descending"), ("session", "ascending"), ("symbol", "ascending"), ("other", "ascending")]
        rows: list[dict[str, object]] = closes.sort_by(order).slice(0, 40).to_pylist()
        return rows


def quality_of(
    config: CanonicalConfig,
    files: Mapping[str, Sequence[RawFile]],
    outlines: Mapping[str, Sequence[Outline]],
    actions: ActionsBuilt,
    bars: Sequence[BarsPart],
    levels: RowsResult,
    surfaces: Sequence[RowsResult],
    minutes: Sequence[MinutesPart],
    derived: Sequence[Derived],
) -> Quality:
    """Return the quality report of a whole build."""
    details = _concat([*(part.details for part in bars), *(_details(item.differences) for item in (levels, *surfaces))], DETAILS)
    compared = pa.concat_tables([part.compared for part in bars]) if bars else None
    counts = {
        "equity_ohlcv": _bar_counts(files["equity_ohlcv"], outlines["equity_ohlcv"], bars),
        "corporate_actions": _action_counts(actions),
        "index_level": _row_counts("index_level", [levels], files["index_level"], None),
        "options_surface": _row_counts("options_surface", surfaces, files["options_surface"], outlines["options_surface"]),
    }
    covered = {
        "equity_ohlcv": _bar_coverage(bars),
        "corporate_actions": [],
        "index_level": table_coverage(levels.table, "series"),
        "options_surface": table_coverage(pa.concat_tables([item.table for item in surfaces]), "symbol") if surfaces else [],
    }
    pairs = compared_counts(compared) if compared is not None else []
    closes = [pair for pair in pairs if pair["field"] == "close"]
    agreement = {
        "equity_ohlcv": (sum(int(str(pair["cells"])) for pair in closes), sum(int(str(pair["above"])) for pair in closes)),
        "corporate_actions": (actions.result.compared, len(actions.result.differences)),
        "index_level": (levels.compared, len(levels.differences)),
        "options_surface": (sum(item.compared for item in surfaces), sum(len(item.differences) for item in surfaces)),
    }
    rows = {
        "equity_ohlcv": sum(part.rows for part in bars),
        "corporate_actions": len(actions.result.table),
        "index_level": len(levels.table),
        "options_surface": sum(sum(item.selected.values()) for item in surfaces),
    }
    domains = {name: domain_report(rows[name], counts[name], covered[name], *agreement[name]) for name in DOMAINS}
    quarantine = pa.concat_tables(
        [actions.result.quarantine, levels.quarantine]
        + [part.quarantine for part in bars]
        + [item.quarantine for item in surfaces]
        + [part.quarantine for part in minutes]
    )
    faults = tuple(exceeded(config, domains))
    by_minute = minute_counts(minutes)
    every = (*(count for name in DOMAINS for count in counts[name]), *by_minute)
    report = {
        "schema_version": SCHEMA_VERSION,
        "passed": not faults,
        "faults": list(faults),
        "conserved": all(count.holds for count in every),
        "domains": domains,
        "quarantine": reason_counts(quarantine),
        "disagreement": {"compared": pairs, "classes": class_counts(details)},
        "actions": _action_report(actions),
        "identity": {
            "derived_rules": [{**item.rule.model_dump(mode="json"), "source": item.vendor} for item in derived],
            "suspected_reuse": _long_gaps(covered["equity_ohlcv"]),
        },
        "suspected_splits": [list(item) for part in bars for item in part.suspected],
    }
    if minutes:
        report["minutes"] = _minute_report(minutes, by_minute)
    tables = {
        "coverage": _coverage_table(covered),
        "disagreements": details.sort_by([(name, "ascending") for name in ("session", "symbol", "field", "vendor", "other")]),
        "action_disagreements": _action_table(actions),
        "quarantine": quarantine.select(["domain", "vendor", "key", "reason", "payload", "payload_row"]).sort_by(
            [(name, "ascending") for name in ("domain", "vendor", "key", "reason", "payload", "payload_row")]
        ),
    }
    if minutes:
        differences = _concat([part.details for part in minutes], DETAILS)
        tables["minutes_against_daily"] = differences.sort_by([(name, "ascending") for name in ("session", "symbol", "field")])
    return Quality(report, tables, every, quarantine, faults, tuple(covered["equity_ohlcv"]))


def csv_bytes(table: pa.Table) -> bytes:
    """Return a table as CSV with a header line; equal tables give equal bytes."""
    sink = io.BytesIO()
    pcsv.write_csv(table, sink, pcsv.WriteOptions(quoting_style="needed"))
    return sink.getvalue()


def _bar_counts(files: Sequence[RawFile], outlines: Sequence[Outline], bars: Sequence[BarsPart]) -> list[VendorCount]:
    found = []
    for file, item in zip(files, outlines, strict=True):
        parts = [part.counts[file.vendor] for part in bars]
        inside = sum(part.rows for part in parts)
        terms = (sum(getattr(part, name) for part in parts) for name in ("selected", "superseded", "quarantined"))
        found.append(VendorCount("equity_ohlcv", file.vendor, item.total, item.total - inside, *terms))
    return found


def _action_counts(actions: ActionsBuilt) -> list[VendorCount]:
    result = actions.result
    return [
        VendorCount("corporate_actions", name, rows, 0, result.selected[name], result.superseded[name], result.quarantined[name])
        for name, rows in result.rows.items()
    ]


def _row_counts(
    domain: str, results: Sequence[RowsResult], files: Sequence[RawFile], outlines: Sequence[Outline] | None
) -> list[VendorCount]:
    found = []
    for index, file in enumerate(files):
        inside = sum(item.rows.get(file.vendor, 0) for item in results)
        total = inside if outlines is None else outlines[index].total
        terms = (sum(getattr(item, name).get(file.vendor, 0) for item in results) for name in ("selected", "superseded", "quarantined"))
        found.append(VendorCount(domain, file.vendor, total, total - inside, *terms))
    return found


def _bar_coverage(bars: Sequence[BarsPart]) -> list[Coverage]:
    """Return the coverage over all partitions, on the calendar from the first to the last session of any."""
    filled = [part for part in bars if len(part.sessions)]
    if not filled:
        return []
    names = sorted({name for part in filled for name in part.symbols})
    order = {name: column for column, name in enumerate(names)}
    sessions = sessions_between(as_date(min(part.sessions[0] for part in filled)), as_date(max(part.sessions[-1] for part in filled)))
    present = np.zeros((len(sessions), len(names)), dtype=np.bool_)
    for part in filled:
        columns = np.array([order[name] for name in part.symbols], dtype=np.int64)
        present[np.ix_(np.searchsorted(sessions, part.sessions), columns)] |= part.present
    return coverage(names, sessions, present)


def _details(differences: Sequence[Mapping[str, object]]) -> pa.Table:
    return pa.Table.from_pylist([dict(item) for item in differences], schema=DETAILS)


def _concat(parts: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *parts])


def _action_report(actions: ActionsBuilt) -> dict[str, object]:
    result = actions.result
    flagged = result.table.filter(pc.not_equal(result.table["flags"], ""))
    return {
        "derived_from_adjusted_closes": actions.derived,
        "adjusted_close_contradictions": [[item.vendor, item.symbol, item.session] for item in actions.refusals],
        "blocked_symbols": {name: day.isoformat() for name, day in result.blocked.items()},
        "disagreements": [{name: str(value) for name, value in item.items()} for item in result.differences],
        "flagged": [
            [row["symbol"], row["ex_date"].isoformat(), row["kind"], row["flags"]]
            for row in flagged.to_pylist()
            if row["flags"] != "implied"
        ],
    }


def _minute_report(minutes: Sequence[MinutesPart], counts: Sequence[VendorCount]) -> dict[str, object]:
    """Return what the minutes hold, and how the daily bars derived from them differ from the canonical ones."""
    details = _concat([part.details for part in minutes], DETAILS)
    compared = pa.concat_tables([part.compared for part in minutes])
    return {
        "canonical_rows": sum(part.rows for part in minutes),
        "sessions": len({part.session for part in minutes}),
        "vendors": {
            c.vendor: {
                "rows": c.rows, "outside_regular_session": c.outside, "selected": c.selected,
                "superseded": c.superseded, "quarantined": c.quarantined, "conserved": c.holds,
            }
            for c in counts
        },
        "against_daily_bars": {"compared": compared_counts(compared), "classes": class_counts(details)},
    }  # fmt: skip


def _long_gaps(covered: Sequence[Coverage]) -> list[dict[str, object]]:
    """Return the symbols that nobody has bars of for most of a year: the ticker may have passed to another company."""
    return [
        {"symbol": item.name, "first_missing": first, "last_missing": last, "sessions": count}
        for item in covered
        for first, last, count in item.ranges
        if count >= _LONG_GAP_SESSIONS
    ]


def _action_table(actions: ActionsBuilt) -> pa.Table:
    rows = [{name: str(value) for name, value in item.items()} for item in actions.result.differences]
    return pa.Table.from_pylist(rows, schema=_ACTION_DETAILS)


def _coverage_table(covered: Mapping[str, Sequence[Coverage]]) -> pa.Table:
    rows = [
        {"domain": domain, "name": item.name, "first": item.first, "last": item.last, "expected": item.expected,
         "present": item.present, "missing": item.missing, "missing_ranges": " ".join(f"{a}..{b}" for a, b, _ in item.ranges)}
        for domain, items in covered.items()
        for item in items
    ]  # fmt: skip
    kinds = {"expected": pa.int64(), "present": pa.int64(), "missing": pa.int64()}
    names = ("domain", "name", "first", "last", "expected", "present", "missing", "missing_ranges")
    return pa.Table.from_pylist(rows, schema=pa.schema([pa.field(name, kinds.get(name, pa.string())) for name in names]))
