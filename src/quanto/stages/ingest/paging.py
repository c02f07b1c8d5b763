"""Answers that come in pages, and answers that lie in the landing store already."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from urllib.parse import quote

from quanto.stages.ingest.errors import ContractError, PagingError
from quanto.stages.ingest.redaction import without_secrets
from quanto.stages.ingest.transport import Transport
from quanto.stages.ingest.vendor import Landing, Payload
from quanto.stages.ingest.wire import Answer

MOST_IDLE_PAGES = 5


@dataclass(frozen=True)
class Page:
    """What following needs to know of a page: where the next one is, and what its records are called."""

    next_url: str | None
    keys: tuple[Hashable, ...]


Reader = Callable[[bytes], Page]
"""Checks an envelope and returns the page; raises a FetchError where it is none. Pure."""


def request_of(vendor: str, url: str) -> dict[str, str]:
    """Return the identity of a question: no credentials, so a new key asks nothing new."""
    return {"kind": "http", "vendor": vendor, "method": "GET", "url": without_secrets(url)}


def ask(transport: Transport, landing: Landing, url: str, check: Callable[[Answer], object]) -> Payload:
    """Return the landed answer to a question, else ask the vendor and land what it says.

    Raises
    ------
    FetchError
        As `Transport.get`; nothing is landed then.
    """
    request = request_of(transport.endpoint.vendor, url)
    with transport.alone(url):
        found = landing.find(request)
        if found is not None:
            return found
        answer, _ = transport.get(url, check)
        return landing.put(request, answer.body, answer.status, answer.headers)


def follow(transport: Transport, landing: Landing, first_url: str, read: Reader, most_pages: int) -> tuple[Payload, ...]:
    """Return all pages from `first_url` on; they are landed when the last one has come, so a broken chain leaves none.

    Raises
    ------
    PagingError
        If a URL comes twice, pages stop bringing new records, their number exceeds `most_pages`, or a page lies on a
        foreign origin.
    FetchError
        As `Transport.get`.
    """
    chain: list[tuple[str, Payload | Answer]] = []
    seen_urls: set[str] = set()
    seen_keys: set[Hashable] = set()
    idle = 0
    url: str | None = first_url
    while url is not None:
        _check_progress(transport.endpoint.vendor, url, seen_urls, idle, most_pages)
        seen_urls.add(url)
        found = landing.find(request_of(transport.endpoint.vendor, url))
        item, page = (found, read(found.body)) if found is not None else transport.get(url, lambda answer: read(answer.body))
        chain.append((url, item))
        before = len(seen_keys)
        seen_keys.update(page.keys)
        idle = idle + 1 if len(seen_keys) == before else 0
        url = transport.absolute(page.next_url) if page.next_url else None
    return tuple(_land(transport, landing, *link) for link in chain)


def token_url(first_url: str, token: object) -> str | None:
    """Return the URL of the next page for vendors that give a token, or None where the token is null or empty.

    Raises
    ------
    ContractError
        If the token is neither text nor null.
    """
    if token is not None and not isinstance(token, str):
        raise ContractError(f"expected the page token to be text or null, found {type(token).__name__}")
    return f"{first_url}&page_token={quote(token, safe='')}" if token else None


def _check_progress(vendor: str, url: str, seen: set[str], idle: int, most_pages: int) -> None:
    where = f"{vendor}: page {len(seen) + 1} at {without_secrets(url)}"
    if url in seen:
        raise PagingError(f"{where} was read before: the pages go in a circle; nothing of this chain is kept")
    if idle > MOST_IDLE_PAGES:
        raise PagingError(f"{where}: {idle} pages in a row brought no new record, yet each names a next one; nothing is kept")
    if len(seen) >= most_pages:
        raise PagingError(f"{where} is one more than most_pages ({most_pages}); nothing is kept. If the range is right, raise most_pages")


def _land(transport: Transport, landing: Landing, url: str, item: Payload | Answer) -> Payload:
    if isinstance(item, Payload):
        return item
    return landing.put(request_of(transport.endpoint.vendor, url), item.body, item.status, item.headers)
