"""The `reference` vendor: a committed, sourced table of corporate actions that market data cannot show."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa

from quanto.core.config import Section
from quanto.core.digest import digest_bytes
from quanto.core.errors import DataError, MissingDataError
from quanto.market.calendar import next_session
from quanto.market.schema import ACTION_KINDS, RAW
from quanto.stages.ingest.vendor import IngestRequest, Landing, Parsed, Payload, Rejected, Shard, VendorKind

COLUMNS = ("symbol", "ex_date", "kind", "ratio", "cash_usd", "other_symbol", "source")


class ReferenceOptions(Section):
    """Where the table lies; relative to the workspace."""

    path: str


@dataclass(frozen=True)
class ReferenceVendor:
    """One CSV file with the columns symbol, ex_date, kind, ratio, cash_usd, other_symbol, source."""

    name: str
    path: str
    workspace: Path

    @property
    def domains(self) -> frozenset[str]:
        return frozenset({"corporate_actions"})

    def plan(self, request: IngestRequest) -> tuple[Shard, ...]:
        """Return the one shard of the file."""
        return (Shard(self.name, request.domain, self.path, request.symbols, request.start, request.end),)

    def fetch(self, shard: Shard, landing: Landing) -> tuple[Payload, ...]:
        """Return the file's bytes.

        Raises
        ------
        MissingDataError
            If it cannot be read.
        """
        try:
            body = (self.workspace / shard.key).read_bytes()
        except OSError as error:
            raise MissingDataError(
                f"vendor {self.name}: {self.path} cannot be read ({error.strerror}); name another in its options"
            ) from error
        return (landing.put({"kind": "file", "path": shard.key, "sha256": digest_bytes(body)}, body),)

    def parse(self, shard: Shard, payloads: Sequence[Payload]) -> Parsed:
        """Return the actions of the shard's symbols and dates; known on the last session before the ex-date at the latest.

        Raises
        ------
        DataError
            If the file has other columns.
        """
        (payload,) = payloads
        reader = csv.DictReader(io.StringIO(payload.body.decode("utf-8-sig")))
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{self.path}: expected the columns {', '.join(COLUMNS)}, found {', '.join(reader.fieldnames or ()) or 'none'}")
        rows: list[dict[str, object]] = []
        rejected: list[Rejected] = []
        for index, record in enumerate(reader):
            reason = _fault(record)
            if reason:
                rejected.append(Rejected(f"{record['symbol']}|{record['ex_date']}", reason, dict(record), payload.sha256, index))
            elif record["symbol"] in shard.symbols and shard.start <= date.fromisoformat(record["ex_date"]) <= shard.end:
                rows.append(_row(record, payload.sha256, index))
        return Parsed(pa.Table.from_pylist(rows, schema=RAW["corporate_actions"]), tuple(rejected))


def _build(name: str, options: ReferenceOptions, workspace: Path) -> ReferenceVendor:
    return ReferenceVendor(name, options.path, workspace)


REFERENCE = VendorKind(
    "reference",
    "corporate actions from a committed, sourced CSV file",
    frozenset({"corporate_actions"}),
    frozenset({"file"}),
    ReferenceOptions,
    _build,
)


def _fault(record: Mapping[str, str]) -> str:
    """Return why a record cannot become a row, or nothing."""
    try:
        date.fromisoformat(record["ex_date"])
        numbers = [float(record[name]) for name in ("ratio", "cash_usd") if record[name]]
    except (ValueError, TypeError) as error:
        return f"unreadable: {error}"
    if record["kind"] not in ACTION_KINDS:
        return f"unknown_kind: {record['kind']}"
    if not all(number > 0 for number in numbers):
        return "not_positive"
    return "" if record["source"] else "no_source"


def _row(record: Mapping[str, str], payload: str, index: int) -> dict[str, object]:
    ex_date = date.fromisoformat(record["ex_date"])
    return {
        "symbol": record["symbol"],
        "ex_date": ex_date,
        "kind": record["kind"],
        "ratio": float(record["ratio"]) if record["ratio"] else None,
        "cash_usd": float(record["cash_usd"]) if record["cash_usd"] else None,
        "currency": "USD",
        "other_symbol": record["other_symbol"] or None,
        "vendor_id": None,
        "known_on": next_session(ex_date, -1),
        "payload": payload,
        "payload_row": index,
    }
