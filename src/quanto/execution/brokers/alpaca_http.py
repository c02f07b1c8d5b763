"""Questions to Alpaca's trading API: one host, bounded retries, and never an order sent blindly a second time.

Reads and cancels are repeated after connection errors and the statuses that a gateway or a limit gives; an order is
not: `alpaca.AlpacaBroker` asks for it by name first. No redirect is followed and no host but the paper host (or
loopback) is spoken to, so the keys cannot leave for anywhere else.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from pydantic import Field, field_validator

from quanto.core.config import Section
from quanto.core.errors import ConfigError
from quanto.execution.broker import BrokerError, BrokerRefusedError
from quanto.execution.clock import Clock

logger = logging.getLogger("quanto.execution.alpaca")

PAPER_HOST = "paper-api.alpaca.markets"
PAPER_URL = f"https://{PAPER_HOST}"
RETRIED = frozenset({408, 425, 429, 499, 500, 502, 503, 504})
LONGEST_WAIT_SECONDS = 90.0
# What a refusal of an order speaks of, where its code is missing.
_ORDER_WORDS = ("buying power", "insufficient", "to short", "wash trade", "day trad")


class AlpacaConfig(Section):
    """Where the account is, which environment variables hold its keys, and how patiently it is asked."""

    base_url: str = PAPER_URL
    key_env: str = "APCA_API_KEY_ID"
    secret_env: str = "APCA_API_SECRET_KEY"  # noqa: S105  # the name of a variable, not a secret
    connect_seconds: float = Field(default=10.0, gt=0)
    read_seconds: float = Field(default=30.0, gt=0)
    attempts: int = Field(default=5, ge=1, le=20)
    backoff_seconds: float = Field(default=1.0, ge=0)
    requests_per_minute: int = Field(default=180, ge=1)
    poll_seconds: float = Field(default=2.0, gt=0)
    fill_deadline_seconds: float = Field(default=300.0, gt=0)
    opening_auction: bool = False

    @field_validator("base_url")
    @classmethod
    def _paper_only(cls, value: str) -> str:
        return check_host(value)


def check_host(base_url: str) -> str:
    """Return the base URL without a trailing slash if it is the paper host over HTTPS, or loopback.

    The host is what a URL parser says it is: neither a prefix, a user name, a path nor a port makes another host ours.

    Raises
    ------
    ConfigError
        If it is any other host (the live one among them), or not a plain URL of an origin.
    """
    parts = urlsplit(base_url)
    try:
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise ConfigError(f"broker base_url {base_url!r} has no valid port") from None
    plain = not (parts.username or parts.password or parts.query or parts.fragment or parts.path.strip("/"))
    if not plain or parts.scheme not in ("http", "https"):
        raise ConfigError(f"broker base_url must be scheme and host alone, such as {PAPER_URL}; found {base_url!r}")
    if host == PAPER_HOST and parts.scheme == "https" and port in (None, 443):
        return PAPER_URL
    if _is_loopback(host):
        return base_url.rstrip("/")
    raise ConfigError(f"broker base_url names {host!r}; only {PAPER_URL} and loopback are allowed: there is no live trading here")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Answer:
    """Status, decoded JSON (None for an empty body) and what identifies the exchange at the broker."""

    status: int
    value: Any
    request_id: str

    @property
    def code(self) -> int | None:
        """The broker's error code, where the body has one."""
        code = self.value.get("code") if isinstance(self.value, dict) else None
        return code if isinstance(code, int) else None

    @property
    def message(self) -> str:
        """The broker's words."""
        return str(self.value.get("message", "")) if isinstance(self.value, dict) else ""

    def describe(self) -> str:
        """Return status, code, words and request id in one line."""
        code = f" code {self.code}" if self.code is not None else ""
        return f"{self.status}{code} {self.message or '(no message)'} [X-Request-ID {self.request_id or 'none'}]"


class AlpacaHttp:
    """The way to one account; used by one thread."""

    def __init__(self, config: AlpacaConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._base = check_host(config.base_url)
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy or netrc of the machine may see the keys
        self._session.headers.update({"Accept": "application/json", "User-Agent": "quanto"})
        self._session.headers.update({"APCA-API-KEY-ID": _secret(config.key_env), "APCA-API-SECRET-KEY": _secret(config.secret_env)})
        self._sent: list[float] = []

    def get(self, path: str, params: dict[str, str] | None = None, missing: bool = False) -> Answer:
        """Return the answer to a read, repeated within bounds.

        With `missing`, a 404 is an answer; otherwise every status but 2xx is an error.

        Raises
        ------
        BrokerError
            If no usable answer came within the attempts.
        BrokerRefusedError
            If the keys are wrong or the account may not be used.
        """
        return self._repeat("GET", path, params, allowed=frozenset({404}) if missing else frozenset())

    def delete(self, path: str) -> Answer:
        """Return the answer to a cancel, repeated within bounds; 404 and 422 are answers."""
        return self._repeat("DELETE", path, None, allowed=frozenset({404, 422}))

    def send_once(self, method: str, path: str, body: dict[str, str | bool]) -> Answer | None:
        """Return the answer to an order, or None where it is not known whether the broker has it; never repeated here.

        Raises
        ------
        BrokerRefusedError
            If the keys are wrong.
        """
        try:
            answer = self._exchange(method, path, None, body)
        except BrokerRefusedError:
            raise
        except BrokerError as error:
            logger.warning("%s %s: %s", method, path, error)
            return None
        if answer.status in RETRIED or answer.status >= 500:  # a gateway's own status says nothing of the order either
            self._pause_for(answer, 1)
            return None
        if not _about_the_order(answer):
            _refuse_keys(answer, method, path)
        return answer

    def _repeat(self, method: str, path: str, params: dict[str, str] | None, allowed: frozenset[int]) -> Answer:
        last = "no attempt was made"
        for attempt in range(1, self._config.attempts + 1):
            try:
                answer = self._exchange(method, path, params, None)
            except BrokerRefusedError:
                raise
            except BrokerError as error:
                last = str(error)
                self._clock.sleep(self._backoff(attempt))
                continue
            if 200 <= answer.status < 300 or answer.status in allowed:
                return answer
            _refuse_keys(answer, method, path)
            last = answer.describe()
            if answer.status not in RETRIED and answer.status < 500:
                break
            self._pause_for(answer, attempt)
        raise BrokerError(f"{method} {path} failed: {last}")

    def _exchange(self, method: str, path: str, params: dict[str, str] | None, body: dict[str, str | bool] | None) -> Answer:
        """Return one answer; whatever is no whole JSON document is a BrokerError."""
        self._keep_pace()
        timeout = (self._config.connect_seconds, self._config.read_seconds)
        try:
            response = self._session.request(method, self._base + path, params=params, json=body, timeout=timeout, allow_redirects=False)
        except requests.RequestException as error:
            # The text of such an error can hold the URL, never the headers: the keys are in the headers.
            raise BrokerError(f"{method} {path}: {type(error).__name__}") from error
        request_id = response.headers.get("X-Request-ID", "")
        logger.debug("%s %s -> %s [%s]", method, path, response.status_code, request_id)
        self._wait_told = _told_wait(response)
        if 300 <= response.status_code < 400:
            raise BrokerRefusedError(f"{method} {path}: the broker redirects ({response.status_code}); the keys are sent to one host only")
        value = None
        if response.content:
            try:
                value = json.loads(response.content, parse_constant=_no_constant)
            except ValueError:
                if response.status_code < 300:
                    raise BrokerError(f"{method} {path}: {response.status_code} with a body that is no JSON") from None
        elif response.status_code == 200:
            raise BrokerError(f"{method} {path}: 200 with an empty body")
        return Answer(response.status_code, value, request_id)

    def _keep_pace(self) -> None:
        """Wait until another request fits into the account's rate."""
        while True:
            now = self._clock.now().timestamp()
            self._sent = [moment for moment in self._sent if moment > now - 60.0]
            if len(self._sent) < self._config.requests_per_minute:
                self._sent.append(now)
                return
            self._clock.sleep(max(0.05, self._sent[0] + 60.0 - now))

    def _pause_for(self, answer: Answer, attempt: int) -> None:
        told = self._wait_told if answer.status in (429, 503) else None
        self._clock.sleep(min(LONGEST_WAIT_SECONDS, self._backoff(attempt) if told is None else told))

    def _backoff(self, attempt: int) -> float:
        # No jitter: one client, one account.
        return min(LONGEST_WAIT_SECONDS, self._config.backoff_seconds * 2.0 ** (attempt - 1))

    _wait_told: float | None = None


def _told_wait(response: requests.Response) -> float | None:
    """Return the seconds that the broker asks to wait: Retry-After (seconds or date), else X-RateLimit-Reset."""
    text = response.headers.get("Retry-After", "").strip()
    if text:
        try:
            return max(0.0, float(text))
        except ValueError:
            pass
        try:
            return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return None
    reset = response.headers.get("X-RateLimit-Reset", "").strip()
    return max(0.0, float(reset) - time.time()) if reset.isdecimal() else None


def _refuse_keys(answer: Answer, method: str, path: str) -> None:
    """Raise where the keys are refused: 401, or a 403 without a code (with one it is about the order)."""
    if answer.status == 401 or (answer.status == 403 and answer.code is None):
        raise BrokerRefusedError(f"{method} {path}: the broker refuses the keys or the account: {answer.describe()}")


def _about_the_order(answer: Answer) -> bool:
    """Return whether a 403 that has no code refuses the order and not the keys: its words say so."""
    return answer.status == 403 and any(words in answer.message.lower() for words in _ORDER_WORDS)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _secret(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigError(f"the environment variable {variable} is not set; it must hold a key of the paper account")
    return value
