"""The forms of IVolatility's answers: inline JSON, a job's state, a file; and the records in each. Pure."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quanto.stages.ingest.errors import ContractError, JobError, ReportedError, TruncatedError, UndecodableError, WrongContentError
from quanto.stages.ingest.http_vendor import mapping, record_list
from quanto.stages.ingest.rows import Records
from quanto.stages.ingest.text_rows import check_last_line, text_records
from quanto.stages.ingest.wire import Answer, decode_json, page_text


@dataclass(frozen=True)
class First:
    """What the first answer is: records, or the place where a job reports its state."""

    rows: Sequence[Mapping[str, object]] | None = None
    table: bytes | None = None
    details_url: str | None = None


@dataclass(frozen=True)
class Job:
    """The state of a job: `unfilled` if it is complete but does not say yet where its file is."""

    complete: bool
    records: int | None
    download_url: str | None = None
    unfilled: bool = False


def column(name: str) -> str:
    """Return a column name as it is matched: lower case, everything but letters and digits one underscore.

    >>> column("30d IV Call"), column("out-of-the-money_%"), column("Call/Put")
    ('30d_iv_call', 'out_of_the_money', 'call_put')
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def check_first(answer: Answer) -> First:
    """Return what the first answer is; a table of text whose length nothing proves has to end with a line.

    Raises
    ------
    FetchError
        As `first_answer`.
    """
    first = first_answer(answer.status, answer.body)
    if first.table is not None and not first.table.endswith(b"\n"):
        check_last_line(first.table, answer.proven)
    return first


def first_answer(status: int, body: bytes) -> First:
    """Return what the first answer is, whatever its content type says.

    Raises
    ------
    ReportedError
        If the body reports a failure under HTTP 200.
    JobError
        If the job failed at once.
    TruncatedError
        If there are fewer records than the status counts, or a packed body breaks off.
    UndecodableError, ContractError
        If it is in no known form.
    """
    if status == 204:
        return First(rows=())
    plain = unpack(body)
    if plain is not body:
        return First(table=plain)
    if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return First(table=_text_table(body))
    value = decode_json(body)
    if isinstance(value, list):
        return First(rows=record_list(value, "the answer"))
    return _inline(mapping(value, "the answer"))


def job_state(body: bytes) -> Job:
    """Return the state of a job.

    Raises
    ------
    JobError
        If the job failed.
    ContractError
        If the answer is in another form.
    """
    value = decode_json(body)
    first = value[0] if isinstance(value, list) and value else value
    entry = mapping(first, "the state of the job")
    meta = mapping(entry.get("meta"), "meta")
    state = str(meta.get("status", "")).upper()
    count = meta.get("recordsCount")
    records = count if type(count) is int else None
    if state in ("FAILED", "ERROR", "CANCELLED"):
        raise JobError(f"the vendor's job ended as {state}: {page_text(body)}")
    if state != "COMPLETE":
        return Job(complete=False, records=records)
    files = record_list(entry.get("data") or [], "data")
    if not files:
        return Job(complete=True, records=records, unfilled=True)
    url = files[0].get("urlForDownload")
    return Job(complete=True, records=records, download_url=str(url) if url else None)


def check_download(body: bytes, records: int | None) -> None:
    """Refuse a downloaded file that is not whole.

    Raises
    ------
    TruncatedError
        If it breaks off, or has fewer records than the job counted.
    UndecodableError, WrongContentError
        If it is empty or a page.
    """
    if not body:
        raise UndecodableError("the downloaded file is empty")
    if body[:1] == b"<":
        raise WrongContentError(f"expected a file, found a page: {page_text(body)}")
    table = unpack(body)
    if table is body and body[:1] in (b"{", b"["):
        raise UndecodableError(f"expected a file, found {page_text(body)}")
    found = len(text_records("", table))
    if records is not None and found < records:
        raise TruncatedError(f"the job counted {records} records, the file has {found}")


def unpack(body: bytes) -> bytes:
    """Return a packed body unpacked (gzip, zip, bzip2, by its first bytes), any other as it is.

    Raises
    ------
    TruncatedError
        If it breaks off.
    """
    try:
        if body.startswith(b"\x1f\x8b"):
            return gzip.decompress(body)
        if body.startswith(b"BZh"):
            return _bunzip(body)
        if body.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                return archive.read(archive.namelist()[0])
    except (EOFError, OSError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise TruncatedError(f"the file of {len(body)} bytes is broken or breaks off ({type(error).__name__})") from None
    return body


def records_of(payload: str, first: First) -> Records:
    """Return records with matched column names.

    Raises
    ------
    ContractError
        If two columns match one name.
    """
    if first.table is not None:
        return text_records(payload, first.table, rename=column)
    rows = [{column(name): value for name, value in row.items()} for row in first.rows or ()]
    for row, given in zip(rows, first.rows or (), strict=True):
        if len(row) != len(given):
            raise ContractError(f"two columns of payload {payload[:12]} match one name; found {', '.join(sorted(given))}")
    return Records(payload, rows)


def _inline(value: Mapping[str, object]) -> First:
    status = value.get("status")
    if not isinstance(status, Mapping):
        if "data" in value:
            return First(rows=record_list(value["data"], "data"))
        words = value.get("message") or value.get("error")
        if words:
            raise ReportedError(f"HTTP 200 with {str(words)[:200]!r}")
        raise ContractError(f"the answer has neither status nor data; found {', '.join(sorted(value))}")
    code = str(status.get("code", "")).upper()
    url = status.get("urlForDetails")
    if code == "PENDING":
        if not isinstance(url, str) or not url:
            raise ContractError("the answer is PENDING but does not say where its state is (urlForDetails)")
        return First(details_url=url)
    if code in ("FAILED", "ERROR"):
        raise ReportedError(f"status {code}: {str(status.get('message') or value.get('message') or status.get('reason'))[:200]}")
    rows = record_list(value["data"], "data") if "data" in value else []
    counted = status.get("recordsFound")
    if type(counted) is int and len(rows) < counted:
        if isinstance(url, str) and url:
            return First(details_url=url)
        raise TruncatedError(f"the status counts {counted} records, {len(rows)} are there")
    return First(rows=rows)


def _text_table(body: bytes) -> bytes:
    if not body.strip():
        raise UndecodableError("the body is empty; an empty answer has status 204 or says so in its status")
    if body.lstrip().startswith(b"<"):
        raise WrongContentError(f"expected data, found a page: {page_text(body)}")
    header = body.partition(b"\n")[0].decode("utf-8-sig", "replace")
    if "date" not in {column(name) for name in header.split(",")}:
        raise UndecodableError(f"expected JSON or a table, found {page_text(body)!r}")
    return body


def _bunzip(body: bytes) -> bytes:
    machine = bz2.BZ2Decompressor()
    out = machine.decompress(body)
    if not machine.eof:
        raise EOFError
    return out
