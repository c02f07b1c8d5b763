"""A content-addressed memo of partitions: what was computed from the same rows, settings and code is linked, not computed.

An entry lies under `<data root>/memo/canonical/<key>/`: `rows.parquet`, and `facts` with its digest before its content
(counts, overlaps, details). Both are held to their digests before use; a damaged entry is computed anew. Deleting the
folder loses nothing but time. After a build the entries that were not used for longest go, until the rest fits a bound.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quanto.core.digest import canonical_json, digest_bytes, digest_file, digest_tree, digest_value
from quanto.core.store import data_root, table_digest, write_bytes, write_table
from quanto.market import schema
from quanto.market.minutes import CANONICAL_MINUTES
from quanto.market.schema import CANONICAL, QUARANTINE
from quanto.stages.canonical.axes import Partition
from quanto.stages.canonical.build import BarsPart, Context, Counts
from quanto.stages.canonical.choice import Overlap, Verdicts
from quanto.stages.canonical.config import CanonicalConfig
from quanto.stages.canonical.disagreement import COMPARED, DETAILS
from quanto.stages.canonical.minutes import MinutesContext, MinutesPart
from quanto.stages.canonical.splits import Step
from quanto.stages.canonical.verdicts import YearOverlap

PartT = TypeVar("PartT", BarsPart, MinutesPart)

# Settings that no partition's result depends on.
_WITHOUT = ("max_missing", "max_disagreement", "partition_rows", "start_date", "end_date", "implied_actions", "match_sessions")
# The memo may grow to this; a build's own entries are kept even where they alone are more.
MOST_BYTES = 20 * 1024**3
# Entries used within the last hours may be another build's that runs at the same time.
IN_USE_SECONDS = 6 * 3600
_OVERLAP = ("valid", "compared", "agreed", "first", "last")


def memo_folder() -> Path:
    """Return where the memo lies: it outlives checkouts, and all of them share it."""
    return data_root() / "memo/canonical"


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Return a digest of the code that a partition's result depends on, and of the libraries below it."""
    folders = [Path(__file__).parent, Path(schema.__file__).parent]
    libraries = {name: version(name) for name in ("exchange-calendars", "numpy", "pyarrow")}
    return digest_value({"code": [digest_tree(folder) for folder in folders], "libraries": libraries})


def partition_key(
    partition: Partition, tables: Sequence[pa.Table], symbols: Sequence[str], verdicts: Verdicts, context: Context, code: str
) -> str:
    """Return the name of a partition's result: the digest of everything that it depends on."""
    names = {name for table in tables for name in pc.unique(table["symbol"]).to_pylist()}
    histories = {vendor: history.events() for vendor, history in context.histories.dividends.items()}
    return digest_value(
        {
            "partition": [partition.key, partition.first, partition.last],
            "vendors": list(context.vendors),
            "rows": [table_digest(table) for table in tables],
            "symbols": list(symbols),
            "present": ["".join(map(str, row.astype(int).tolist())) for row in verdicts.present],
            "refused": sorted([vendor, symbol, year, reason] for (vendor, symbol, year), reason in verdicts.refused.items()),
            "splits": context.actions.splits.events(),
            "cash": [[symbol, day, amount] for (symbol, day), amount in context.actions.cash.items()],
            "dividends": histories,
            "blocked": dict(context.blocked),
            "misbased": [[span.vendor, span.symbol, span.first, span.until] for span in context.misbased],
            "settings": _settings(context.config, names),
            "code": code,
        }
    )


def _settings(config: CanonicalConfig, names: Collection[str]) -> dict[str, Any]:
    """Return the settings that a result depends on; identity rules of tickers without a row change nothing."""
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key not in _WITHOUT}
    rules = [rule.model_dump(mode="json") for rule in config.sources.identity if rule.symbol in names]
    return {**settings, "sources": {**settings["sources"], "identity": rules}}


def minutes_key(
    name: str, files: Sequence[Path | None], names: Collection[str], daily: pa.Table, context: MinutesContext, code: str
) -> str:
    """Return the name of a block of minutes: the digest of its raw files and everything else that it depends on.

    `names` are the tickers in the files, `context` the block's own (`MinutesContext.within`).
    """
    return digest_value(
        {
            "minutes": name,
            "vendors": list(context.vendors),
            "files": [digest_file(file) if file else None for file in files],
            "daily": table_digest(daily),
            "splits": context.histories.splits.events(),
            "dividends": {vendor: history.events() for vendor, history in sorted(context.histories.dividends.items())},
            "blocked": dict(sorted(context.blocked.items())),
            "settings": _settings(context.config, names),
            "code": code,
        }
    )


def recall(root: Path, key: str, target: Path) -> BarsPart | None:
    """Return a partition from the memo, its rows linked to `target`; None where it is unknown or damaged."""
    return _recall(root / key, target, _part)


def recall_minutes(root: Path, key: str, target: Path) -> MinutesPart | None:
    """Return a block of minutes as `recall` does."""
    return _recall(root / key, target, _minutes)


def _recall(entry: Path, target: Path, build: Callable[[dict[str, Any], np.lib.npyio.NpzFile], PartT]) -> PartT | None:
    try:
        digest, _, content = (entry / "facts").read_bytes().partition(b"\n")
        if digest.decode() != digest_bytes(content):
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            facts = json.loads(stored["facts"].tobytes())
            part = build(facts, stored)
        if facts["rows"]:
            if digest_file(entry / "rows.parquet") != facts["sha256"]:
                return None
            _link(entry / "rows.parquet", target)
        os.utime(entry)  # used now: `prune` takes the others first
    except (OSError, ValueError):
        # Unknown, or cut short by a kill or a full disk: computing it anew is always right.
        return None
    return part


def remember(root: Path, key: str, part: BarsPart, target: Path) -> None:
    """Write a partition's rows to `target` and keep them, with all that was counted, in the memo."""
    _keep(root, key, part.table, target, lambda sha256: _facts(part, sha256))


def remember_minutes(root: Path, key: str, part: MinutesPart, target: Path) -> None:
    """Write and keep a block of minutes as `remember` does."""
    _keep(root, key, part.table, target, lambda sha256: _minute_facts(part, sha256))


def _keep(root: Path, key: str, table: pa.Table, target: Path, facts: Callable[[str], bytes]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=f".{key[:16]}."))
    try:
        rows = folder / "rows.parquet"
        if len(table):
            write_table(rows, table)
            _link(rows, target)
        write_bytes(folder / "facts", facts(digest_file(rows) if len(table) else ""))
        shutil.rmtree(root / key, ignore_errors=True)
        folder.rename(root / key)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        # Another worker kept the same partition meanwhile: equal work, equal bytes.
        if not (root / key).is_dir():
            raise


def prune(root: Path, most_bytes: int = MOST_BYTES, in_use_seconds: float = IN_USE_SECONDS) -> int:
    """Remove the entries that were not used for longest until the memo has at most `most_bytes`; return how many went.

    Entries (and what killed runs left) that were touched within `in_use_seconds` stay. Safe beside other builds: an
    entry disappears at once, by a rename, and a build that just looked at it computes it anew.
    """
    now = time.time()
    entries = sorted((_entry(path, now) for path in root.glob("*")), key=lambda item: (item.used, item.path.name))
    held, gone = sum(item.size for item in entries), 0
    for item in entries:
        stray = item.path.name.startswith(".")
        if now - item.used < in_use_seconds or (held <= most_bytes and not stray):
            continue
        trash = root / f".gone.{item.path.name}.{os.getpid()}"
        try:
            item.path.rename(trash)
        except OSError:
            continue  # another build was faster
        shutil.rmtree(trash, ignore_errors=True)
        held, gone = held - item.size, gone + 1
    return gone


@dataclass(frozen=True)
class _Entry:
    path: Path
    used: float
    size: int


def _entry(path: Path, now: float) -> _Entry:
    try:
        return _Entry(path, path.stat().st_mtime, sum(file.stat().st_size for file in path.iterdir()))
    except OSError:
        # Another build writes or removes it at this moment.
        return _Entry(path, now, 0)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without links.
        shutil.copyfile(source, target)


def _facts(part: BarsPart, sha256: str) -> bytes:
    facts = {
        "partition": [part.partition.key, part.partition.first, part.partition.last],
        "symbols": list(part.symbols),
        "counts": {vendor: asdict(counts) for vendor, counts in part.counts.items()},
        "steps": [[step.vendor, step.symbol, step.day, step.size] for step in part.steps],
        "suspected": [list(item) for item in part.suspected],
        "rows": part.rows,
        "sha256": sha256,
    }
    arrays: dict[str, Any] = {f"overlap_{name}": getattr(part.measured.overlap, name) for name in _OVERLAP}
    arrays |= {name: _ipc(getattr(part, name)) for name in ("restated", "quarantine", "details", "compared")}
    return _sealed(facts, sessions=part.sessions, present=part.present, **arrays)


def _minute_facts(part: MinutesPart, sha256: str) -> bytes:
    facts = {
        "session": part.session,
        "counts": {vendor: asdict(counts) for vendor, counts in part.counts.items()},
        "outside": part.outside,
        "rows": part.rows,
        "sha256": sha256,
    }
    return _sealed(facts, **{name: _ipc(getattr(part, name)) for name in ("quarantine", "details", "compared")})


def _sealed(facts: dict[str, Any], **arrays: Any) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, facts=np.frombuffer(canonical_json(facts), dtype=np.uint8), **arrays)
    # NumPy reads an archive without its checksums: the content is held to a digest of its own.
    return digest_bytes(sink.getvalue()).encode() + b"\n" + sink.getvalue()


def _minutes(facts: dict[str, Any], stored: np.lib.npyio.NpzFile) -> MinutesPart:
    return MinutesPart(
        session=date.fromisoformat(facts["session"]),
        table=CANONICAL_MINUTES.empty_table(),
        rows=facts["rows"],
        quarantine=_table(stored["quarantine"], QUARANTINE),
        counts={vendor: Counts(**item) for vendor, item in facts["counts"].items()},
        outside=facts["outside"],
        details=_table(stored["details"], DETAILS),
        compared=_table(stored["compared"], COMPARED),
    )


def _part(facts: dict[str, Any], stored: np.lib.npyio.NpzFile) -> BarsPart:
    key, first, last = facts["partition"]
    partition = Partition(key, date.fromisoformat(first), date.fromisoformat(last))
    symbols = tuple(facts["symbols"])
    counts = {vendor: Counts(**item) for vendor, item in facts["counts"].items()}
    return BarsPart(
        partition=partition,
        symbols=symbols,
        table=CANONICAL["equity_ohlcv"].empty_table(),
        restated=_table(stored["restated"], CANONICAL["equity_ohlcv"]),
        quarantine=_table(stored["quarantine"], QUARANTINE),
        steps=tuple(Step(*step) for step in facts["steps"]),
        suspected=tuple((symbol, session) for symbol, session in facts["suspected"]),
        details=_table(stored["details"], DETAILS),
        compared=_table(stored["compared"], COMPARED),
        counts=counts,
        measured=YearOverlap(partition.year, symbols, Overlap(*(stored[f"overlap_{name}"] for name in _OVERLAP))),
        sessions=stored["sessions"],
        present=stored["present"],
        rows=facts["rows"],
    )


def _ipc(table: pa.Table) -> np.ndarray:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), dtype=np.uint8)


def _table(content: np.ndarray, expected: pa.Schema) -> pa.Table:
    return pa.ipc.open_stream(content.tobytes()).read_all().cast(expected)
