"""Questions to a vendor over HTTP: pooled, limited, retried within bounds, and never leaking the key.

The order of one attempt: a slot of bounded concurrency, a slot of the account's rate, the request, the whole body,
the status, the content, the vendor's envelope. Each step has its own error; only some are worth another attempt.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from pydantic import Field
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from quanto.core.config import Section
from quanto.core.rng import generator
from quanto.stages.ingest.errors import (
    AuthenticationError,
    ConnectionFailedError,
    FetchError,
    NotEntitledError,
    NotFoundError,
    PagingError,
    QuotaExhaustedError,
    RateLimitedError,
    RefusedRequestError,
    ServerError,
    TimedOutError,
    WrongContentError,
)
from quanto.stages.ingest.limits import Clock, RateLimiter, SystemClock, backoff, shared_limiter, told_wait
from quanto.stages.ingest.redaction import Credentials, quiet_urllib3, redact, redact_bytes, without_secrets
from quanto.stages.ingest.wire import Answer, decode_json, looks_like_page, page_text, read_answer

MOST_REDIRECTS = 3
RETRIED_STATUSES = frozenset({408, 413, 425, 499, 500, 502, 503, 504})
USER_AGENT = "quanto/0.1"

ResultT = TypeVar("ResultT")


class TransportSettings(Section):
    """How patiently and how fast one vendor is asked."""

    requests: int = Field(default=100, ge=1)  # per window and key
    window_seconds: float = Field(default=60.0, gt=0)
    concurrency: int = Field(default=4, ge=1, le=256)
    attempts: int = Field(default=6, ge=1, le=100)
    backoff_seconds: float = Field(default=0.5, ge=0)
    most_wait_seconds: float = Field(default=120.0, ge=0)  # of one wait, whatever the vendor asks for
    connect_seconds: float = Field(default=10.0, gt=0)
    read_seconds: float = Field(default=30.0, gt=0)  # between two bytes
    deadline_seconds: float = Field(default=300.0, gt=0)  # from the request to its last byte
    budget_seconds: float = Field(default=1800.0, gt=0)  # of one question: all attempts and waits


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom a vendor is asked; `classify` may turn a status and its explanation into a finer error."""

    vendor: str
    base_url: str
    credentials: Callable[[], Credentials]
    classify: Callable[[int, str], FetchError | None] = lambda _status, _explanation: None
    trusted_origins: tuple[str, ...] = ()


class Transport:
    """The way to one vendor; safe to use from many threads."""

    def __init__(self, endpoint: Endpoint, settings: TransportSettings, clock: Clock | None = None) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self._clock: Clock = clock or SystemClock()
        self._slots = threading.BoundedSemaphore(settings.concurrency)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._jitter = generator(0, "transport", endpoint.vendor)
        self._stopped: FetchError | None = None
        self._asking: dict[str, threading.Lock] = {}
        self._origins = {origin(endpoint.base_url), *map(origin, endpoint.trusted_origins)}
        self.asked = 0  # attempts so far, for progress and reports
        quiet_urllib3()

    @cached_property
    def credentials(self) -> Credentials:
        """Read from the environment when the first question is asked: planning and replay need no key."""
        return self.endpoint.credentials()

    @cached_property
    def limiter(self) -> RateLimiter:
        """Shared by every client of this account in the process, as the vendor counts per account."""
        account = hashlib.sha256("\0".join(self.credentials.secrets).encode()).hexdigest()
        place = origin(self.endpoint.base_url)
        if isinstance(self._clock, SystemClock):
            return shared_limiter(place, account, self.settings.requests, self.settings.window_seconds, self._clock)
        return RateLimiter(self.settings.requests, self.settings.window_seconds, self._clock)

    def get(self, url: str, check: Callable[[Answer], ResultT]) -> tuple[Answer, ResultT]:
        """Return the first good answer to GET `url` and what `check` made of it.

        `check` judges the body and raises a FetchError where it is none; a retryable one is asked for again.

        Raises
        ------
        FetchError
            The subclass names the cause; the text names vendor, URL without credentials, attempts and the vendor's words.
        ConfigError
            If a credential is missing in the environment.
        """
        self._refuse_foreign(url)
        started = self._clock.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._attempt(url)
                return answer, check(answer)
            except FetchError as error:
                wait = self._next_wait(error, attempt)
                spent = self._clock.monotonic() - started
                if wait is None or spent + wait > self.settings.budget_seconds:
                    raise self._final(error, url, attempt) from None
                if isinstance(error, RateLimitedError):
                    self.limiter.close_for(wait)
                self._clock.sleep(wait)

    def alone(self, url: str) -> threading.Lock:
        """Return the lock of one question, so that two shards which share it ask once."""
        with self._lock:
            return self._asking.setdefault(url, threading.Lock())

    def absolute(self, url: str) -> str:
        """Return a URL that an answer gave, absolute, without credentials, and on a trusted origin.

        Raises
        ------
        PagingError
            If it leads elsewhere: the key must not follow.
        """
        target = without_secrets(urljoin(self.endpoint.base_url, url))
        self._refuse_foreign(target)
        return target

    def redacted(self, text: str) -> str:
        """Return text without this vendor's credentials."""
        return redact(text, self._known_secrets())

    def _known_secrets(self) -> tuple[str, ...]:
        return self.credentials.secrets if "credentials" in self.__dict__ else ()

    def _refuse_foreign(self, url: str) -> None:
        if origin(url) not in self._origins:
            raise PagingError(
                f"{self.endpoint.vendor} leads to {origin(url)}, but only {', '.join(sorted(self._origins))} is configured; "
                "the key is not sent there. If the vendor moved, change base_url or trusted_origins"
            )

    def _next_wait(self, error: FetchError, attempt: int) -> float | None:
        if not error.retryable or attempt >= min(self.settings.attempts, error.most_attempts):
            return None
        base = self.settings.backoff_seconds
        if isinstance(error, RateLimitedError):
            # Without a word from the vendor the waits of all attempts together outlast the window of its limit.
            base = max(base, self.settings.window_seconds / 16)
        with self._lock:
            own = backoff(attempt, base, self.settings.most_wait_seconds, self._jitter)
        return own if error.wait_seconds is None else min(max(error.wait_seconds, 0.0), self.settings.most_wait_seconds)

    def _final(self, error: FetchError, url: str, attempt: int) -> FetchError:
        kind = QuotaExhaustedError if isinstance(error, RateLimitedError) else type(error)
        tail = f" (asked {attempt} times)" if attempt > 1 else ""
        hint = "; the quota is used up: what arrived is kept, run the same command later" if kind is QuotaExhaustedError else ""
        final = kind(self.redacted(f"{self.endpoint.vendor}: {error}{tail}: GET {without_secrets(url)}{hint}"))
        final.status, final.body = error.status, error.body
        if final.stops_run:
            self._stopped = final
        return final

    def _attempt(self, url: str) -> Answer:
        if self._stopped is not None:
            raise type(self._stopped)(f"not asked, because an earlier question ended with: {self._stopped}")
        with self._slots:
            self.limiter.acquire()
            deadline = self._clock.monotonic() + self.settings.deadline_seconds
            answer = self._exchange(url, deadline)
        if error := self._judge(answer):
            error.status, error.body = answer.status, answer.body
            raise error
        return answer

    def _exchange(self, url: str, deadline: float) -> Answer:
        target = url
        for _ in range(MOST_REDIRECTS + 1):
            response = self._send(target)
            try:
                if response.status_code not in (301, 302, 303, 307, 308):
                    answer = read_answer(response, deadline, self._clock)
                    return Answer(url, answer.status, self._clean(answer), redact_bytes(answer.body, self._known_secrets()), answer.proven)
                target = self.absolute(urljoin(target, response.headers.get("Location", "")))
            finally:
                response.close()
        raise PagingError(f"more than {MOST_REDIRECTS} redirects in a row")

    def _clean(self, answer: Answer) -> dict[str, str]:
        return {name: self.redacted(value) for name, value in sorted(answer.headers.items()) if name != "set-cookie"}

    def _send(self, url: str) -> requests.Response:
        settings = self.settings
        timeout = (settings.connect_seconds, min(settings.read_seconds, settings.deadline_seconds))
        self.asked += 1
        try:
            return self._session().get(
                url, params=dict(self.credentials.query) or None, timeout=timeout, stream=True, allow_redirects=False
            )
        except requests.exceptions.ConnectTimeout:
            raise TimedOutError(f"no connection within {settings.connect_seconds:g} s") from None
        except requests.exceptions.Timeout:
            raise TimedOutError(f"no answer began within {timeout[1]:g} s") from None
        except requests.exceptions.SSLError:
            raise ConnectionFailedError("the TLS connection failed (certificate or protocol)") from None
        except requests.exceptions.ConnectionError as error:
            raise ConnectionFailedError(f"no connection ({_reason(error)})") from None
        except requests.exceptions.RequestException as error:
            raise RefusedRequestError(f"the request cannot be sent ({type(error).__name__})") from None

    def _session(self) -> requests.Session:
        # One session per thread: requests does not promise that a session may be shared.
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            adapter = HTTPAdapter(pool_connections=2, pool_maxsize=2, max_retries=0)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", "Accept": "*/*"})
            session.auth = _HeaderAuth(self.credentials)
            self._local.session = session
        return session

    def _judge(self, answer: Answer) -> FetchError | None:
        status = answer.status
        if status < 400:
            if status != 204 and looks_like_page(answer):
                return WrongContentError(f"expected data, found a page: {page_text(answer.body)!r}")
            return None
        words = explanation(answer)
        text = f"HTTP {status}{': ' + words if words else ''}"
        finer = self.endpoint.classify(status, words)
        if finer is not None:
            finer.args = (text if not finer.args[0] else f"{text}; {finer.args[0]}",)
            return finer
        wait = told_wait(answer.headers, self._clock.now())
        if status == 429:
            return RateLimitedError(text, wait)
        if status in RETRIED_STATUSES:
            return ServerError(text, wait)
        kinds: dict[int, type[FetchError]] = {401: AuthenticationError, 403: NotEntitledError, 404: NotFoundError}
        return kinds.get(status, RefusedRequestError)(text)


class _HeaderAuth(AuthBase):
    """Puts the credentials into headers, and keeps requests from looking for others in a netrc file."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._credentials.headers)
        return request


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, with the scheme's default port written out."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.hostname or ''}:{port}"


def explanation(answer: Answer, length: int = 300) -> str:
    """Return a vendor's own words about a failure, from the fields that vendors use, else the body's beginning."""
    try:
        value = decode_json(answer.body)
    except FetchError:
        return page_text(answer.body)
    for name in ("error", "message", "detail", "error_message", "errorMessage", "reason"):
        item = value.get(name) if isinstance(value, dict) else None
        if isinstance(item, dict):
            item = item.get("message")
        if isinstance(item, str) and item:
            return " ".join(item.split())[:length]
    return page_text(answer.body)


def _reason(error: BaseException) -> str:
    # The chain's class names say refused, reset or DNS; its texts would hold the URL and with it the key.
    text = repr(error)
    for word, meaning in (
        ("NameResolution", "the host name is unknown"), ("refused", "refused"), ("reset", "reset"),
        ("RemoteDisconnected", "closed before any byte"), ("unreachable", "the network is unreachable"),
    ):  # fmt: skip
        if word.lower() in text.lower():
            return meaning
    return type(error).__name__
