"""Credentials and how they are kept out of everything that is stored, logged or raised."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

from quanto.core.errors import ConfigError

SECRET_PARAMETERS = frozenset({"apikey", "api_key", "token", "password", "key", "secret"})
MASK = "REDACTED"

_IN_TEXT = re.compile(r"(?i)\b(apikey|api_key|token|password|key|secret)=([^&\s\"'<>]+)")


@dataclass(frozen=True)
class Credentials:
    """What proves who asks: headers, and query parameters for vendors that take nothing else. Its text is masked."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def secret_from_environment(variable: str, vendor: str) -> str:
    """Return the secret that an environment variable holds.

    Raises
    ------
    ConfigError
        If the variable is missing, empty, or holds a character that no header can carry; never shows the value.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(
            f"{vendor} needs its key in the environment variable {variable}, which is not set; export {variable}=... and run again"
        )
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"the environment variable {variable} ({vendor}) holds blanks or characters that no key has; export it again")
    return value


def without_secrets(url: str) -> str:
    """Return a URL without user information and without the query parameters that carry credentials.

    A URL that holds none is returned as it is, character for character.
    """
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if name.lower() not in SECRET_PARAMETERS]
    if len(kept) == len(pairs) and "@" not in parts.netloc:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(kept), parts.fragment))


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return text in which every given secret, also percent-encoded, and every `apiKey=...` is masked."""
    for secret in secrets:
        for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
            text = text.replace(form, MASK)
    return _IN_TEXT.sub(rf"\1={MASK}", text)


def redact_bytes(body: bytes, secrets: Iterable[str]) -> bytes:
    """Return a body in which every given secret is masked; any other body is returned unchanged.

    Bodies are stored byte for byte; the one exception is a vendor that echoes the key.
    """
    for secret in secrets:
        for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
            needle = form.encode()
            if needle in body:
                body = body.replace(needle, MASK.encode())
    return body


class _UrlFilter(logging.Filter):
    """Masks credentials in what urllib3 logs at level DEBUG: the path of each request with its query."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg, record.args = _IN_TEXT.sub(rf"\1={MASK}", message), ()
        return True


def quiet_urllib3() -> None:
    """Make urllib3's own log lines safe; doing it again changes nothing."""
    logger = logging.getLogger("urllib3.connectionpool")
    if not any(isinstance(item, _UrlFilter) for item in logger.filters):
        logger.addFilter(_UrlFilter())
