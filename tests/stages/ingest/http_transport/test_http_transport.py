"""The way to a vendor: connections, limits, retries, deadlines, and what never leaves."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.clocks import FastClock, VirtualClock
from fakes.server import Call, FakeServer, Reply, page, status, wire

from quanto.core.errors import ConfigError
from quanto.stages.ingest.errors import (
    AuthenticationError,
    ConnectionFailedError,
    FetchError,
    PagingError,
    QuotaExhaustedError,
    RefusedRequestError,
    ServerError,
    UndecodableError,
)
from quanto.stages.ingest.limits import Clock, RateLimiter, backoff, told_wait
from quanto.stages.ingest.redaction import Credentials, redact, redact_bytes, secret_from_environment, without_secrets
from quanto.stages.ingest.transport import Endpoint, Transport, TransportSettings
from quanto.stages.ingest.wire import Answer, decode_json

import numpy as np  # isort: skip

CANARY = "c4nary-k3y-0f-a-user"


class Echo(FakeServer):
    """Answers with what it was asked, key included."""

    def answer(self, call: Call) -> Reply:
        return Reply(f'{{"path":"{call.path}","key":"{call.headers.get("x-key", "")}"}}'.encode())


@contextmanager
def echo() -> Iterator[Echo]:
    with Echo() as fake:
        assert isinstance(fake, Echo)
        yield fake


def transport(url: str, clock: Clock | None = None, query: bool = False, **settings: object) -> Transport:
    given = Credentials({"X-Key": CANARY}, {"api_key": CANARY} if query else {}, (CANARY,))
    values = {"requests": 1000, "attempts": 3, "backoff_seconds": 0.01, "read_seconds": 1.0, **settings}
    return Transport(Endpoint("vendor", url, lambda: given), TransportSettings(**values), clock or FastClock())  # type: ignore[arg-type]


def read(answer: Answer) -> object:
    return decode_json(answer.body)


def test_a_connection_is_used_again() -> None:
    with echo() as fake:
        way = transport(fake.base_url)
        for number in range(20):
            way.get(f"{fake.base_url}/{number}", read)
        assert len(fake.calls) == 20
        assert fake.connections == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_no_connection_is_tried_again_and_then_fails_the_shard_not_the_run(url: str) -> None:
    clock = FastClock()
    with pytest.raises(ConnectionFailedError, match=r"asked 3 times") as caught:
        transport(url, clock).get(f"{url}/x", read)
    assert len(clock.sleeps) == 2
    assert not caught.value.stops_run


def test_a_failed_tls_handshake_is_a_failed_connection() -> None:
    with echo() as fake:
        url = fake.base_url.replace("http:", "https:")
        with pytest.raises(ConnectionFailedError):
            transport(url, attempts=1).get(f"{url}/x", read)


def test_a_client_error_is_never_asked_again() -> None:
    for code in (400, 404, 422):
        with echo() as fake:
            fake.fault(status(code, b'{"error":"no such thing"}'), calls=None)
            with pytest.raises(FetchError, match="no such thing"):
                transport(fake.base_url).get(f"{fake.base_url}/x", read)
            assert len(fake.calls) == 1


@pytest.mark.parametrize("code", [408, 413, 425, 499, 500, 502, 503, 504])
def test_a_server_error_is_asked_again_within_bounds(code: int) -> None:
    with echo() as fake:
        fake.fault(status(code), calls=None)
        with pytest.raises(ServerError):
            transport(fake.base_url, attempts=4).get(f"{fake.base_url}/x", read)
        assert len(fake.calls) == 4


def test_the_budget_of_a_question_bounds_its_waits() -> None:
    with echo() as fake:
        fake.fault(status(429, Retry_After="50"), calls=None)
        clock = FastClock()
        with pytest.raises(QuotaExhaustedError):
            transport(fake.base_url, clock, attempts=100, budget_seconds=120.0).get(f"{fake.base_url}/x", read)
        assert sum(clock.sleeps) <= 121


def test_one_refused_key_ends_all_questions_of_the_vendor() -> None:
    with echo() as fake:
        fake.fault(status(401, b'{"error":"Unknown API Key"}'), calls=None)
        way = transport(fake.base_url)
        for _ in range(3):
            with pytest.raises(AuthenticationError, match="Unknown API Key"):
                way.get(f"{fake.base_url}/x", read)
        assert len(fake.calls) == 1


def test_a_redirect_to_another_origin_is_not_followed() -> None:
    with echo() as fake, echo() as thief:
        fake.fault(status(302, Location=f"{thief.base_url}/steal"))
        with pytest.raises(PagingError, match="not sent"):
            transport(fake.base_url).get(f"{fake.base_url}/x", read)
        assert thief.calls == []


def test_a_redirect_on_the_same_origin_is_followed_with_the_key() -> None:
    with echo() as fake:
        fake.fault(status(307, Location="/there"), "/here")
        answer, value = transport(fake.base_url).get(f"{fake.base_url}/here", read)
        assert value == {"path": "/there", "key": "REDACTED"}
        assert fake.calls[-1].headers["x-key"] == CANARY
        assert answer.url.endswith("/here")


def test_redirects_do_not_go_on_for_ever() -> None:
    with echo() as fake:
        fake.fault(status(302, Location="/x"), calls=None)
        with pytest.raises(PagingError, match="redirects"):
            transport(fake.base_url).get(f"{fake.base_url}/x", read)


def test_an_unknown_content_encoding_is_no_answer() -> None:
    with echo() as fake:
        fake.fault(lambda reply: Reply(reply.body, 200, {"Content-Encoding": "br"}), calls=None)
        with pytest.raises(UndecodableError, match="'br'"):
            transport(fake.base_url).get(f"{fake.base_url}/x", read)


def test_credentials_of_a_netrc_file_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with echo() as fake:
        transport(fake.base_url).get(f"{fake.base_url}/x", read)
        assert "authorization" not in fake.calls[0].headers


def test_no_more_requests_at_a_time_than_the_bound() -> None:
    running = peak = 0
    lock = threading.Lock()

    class Counting(Echo):
        def answer(self, call: Call) -> Reply:
            nonlocal running, peak
            with lock:
                running += 1
                peak = max(peak, running)
            time.sleep(0.02)
            with lock:
                running -= 1
            return super().answer(call)

    with Counting() as fake, ThreadPoolExecutor(12) as pool:
        way = transport(fake.base_url, concurrency=3)
        list(pool.map(lambda number: way.get(f"{fake.base_url}/{number}", read), range(24)))
    assert peak == 3


def test_no_window_sees_more_requests_than_the_limit() -> None:
    clock = VirtualClock()
    limiter = RateLimiter(5, 60.0, clock)
    at = []
    for _ in range(23):
        limiter.acquire()
        at.append(clock.monotonic())
    assert all(later - earlier >= 60.0 for earlier, later in zip(at, at[5:], strict=False))
    assert at[4] == at[0]


def test_threads_share_the_limiter_of_their_account() -> None:
    class Stamped(Echo):
        pass

    with Stamped() as fake, ThreadPoolExecutor(8) as pool:
        given = Credentials({"X-Key": CANARY}, {}, (CANARY,))
        settings = TransportSettings(requests=4, window_seconds=0.2, concurrency=8)
        ways = [Transport(Endpoint("vendor", fake.base_url, lambda: given), settings) for _ in range(4)]
        list(pool.map(lambda number: ways[number % 4].get(f"{fake.base_url}/{number}", read), range(12)))
        at = sorted(call.at for call in fake.calls)
    assert all(later - earlier > 0.15 for earlier, later in zip(at, at[4:], strict=False))


def test_waits_without_a_word_outlast_the_window_of_the_limit() -> None:
    with echo() as fake:
        fake.fault(status(429), calls=(1, 2, 3, 4, 5))
        clock = FastClock()
        transport(fake.base_url, clock, attempts=6, window_seconds=60.0).get(f"{fake.base_url}/x", read)
        assert len(clock.sleeps) >= 5
        assert sum(clock.sleeps) > 55.0


def test_one_thread_told_to_wait_makes_all_wait() -> None:
    clock = VirtualClock()
    limiter = RateLimiter(100, 60.0, clock)
    limiter.close_for(30.0)
    assert limiter.acquire() == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:09 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 9.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:10:00 GMT"}, 0.0),
        ({"X-RateLimit-Reset": "1030"}, 30.0),
        ({"X-RateLimit-Reset": "900"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
def test_what_an_answer_tells_to_wait(headers: dict[str, str], wait: float | None) -> None:
    assert told_wait(headers, now=1000.0) == wait


def test_back_off_grows_to_its_cap_and_never_above() -> None:
    rng = np.random.default_rng(0)
    waits = [backoff(attempt, 0.5, 30.0, rng) for attempt in range(1, 60)]
    assert all(0 < wait <= 30.0 for wait in waits)
    assert waits[0] <= 0.5
    assert min(waits[10:]) >= 15.0


def test_the_key_is_in_no_error_log_line_or_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with echo() as fake:
        way = transport(fake.base_url, query=True)
        answer, _ = way.get(f"{fake.base_url}/x", read)
        assert f"api_key={CANARY}" in fake.calls[0].target
        texts = [repr(answer), repr(way.credentials), repr(way.__dict__)]
        for change in (
            status(404, CANARY.encode()),
            page(CANARY, 500),
            wire("drop"),
            wire("short"),
            status(403, f'{{"error":"{CANARY}"}}'.encode()),
        ):
            fake.faults.clear()
            fake.fault(change, calls=None)
            with pytest.raises(FetchError) as caught:
                way.get(f"{fake.base_url}/x", read)
            error: BaseException | None = caught.value
            while error is not None:
                texts.append(f"{error!r} {error} {getattr(error, 'body', b'')!r}")
                error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert caplog.text
    assert CANARY not in caplog.text
    assert all(CANARY not in text for text in texts)


def test_redaction_knows_the_key_in_every_spelling() -> None:
    secret = "a b/c+d"
    assert secret not in redact(f"key {secret}", [secret])
    assert redact("x a%20b%2Fc%2Bd y", [secret]) == "x REDACTED y"
    assert redact_bytes(b"1 a+b%2Fc%2Bd 2", [secret]) == b"1 REDACTED 2"
    assert redact("GET /x?apiKey=123&b=2", []) == "GET /x?apiKey=REDACTED&b=2"


def test_a_url_without_secrets_is_kept_character_for_character() -> None:
    url = "https://host/v2/x?cursor=bGltaXQ9MiZzb3J0PWFzYw==&b=%20&c="
    assert without_secrets(url) == url
    assert without_secrets("https://u:p@host/x?apiKey=1&b=2&token=3") == "https://host/x?b=2"


@pytest.mark.parametrize("value", ["", "  ", "a b", "a\nb", "schlüssel"])
def test_a_missing_or_impossible_key_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("VENDOR_KEY", value)
    with pytest.raises(ConfigError, match="VENDOR_KEY") as caught:
        secret_from_environment("VENDOR_KEY", "vendor")
    assert not value.strip() or value.strip() not in str(caught.value)


def test_a_vendor_that_hangs_up_at_once_is_told_from_one_that_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        url = f"http://127.0.0.1:{dead.getsockname()[1]}"
        threading.Thread(target=lambda: [dead.accept()[0].close() for _ in range(3)], daemon=True).start()
        with pytest.raises(ConnectionFailedError, match=r"reset|closed"):
            transport(url).get(f"{url}/x", read)


def test_an_unusable_url_is_refused_not_retried() -> None:
    with echo() as fake, pytest.raises((RefusedRequestError, PagingError)):
        transport(fake.base_url).get("gopher://x/", read)
