"""The ingest report and the errors of a failed ingest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.errors import DataError, IntegrityError, MissingDataError, QuantoError, VendorError
from quanto.market.schema import DATE_COLUMN
from quanto.stages.ingest.config import IngestConfig
from quanto.stages.ingest.coverage import Coverage
from quanto.stages.ingest.harvest import Piece
from quanto.stages.ingest.validate import Checked

SCHEMA_VERSION = 1

Key = tuple[str, str]


def ingest_report(
    config: IngestConfig, pieces: Mapping[Key, Sequence[Piece]], checked: Mapping[Key, Checked], covered: Sequence[Coverage]
) -> dict[str, object]:
    """Return what was asked, what arrived from whom, what was set aside and why, and what no vendor covers."""
    domains = sorted({domain for _, domain in checked})
    return {
        "schema_version": SCHEMA_VERSION,
        "as_of": config.as_of,
        "start": config.start,
        "end": config.end,
        "domains": {
            domain: {
                vendor: _vendor(domain, pieces[vendor, domain], found)
                for (vendor, name), found in sorted(checked.items())
                if name == domain
            }
            for domain in domains
        },
        "coverage": {domain: {item.name: item.as_json() for item in covered if item.domain == domain} for domain in domains},
        "payloads": payload_list(pieces),
    }


def payload_list(pieces: Mapping[Key, Sequence[Piece]]) -> list[dict[str, object]]:
    """Return every payload that a build used with the request that it answers, sorted by vendor, domain, shard."""
    return [
        {"vendor": vendor, "domain": domain, "shard": piece.shard.key, "sha256": item.sha256, "bytes": item.bytes, "request": item.request}
        for (vendor, domain), found in sorted(pieces.items())
        for piece in found
        for item in piece.payloads
    ]


def failure_report(report: Mapping[str, object], pieces: Mapping[Key, Sequence[Piece]]) -> dict[str, object]:
    """Return the report of a failed ingest: what arrived, what to ask again, and what nobody covers."""
    failed = [
        {"vendor": piece.shard.vendor, "domain": piece.shard.domain, "shard": piece.shard.key, "symbols": piece.shard.symbols}
        | {"start": piece.shard.start, "end": piece.shard.end, "error": type(piece.error).__name__, "message": str(piece.error)}
        for found in pieces.values()
        for piece in found
        if piece.error is not None
    ]
    return {"retry": failed, "advice": "what arrived lies in the landing store; the same command fetches the rest"} | dict(report)


def failure(pieces: Mapping[Key, Sequence[Piece]], covered: Sequence[Coverage], where: str) -> QuantoError | None:
    """Return the one error of an ingest, or None: failed shards first, else the names and dates that nobody covers.

    The error has the class of the gravest cause: integrity, then the vendor's own, then data.
    """
    errors = [piece for found in pieces.values() for piece in found if piece.error is not None]
    missing = [item.fault for item in covered if item.fault]
    if not errors and not missing:
        return None
    uncovered = f"no configured vendor covers {', '.join(missing)}" if missing else ""
    if not errors:
        return MissingDataError(f"{uncovered}; configure a vendor that does, or change symbols, start_date or end_date. Report: {where}")
    lines = [f"{piece.shard.vendor} {piece.shard.domain} {piece.shard.key}: {piece.error}" for piece in errors]
    shown = "; ".join(lines[:10]) + (f"; and {len(lines) - 10} more" if len(lines) > 10 else "")
    arrived = sum(piece.error is None for found in pieces.values() for piece in found)
    message = (
        f"{len(errors)} of {len(errors) + arrived} shards failed: {shown}. {uncovered + '. ' if uncovered else ''}"
        f"What arrived is kept; run the same command to fetch the rest. Report: {where}"
    )
    causes = [piece.error for piece in errors]
    if any(isinstance(error, IntegrityError) for error in causes):
        return IntegrityError(message)
    if any(isinstance(error, VendorError) for error in causes):
        return VendorError(message)
    return MissingDataError(message) if all(isinstance(error, MissingDataError) for error in causes) else DataError(message)


def _vendor(domain: str, pieces: Sequence[Piece], found: Checked) -> dict[str, object]:
    reasons = Counter(found.quarantine["reason"].to_pylist())
    return {
        "shards": len(pieces),
        "payloads": len({item.sha256 for piece in pieces for item in piece.payloads}),
        "rows": len(found.table),
        "rejected": len(found.quarantine),
        "merged_duplicates": found.merged,
        "rejected_by_reason": dict(sorted(reasons.items())),
        "symbols": _per_name(domain, found.table),
        "notes": sorted({f"{piece.shard.key}: {note}" for piece in pieces if piece.parsed for note in piece.parsed.notes}),
    }


def _per_name(domain: str, table: pa.Table) -> dict[str, object]:
    name, day = ("series" if domain == "index_level" else "symbol"), DATE_COLUMN[domain]
    grouped = table.group_by(name).aggregate([(day, "count"), (day, "min"), (day, "max")]).sort_by(name)
    flags = _flag_counts(table, name) if domain == "equity_ohlcv" else {}
    return {
        row[name]: {"rows": row[f"{day}_count"], "first": row[f"{day}_min"], "last": row[f"{day}_max"]} | flags.get(row[name], {})
        for row in grouped.to_pylist()
    }


def _flag_counts(table: pa.Table, name: str) -> dict[str, dict[str, object]]:
    """Return per symbol how many rows are provisional and on which bases the prices stand."""
    found: dict[str, dict[str, object]] = {}
    for symbol in pc.unique(table[name]).to_pylist():
        rows = table.filter(pc.equal(table[name], symbol))
        found[symbol] = {"basis": sorted(pc.unique(rows["basis"]).to_pylist()), "provisional": pc.sum(rows["provisional"]).as_py()}
    return found
