"""Fetching and parsing all shards: each on its own, so that one symbol's failure does not lose the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from threading import Event

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from quanto.core.errors import ConfigError, DataError, MissingDataError, QuantoError
from quanto.stages.ingest.config import VendorEntry
from quanto.stages.ingest.errors import FetchError
from quanto.stages.ingest.history import Answer, with_history
from quanto.stages.ingest.landing import LandingStore
from quanto.stages.ingest.minutes import store_minutes
from quanto.stages.ingest.router import Route, make_vendor
from quanto.stages.ingest.vendor import Parsed, Payload, Shard, Vendor

# Shards of one vendor that are fetched at a time; a vendor's own limits bound its requests further.
FETCHING = 8

# Below this a worker process costs more to start than the parsing does; the result is the same.
PARSE_ON_WORKER_BYTES = 4 << 20


@dataclass(frozen=True)
class Reference:
    """A payload that was used: its digest and the request that it answers."""

    sha256: str
    request: dict[str, str]
    bytes: int


@dataclass(frozen=True)
class Piece:
    """What one shard gave: its rows and the payloads they came from; or the error that it ended with."""

    shard: Shard
    parsed: Parsed | None = None
    payloads: tuple[Reference, ...] = ()
    error: QuantoError | None = None


def harvest(
    routes: Sequence[Route],
    workspace: Path,
    landing: LandingStore,
    executor: Executor,
    keep: Callable[[Payload], None],
    hold: Callable[[pa.Table], pa.Table],
    minutes: Path,
) -> dict[tuple[str, str], list[Piece]]:
    """Return the pieces of every (vendor, domain), in the order of the plan.

    `keep` is given each payload that is used; `hold` each parsed table, and gives back an equal one (perhaps on disk).
    Minute bars are written below the folder `minutes` by whoever parses them.

    A failed shard is a piece with its error. A vendor that refuses our key or has used up our quota is asked no more.

    Raises
    ------
    ConfigError
        If a vendor cannot be asked at all, e.g. for want of an environment variable.
    """
    total = sum(len(item.shards) for item in routes)
    pieces: dict[tuple[str, str], dict[str, Piece]] = {(item.entry.name, item.request.domain): {} for item in routes}
    entries = {item.entry.name: item.entry for item in routes}
    pools = {name: ThreadPoolExecutor(FETCHING, thread_name_prefix=f"ingest-{name}") for name in entries}
    try:
        with tqdm(total=total, desc="ingest", unit="shard", disable=None) as bar:
            futures = []
            for name, entry in entries.items():
                worker = _Worker(entry, workspace, make_vendor(entry, workspace), landing, executor, keep, hold, minutes, Event())
                shards = [shard for item in routes if item.entry.name == name for shard in item.shards]
                futures += [pools[name].submit(worker.piece, shard) for shard in shards]
            rows = answers = 0
            for future in as_completed(futures):
                piece = future.result()
                pieces[piece.shard.vendor, piece.shard.domain][piece.shard.key] = piece
                rows += len(piece.parsed.table) if piece.parsed else 0
                answers += len(piece.payloads)
                bar.update()
                seconds = max(bar.format_dict["elapsed"], 1e-9)
                bar.set_postfix_str(f"{rows / seconds:,.0f} rows/s, {answers / seconds:,.1f} requests/s", refresh=False)
    finally:
        for pool in pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
    return {key: [found[shard.key] for shard in _planned(routes, key)] for key, found in pieces.items()}


def parse_shard(shard: Shard, entry: VendorEntry, workspace: Path, payloads: tuple[Payload, ...], minutes: Path | None) -> Parsed:
    """Return what the payloads of a shard hold; runs on a worker, which makes the vendor from its configuration."""
    return store_minutes(make_vendor(entry, workspace).parse(shard, payloads), shard, minutes)


@dataclass(frozen=True)
class _Received:
    """What a shard was answered as of an earlier date, and as what it was asked then."""

    as_of: str
    shard: Shard
    payloads: tuple[Payload, ...]


@dataclass(frozen=True)
class _Worker:
    """Fetches and parses the shards of one vendor, from several threads."""

    entry: VendorEntry
    workspace: Path
    vendor: Vendor
    landing: LandingStore
    executor: Executor
    keep: Callable[[Payload], None]
    hold: Callable[[pa.Table], pa.Table]
    minutes: Path
    stopped: Event

    def piece(self, shard: Shard) -> Piece:
        if self.stopped.is_set():
            return Piece(shard, error=FetchError(f"{shard.vendor} was not asked for {shard.key}: an earlier answer stopped the run"))
        try:
            payloads = self.vendor.fetch(shard, self.landing)
            for payload in payloads:
                self.keep(payload)
            self.landing.note(shard)
            parsed, before = self._dated(shard, payloads, self._parse(shard, payloads, self.minutes))
            for payload in before:
                self.keep(payload)
            parsed = replace(parsed, table=self.hold(parsed.table), earlier=tuple(self.hold(table) for table in parsed.earlier))
        except ConfigError:
            self.stopped.set()
            raise
        except QuantoError as error:
            if isinstance(error, FetchError) and error.stops_run:
                self.stopped.set()
            return Piece(shard, error=error)
        used = tuple(Reference(payload.sha256, dict(payload.request), len(payload.body)) for payload in (*payloads, *before))
        return Piece(shard, parsed, used)

    def _dated(self, shard: Shard, payloads: tuple[Payload, ...], parsed: Parsed) -> tuple[Parsed, tuple[Payload, ...]]:
        """Return the rows with what earlier answers say of when they were known, and the payloads of their earlier versions."""
        received, notes = self._received(shard, payloads)
        now = [payload.sha256 for payload in payloads]
        if all([payload.sha256 for payload in item.payloads] == now for item in received):
            return replace(parsed, notes=(*parsed.notes, *notes)), ()
        answers = []
        for item in _telling(received):
            try:
                answers.append(_answer(item.shard, item.as_of, self._parse(item.shard, item.payloads, None).table))
            except (DataError, FetchError) as error:
                notes.append(f"its answer as of {item.as_of} cannot be read as today's is and is left out ({type(error).__name__})")
        found = with_history(shard.domain, [*answers, _answer(shard, self.landing.as_of, parsed.table)])
        named = {sha256 for table in found.earlier for sha256 in pc.unique(table["payload"]).to_pylist()} - set(now)
        bodies = {payload.sha256: payload for item in received for payload in item.payloads}
        dated = replace(parsed, table=found.table, earlier=found.earlier, notes=(*parsed.notes, *notes, *found.notes))
        return dated, tuple(bodies[sha256] for sha256 in sorted(named))

    def _received(self, shard: Shard, payloads: tuple[Payload, ...]) -> tuple[list[_Received], list[str]]:
        """Return what the shard was answered at earlier dates, ascending, and notes on what is no longer to be found."""
        received, notes = [], []
        for store, then in self.landing.earlier(shard, payloads):
            try:
                received.append(_Received(store.as_of, then, self.vendor.fetch(then, store)))
            except (MissingDataError, FetchError) as error:
                # Not the error's words: they name places of this machine, and notes go into the report.
                notes.append(
                    f"its answer as of {store.as_of} is not found as it is asked for today and is left out ({type(error).__name__})"
                )
        return received, notes

    def _parse(self, shard: Shard, payloads: tuple[Payload, ...], minutes: Path | None) -> Parsed:
        if sum(len(payload.body) for payload in payloads) < PARSE_ON_WORKER_BYTES:
            return store_minutes(self.vendor.parse(shard, payloads), shard, minutes)
        return self.executor.submit(parse_shard, shard, self.entry, self.workspace, payloads, minutes).result()


def _telling(received: Sequence[_Received]) -> list[_Received]:
    """Return the answers without those that say the same as the one before and the one after: they tell nothing more."""
    said = [([payload.sha256 for payload in item.payloads], item.shard.symbols, item.shard.start, item.shard.end) for item in received]
    inside = range(1, len(received) - 1)
    dull = {index for index in inside if said[index - 1] == said[index] == said[index + 1]}
    return [item for index, item in enumerate(received) if index not in dull]


def _answer(shard: Shard, as_of: str, table: pa.Table) -> Answer:
    return Answer(date.fromisoformat(as_of), table, shard.symbols, shard.start, shard.end)


def _planned(routes: Sequence[Route], key: tuple[str, str]) -> list[Shard]:
    return [shard for item in routes if (item.entry.name, item.request.domain) == key for shard in item.shards]
