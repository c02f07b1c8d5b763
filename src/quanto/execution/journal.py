"""The order journal: append-only JSON lines, each chained to all before it by SHA-256.

A line is `{"body":<event as compact JSON>,"hash":"<sha256 of the previous hash and the body's bytes>"}`. The first
previous hash is 64 zeros. What stands in the journal is the truth: book and metrics are rebuilt from it. A writer
killed in the middle of a line leaves a torn last line, which the next opening cuts off; a byte changed anywhere else
breaks the chain at its line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias

import orjson

from quanto.core.errors import ExecutionError, IntegrityError
from quanto.core.store import sync_folder

Record: TypeAlias = dict[str, object]

GENESIS = "0" * 64
_OPEN, _MIDDLE, _CLOSE = b'{"body":', b',"hash":"', b'"}\n'
_NULL = b"null"
_BUFFER_BYTES = 1 << 18  # more than the events between two syncs
_TAIL = len(_MIDDLE) + 64 + len(_CLOSE)


class Journal:
    """A journal open for appending; the events that stood in it are read once, by `replay`.

    Attributes
    ----------
    head
        The hash of the last line: whoever keeps it can tell a cut journal from a whole one.
    count
        Lines in the journal.
    repaired_bytes
        Length of the torn last line that was cut off when the journal was opened; 0 if there was none.
    """

    def __init__(self, path: Path | None, on_append: Callable[[int], None] | None = None) -> None:
        """Open or create the journal at `path`; None keeps it in memory (counterfactual replays).

        Raises
        ------
        IntegrityError
            If a byte of an existing journal was changed; names the line.
        """
        self.path = path
        self.head = GENESIS
        self.count = 0
        self.repaired_bytes = 0
        self._on_append = on_append
        self._memory: list[Record] = []
        self._stream: BinaryIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._recover(path)
            self._stream = path.open("ab", buffering=_BUFFER_BYTES)
            sync_folder(path.parent)

    def replay(self) -> Iterator[Record]:
        """Yield all events of the journal, oldest first."""
        if self._stream is None or self.path is None:
            yield from self._memory
            return
        self._stream.flush()
        for body, _, _ in _lines(self.path):
            yield orjson.loads(body)

    def append(self, event: Mapping[str, object]) -> None:
        """Append one event; it is durable after the next `sync`.

        Raises
        ------
        ExecutionError
            If the event holds NaN, infinity or a type that JSON has not.
        """
        body = encode(event)
        self.head = chain(self.head, body)
        self.count += 1
        if self._stream is None:
            self._memory.append(orjson.loads(body))
        else:
            self._stream.write(b"".join((_OPEN, body, _MIDDLE, self.head.encode(), _CLOSE)))
        if self._on_append is not None:
            self._on_append(self.count)

    def sync(self) -> None:
        """Make everything appended so far durable: flush and fsync."""
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Make everything durable and close the file."""
        if self._stream is not None and not self._stream.closed:
            self.sync()
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _recover(self, path: Path) -> None:
        """Walk the chain to its end and cut a torn last line off."""
        whole = 0
        for _, end, self.head in _lines(path):
            self.count += 1
            whole = end
        size = path.stat().st_size
        if size > whole:
            self.repaired_bytes = size - whole
            with path.open("r+b") as stream:
                stream.truncate(whole)
                os.fsync(stream.fileno())


def encode(event: Mapping[str, object]) -> bytes:
    """Return an event as compact JSON in UTF-8; its keys stand in the order in which the engine wrote them.

    Raises
    ------
    ExecutionError
        If it holds NaN, infinity or a type that JSON has not.
    """
    try:
        body = orjson.dumps(event)
        if _NULL in body:
            # orjson writes NaN and infinity as null: only where nothing reads "null" is it sure that there was none.
            json.dumps(event, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ExecutionError(f"an event of kind {event.get('kind')!r} cannot be journalled: {error}") from error
    return body


def chain(head: str, body: bytes) -> str:
    """Return the hash of a line from the hash of the line before it and its own bytes."""
    return hashlib.sha256(head.encode() + body).hexdigest()


def read_journal(path: Path, head: str | None = None) -> Iterator[Record]:
    """Yield the events of a journal, checking the chain; a torn last line is left out.

    Parameters
    ----------
    head
        The hash that the last line must have, from a report written when the journal was complete.

    Raises
    ------
    IntegrityError
        If a byte was changed (names the line), or lines were cut off or added after `head`.
    """
    last = GENESIS
    for body, _, found in _lines(path):
        last = found
        yield orjson.loads(body)
    if head is not None and last != head:
        raise IntegrityError(f"{path} ends with {last[:12]}, but {head[:12]} was recorded as its head: lines were cut off or added")


def _lines(path: Path) -> Iterator[tuple[bytes, int, str]]:
    """Yield (body, offset after the line, hash) of every whole line; an incomplete last line ends the iteration."""
    head = GENESIS
    end = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            # A line that lacks its end was torn by a kill; one that has another byte in that place was changed.
            torn = not line.endswith(b"\n")
            if torn and not _whole(head, line[:-1] + b"\n"):
                return
            if torn or not _whole(head, line):
                raise IntegrityError(
                    f"{path}, line {number}: the line is not what its hash says; it or a line before it was changed. "
                    "Restore the journal from a copy; never edit it"
                )
            body = line[len(_OPEN) : -_TAIL]
            head = chain(head, body)
            end += len(line)
            yield body, end, head


def _whole(head: str, line: bytes) -> bool:
    body = line[len(_OPEN) : -_TAIL]
    return line == b"".join((_OPEN, body, _MIDDLE, chain(head, body).encode(), _CLOSE))
