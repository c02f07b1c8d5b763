"""The landing store: what vendors answered, byte for byte, by content; shared by workspaces and processes.

    objects/ab/abcdef...                      a body, named by its SHA-256
    requests/12/<request>/<as_of>.json        the answer to a request as of a date: request, status, headers, body
    requests/12/<request>/<as_of>.<body>.json an answer that came second for the same date and differs: kept, not used;
                                              or the answer to a request that names its body (a local file): always used
    shards/12/<shard>/<as_of>.<what>.json     that a shard was received whole as of a date: its symbols, days and parameters

The first answer that is recorded for (request, as_of) stands for ever, so an ingest is a function of its parameters
and of the store. A body is durable before the record that names it; every file is created whole or not at all, and
none is ever changed, so no locks are needed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from quanto.core.digest import canonical_json, digest_bytes, digest_value
from quanto.core.errors import IntegrityError, MissingDataError
from quanto.core.store import sync_folder, write_bytes
from quanto.stages.ingest.vendor import Payload, Shard

SECRET_NAMES = re.compile(
    r"(?i)^(api[-_]?key|token|access[-_]token|password|passwd|secret|signature|x-amz-(credential|signature|security-token))$"
)
SECRET_IN_QUERY = re.compile(rf"{SECRET_NAMES.pattern}|^(?i:key)$")  # outside a URL, `key` names an object of a bucket
SECRET_HEADERS = re.compile(r"(?i)(authorization|cookie|api[-_]?key|token|secret)")
REDACTED = "REDACTED"

logger = logging.getLogger("quanto")

# A request that names the digest of its answer is answered by any object with that digest, whatever the date. Its
# records stand together with those of other digests, so that a local file that changed is a recorded restatement.
DIGEST_PARAMETER = "sha256"

# Kinds of requests that need no network and so are answered offline as well.
LOCAL_KINDS = ("package_member", "wheel_member", "file", "synthetic")


@dataclass(frozen=True)
class Restatement:
    """One request that was answered differently at a later date (or twice for one date): old hash -> new hash."""

    request: Mapping[str, str]
    old_as_of: str
    new_as_of: str
    old_sha256: str
    new_sha256: str


class LandingStore:
    """The `Landing` that vendors are given: one folder, seen as of one date.

    `clock` gives the receive time, which is a run fact: it stands in the record and nowhere else. With `offline` a
    request that was never answered is an error in `find`, before a vendor can try the network.
    """

    def __init__(
        self, root: Path, as_of: date, clock: Callable[[], datetime] = lambda: datetime.now(UTC), *, offline: bool = False
    ) -> None:
        self.root = root
        self.as_of = as_of.isoformat()
        self.offline = offline
        self._clock = clock

    def put(self, request: Mapping[str, str], body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Payload:
        """Store an answer and return the one that stands for (request, as_of): this one, or the first if it came second.

        Raises
        ------
        IntegrityError
            If the request names the digest of its answer and the body has another.
        """
        request = redact(request)
        sha256 = digest_bytes(body)
        _check_digest(request, sha256)
        self._store(sha256, body)
        record = {
            "request": request,
            "as_of": self.as_of,
            "status": status,
            "headers": {name: value for name, value in (headers or {}).items() if not SECRET_HEADERS.search(name)},
            "received_at": self._clock().astimezone(UTC).isoformat(),
            "sha256": sha256,
            "bytes": len(body),
            "restates": self._restated(request, sha256),
        }
        content = canonical_json(record)
        if _create(self._record_path(request), content):
            if record["restates"] is not None and DIGEST_PARAMETER in request:
                logger.warning("%s changed since it was last read; the new bytes are used, the old ones kept", _unpinned(request))
            return _payload(json.loads(content), body)
        standing = self.find(request)
        if standing is None:
            raise IntegrityError(f"{self._record_path(request)} exists and cannot be read; delete it to fetch the answer again")
        if standing.sha256 != sha256:
            record["restates"] = {"as_of": self.as_of, "sha256": standing.sha256}
            logger.warning(
                "the answer to %s changed since it was received for as_of %s; the first one stands until ingest.as_of moves on",
                request,
                self.as_of,
            )
            _create(self._record_path(request, sha256), canonical_json(record))
        return standing

    def find(self, request: Mapping[str, str]) -> Payload | None:
        """Return the answer that stands for this request as of the date, or None if none was received for it.

        Raises
        ------
        MissingDataError
            If there is none, the store is offline and the request needs the network.
        IntegrityError
            If a stored body is not what its name says.
        """
        request = redact(request)
        try:
            record = json.loads(self._record_path(request).read_bytes())
        except FileNotFoundError:
            known = self._pinned(request) or self._replayed(request)
            if known is None:
                self._refuse_network(request)
            return known
        except ValueError as error:
            raise IntegrityError(f"{self._record_path(request)} is no JSON ({error}); delete it to fetch the answer again") from error
        return _payload(record, self.body(record["sha256"]))

    def body(self, sha256: str) -> bytes:
        """Return the bytes of an object.

        Raises
        ------
        IntegrityError
            If it is missing or its bytes have another digest.
        """
        path = self._object_path(sha256)
        try:
            body = path.read_bytes()
        except FileNotFoundError:
            raise IntegrityError(
                f"the landing store has a record of {sha256} but no object {path}; restore it, or set a new ingest.as_of"
            ) from None
        if digest_bytes(body) != sha256:
            raise IntegrityError(f"{path} is not what its name says (found {digest_bytes(body)}); delete it and ingest again")
        return body

    def note(self, shard: Shard) -> None:
        """Record that a shard was received whole as of this store's date, so that later dates find what it said then."""
        asked = {"symbols": list(shard.symbols), "start": shard.start.isoformat(), "end": shard.end.isoformat()}
        path = self._shard_folder(shard) / f"{self.as_of}.{digest_value(asked)[:16]}.json"
        if not path.exists():
            # Not synced: what a crash of the machine loses is found again by the requests that were answered.
            _create(path, canonical_json({**asked, "vendor": shard.vendor, "domain": shard.domain, "key": shard.key}), durable=False)

    def earlier(self, shard: Shard, payloads: Sequence[Payload]) -> tuple[tuple[EarlierStore, Shard], ...]:
        """Return where and as what this shard was received at earlier dates, ascending; empty where it never was.

        The days and symbols may be others than today's: a range that grows with every ingest is still one shard. Dates
        at which a request of today's `payloads` was answered, and no shard was noted, count as the shard of today.
        """
        noted = self._noted(shard)
        days = {day for payload in payloads for day in self._answered(payload.request)} - {day for day, _ in noted}
        asked = {"symbols": list(shard.symbols), "start": shard.start.isoformat(), "end": shard.end.isoformat()}
        found = sorted([*noted, *((day, asked) for day in days)], key=lambda item: (item[0], canonical_json(item[1])))
        return tuple((EarlierStore(self.root, date.fromisoformat(day)), _as_asked(shard, day, then)) for day, then in found)

    def _noted(self, shard: Shard) -> list[tuple[str, dict[str, Any]]]:
        folder = self._shard_folder(shard)
        paths = sorted(folder.glob("????-??-??.*.json")) if folder.is_dir() else []
        # A note is not synced: a crash of the machine may leave it empty, and then the requests tell.
        contents = [(path.name[:10], path.read_bytes()) for path in paths if path.name[:10] < self.as_of]
        return [(day, json.loads(content)) for day, content in contents if content]

    def _answered(self, request: Mapping[str, str]) -> set[str]:
        """Return the dates before this store's at which a request was answered; of a local file whatever it held."""
        folder = self._record_path(request).parent
        pattern = "????-??-??.*.json" if DIGEST_PARAMETER in request else "????-??-??.json"
        return {path.name[:10] for path in folder.glob(pattern) if path.name[:10] < self.as_of}

    def restatements(self) -> Iterator[Restatement]:
        """Yield every recorded change of an answer, in the order of (request, as_of)."""
        for path in sorted((self.root / "requests").glob("*/*/*.json")):
            record = json.loads(path.read_bytes())
            old = record["restates"]
            if old is not None:
                yield Restatement(record["request"], old["as_of"], record["as_of"], old["sha256"], record["sha256"])

    def _pinned(self, request: Mapping[str, str]) -> Payload | None:
        sha256 = request.get(DIGEST_PARAMETER)
        if sha256 is None or not self._object_path(sha256).exists():
            return None
        return Payload(sha256=sha256, body=self.body(sha256), request=request)

    def _replayed(self, request: Mapping[str, str]) -> Payload | None:
        """Return what a local file last held under this date, if the store is offline: a replay reads no file but its own."""
        if not self.offline or request.get("kind") != "file" or DIGEST_PARAMETER in request:
            return None
        folder = self._record_path(request).parent
        records = [json.loads(path.read_bytes()) for path in sorted(folder.glob(f"{self.as_of}.*.json"))] if folder.is_dir() else []
        last = max(records, key=lambda record: str(record["received_at"]), default=None)
        return None if last is None else _payload(last, self.body(last["sha256"]))

    def _refuse_network(self, request: Mapping[str, str]) -> None:
        if self.offline and request.get("kind") not in LOCAL_KINDS:
            raise MissingDataError(
                f"offline, and {self.root} has no answer as of {self.as_of} to {request}; "
                "fetch it once with `quanto ingest` online, or use an earlier as_of"
            )

    def _restated(self, request: Mapping[str, str], sha256: str) -> dict[str, str] | None:
        # Records are named by their date, so the last name before ours is the answer that stood until now.
        folder = self._record_path(request).parent
        if not folder.is_dir():
            return None
        if DIGEST_PARAMETER in request:  # of several bodies under one date the one that came last
            known = [json.loads(path.read_bytes()) for path in folder.glob("????-??-??.*.json") if path.name[:10] <= self.as_of]
            known.sort(key=lambda record: (record["as_of"], record["received_at"]))
        else:
            names = sorted(path.name for path in folder.glob("????-??-??.json"))
            known = [json.loads((folder / name).read_bytes()) for name in names if name < f"{self.as_of}.json"][-1:]
        if not known or known[-1]["sha256"] == sha256:
            return None
        return {"as_of": known[-1]["as_of"], "sha256": known[-1]["sha256"]}

    def _store(self, sha256: str, body: bytes) -> None:
        path = self._object_path(sha256)
        # An object of another length is the ruin of a disk, not of a writer: writers rename whole files.
        if not path.exists() or path.stat().st_size != len(body):
            write_bytes(path, body)

    def _object_path(self, sha256: str) -> Path:
        return self.root / "objects" / sha256[:2] / sha256

    def _shard_folder(self, shard: Shard) -> Path:
        # Options that change the questions are no part of the name: an answer to another question is not found.
        params = {name: value for name, value in shard.params.items() if name != "as_of"}
        key = digest_value({"vendor": shard.vendor, "domain": shard.domain, "key": shard.key, "params": params})
        return self.root / "shards" / key[:2] / key

    def _record_path(self, request: Mapping[str, str], second: str = "") -> Path:
        key = digest_value(_unpinned(request))
        second = second or request.get(DIGEST_PARAMETER, "")
        name = f"{self.as_of}.{second}.json" if second else f"{self.as_of}.json"
        return self.root / "requests" / key[:2] / key / name


class EarlierStore(LandingStore):
    """The landing store as it was at an earlier date: it gives what was received then, and takes nothing."""

    def __init__(self, root: Path, as_of: date) -> None:
        super().__init__(root, as_of, offline=True)

    def _refuse_network(self, request: Mapping[str, str]) -> None:
        raise MissingDataError(f"{self.root} has no answer as of {self.as_of} to {request}")

    def put(self, request: Mapping[str, str], body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Payload:
        """Return what was received then, if it is this; what a vendor makes or reads today is no answer of an earlier date.

        Raises
        ------
        MissingDataError
            If another answer or none was received.
        """
        del status, headers
        standing = self.find(request)
        if standing is None or standing.sha256 != digest_bytes(body):
            raise MissingDataError(f"{self.root} has no such answer as of {self.as_of} to {redact(request)}")
        return standing


def _as_asked(shard: Shard, as_of: str, asked: Mapping[str, Any]) -> Shard:
    start, end = (date.fromisoformat(asked[bound]) for bound in ("start", "end"))
    params = {**shard.params, "as_of": as_of} if "as_of" in shard.params else shard.params
    return replace(shard, symbols=tuple(asked["symbols"]), start=start, end=end, params=params)


def redact(request: Mapping[str, str]) -> dict[str, str]:
    """Return the request with every secret, as a parameter or inside a URL, replaced by a fixed word.

    Vendors redact what they know of; this is the second lock. The order of URL parameters is kept.
    """
    return {name: REDACTED if SECRET_NAMES.match(name) else redact_url(value) for name, value in request.items()}


def redact_url(value: str) -> str:
    """Return a URL without user information and with its secret query parameters replaced; other text as it is."""
    if "://" not in value:
        return value
    parts = urlsplit(value)
    query = [(name, REDACTED if SECRET_IN_QUERY.match(name) else text) for name, text in parse_qsl(parts.query, keep_blank_values=True)]
    if parts.username is None and all(text != REDACTED for _, text in query):
        return value
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(query, quote_via=quote), parts.fragment))


def _payload(record: Mapping[str, object], body: bytes) -> Payload:
    return Payload(
        sha256=str(record["sha256"]),
        body=body,
        request=record["request"],  # type: ignore[arg-type]  # written by `put` as a mapping of text
        status=record["status"],  # type: ignore[arg-type]  # written by `put` as an integer
        headers=record["headers"],  # type: ignore[arg-type]  # written by `put` as a mapping of text
        received_at=str(record["received_at"]),
    )


def _unpinned(request: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in request.items() if name != DIGEST_PARAMETER}


def _check_digest(request: Mapping[str, str], sha256: str) -> None:
    pinned = request.get(DIGEST_PARAMETER)
    if pinned is not None and pinned != sha256:
        raise IntegrityError(f"expected bytes with SHA-256 {pinned}, found {sha256}, in the answer to {dict(request)}")


def _create(path: Path, content: bytes, *, durable: bool = True) -> bool:
    """Create a file whole and durable; return False, changing nothing, if it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.chmod(0o644)
        os.link(temporary, path)  # unlike a rename, a link refuses to replace: the first writer wins
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)
    return True
