"""What a vendor said at earlier dates, as versions of its rows: nothing looks as if it had been known before it was said. Pure.

A vendor's rule tells when a row is knowable: a daily bar in the evening of its session. A value that the vendor changed
at a later date was not known then, nor was a row that an earlier answer should have held and did not. Both are known
from the date of the answer that first had them, and the values that were replaced stay as earlier versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.market.schema import DATE_COLUMN, KEYS
from quanto.stages.ingest.rows import DateArray, IntArray
from quanto.stages.ingest.validate import FAULTS, LINEAGE

BoolArray = npt.NDArray[np.bool_]

# No part of what a row says: where it came from and by what name, when it was known, what is back-adjusted with every event.
UNCOMPARED = ("payload", "payload_row", "vendor_id", "known_on", "provisional", "adj_close", "basis_as_of")


@dataclass(frozen=True)
class Answer:
    """The rows that a shard gave as of a date, and what it was asked for: symbols (or series) and days, both included."""

    day: date
    table: pa.Table
    symbols: tuple[str, ...]
    start: date
    end: date


@dataclass(frozen=True)
class History:
    """The newest answer's rows in their order, the versions that they replaced (oldest first), and notes."""

    table: pa.Table
    earlier: tuple[pa.Table, ...] = ()
    notes: tuple[str, ...] = ()


def with_history(domain: str, answers: Sequence[Answer]) -> History:
    """Return the rows of the newest answer with the day from which each was known, and the versions before them.

    `answers` are ascending by day, the newest last. For the rows of a key, whose known_on by the vendor's rule is r:
    equal to what the answer before said, they keep the known_on they had; changed, theirs is max(r, day of the answer)
    and the rows before are an earlier version; absent from an answer that was asked for them after r, theirs is
    max(r, day of the answer that first had them). Without a version are replaced: provisional rows; rows whose prices
    or volume are adjusted, which a vendor restates with every split; rows that were replaced before they were known.
    A key that the newest answer does not hold, or holds with a fault only, is left with all its versions.
    """
    fold = _Fold(domain, answers)
    for number in range(len(answers)):
        fold.add(number)
    return fold.history()


class _Fold:
    """All rows of all answers, one after the other, and what was known after each answer; arrays of shape (n_rows,)."""

    def __init__(self, domain: str, answers: Sequence[Answer]) -> None:
        self.domain = domain
        self.answers = answers
        self.rows = pa.concat_tables([answer.table for answer in answers]).combine_chunks()
        self.edges = np.concatenate([[0], np.cumsum([len(answer.table) for answer in answers])])
        self.key = _codes(self.rows, KEYS[domain])
        self.keys = int(self.key.max(initial=-1)) + 1
        self.content = _codes(self.rows, [name for name in self.rows.schema.names if name not in UNCOMPARED])
        self.days: DateArray = self.rows[DATE_COLUMN[domain]].to_numpy().astype("datetime64[D]")
        self.names, self.name = _names(self.rows, "series" if domain == "index_level" else "symbol")
        self.rule: DateArray = self.rows["known_on"].to_numpy().astype("datetime64[D]")
        self.known = self.rule.copy()
        self.adjusted = _adjusted(self.rows)
        self.provisional = _provisional(self.rows)
        self.state: IntArray = np.empty(0, dtype=np.int64)  # rows that stand after the last answer, sorted by key and content
        self.earlier: list[IntArray] = []
        self.withdrawn = 0

    def add(self, number: int) -> None:
        """Take the next answer: date its rows, set aside what it replaces, let go what it no longer holds."""
        answer, old = self.answers[number], self.state
        new = self._sorted(np.arange(self.edges[number], self.edges[number + 1]))
        key, low, high = self.key[new], *_span(self.key[old], self.key[new])
        first, last = _span(key, key)
        found = high > low
        # A key's rows are compared as one: two payments of one day are one fact.
        at = low + np.arange(len(new)) - first
        partner = old[np.minimum(at, len(old) - 1)] if len(old) else np.zeros(len(new), dtype=np.int64)
        differs = (high - low != last - first) | (self.content[partner] != self.content[new])
        unequal = self._keys_of(new[differs])[key]
        no_version = self._keys_of(old[self.provisional[old] | self.adjusted[old]]) | self._keys_of(new[self.adjusted[new]])
        changed = found & unequal & ~no_version[key]
        late = ~found & self._missed(new, number)
        before = self._latest(old)[key]
        day = np.datetime64(answer.day, "D")
        known = np.where(found & unequal, np.maximum(self.rule[new], before), self.rule[new])
        known = np.where(found & ~unequal, self.known[partner], known)
        self.known[new] = np.where(changed | late, np.maximum(self.rule[new], day), known)
        self._set_aside(old, new[changed])
        absent = ~self._keys_of(new)[self.key[old]]
        gone = absent & self._asked(old, answer)
        self.withdrawn += int(gone.sum())
        self._forget(old[gone])
        self.state = self._sorted(np.concatenate([new, old[absent & ~gone]]))

    def history(self) -> History:
        """Return what stands in the newest answer, and its earlier versions."""
        start, stop = self.edges[-2], self.edges[-1]
        current = np.arange(start, stop)
        standing = self._keys_of(current) & ~self._faulty(current)
        kept = [rows[standing[self.key[rows]]] for rows in self.earlier]
        earlier = tuple(self._take(np.sort(rows)) for rows in kept if len(rows))
        count = sum(len(table) for table in earlier)
        notes = [f"{count} rows of earlier answers were restated since; they are kept as earlier versions"] if count else []
        if self.withdrawn:
            notes.append(f"{self.withdrawn} rows of earlier answers were withdrawn by later ones")
        return History(self._take(current), earlier, tuple(notes))

    def _sorted(self, rows: IntArray) -> IntArray:
        return rows[np.lexsort((rows, self.content[rows], self.key[rows]))]

    def _keys_of(self, rows: IntArray) -> BoolArray:
        """Return for each key whether any of the rows has it; shape (n_keys,)."""
        out = np.zeros(self.keys, dtype=np.bool_)
        out[self.key[rows]] = True
        return out

    def _latest(self, rows: IntArray) -> DateArray:
        """Return for each key the latest known_on of the rows; shape (n_keys,), the beginning of time where there is none."""
        out = np.full(self.keys, np.datetime64("0001-01-01", "D"))
        np.maximum.at(out, self.key[rows], self.known[rows])
        return out

    def _asked(self, rows: IntArray, answer: Answer) -> BoolArray:
        inside = (self.days[rows] >= np.datetime64(answer.start, "D")) & (self.days[rows] <= np.datetime64(answer.end, "D"))
        return np.asarray(inside & np.isin(self.names, answer.symbols)[self.name[rows]], dtype=np.bool_)

    def _missed(self, rows: IntArray, number: int) -> BoolArray:
        """Return which rows an answer before this one was asked for after they were known by the vendor's rule."""
        out = np.zeros(len(rows), dtype=np.bool_)
        for answer in self.answers[:number]:
            out |= self._asked(rows, answer) & (self.rule[rows] < np.datetime64(answer.day, "D"))
        return out

    def _set_aside(self, old: IntArray, changed: IntArray) -> None:
        """Keep the rows that were replaced as a version, unless they were replaced before anyone knew them."""
        since = np.full(self.keys, np.datetime64("9999-12-31", "D"))
        np.minimum.at(since, self.key[changed], self.known[changed])
        replaced = self._keys_of(changed) & (self._latest(old) < since)
        self.earlier.append(old[replaced[self.key[old]]])

    def _forget(self, gone: IntArray) -> None:
        left = self._keys_of(gone)
        self.earlier = [rows[~left[self.key[rows]]] for rows in self.earlier]

    def _faulty(self, current: IntArray) -> BoolArray:
        """Return for each key whether validation sets its rows aside: an earlier version must not stand in for them."""
        table = self.rows.take(pa.array(current))
        faults = np.zeros(len(current), dtype=np.bool_)
        for mask in FAULTS[self.domain](table).values():
            faults |= mask
        ordered = self._sorted(current)
        # As validation sees it, which compares more than a restatement does.
        whole = np.zeros(len(self.rows), dtype=np.int64)
        whole[current] = _codes(table, [name for name in table.schema.names if name not in LINEAGE])
        clash = (self.key[ordered][1:] == self.key[ordered][:-1]) & (whole[ordered][1:] != whole[ordered][:-1])
        return self._keys_of(current[faults]) | self._keys_of(ordered[1:][clash])

    def _take(self, rows: IntArray) -> pa.Table:
        table = self.rows.take(pa.array(rows))
        place = table.schema.get_field_index("known_on")
        return table.set_column(place, table.schema.field(place), pa.array(self.known[rows], pa.date32())).combine_chunks()


def _adjusted(rows: pa.Table) -> BoolArray:
    """Return which rows are not wholly on the raw basis."""
    out = np.zeros(len(rows), dtype=np.bool_)
    for name in {"basis", "volume_basis"} & set(rows.schema.names):
        names, codes = _names(rows, name)
        out |= (names != "raw")[codes]
    return out


def _provisional(rows: pa.Table) -> BoolArray:
    """Return which rows the vendor had not yet declared final."""
    if "provisional" not in rows.schema.names:
        return np.zeros(len(rows), dtype=np.bool_)
    flags: BoolArray = rows["provisional"].to_numpy().astype(np.bool_)
    return flags


def _span(keys: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """Return for each wanted key where its rows begin and end among sorted keys."""
    return np.searchsorted(keys, wanted, side="left"), np.searchsorted(keys, wanted, side="right")


def _codes(rows: pa.Table, columns: Sequence[str]) -> IntArray:
    """Return a number per row that is equal where all columns are equal; a missing value equals a missing value."""
    code = np.zeros(len(rows), dtype=np.int64)
    for name in columns:
        indices = rows[name].combine_chunks().dictionary_encode(null_encoding="encode").indices
        values = indices.to_numpy(zero_copy_only=False).astype(np.int64)
        code = np.unique(code * (int(values.max(initial=0)) + 1) + values, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return code


def _names(rows: pa.Table, column: str) -> tuple[npt.NDArray[np.object_], IntArray]:
    """Return the distinct values of a text column, and the place of each row's among them."""
    encoded = rows[column].combine_chunks().dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), dtype=object)
    return names, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
