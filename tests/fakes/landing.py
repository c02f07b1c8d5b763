"""The smallest landing store: a dictionary."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping

from quanto.core.errors import MissingDataError
from quanto.stages.ingest.vendor import Payload


class MemoryLanding:
    """Keeps what is put, by request; with `offline` a miss is an error, as in the real store."""

    def __init__(self) -> None:
        self.stored: dict[str, Payload] = {}
        self.offline = False
        self._lock = threading.Lock()

    def put(self, request: Mapping[str, str], body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Payload:
        payload = Payload(hashlib.sha256(body).hexdigest(), body, dict(request), status, dict(headers or {}))
        with self._lock:
            return self.stored.setdefault(json.dumps(dict(request), sort_keys=True), payload)

    def find(self, request: Mapping[str, str]) -> Payload | None:
        found = self.stored.get(json.dumps(dict(request), sort_keys=True))
        if found is None and self.offline:
            raise MissingDataError(f"offline: {dict(request)}")
        return found

    def text(self) -> str:
        return "\n".join(f"{key} {dict(item.headers)} {item.body!r}" for key, item in self.stored.items())
