"""The ingest report and the errors of a failed ingest. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date

from quanto.core.errors import DataError, IntegrityError, MissingDataError, QuantoError, VendorError
from quanto.stages.ingest.config import IngestConfig
from quanto.stages.ingest.coverage import Coverage
from quanto.stages.ingest.harvest import Piece
from quanto.stages.ingest.summary import Summary

SCHEMA_VERSION = 1

Key = tuple[str, str]


def ingest_report(
    config: IngestConfig, pieces: Mapping[Key, Sequence[Piece]], summaries: Mapping[Key, Summary], covered: Sequence[Coverage]
) -> dict[str, object]:
    """Return what was asked, what arrived from whom, what was set aside and why, and what no vendor covers."""
    actions = _actions(pieces)
    domains = sorted({domain for _, domain in summaries})
    return {
        "schema_version": SCHEMA_VERSION,
        "as_of": config.as_of,
        "start": config.start,
        "end": config.end,
        "domains": {
            domain: {
                vendor: _vendor(pieces[vendor, domain], found, actions)
                for (vendor, name), found in sorted(summaries.items())
                if name == domain
            }
            for domain in domains
        },
        "coverage": {domain: {item.name: item.as_json() for item in covered if item.domain == domain} for domain in domains},
        "payloads": payload_list(pieces),
    }


def report_bytes(report: Mapping[str, object]) -> bytes:
    """Return a report as deterministic JSON for people: keys sorted, one line for each symbol, payload or failed shard.

    A report of ten thousand symbols is written in a fraction of the time that a line for each value would take.
    """
    return (_text(report) + "\n").encode()


def _text(value: object, indent: str = "") -> str:
    """Return an object that holds objects opened, a list of it with one line for each item, anything else as one line."""
    inner = indent + "  "
    if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
        return "{\n" + ",\n".join(f"{inner}{_line(str(key))}: {_text(value[key], inner)}" for key in sorted(value)) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + _line(item) for item in value) + f"\n{indent}]"
    return _line(value)


_line = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, default=date.isoformat).encode


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


def summary_lines(summaries: Mapping[Key, Summary]) -> list[str]:
    """Return the table that a run ends with: rows, rejected and merged records per vendor and domain."""
    return [
        f"  {vendor:<22} {domain:<18} {found.rows:>10,} rows {found.rejected:>8,} rejected {found.merged:>8,} duplicates merged"
        for (vendor, domain), found in sorted(summaries.items())
    ]


def _actions(pieces: Mapping[Key, Sequence[Piece]]) -> dict[tuple[str, date], str]:
    tables = [
        piece.parsed.table for key, found in sorted(pieces.items()) for piece in found if key[1] == "corporate_actions" and piece.parsed
    ]
    return {
        (symbol, day): kind
        for table in tables
        for symbol, day, kind in zip(*(table[name].to_pylist() for name in ("symbol", "ex_date", "kind")), strict=True)
    }


def _vendor(pieces: Sequence[Piece], found: Summary, actions: Mapping[tuple[str, date], str]) -> dict[str, object]:
    return {
        "shards": len(pieces),
        "payloads": len({item.sha256 for piece in pieces for item in piece.payloads}),
        "notes": sorted({f"{piece.shard.key}: {note}" for piece in pieces if piece.parsed for note in piece.parsed.notes}),
    } | found.as_json(actions)
