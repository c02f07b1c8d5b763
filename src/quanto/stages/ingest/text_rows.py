"""Delimited text to records: every line becomes a record or a fault; a missing end of the last line is found."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

from quanto.stages.ingest.errors import ContractError, TruncatedError, UndecodableError, WrongContentError
from quanto.stages.ingest.rows import Records
from quanto.stages.ingest.wire import Answer, page_text

SURPLUS = "surplus fields"


def check_text(answer: Answer, *columns: str) -> None:
    """Refuse an answer that is no complete table of text; `columns`: its header has one of these, anywhere.

    Raises
    ------
    UndecodableError
        If it is empty.
    WrongContentError
        If it is a page or a sentence for people.
    TruncatedError
        As `check_last_line`.
    """
    body = answer.body.lstrip(b"\xef\xbb\xbf \r\n")
    if not body:
        raise UndecodableError("expected a table of text, found an empty body")
    header = {name.strip(" \"'\r").lower() for name in body.partition(b"\n")[0].decode("utf-8", "replace").split(",")}
    if columns and not header & {name.lower() for name in columns}:
        raise WrongContentError(f"expected a table with a column {' or '.join(columns)}, found {page_text(body)!r}")
    if not answer.body.endswith(b"\n"):
        check_last_line(answer.body, answer.proven)


def check_last_line(body: bytes, proven: bool) -> None:
    """Refuse a table without a final line feed whose end nothing proves, or whose last line lacks fields.

    Raises
    ------
    TruncatedError
        If so: a copy that was cut has a matching length too.
    """
    lines = body.decode("utf-8-sig", "replace").splitlines()
    fields = [len(next(csv.reader([line]), [])) for line in (lines[0], lines[-1])]
    if not proven or fields[1] < fields[0]:
        raise TruncatedError("the table breaks off in the middle of a line")


def text_records(payload: str, body: bytes, rename: Callable[[str], str] = str.strip, delimiter: str = ",") -> Records:
    """Return the lines below the header as records of text; a line with another number of fields is a fault.

    Raises
    ------
    ContractError
        If a name stands twice in the header.
    """
    lines = csv.reader(io.StringIO(body.decode("utf-8-sig", "replace")), delimiter=delimiter)
    header = [rename(name) for name in next(lines, [])]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ContractError(f"the header of payload {payload[:12]} has {', '.join(twice)} more than once")
    rows: list[Mapping[str, object]] = []
    uneven: dict[int, int] = {}
    for line in lines:
        if not line:
            continue
        if len(line) != len(header):
            uneven[len(rows)] = len(line)
        row: dict[str, object] = dict(zip(header, line, strict=False))
        if len(line) > len(header):
            row[SURPLUS] = delimiter.join(line[len(header) :])
        rows.append(row)
    records = Records(payload, rows)
    for index, count in uneven.items():
        records.fault(index, f"the line has {count} fields, its header {len(header)}")
    return records


def require_header(records: Records, body: bytes, *names: str) -> None:
    """Refuse a table whose header lacks a column, also when it has no rows.

    Raises
    ------
    ContractError
        Names the columns.
    """
    records.require(*names)
    if not len(records):
        header = body.partition(b"\n")[0].decode("utf-8-sig", "replace").lower()
        lost = [name for name in names if name.lower() not in header]
        if lost:
            raise ContractError(f"the header of payload {records.payload[:12]} lacks {', '.join(lost)}: {header[:120]!r}")
