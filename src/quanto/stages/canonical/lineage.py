"""The columns that lead back: sets of names as text, and quarantined rows with their reason and their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.core.digest import canonical_json
from quanto.market.schema import CANONICAL, KEYS, QUARANTINE

IntArray = npt.NDArray[np.int64]


def joined_names(bits: IntArray, names: Sequence[str]) -> pa.Array:
    """Return for each bit set the sorted names joined by "|"; empty where no bit is set. Bit i stands for names[i]."""
    distinct, codes = np.unique(bits, return_inverse=True)
    texts = ["|".join(sorted(name for bit, name in enumerate(names) if value >> bit & 1)) for value in distinct.tolist()]
    indices = pa.array(codes.reshape(-1).astype(np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array(texts, pa.string())).cast(pa.string())


def quarantine_rows(domain: str, vendor: str, rows: pa.Table, reasons: pa.Array, key: Sequence[str] = ()) -> pa.Table:
    """Return raw rows as quarantine rows: key, reasons, the row as canonical JSON, and the way to the vendor's bytes.

    `key` names the columns of the key; the domain's own where none is given.
    """
    records = [{name: plain_value(value) for name, value in row.items()} for row in rows.to_pylist()]
    payload = rows["payload"].cast(pa.string()) if len(rows) else pa.array([], pa.string())
    columns = [
        pa.array([domain] * len(records), pa.string()),
        pa.array([vendor] * len(records), pa.string()),
        pa.array(["/".join(str(row[name]) for name in key or KEYS[domain]) for row in records], pa.string()),
        reasons,
        pa.array([canonical_json(row).decode() for row in records], pa.string()),
        payload,
        rows["payload_row"] if len(rows) else pa.array([], pa.int64()),
    ]
    return pa.table(columns, schema=QUARANTINE)


def restated_rows(domain: str, rows: pa.Table, vendor: pa.Array) -> pa.Table:
    """Return raw rows that a later version replaced, as canonical rows with the flag `restated`, sorted by version."""
    same = {"vendors_seen": vendor, "vendor": vendor}
    same |= {name: pa.array([text] * len(rows), pa.string()) for name, text in (("method", "only"), ("flags", "restated"))}
    schema = CANONICAL[domain]
    columns = [same[name] if name in same else rows[name].combine_chunks() for name in schema.names]
    order = [(name, "ascending") for name in (*KEYS[domain], "known_on", "vendor", "payload", "payload_row")]
    return pa.table(columns, schema=schema).sort_by(order).combine_chunks()


def plain_value(value: object) -> object:
    """Return a cell as JSON can hold it: NaN and infinity as text, dates in ISO form."""
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value.isoformat() if isinstance(value, date) else value


def sort_quarantine(table: pa.Table) -> pa.Table:
    """Return quarantine rows in an order that depends on nothing but their content."""
    names = ("domain", "vendor", "key", "reason", "payload", "payload_row", "row")
    return table.sort_by([(name, "ascending") for name in names]).combine_chunks()
