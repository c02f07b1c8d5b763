"""Parsed tables of all shards, in memory while they are few and in mapped files beyond that, read back year by year."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import pyarrow as pa

from quanto.market.schema import DATE_COLUMN, KEYS

# Rows of all vendors together that stay in memory; some 170 bytes each.
ROWS_IN_MEMORY = 1_000_000

# Rows of consecutive months that are validated together: a table costs a fixed time, and several times its own memory.
ROWS_TOGETHER = 1_000_000


class Spool:
    """Takes a parsed table and gives back an equal one, whose memory is a file once there are many rows."""

    def __init__(self, folder: Path, rows_in_memory: int = ROWS_IN_MEMORY) -> None:
        self._folder = folder
        self._room = rows_in_memory
        self._files = 0
        self._lock = Lock()

    def hold(self, table: pa.Table) -> pa.Table:
        """Return the same rows; called from several threads."""
        with self._lock:
            self._room -= len(table)
            if self._room >= 0 or len(table) == 0:
                return table
            self._files += 1
            path = self._folder / f"{self._files}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def partitions(domain: str, tables: Sequence[pa.Table], unit: Literal["Y", "M"] = "Y", rows_together: int = 0) -> Iterator[pa.Table]:
    """Yield the rows by years or months where the key begins with the session, else all at once; at least one table.

    Duplicates share their session, so a year can be validated by itself, and sorted years follow each other in key order.
    Units that follow each other are yielded as one table while they have no more than `rows_together` rows.
    """
    schema = tables[0].schema
    if KEYS[domain][0] != "session":
        yield pa.concat_tables(tables)
        return
    years = [table[DATE_COLUMN[domain]].to_numpy().astype(f"datetime64[{unit}]") for table in tables]
    every, counts = np.unique(np.concatenate(years), return_counts=True) if years else (np.empty(0, f"datetime64[{unit}]"), np.empty(0))
    if len(every) == 0:
        yield schema.empty_table()
    start = 0
    while start < len(every):
        stop = max(start + 1, start + int(np.searchsorted(np.cumsum(counts[start:]), rows_together, side="right")))
        inside = [(of >= every[start]) & (of <= every[stop - 1]) for of in years]
        yield pa.concat_tables([_rows(table, mask) for table, mask in zip(tables, inside, strict=True)])
        start = stop


def _rows(table: pa.Table, inside: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> pa.Table:
    if inside.all():
        return table
    return table.filter(pa.array(inside)) if inside.any() else table.slice(0, 0)
