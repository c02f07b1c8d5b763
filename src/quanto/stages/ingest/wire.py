"""One answer off the wire: the whole body or an error, decoded by ourselves so that no truncation is silent.

`requests` hands over half a gzip body without an exception when its Content-Length matches. So the raw bytes are
read, counted and decompressed here.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException

import orjson
import requests
import urllib3

from quanto.stages.ingest.errors import ConnectionFailedError, TimedOutError, TruncatedError, UndecodableError, WrongContentError
from quanto.stages.ingest.limits import Clock

BLOCK = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A complete answer: `body` after content decoding; `proven` if the wire itself showed that nothing is missing."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    proven: bool = True

    @property
    def content_type(self) -> str:
        """The media type, in lower case, without parameters; empty if none was sent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def read_answer(response: requests.Response, deadline: float, clock: Clock) -> Answer:
    """Return the whole answer.

    Raises
    ------
    TruncatedError
        If the body is shorter than declared, a chunked body lacks its last chunk, or a compressed one its end.
    TimedOutError
        If the next byte or, by `deadline` (of the monotonic clock), the last byte did not come.
    ConnectionFailedError
        If the connection broke.
    UndecodableError
        If the content encoding is one that was not asked for.
    """
    headers = {name.lower(): value for name, value in response.headers.items()}
    raw = _read_raw(response, deadline, clock)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    counted = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
    proven = counted or encoding in ("gzip", "x-gzip")
    return Answer(response.url or "", response.status_code, headers, _decode(raw, encoding), proven)


def decode_json(body: bytes) -> object:
    """Return the value of a JSON body; NaN and Infinity, which JSON does not have, become text that no number parser takes.

    Raises
    ------
    UndecodableError
        If the body is empty, `null`, or no whole document.
    WrongContentError
        If it is a page for people.
    """
    text = body.strip(b" \t\r\n\xef\xbb\xbf")
    if not text or text == b"null":
        raise UndecodableError(f"expected JSON, found {'an empty body' if not text else 'null'}; that is no answer, not even an empty one")
    if text.startswith(b"<"):
        raise WrongContentError(f"expected JSON, found a page: {page_text(body)}")
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"expected JSON, found {len(body)} bytes that break off or are none: {str(error)[:120]}") from None


def looks_like_page(answer: Answer) -> bool:
    """Return whether the body is HTML, by its first bytes or by its declared type."""
    start = answer.body[:512].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or answer.content_type == "text/html"


def page_text(body: bytes, length: int = 160) -> str:
    """Return the beginning of a body as one line of text, without tags."""
    text = body[:4096].decode("utf-8", "replace")
    outside = "".join(part.partition(">")[2] if index else part for index, part in enumerate(text.split("<")))
    return " ".join(outside.split())[:length]


def _read_raw(response: requests.Response, deadline: float, clock: Clock) -> bytes:
    blocks: list[bytes] = []
    try:
        # read1 returns what has come, so a slow trickle meets the deadline and not only the time-out between two bytes.
        while block := response.raw.read1(BLOCK, decode_content=False):
            blocks.append(block)
            if clock.monotonic() > deadline:
                raise TimedOutError(f"the answer was not complete by its deadline ({sum(map(len, blocks))} bytes had come)")
    except urllib3.exceptions.ReadTimeoutError:
        raise TimedOutError(f"no further byte came in time ({sum(map(len, blocks))} had come)") from None
    except (urllib3.exceptions.IncompleteRead, urllib3.exceptions.InvalidChunkLength):
        raise TruncatedError(f"the body ended early, after {sum(map(len, blocks))} bytes") from None
    except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
        if "IncompleteRead" in repr(error):
            raise TruncatedError(f"the body ended early, after {sum(map(len, blocks))} bytes") from None
        raise ConnectionFailedError(f"the connection broke after {sum(map(len, blocks))} bytes ({type(error).__name__})") from None
    declared = response.headers.get("Content-Length", "")
    found = sum(map(len, blocks))
    if declared.isdigit() and int(declared) != found and response.request.method != "HEAD" and response.status_code not in (204, 304):
        raise TruncatedError(f"the body has {found} bytes, its Content-Length says {declared}")
    return b"".join(blocks)


def _decode(raw: bytes, encoding: str) -> bytes:
    decoders: dict[str, Callable[[bytes], bytes]] = {
        "identity": bytes, "": bytes, "gzip": gzip.decompress, "x-gzip": gzip.decompress, "deflate": _inflate,
    }  # fmt: skip
    if encoding not in decoders:
        raise UndecodableError(f"the answer is encoded as {encoding!r}; only gzip was asked for")
    if not raw:
        return raw
    try:
        return decoders[encoding](raw)
    except EOFError:
        raise TruncatedError(f"the compressed body ends early ({len(raw)} bytes, although its length matches)") from None
    except (OSError, zlib.error) as error:
        raise TruncatedError(f"the compressed body is broken: {error}") from None


def _inflate(raw: bytes) -> bytes:
    # "deflate" is a zlib stream by the standard and a bare one by habit.
    for window in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        machine = zlib.decompressobj(window)
        try:
            body = machine.decompress(raw) + machine.flush()
        except zlib.error:
            continue
        if not machine.eof:
            raise EOFError
        return body
    raise zlib.error("neither a zlib nor a bare deflate stream")
