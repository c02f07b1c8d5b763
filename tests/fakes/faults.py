"""The fault catalogue of the vendors' contract sheet (section 8) as a table: what goes wrong, and what has to come of it.

Each case changes a scenario and says the right end of it. Number 29 (the broker) is tested with the brokers.
"""

from __future__ import annotations

import gzip
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path

from fakes import server
from fakes.scenarios import DAYS, Outcome, Rows, Scenario
from fakes.server import Reply, edit, page, status, wire
from fakes.storage import key_of

from quanto.core.errors import QuantoError
from quanto.stages.ingest.errors import (
    AuthenticationError,
    ConnectionFailedError,
    ContractError,
    JobError,
    NotEntitledError,
    NotFoundError,
    PagingError,
    QuotaExhaustedError,
    ReportedError,
    TimedOutError,
    TruncatedError,
    UndecodableError,
    WrongContentError,
)
from quanto.stages.ingest.landing import LandingStore

Plan = Callable[[Scenario], None]
Check = Callable[[Scenario, Outcome], None]
ALWAYS = None
TOO_MANY = b'{"status":"ERROR","message":"too many requests."}'
JSON = ("polygon", "ivolatility", "alpaca", "tiingo", "fred")
BARS = ("polygon", "ivolatility", "alpaca", "tiingo", "flatfiles")
HTTP = (*JSON, "cboe")
ALL = (*HTTP, "flatfiles")
TEXT = ("cboe", "flatfiles")


@dataclass(frozen=True)
class Case:
    """One line of the catalogue, or one form of it."""

    number: int
    name: str
    vendors: tuple[str, ...]
    plan: Plan
    check: Check
    others: Mapping[str, Check] = field(default_factory=dict)  # vendors whose contract ends it otherwise

    def __str__(self) -> str:
        return f"{self.number:02d}-{self.name}"

    def right(self, vendor: str) -> Check:
        return self.others.get(vendor, self.check)


def whole(scenario: Scenario, outcome: Outcome) -> None:
    assert outcome.error is None, outcome.error
    assert (outcome.rows, outcome.rejected, outcome.merged) == (scenario.expected, (), 0)


def merged(count: int) -> Check:
    def check(scenario: Scenario, outcome: Outcome) -> None:
        assert outcome.error is None, outcome.error
        assert (outcome.rows, outcome.rejected, outcome.merged) == (scenario.expected, (), count)

    return check


def quarantined(lost: int, rejected: int | None = None, reason: str = "") -> Check:
    def check(scenario: Scenario, outcome: Outcome) -> None:
        assert outcome.error is None, outcome.error
        assert outcome.rows == scenario.expected - lost
        assert len(outcome.rejected) == (lost if rejected is None else rejected)
        assert all(reason in item for item in outcome.rejected), outcome.rejected

    return check


def ends(kind: type[QuantoError], stops_run: bool = False) -> Check:
    def check(scenario: Scenario, outcome: Outcome) -> None:
        assert type(outcome.error) is kind, (type(outcome.error), outcome.error)
        assert getattr(outcome.error, "stops_run", False) is stops_run
        assert scenario.request.symbols[0] in str(outcome.error) or scenario.name in str(outcome.error) or "payload" in str(outcome.error)

    return check


def noted(word: str) -> Check:
    def check(scenario: Scenario, outcome: Outcome) -> None:
        whole(scenario, outcome)
        assert any(word in note for note in outcome.notes), outcome.notes

    return check


def waited(low: float, high: float) -> Check:
    def check(scenario: Scenario, outcome: Outcome) -> None:
        whole(scenario, outcome)
        assert low <= max(scenario.clock.sleeps) <= high, scenario.clock.sleeps

    return check


def resumed(first: Check) -> Check:
    def check(scenario: Scenario, outcome: Outcome) -> None:
        first(scenario, outcome)
        scenario.fake.faults.clear()
        scenario.vendor = type(scenario.vendor)(scenario.name, scenario.vendor.options, *_rest(scenario))  # type: ignore[attr-defined, call-arg]
        whole(scenario, scenario.run())

    return check


def _rest(scenario: Scenario) -> tuple[object, ...]:
    folder = getattr(scenario.vendor, "_workspace", None)
    return (scenario.clock,) if folder is None else (folder, scenario.clock)


def fault(change: server.Change, calls: tuple[int, ...] | None = (1,), endpoint: str | None = None) -> Plan:
    return lambda scenario: scenario.fake.fault(change, scenario.endpoint if endpoint is None else endpoint, calls)


def http_date(seconds: float) -> Callable[[Reply], Reply]:
    return lambda _: Reply(TOO_MANY, 429, {"Retry-After": formatdate(time.time() + seconds, usegmt=True)})


def skewed(reply: Reply) -> Reply:
    # The vendor's clock is a day ahead: two of its seconds are still two seconds.
    there = time.time() + 86_400
    return Reply(TOO_MANY, 429, {"Date": formatdate(there, usegmt=True), "Retry-After": formatdate(there + 2, usegmt=True)})


def row(change: Callable[[dict[str, object], Scenario], None], index: int = 1) -> Plan:
    def plan(scenario: Scenario) -> None:
        def edit_rows(rows: Rows) -> Rows:
            target = [item for item in rows if item.get("ticker", "ZZZ") == "ZZZ"] if scenario.bucket is not None else rows
            change(target[min(index, len(target) - 1)], scenario)
            return rows

        scenario.rows(edit_rows, calls=ALWAYS)

    return plan


def put(name: str, value: object) -> Plan:
    def change(item: dict[str, object], scenario: Scenario) -> None:
        item[scenario.value if name == "close" else scenario.fields[name]] = value

    return row(change)


def every(change: Callable[[dict[str, object], Scenario], None]) -> Plan:
    def plan(scenario: Scenario) -> None:
        def edit_rows(rows: Rows) -> Rows:
            for item in rows:
                change(item, scenario)
            return rows

        scenario.rows(edit_rows, calls=ALWAYS)

    return plan


def rows(change: Callable[[Rows, Scenario], Rows]) -> Plan:
    return lambda scenario: scenario.rows(lambda items: change(items, scenario), calls=ALWAYS)


def rename(item: dict[str, object], scenario: Scenario) -> None:
    item["renamed"] = item.pop(scenario.value)


def twice_conflicting(items: Rows, scenario: Scenario) -> Rows:
    other = dict(items[1])
    other[scenario.value] = float(str(other[scenario.value])) + 0.1
    return [*items, other]


def paged(scenario: Scenario) -> None:
    """Make the answers small, so that there are pages."""
    options = scenario.vendor.options  # type: ignore[attr-defined]
    if scenario.name == "polygon":
        options = options.model_copy(update={"bars_per_page": 5})
    elif scenario.name == "alpaca":
        options = options.model_copy(update={"rows_per_page": 5})
    else:
        scenario.fake.page_rows = 5  # type: ignore[attr-defined]
    scenario.vendor = type(scenario.vendor)(scenario.name, options, scenario.clock)  # type: ignore[call-arg]


def next_page(change: Callable[[Scenario, dict[str, object]], None], calls: tuple[int, ...] | None = ALWAYS) -> Plan:
    def plan(scenario: Scenario) -> None:
        paged(scenario)
        scenario.fake.fault(edit(lambda document: change(scenario, document)), scenario.endpoint, calls)

    return plan


def same_page(scenario: Scenario, document: dict[str, object]) -> None:
    if scenario.name == "polygon":
        document["next_url"] = f"{scenario.fake.base_url}{scenario.fake.calls[-1].target}"
    elif scenario.name == "alpaca":
        document["next_page_token"] = "MA=="  # the first page again
    else:
        document["offset"], document["count"] = 0, 100


def new_cursor(scenario: Scenario, document: dict[str, object]) -> None:
    number = len(scenario.fake.calls)
    if scenario.name == "polygon":
        first = scenario.fake.calls[0].target
        document["next_url"] = f"{scenario.fake.base_url}{first}&cursor={number}"
    elif scenario.name == "alpaca":
        import base64

        document["next_page_token"] = base64.b64encode(b"0" * number).decode()
    else:
        document["offset"], document["count"] = 0, 100 + number


def elsewhere(url: Callable[[Scenario], str]) -> Callable[[Scenario, dict[str, object]], None]:
    def change(scenario: Scenario, document: dict[str, object]) -> None:
        document["next_url"] = url(scenario)

    return change


def repeated_page(scenario: Scenario) -> None:
    """Give the first page again under a new cursor, once."""
    paged(scenario)

    def change(document: dict[str, object]) -> None:
        first = scenario.fake.calls[0].target
        document["next_url"] = f"{scenario.fake.base_url}{first}&cursor=again"

    scenario.fake.fault(edit(change), scenario.endpoint, (1,))


def error_inside(reply: Reply) -> Reply:
    text = '{"status":"ERROR","error":"internal","message":"internal","detail":"internal","error_message":"internal"}'
    return replace(reply, body=text.encode())


def key_goes(scenario: Scenario) -> None:
    scenario.fake.fault(status(401, b'{"message":"key rotated"}'), "", ALWAYS)


def asked_once(scenario: Scenario, outcome: Outcome) -> None:
    ends(AuthenticationError, stops_run=True)(scenario, outcome)
    before = len(scenario.fake.calls)
    again = scenario.run()
    assert type(again.error) is AuthenticationError
    assert len(scenario.fake.calls) == before


def auth_everywhere(scenario: Scenario, outcome: Outcome) -> None:
    whole(scenario, outcome)
    pages = [call for call in scenario.fake.calls if scenario.endpoint in call.path]
    assert len(pages) > 1
    assert all(call.headers.get("authorization") == "Bearer polygon-key" for call in pages)


def plan_window(scenario: Scenario) -> None:
    scenario.fake.plan = "basic"  # type: ignore[attr-defined]
    scenario.request = replace(scenario.request, start=DAYS[0].replace(year=2020))


def job(**settings: object) -> Plan:
    def plan(scenario: Scenario) -> None:
        scenario.fake.inline_rows = 3  # type: ignore[attr-defined]
        for name, value in settings.items():
            setattr(scenario.fake, name, value)

    return plan


def with_job(*plans: Plan) -> Plan:
    def plan(scenario: Scenario) -> None:
        job()(scenario)
        for item in plans:
            item(scenario)

    return plan


def impatient(scenario: Scenario) -> None:
    job(pending_polls=10**9)(scenario)
    options = scenario.vendor.options.model_copy(update={"job_seconds": 0.2, "poll_seconds": 0.05})  # type: ignore[attr-defined]
    scenario.vendor = type(scenario.vendor)(scenario.name, options, scenario.clock)  # type: ignore[call-arg]


def listings(items: Rows, scenario: Scenario) -> Rows:
    return [*items, *({**item, "exchange": "LSE"} for item in items)]


def wrong_ticker(document: dict[str, object]) -> None:
    document["ticker"] = "OLD"


def unknown_symbol(scenario: Scenario) -> None:
    scenario.request = replace(scenario.request, symbols=("GONE",))


def nowhere(scenario: Scenario) -> None:
    """Ask at a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _move(scenario, f"http://127.0.0.1:{port}")


def no_tls(scenario: Scenario) -> None:
    """Ask for TLS where plain HTTP is spoken."""
    _move(scenario, scenario.fake.base_url.replace("http:", "https:"))


def _move(scenario: Scenario, url: str) -> None:
    name = "base_url" if scenario.bucket is None else "endpoint_url"
    options = scenario.vendor.options.model_copy(update={name: url})  # type: ignore[attr-defined]
    scenario.vendor = type(scenario.vendor)(scenario.name, options, *_rest(scenario))  # type: ignore[call-arg]


def back_again(scenario: Scenario) -> None:
    """Let the second page lead back to the first."""
    paged(scenario)

    def change(document: dict[str, object]) -> None:
        document["next_url"] = f"{scenario.fake.base_url}{scenario.fake.calls[0].target}"

    scenario.fake.fault(edit(change), scenario.endpoint, (2,))


def surplus_field(scenario: Scenario) -> None:
    """Put an unquoted comma into one line of a table."""

    def lengthen(text: bytes) -> bytes:
        lines = text.split(b"\n")
        at = next((index for index, line in enumerate(lines) if line.startswith(b"ZZZ,")), 2)
        lines[at] += b",surplus"
        return b"\n".join(lines)

    if scenario.bucket is None:
        scenario.fake.fault(lambda reply: replace(reply, body=lengthen(reply.body)), scenario.endpoint, ALWAYS)
        return
    key = key_of(DAYS[-2])
    scenario.bucket.put(key, gzip.compress(lengthen(gzip.decompress(scenario.bucket.get(key)))))


def restated(scenario: Scenario, outcome: Outcome) -> None:
    """An old day changes: the date asked for keeps its bytes, a later one has the new ones, and the change is recorded."""
    whole(scenario, outcome)
    first = scenario.request
    later = replace(first, as_of=first.as_of + timedelta(days=1))
    with tempfile.TemporaryDirectory() as folder:
        before, after = (LandingStore(Path(folder), request.as_of) for request in (first, later))
        old = scenario.run(before)
        row(lambda item, s: item.__setitem__(s.value, float(str(item[s.value])) + 0.125))(scenario)
        assert scenario.run(before).closes == old.closes
        scenario.request = later
        new = scenario.run(after)
        assert sum(one != other for one, other in zip(old.closes, new.closes, strict=True)) == 1
        # Two vendors are asked up to or as of a date: their later question is another one, and both answers are kept.
        assert len(list(after.restatements())) == (0 if scenario.name in ("tiingo", "alpaca") else 1)
        scenario.request = first
        assert scenario.run(before).closes == old.closes


def nothing(scenario: Scenario, outcome: Outcome) -> None:
    assert outcome.error is None
    assert (outcome.rows, outcome.rejected) == (0, ())


def provisional_day(scenario: Scenario) -> None:
    scenario.request = replace(scenario.request, as_of=scenario.request.end)


def one_provisional(scenario: Scenario, outcome: Outcome) -> None:
    whole(scenario, outcome)
    assert outcome.provisional == 1


def day_object(body: Callable[[Scenario], bytes | None]) -> Plan:
    def plan(scenario: Scenario) -> None:
        assert scenario.bucket is not None
        content = body(scenario)
        if content is None:
            scenario.bucket.delete(key_of(DAYS[-2]))
        else:
            scenario.bucket.put(key_of(DAYS[-2]), content)

    return plan


def _day_file(scenario: Scenario, index: int, rows_too: bool = True) -> bytes:
    from fakes.scenarios import market
    from fakes.storage import day_file

    bars = {ticker: by_day[DAYS[index]] for ticker, by_day in market().bars.items()}
    return day_file(DAYS[index], bars if rows_too else {})


def missing_day(scenario: Scenario, outcome: Outcome) -> None:
    assert outcome.error is None
    assert outcome.rows == scenario.expected - 1
    assert any("no file" in note for note in outcome.notes)


def _seconds(item: dict[str, object], scenario: Scenario) -> None:
    name = scenario.fields["stamp"]
    item[name] = int(str(item[name])) // (10**9 if scenario.bucket is not None else 1000)


def _sunday(item: dict[str, object], scenario: Scenario) -> None:
    name = scenario.fields["stamp"]
    value = item[name]
    if scenario.name == "polygon":
        item[name] = 1_772_946_000_000  # 2026-03-08 00:00 New York, the day of the change
    elif scenario.name == "cboe":
        item[name] = "03/08/2026"
    else:
        item[name] = f"2026-03-08{str(value)[10:]}"


def _offset_stamp(item: dict[str, object], scenario: Scenario) -> None:
    name = scenario.fields["stamp"]
    day = str(item[name])[:10]
    item[name] = f"{day}T00:00:00.123456789-04:00" if day >= "2026-03-09" else f"{day}T00:00:00-05:00"


CASES: tuple[Case, ...] = (
    Case(1, "429-retry-after-seconds", HTTP, fault(status(429, TOO_MANY, Retry_After="2")), waited(2.0, 2.0)),
    Case(1, "429-retry-after-date", HTTP, fault(http_date(3)), waited(1.0, 3.0)),
    Case(1, "429-reset-header", HTTP, fault(status(429, TOO_MANY, X_RateLimit_Reset=str(int(time.time()) + 50))), waited(0.0, 60.0)),
    Case(1, "429-without-a-word", HTTP, fault(status(429)), whole),
    Case(1, "429-asks-for-a-day", HTTP, fault(status(429, TOO_MANY, Retry_After="86400")), waited(60.0, 60.0)),
    Case(2, "429-forever", HTTP, fault(status(429, TOO_MANY), ALWAYS), resumed(ends(QuotaExhaustedError, stops_run=True))),
    *(Case(3, f"{code}-page-then-fine", ALL, fault(page(code=code)), whole) for code in (500, 502, 503, 504)),
    Case(4, "connection-refused", ALL, nowhere, ends(ConnectionFailedError)),
    Case(4, "tls-fails", ALL, no_tls, ends(ConnectionFailedError)),
    Case(5, "reset-before-a-byte", ALL, fault(wire("reset")), whole),
    Case(5, "closed-before-a-byte", ALL, fault(wire("drop")), whole),
    Case(5, "closed-mid-body", ALL, fault(wire("short"), (1, 2, 3)), whole),
    Case(6, "chunked-without-end", HTTP, fault(wire("chunked_cut")), whole),
    Case(7, "gzip-cut-with-matching-length", HTTP, fault(wire("gzip_cut")), whole),
    Case(7, "gzip-whole", HTTP, fault(wire("gzip"), ALWAYS), whole),
    Case(7, "cut-without-any-length", HTTP, fault(wire("unmeasured_cut")), whole),
    Case(7, "no-length-but-whole", HTTP, fault(wire("unmeasured"), ALWAYS), whole),
    Case(8, "page-then-fine", HTTP, fault(page()), whole),
    Case(8, "page-forever", HTTP, fault(page(), ALWAYS), resumed(ends(WrongContentError))),
    Case(9, "empty-body-then-fine", ALL, fault(server.body(b"")), whole),
    Case(9, "half-a-body-then-fine", ALL, fault(server.half), whole),
    Case(9, "null-then-fine", JSON, fault(server.body(b"null")), whole),
    Case(9, "empty-body-forever", HTTP, fault(server.body(b""), ALWAYS), resumed(ends(UndecodableError))),
    Case(9, "half-a-body-forever", HTTP, fault(server.half, ALWAYS), ends(UndecodableError), {"cboe": ends(TruncatedError)}),
    Case(10, "error-inside-200", HTTP, fault(error_inside, ALWAYS), ends(ReportedError), {"cboe": ends(WrongContentError)}),
    Case(11, "slow-first-byte", ALL, fault(server.pause(0.6)), whole),
    Case(11, "slow-trickle", HTTP, fault(wire("trickle")), whole),
    Case(11, "slow-forever", HTTP, fault(server.pause(0.4), ALWAYS), ends(TimedOutError)),
    Case(12, "next-page-is-this-page", ("polygon", "alpaca", "fred"), next_page(same_page), ends(PagingError)),
    Case(12, "cycle-of-two-pages", ("polygon",), back_again, ends(PagingError)),
    Case(12, "never-ending-cursors", ("polygon", "alpaca"), next_page(new_cursor), ends(PagingError)),
    Case(13, "page-again-under-a-new-cursor", ("polygon",), repeated_page, merged(5)),
    Case(13, "equal-row-twice", ALL, rows(lambda items, _: [*items, items[1]]), merged(1)),
    Case(13, "conflicting-row-twice", ALL, rows(twice_conflicting), quarantined(1, 2, "conflicting")),
    Case(14, "next-page-elsewhere", ("polygon",), next_page(elsewhere(lambda _: "http://127.0.0.1:9/v2/aggs")), ends(PagingError)),
    Case(
        14,
        "next-page-downgraded",
        ("polygon",),
        next_page(elsewhere(lambda item: item.fake.base_url.replace("http:", "ftp:"))),
        ends(PagingError),
    ),
    Case(15, "key-needed-on-every-page", ("polygon",), paged, auth_everywhere),
    Case(16, "rows-descending", ALL, rows(lambda items, _: items[::-1]), whole),
    Case(17, "rows-null", ("polygon",), fault(edit(lambda item: {**item, "results": None}), ALWAYS), ends(ContractError)),
    Case(17, "rows-an-object", ("polygon",), fault(edit(lambda item: {**item, "results": {}}), ALWAYS), ends(ContractError)),
    Case(17, "rows-null", ("alpaca",), fault(edit(lambda item: {**item, "bars": None}), ALWAYS), ends(ContractError)),
    Case(17, "rows-null", ("ivolatility",), fault(edit(lambda item: {**item, "data": None}), ALWAYS), ends(ContractError)),
    Case(17, "rows-null", ("fred",), fault(edit(lambda item: {**item, "observations": None}), ALWAYS), ends(ContractError)),
    Case(18, "close-null", JSON, put("close", None), quarantined(1)),
    Case(18, "close-empty", BARS, put("close", ""), quarantined(1)),
    Case(18, "price-zero", BARS, put("open", 0.0), quarantined(1, reason="not_positive_price")),
    Case(18, "volume-negative", BARS, put("volume", -5.0), quarantined(1, reason="negative_volume")),
    Case(18, "high-below-low", BARS, put("high", 1.0), quarantined(1)),
    Case(18, "close-above-high", BARS, put("close", 99.0), quarantined(1, reason="outside_high_low")),
    Case(19, "number-as-text", ALL, every(lambda item, s: item.__setitem__(s.value, str(item[s.value]))), whole),
    Case(19, "not-available", ALL, put("close", "N/A"), quarantined(1)),
    Case(19, "dash", ALL, put("close", "-"), quarantined(1)),
    Case(19, "thousands-separators", BARS, put("volume", "1,000,001.5"), whole),
    Case(19, "boolean", JSON, put("close", True), quarantined(1)),
    Case(20, "fractional-volume", BARS, put("volume", 1000000.123456), whole),
    Case(20, "volume-above-31-bits", BARS, put("volume", 5_000_000_000), whole),
    Case(20, "volume-as-float", BARS, put("volume", 1.0e6), whole),
    Case(21, "field-renamed", ALL, every(rename), ends(ContractError)),
    Case(21, "field-added", ALL, every(lambda item, _: item.__setitem__("brand_new", 7)), whole),
    Case(21, "type-changed", JSON, every(lambda item, s: item.__setitem__(s.value, [1])), quarantined(len(DAYS))),
    Case(21, "columns-in-another-order", ALL, rows(lambda items, _: [dict(reversed(list(item.items()))) for item in items]), whole),
    Case(21, "surplus-field-by-an-unquoted-comma", TEXT, surplus_field, quarantined(1)),
    Case(22, "seconds-for-nanoseconds", ("flatfiles",), every(_seconds), ends(ContractError)),
    Case(22, "seconds-for-milliseconds", ("polygon",), every(_seconds), quarantined(len(DAYS), reason="no time in ms")),
    Case(22, "sunday-stamp", HTTP, row(_sunday, 5), quarantined(1, reason="not_a_session")),
    Case(22, "offset-for-z", ("alpaca",), every(_offset_stamp), whole),
    Case(23, "newest-day-not-final", BARS, provisional_day, one_provisional),
    Case(24, "old-day-changed", ALL, lambda _: None, restated),
    Case(25, "file-of-another-day", ("flatfiles",), day_object(lambda s: _day_file(s, -3)), ends(ContractError)),
    Case(25, "file-with-header-only", ("flatfiles",), day_object(lambda s: _day_file(s, -2, rows_too=False)), ends(UndecodableError)),
    Case(25, "file-of-zero-bytes", ("flatfiles",), day_object(lambda _: b""), ends(UndecodableError)),
    Case(25, "file-cut", ("flatfiles",), day_object(lambda s: _day_file(s, -2)[:-12]), ends(TruncatedError)),
    Case(25, "file-not-there-yet", ("flatfiles",), day_object(lambda _: None), missing_day),
    Case(26, "page-of-another-ticker", ("polygon",), fault(edit(wrong_ticker), ALWAYS), ends(ContractError)),
    Case(26, "two-listings", ("ivolatility",), rows(listings), ends(ContractError)),
    Case(26, "unknown-symbol", ("tiingo",), unknown_symbol, ends(NotFoundError)),
    Case(26, "symbol-that-is-not-served", ("polygon", "alpaca"), unknown_symbol, nothing),
    Case(27, "key-rotated", HTTP, key_goes, asked_once),
    Case(27, "not-in-the-plan", HTTP, fault(status(403, b'{"message":"not in your plan"}'), ALWAYS), ends(NotEntitledError)),
    Case(27, "plan-window", ("polygon",), plan_window, noted("refused by the vendor's plan")),
    Case(28, "job", ("ivolatility",), job(), whole),
    Case(28, "job-never-complete", ("ivolatility",), impatient, ends(JobError)),
    Case(28, "job-failed", ("ivolatility",), job(fails=True), ends(JobError)),
    Case(28, "job-complete-but-unfilled-for-a-moment", ("ivolatility",), job(unfilled_polls=5), whole),
    Case(28, "download-404-for-a-moment", ("ivolatility",), with_job(fault(status(404), (1, 2), "/download/")), whole),
    Case(28, "download-cut", ("ivolatility",), with_job(fault(server.half, (1, 2), "/download/")), whole),
    Case(30, "clock-a-day-ahead", HTTP, fault(skewed), waited(2.0, 2.0)),
)
