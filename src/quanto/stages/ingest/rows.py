"""From a vendor's records to typed columns: every record becomes a row or is rejected with a reason.

Numbers are taken as JSON integers, JSON floats and numeric text; booleans, NaN, infinity, empty text and placeholders
are not. A missing field, a null and a zero are three facts and stay apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from operator import itemgetter
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quanto.market.schema import RAW
from quanto.stages.ingest.errors import ContractError
from quanto.stages.ingest.vendor import Parsed, Rejected

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
DateArray = npt.NDArray[np.datetime64]

# Digits of other scripts are no numbers of a vendor.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class _Missing:
    """The value of a field that a record does not have."""

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()


class Records:
    """The records of one payload on their way to rows; columns are asked for by name, faults are kept by position."""

    def __init__(self, payload: str, records: Sequence[Mapping[str, object]], first: int = 0) -> None:
        self.payload = payload
        self.records = records
        self.first = first  # position of the first record in its payload
        self.faults: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.records)

    def values(self, name: str) -> list[object]:
        """Return one field of all records; MISSING where a record does not have it."""
        try:
            return list(map(itemgetter(name), self.records))
        except KeyError:
            return [record.get(name, MISSING) for record in self.records]

    def numbers(self, name: str, *, optional: bool = False) -> FloatArray:
        """Return one field as float64; NaN where `optional` and missing or null, and where a fault was noted."""
        return self.parsed_numbers(name, self.values(name), optional=optional)

    def parsed_numbers(self, name: str, values: Sequence[object], *, optional: bool = False) -> FloatArray:
        """Return given values of a field as `numbers` does."""
        if set(map(type, values)) <= {int, float}:
            out = np.array(values, dtype=np.float64)
            for index in np.flatnonzero(~np.isfinite(out)).tolist():
                self.fault(index, f"{name} is {values[index]}")
            return out
        out = np.full(len(values), np.nan)
        for index, value in enumerate(values):
            if optional and (value is None or value is MISSING):
                continue
            number = parse_number(value)
            if isinstance(number, str):
                self.fault(index, f"{name} {number}")
            else:
                out[index] = number
        return out

    def integers(self, name: str) -> IntArray:
        """Return one field as int64, never through a float (nanoseconds exceed 2^53); 0 where a fault was noted."""
        values = self.values(name)
        if set(map(type, values)) <= {int} and all(-(2**63) <= value < 2**63 for value in values):  # type: ignore[operator]
            return np.array(values, dtype=np.int64)
        out = np.zeros(len(values), dtype=np.int64)
        for index, value in enumerate(values):
            number = parse_integer(value)
            if isinstance(number, str):
                self.fault(index, f"{name} {number}")
            else:
                out[index] = number
        return out

    def texts(self, name: str, *, optional: bool = False) -> list[str | None]:
        """Return one field as text; None where `optional` and missing or null, and where a fault was noted."""
        out: list[str | None] = []
        for index, value in enumerate(self.values(name)):
            good = isinstance(value, str) and bool(value.strip())
            out.append(str(value).strip() if good else None)
            if not good and not (optional and (value is None or value is MISSING or value == "")):
                self.fault(index, f"{name} {_seen(value)}")
        return out

    def dates(self, name: str, *, optional: bool = False, read: Callable[[str], date] | None = None) -> DateArray:
        """Return one field as days, read by `read` (default: the first ten characters, ISO); NaT as in `texts`."""
        reader = read or iso_day
        texts = self.texts(name, optional=optional)
        cache: dict[str, date | None] = {}
        for index, text in enumerate(texts):
            if text is not None and text not in cache:
                try:
                    cache[text] = reader(text)
                except ValueError:
                    cache[text] = None
            if text is not None and cache[text] is None:
                self.fault(index, f"{name} is no date ({text!r})")
        days = [None if text is None else cache[text] for text in texts]
        return np.array(days, dtype="datetime64[D]")

    def fault(self, index: int, reason: str) -> None:
        """Note why a record cannot become a row; several reasons are kept."""
        known = self.faults.get(index)
        if known is None:
            self.faults[index] = reason
        elif reason not in known.split("; "):
            self.faults[index] = f"{known}; {reason}"

    def fault_where(self, mask: npt.NDArray[np.bool_], reason: Callable[[int], str]) -> None:
        """Note a reason for every record where `mask` holds; shape (n_records,)."""
        for index in np.flatnonzero(mask).tolist():
            self.fault(index, reason(index))

    def require(self, *names: str) -> None:
        """Refuse the whole batch if no record has one of these fields: then it was renamed or removed.

        Raises
        ------
        ContractError
            Names the missing fields and those that were found.
        """
        if not self.records:
            return
        lost = [name for name in names if not any(name in record for record in self.records)]
        if lost:
            found = sorted({name for record in self.records for name in record})
            raise ContractError(
                f"no record of payload {self.payload[:12]} has {', '.join(lost)}; found {', '.join(found)}: "
                "the vendor renamed or removed a field"
            )

    def unknown(self, known: frozenset[str]) -> tuple[str, ...]:
        """Return notes about fields that the contract does not name; they are accepted and ignored."""
        extra = sorted(set().union(*self.records) - known)
        return (f"unknown fields ignored: {', '.join(extra)}",) if extra else ()

    def finish(
        self, domain: str, columns: Mapping[str, object], key: Callable[[int], str], drop: npt.NDArray[np.bool_] | None = None
    ) -> Parsed:
        """Return the rows without faults by the RAW schema of the domain, and the others as rejected.

        Columns that are not given are null; scalars are repeated. `drop` marks records that are left out on purpose.
        """
        count = len(self.records)
        keep = np.ones(count, dtype=bool) if drop is None else ~drop
        bad = sorted(index for index in self.faults if keep[index])
        keep[bad] = False
        lineage = {"payload": self.payload, "payload_row": np.arange(self.first, self.first + count)}
        table = make_table(domain, {**columns, **lineage}, count)
        rejected = tuple(
            Rejected(key(index), self.faults[index], dict(self.records[index]), self.payload, self.first + index) for index in bad
        )
        return Parsed(table if keep.all() else table.filter(pa.array(keep)), rejected)


def make_table(domain: str, columns: Mapping[str, object], count: int) -> pa.Table:
    """Return a table by the RAW schema of a domain; scalars are repeated, absent columns and NaN in numbers are null."""
    return table_by(RAW[domain], columns, count)


def table_by(schema: pa.Schema, columns: Mapping[str, object], count: int) -> pa.Table:
    """Return a table by a schema, as `make_table` does."""
    return pa.table([_array(columns.get(field.name), field.type, count) for field in schema], schema=schema)


def _array(value: object, kind: pa.DataType, count: int) -> pa.Array:
    if value is None:
        return pa.nulls(count, kind)
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value.cast(kind)
    if isinstance(value, np.ndarray):
        return pa.array(value, type=kind, from_pandas=True)
    if isinstance(value, list | tuple):
        return pa.array(value, type=kind)
    return pa.repeat(pa.scalar(value, type=kind), count)


def parse_number(value: object) -> float | str:
    """Return a number, or in words why the value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _seen(value)
    if isinstance(value, str):
        text = value.strip()
        if _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        elif not _NUMBER.fullmatch(text):
            return _seen(value)
        value = text
    try:
        number = float(value)
    except OverflowError:
        return f"is out of range ({value!r})"
    return number if math.isfinite(number) else f"is {value}"


def parse_integer(value: object) -> int | str:
    """Return an int64, or in words why the value is none; a float or numeric text counts if it is exactly integral."""
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        value = int(value)
    elif isinstance(value, str) and not isinstance(parse_number(value), str):
        value = float(value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) <= 2**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return _seen(value)
    return value if -(2**63) <= value < 2**63 else f"is out of range ({value})"


def iso_day(text: str) -> date:
    """Return the day that the first ten characters name; whatever follows must begin with a blank or a T.

    Raises
    ------
    ValueError
        If they name none.
    """
    if not _ISO.match(text) or text[10:11] not in ("", " ", "T"):
        raise ValueError(text)
    return date.fromisoformat(text[:10])


def _seen(value: object) -> str:
    if value is MISSING:
        return "is missing"
    if value is None:
        return "is null"
    return f"is no {'number' if not isinstance(value, str) else 'usable value'} ({str(value)[:60]!r})"


def join(domain: str, parts: Sequence[Parsed], notes: Sequence[str] = ()) -> Parsed:
    """Return several parts as one: tables concatenated, notes without repetition, in order."""
    tables = [part.table for part in parts]
    table = pa.concat_tables(tables) if tables else RAW[domain].empty_table()
    rejected = tuple(item for part in parts for item in part.rejected)
    every = [note for part in parts for note in part.notes]
    minutes = [part.minutes for part in parts if part.minutes is not None]
    return Parsed(table, rejected, tuple(dict.fromkeys([*every, *notes])), pa.concat_tables(minutes) if minutes else None)
