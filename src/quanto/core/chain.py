"""Hash chains of JSON lines: a record that is changed, moved, cut out or put in is found and named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quanto.core.digest import JsonValue, canonical_json, digest_value
from quanto.core.errors import IntegrityError

GENESIS = "0" * 64


@dataclass(frozen=True)
class Link:
    """One record: its place, the digest of the record before it, its kind and body, and its own digest."""

    index: int
    previous: str
    kind: str
    body: JsonValue
    digest: str

    def line(self) -> bytes:
        """Return the record as one line of canonical JSON."""
        return (
            canonical_json({"body": self.body, "digest": self.digest, "index": self.index, "kind": self.kind, "previous": self.previous})
            + b"\n"
        )


def append(chain: Sequence[Link], kind: str, body: JsonValue) -> Link:
    """Return the link that continues a chain; the chain itself is not changed."""
    previous = head(chain)
    return Link(len(chain), previous, kind, body, _digest(len(chain), previous, kind, body))


def head(chain: Sequence[Link]) -> str:
    """Return the digest of the last record, or the genesis value of an empty chain."""
    return chain[-1].digest if chain else GENESIS


def chain_bytes(chain: Iterable[Link]) -> bytes:
    """Return a chain as the content of its file."""
    return b"".join(link.line() for link in chain)


def read_chain(content: bytes, name: str) -> tuple[Link, ...]:
    """Return the links of a chain's file, each checked.

    Raises
    ------
    IntegrityError
        At the first line that is no record, out of its place, or does not match its digest; `name` says whose chain it is.
    """
    if content and not content.endswith(b"\n"):
        raise IntegrityError(f"{name}: the last record is cut off (no line feed at the end)")
    links: list[Link] = []
    for number, line in enumerate(content.splitlines()):
        try:
            link = Link(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"{name}: record {number} is no record of a chain ({error})") from error
        if link.line().rstrip(b"\n") != line:
            raise IntegrityError(f"{name}: record {number} is not in canonical form; it was edited")
        if link.index != number or link.previous != head(links):
            raise IntegrityError(f"{name}: record {number} does not follow the one before it; a record was cut out, put in or moved")
        if link.digest != _digest(link.index, link.previous, link.kind, link.body):
            raise IntegrityError(f"{name}: record {number} does not match its digest; it was edited")
        links.append(link)
    return tuple(links)


def _digest(index: int, previous: str, kind: str, body: JsonValue) -> str:
    return digest_value({"index": index, "previous": previous, "kind": kind, "body": body})
