"""Parsed tables of all shards, in memory while they are few and in mapped files beyond that, read back year by year."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa

from quanto.market.schema import DATE_COLUMN, KEYS

# Rows of all vendors together that stay in memory; some 170 bytes each.
ROWS_IN_MEMORY = 1_000_000


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


def partitions(domain: str, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows year by year where the key begins with the session, else all at once; at least one table.

    Duplicates share their session, so a year can be validated by itself, and sorted years follow each other in key order.
    """
    schema = tables[0].schema
    if KEYS[domain][0] != "session":
        yield pa.concat_tables(tables)
        return
    years = [table[DATE_COLUMN[domain]].to_numpy().astype("datetime64[Y]") for table in tables]
    every = np.unique(np.concatenate(years)) if years else np.empty(0, "datetime64[Y]")
    if len(every) == 0:
        yield schema.empty_table()
    for year in every:
        yield pa.concat_tables([_rows(table, of == year) for table, of in zip(tables, years, strict=True)])


def _rows(table: pa.Table, inside: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> pa.Table:
    if inside.all():
        return table
    return table.filter(pa.array(inside)) if inside.any() else table.slice(0, 0)
