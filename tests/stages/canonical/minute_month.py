"""Months of minute bars in Polygon's flat-file layout through ingest and canonical; prints what memory it took.

python -m tests.stages.canonical.minute_month <folder> <symbols> <sessions>
"""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import os
import resource
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from quanto.core.config import load_section
from quanto.core.store import read_json
from quanto.market.calendar import as_date, sessions_between
from quanto.market.minutes import session_hours
from quanto.runtime.processor import fix_processor
from quanto.stages.canonical import stage as canonical_stage
from quanto.stages.ingest import stage as ingest_stage
from quanto.stages.ingest.config import IngestConfig
from tests.stages.canonical.vendor_tables import canonical_config

START = date(2026, 1, 2)
WORKERS = 2


def write_day(root: Path, session: date, symbols: int, extended: int = 0) -> int:
    """Write the minute file and the day file of one session; return the minutes of the regular session."""
    opened, closed = (int(bound[0]) for bound in session_hours(np.array([session], dtype="datetime64[D]")))
    minutes = np.arange(opened - extended, closed + extended)
    rng = np.random.default_rng(session.toordinal())
    close = np.round(50 * np.exp(np.cumsum(rng.normal(0, 0.0005, (symbols, len(minutes))), axis=1)), 2)
    opening = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    high, low = np.maximum(opening, close) + 0.01, np.minimum(opening, close) - 0.01
    volume = np.round(rng.lognormal(6, 1, close.shape))
    stamps = pd.DatetimeIndex(np.datetime64(session, "ns") + minutes * np.timedelta64(60, "s")).tz_localize("America/New_York").asi8
    names = [f"S{index:05d}" for index in range(symbols)]
    grid = {"volume": volume, "open": opening, "close": close, "high": high, "low": low}
    columns = {"ticker": pa.array(names).take(pa.array(np.repeat(np.arange(symbols), len(minutes))))}
    columns |= {name: pa.array(values.reshape(-1)) for name, values in grid.items()}
    columns |= {"window_start": pa.array(np.tile(stamps, symbols)), "transactions": pa.array(np.ones(close.size, np.int64))}
    _put(root / "us_stocks_sip/minute_aggs_v1", session, columns)
    inside = (minutes >= opened) & (minutes < closed)
    day = {
        "ticker": pa.array(names), "volume": volume.sum(axis=1), "open": opening[:, inside][:, 0], "close": close[:, inside][:, -1],
        "high": high[:, inside].max(axis=1), "low": low[:, inside].min(axis=1),
        "window_start": np.full(symbols, pd.Timestamp(session, tz="America/New_York").value), "transactions": np.ones(symbols, np.int64),
    }  # fmt: skip
    _put(root / "us_stocks_sip/day_aggs_v1", session, day)
    return int(inside.sum()) * symbols


def ingest_config(symbols: int, first: date, last: date) -> IngestConfig:
    """Return the section for one vendor of days and one of minutes, both from the local folder `flat`."""
    options = {"root": "flat"}
    return load_section("ingest", {
        "symbols": [f"S{index:05d}" for index in range(symbols)], "start": str(first), "end": str(last),
        "as_of": str(last + timedelta(days=30)), "history_sessions": 0, "index_start": str(first), "series": [], "interval": "day",
        "mode": "auto", "offline": False, "tail_tolerance_sessions": 5,
        "vendors": [
            {"name": "days", "kind": "polygon_flatfiles", "domains": ["equity_ohlcv"], "options": options},
            {"name": "minutes", "kind": "polygon_flatfiles", "domains": ["equity_ohlcv"], "interval": "minute", "options": options},
        ],
    }, IngestConfig)  # fmt: skip


def run(workspace: Path, symbols: int, first: date, last: date, executor: Executor) -> None:
    """Run both stages on what lies in `workspace`/flat."""
    ingest_stage.run(ingest_config(symbols, first, last), workspace, executor)
    canonical_stage.run(canonical_config(("days", "minutes")), workspace, executor)


def peak(task: int) -> tuple[int, float]:
    """Return this process and the most memory that it ever had, in GB."""
    del task
    time.sleep(0.2)
    return os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(folder: Path, symbols: int, count: int) -> None:
    """Write the files, run both stages and print rows and peak memory."""
    os.environ["QUANTO_DATA_ROOT"] = str(folder / "root")
    sessions = [as_date(day) for day in sessions_between(START, date(START.year, 12, 31))[:count]]
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        rows = sum(pool.map(write_day, [folder / "flat"] * count, sessions, [symbols] * count))
    started = time.perf_counter()
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), initializer=fix_processor) as pool:
        run(folder, symbols, sessions[0], sessions[-1], pool)
        workers: dict[int, float] = {}
        while len(workers) < WORKERS:
            workers |= dict(pool.map(peak, range(2 * WORKERS)))
    report = read_json(folder / "reports/canonical/canonical_report.json")
    told = {"rows": rows, "seconds": time.perf_counter() - started, "main_gb": peak(0)[1], "worker_gb": max(workers.values())}
    sys.stdout.write(json.dumps({**told, "minutes": report["minutes"]}) + "\n")


def _put(folder: Path, session: date, columns: dict[str, object]) -> None:
    place = folder / f"{session:%Y/%m}" / f"{session}.csv.gz"
    place.parent.mkdir(parents=True, exist_ok=True)
    names = ("ticker", "volume", "open", "close", "high", "low", "window_start", "transactions")
    sink = io.BytesIO()
    pacsv.write_csv(pa.table({name: columns[name] for name in names}), sink)
    place.write_bytes(gzip.compress(sink.getvalue(), compresslevel=1, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
