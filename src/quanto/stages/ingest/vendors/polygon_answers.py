"""Polygon's envelope: what counts as an answer, as an empty one, and as a failure. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from quanto.stages.ingest.errors import ContractError, FetchError, NotEntitledError, NotFoundError, ReportedError, TruncatedError
from quanto.stages.ingest.http_vendor import mapping, record_list
from quanto.stages.ingest.paging import Page
from quanto.stages.ingest.wire import decode_json, page_text


def envelope(body: bytes) -> Mapping[str, object]:
    """Return the envelope of an answer whose status field says that it is one.

    Raises
    ------
    FetchError
        If the body does not decode, is no object, or reports a failure under HTTP 200.
    """
    value = mapping(decode_json(body), "the answer")
    status = str(value.get("status", "OK")).upper()
    if status in ("OK", "DELAYED"):
        return value
    kinds: dict[str, type[FetchError]] = {"NOT_AUTHORIZED": NotEntitledError, "NOT_FOUND": NotFoundError}
    raise kinds.get(status, ReportedError)(f"status {status} under HTTP 200: {_words(value) or page_text(body)}")


def results(value: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the records of an envelope; no `results` at all is the vendor's way to say that there are none.

    Raises
    ------
    ContractError
        If `results` is null, an object or a text.
    TruncatedError
        If there are fewer records than the envelope counts.
    """
    records = record_list(value["results"], "results") if "results" in value else []
    counted = value.get("resultsCount")
    if isinstance(counted, int) and len(records) < counted:
        raise TruncatedError(f"the envelope counts {counted} results, {len(records)} are there")
    return records


def bars_page(ticker: str | None, adjusted: bool, body: bytes) -> Page:
    """Return a page of bars, checked against what was asked.

    Raises
    ------
    ContractError
        If the page is of another ticker or another price basis.
    FetchError
        As `envelope` and `results`.
    """
    value = envelope(body)
    if ticker is not None and value.get("ticker", ticker) != ticker:
        raise ContractError(f"asked for {ticker}, the page is of {value['ticker']!r}")
    if value.get("adjusted", adjusted) is not adjusted:
        raise ContractError(f"asked for adjusted={adjusted}, the page says {value['adjusted']!r}")
    records = results(value)
    following = _next(value)
    # Whether records were seen before matters only if there is another page.
    return Page(following, tuple(str(record.get("t")) for record in records) if following else ())


def reference_page(body: bytes) -> Page:
    """Return a page of splits, dividends, contracts or a chain.

    Raises
    ------
    FetchError
        As `envelope` and `results`.
    """
    value = envelope(body)
    return Page(_next(value), tuple(repr(sorted(record.items())) for record in results(value)))


def explain(body: bytes) -> str:
    """Return the vendor's words in a refusal: they stand in `error` or in `message`."""
    try:
        return _words(mapping(decode_json(body), "the refusal")) or page_text(body)
    except FetchError:
        return page_text(body)


def _words(value: Mapping[str, object]) -> str:
    return "; ".join(str(value[name]) for name in ("error", "message") if value.get(name))


def _next(value: Mapping[str, object]) -> str | None:
    url = value.get("next_url")
    if url is not None and not isinstance(url, str):
        raise ContractError(f"expected next_url to be text, found {type(url).__name__}")
    return url or None
