"""Ingest against bare loops over the same bytes, and against a slow server with more and more requests at a time.

- rest: JSON pages to validated Parquet, landing store on, against `requests` + `json` + a pyarrow write of the same pages.
- concurrency: shards per second against a server that answers after 50 ms, 8 requests at a time against 1.
- flatfiles: day files of 10,000 symbols to validated rows by year, against `pyarrow.csv` + a Parquet write, file by file.
- flatfiles.same_threads: the same against that loop on as many threads as this machine has cores.
- memory: the peak of anonymous memory over a five-year folder against that over a one-year folder.

The stage runs whole: plan, fetch, land, parse, validate, write, report. Servers live in another process. Each figure is
the best of `--repeats` runs, taken in turns; imports are excluded, and so is the removal of what a run wrote, which on
some disks takes as long as the run. The loops are plain ones: a single thread but for what pyarrow does by itself.
Where several programs share the machine, `cpu` (processor seconds of both, over all threads) says more than `ratio`.

    PYTHONPATH=src python benchmarks/ingest.py [--repeats 3] [--symbols 40] [--days 250]
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import requests

from quanto.core.config import load_section
from quanto.market.calendar import as_date, sessions_between
from quanto.stages.ingest import stage
from quanto.stages.ingest.config import IngestConfig

START, END, AS_OF = date(2000, 1, 3), date(2019, 12, 31), date(2026, 1, 2)
NEW_YORK = ZoneInfo("America/New_York")
PATH = re.compile(r"/v2/aggs/ticker/([^/]+)/")
FIVE_YEARS = 1260


def main() -> None:
    """Measure all claims and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--symbols", type=int, default=40)
    parser.add_argument("--days", type=int, default=250)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "DAYS"), help="internal: ingest a folder and print the peak memory")
    options = parser.parse_args()
    os.environ["POLYGON_API_KEY"] = "benchmark"
    if options.child:
        child(Path(options.child[0]), int(options.child[1]))
        return
    found = [*rest(options.symbols, options.repeats), concurrency(options.repeats), *flat(options.days, options.repeats)]
    print(json.dumps(found))


class Times(NamedTuple):
    """The best wall and processor seconds of a contestant."""

    wall: float
    cpu: float


def claim(
    name: str, value: float, unit: str, peer: str, ratio: float, goal: float, *, at_most: bool = False, cpu: float | None = None
) -> dict[str, object]:
    ok = ratio <= goal if at_most else ratio >= goal
    told = {"name": name, "value": round(value, 1), "unit": unit, "peer": peer, "ratio": round(ratio, 3), "goal": goal, "ok": bool(ok)}
    return told if cpu is None else {**told, "cpu": round(cpu, 3)}


def in_turns(repeats: int, **contestants: Callable[[Path], object]) -> dict[str, Times]:
    """Return the best seconds of each; they take turns, so that a busy machine is busy for all.

    Each run gets an empty folder, which is removed outside of its time.
    """
    best = dict.fromkeys(contestants, Times(float("inf"), float("inf")))
    for _ in range(repeats):
        for name, run in contestants.items():
            with tempfile.TemporaryDirectory() as folder:
                wall, cpu = time.perf_counter(), time.process_time()
                run(Path(folder))
                spent = Times(time.perf_counter() - wall, time.process_time() - cpu)
            best[name] = Times(*map(min, best[name], spent))
    for name, seconds in best.items():
        print(f"{name}: {seconds.wall:.3f} s, {seconds.cpu:.3f} s of processors", flush=True)
    return best


# --- a server in another process ---------------------------------------------------------------------------------


def pages(symbols: int, sessions: int) -> dict[str, bytes]:
    """Return the answer for each symbol: one JSON page of daily bars."""
    rng = np.random.default_rng(1)
    days = [as_date(day) for day in sessions_between(START, END)][:sessions]
    stamps = [int(datetime.combine(day, datetime.min.time(), NEW_YORK).timestamp()) * 1000 for day in days]
    out = {}
    for number in range(symbols):
        close = np.round(50 * np.exp(np.cumsum(rng.normal(0, 0.01, len(days)))), 4)
        rows = [
            {"v": float(index * 7 + 1000), "vw": c, "o": c, "c": c, "h": round(c + 0.5, 4), "l": round(c * 0.99, 4), "t": stamp, "n": index}
            for index, (stamp, c) in enumerate(zip(stamps, close.tolist(), strict=True))
        ]
        name = f"S{number:04d}"
        head = {"ticker": name, "queryCount": len(rows), "resultsCount": len(rows), "adjusted": False, "status": "OK", "request_id": "r"}
        out[name] = json.dumps({**head, "results": rows, "count": len(rows)}).encode()
    return out


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    answers: dict[str, bytes]
    latency = 0.0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        pass

    def do_GET(self) -> None:
        time.sleep(self.latency)
        found = PATH.match(self.path)
        body = self.answers.get(found[1] if found else "", b"{}")
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(pipe: Connection, symbols: int, sessions: int, latency: float) -> None:
    _Pages.answers, _Pages.latency = pages(symbols, sessions), latency
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.daemon_threads = True
    pipe.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def serving(symbols: int, sessions: int, latency: float = 0.0) -> Iterator[str]:
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(there, symbols, sessions, latency), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


# --- the contestants -----------------------------------------------------------------------------------------------


def ingest(folder: Path, entry: dict[str, object], symbols: list[str], start: date, end: date) -> int:
    """Run the whole stage in an empty folder with an empty landing store; return the rows written."""
    os.environ["QUANTO_DATA_ROOT"] = f"{folder}/root"
    workspace = folder / "workspace"
    workspace.mkdir()
    raw = {
        "symbols": symbols, "start": str(start), "end": str(end), "as_of": str(AS_OF), "history_sessions": 0, "index_start": str(start),
        "series": [], "interval": "day", "mode": "auto", "offline": False, "tail_tolerance_sessions": 5, "vendors": [entry],
    }  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        stage.run(load_section("ingest", raw, IngestConfig), workspace, pool)
    return int(pq.ParquetFile(workspace / f"data/raw/{entry['name']}/equity_ohlcv/part.parquet").metadata.num_rows)


def polygon(url: str, concurrency: int) -> dict[str, object]:
    transport = {"requests": 100_000, "concurrency": concurrency}
    return {"name": "polygon", "domains": ["equity_ohlcv"], "options": {"base_url": url, "transport": transport}}


def bare_loop(folder: Path, url: str, symbols: list[str]) -> int:
    """Do what a script would do: the peer."""
    rows: list[dict[str, object]] = []
    with requests.Session() as session:
        for symbol in symbols:
            target = f"{url}/v2/aggs/ticker/{symbol}/range/1/day/{START}/{END}?adjusted=false&limit=50000"
            while target:
                document = json.loads(session.get(target, timeout=30).content)
                rows += [{"symbol": symbol, **row} for row in document.get("results", [])]
                target = document.get("next_url")
    pq.write_table(pa.Table.from_pylist(rows), folder / "bars.parquet", compression="zstd")
    return len(rows)


def rest(symbols: int, repeats: int) -> list[dict[str, object]]:
    names = [f"S{number:04d}" for number in range(symbols)]
    sessions = len(sessions_between(START, END))
    with serving(symbols, sessions) as url:
        in_turns(1, warm_up=lambda folder: ingest(folder, polygon(url, 4), names[:2], START, END))
        times = in_turns(
            repeats,
            rest_quanto=lambda folder: ingest(folder, polygon(url, 4), names, START, END),
            rest_bare=lambda folder: bare_loop(folder, url, names),
        )
    own, bare = times["rest_quanto"], times["rest_bare"]
    rate = symbols * sessions / own.wall
    return [claim("ingest.rest", rate, "rows/s", "requests + json + pyarrow", bare.wall / own.wall, 0.8, cpu=bare.cpu / own.cpu)]


def concurrency(repeats: int) -> dict[str, object]:
    names = [f"S{number:04d}" for number in range(160)]
    end = as_date(sessions_between(START, END)[20])
    with serving(160, 21, latency=0.05) as url:
        times = in_turns(
            repeats,
            one_at_a_time=lambda folder: ingest(folder, polygon(url, 1), names, START, end),
            eight_at_a_time=lambda folder: ingest(folder, polygon(url, 8), names, START, end),
        )
    ratio = times["one_at_a_time"].wall / times["eight_at_a_time"].wall
    return claim("ingest.concurrency", 160 / times["eight_at_a_time"].wall, "requests/s", "one request at a time", ratio, 4.0)


def write_days(folder: Path, days: int, symbols: int = 10_000) -> list[Path]:
    """Write day files in Polygon's layout: random walks to the cent."""
    rng = np.random.default_rng(2)
    names = [f"T{number:05d}" for number in range(symbols)]
    level = 20 * np.exp(rng.normal(0, 1, symbols))
    files = []
    for day in map(as_date, sessions_between(date(2015, 1, 2), date(2026, 1, 1))[:days]):
        level *= np.exp(rng.normal(0, 0.02, symbols))
        close = np.round(level, 2) + 0.01
        stamp = int(datetime.combine(day, datetime.min.time(), NEW_YORK).timestamp()) * 10**9
        table = pa.table({
            "ticker": names, "volume": rng.integers(100, 10**6, symbols),
            "open": close, "close": close, "high": close + 0.5, "low": close * 0.99,
            "window_start": np.full(symbols, stamp), "transactions": np.full(symbols, 9),
        })  # fmt: skip
        sink = io.BytesIO()
        pacsv.write_csv(table, sink, pacsv.WriteOptions(quoting_style="none"))
        path = folder / f"us_stocks_sip/day_aggs_v1/{day:%Y}/{day:%m}/{day}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(sink.getvalue(), compresslevel=1))
        files.append(path)
    return files


def flat_entry(folder: Path) -> dict[str, object]:
    return {"name": "polygon_flatfiles", "domains": ["equity_ohlcv"], "options": {"root": str(folder), "all_symbols": True}}


def ingest_folder(folder: Path, root: Path, files: list[Path]) -> int:
    first, last = (date.fromisoformat(files[at].name.split(".")[0]) for at in (0, -1))
    return ingest(folder, flat_entry(root), ["T00000"], first, last)


def bare_file(place: Path, path: Path) -> None:
    pq.write_table(pacsv.read_csv(path), place / f"{path.name}.parquet", compression="zstd")


def bare_files(folder: Path, files: list[Path]) -> None:
    """Read each file by pyarrow and write it as Parquet: the peer."""
    for path in files:
        bare_file(folder, path)


def threaded_files(folder: Path, files: list[Path]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(bare_file, folder), files))


def flat(days: int, repeats: int) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = write_days(root, max(days, FIVE_YEARS))
        part = files[:days]
        times = in_turns(
            repeats,
            flat_quanto=lambda folder: ingest_folder(folder, root, part),
            flat_bare=lambda folder: bare_files(folder, part),
            flat_threaded=lambda folder: threaded_files(folder, part),
        )
        one, five = peak(root, 252), peak(root, FIVE_YEARS)
    own, bare, threaded = (times[f"flat_{who}"] for who in ("quanto", "bare", "threaded"))
    rate = days * 10_000 / own.wall
    return [
        claim("ingest.flatfiles", rate, "rows/s", "pyarrow.csv + Parquet", bare.wall / own.wall, 0.8, cpu=bare.cpu / own.cpu),
        claim(
            "ingest.flatfiles.same_threads", rate, "rows/s", f"that loop on {os.cpu_count()} threads",
            threaded.wall / own.wall, 0.8, cpu=threaded.cpu / own.cpu,
        ),
        claim("ingest.memory", five / 2**20, "MiB", "one year instead of five", five / one, 2.0, at_most=True),
    ]  # fmt: skip


def peak(folder: Path, days: int) -> float:
    """Return the peak anonymous bytes of a process that ingests so many days."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(folder), str(days)], check=True, capture_output=True, text=True, env=os.environ
    )
    return float(done.stdout.strip().splitlines()[-1])


def child(folder: Path, days: int) -> None:
    files = sorted(folder.rglob("*.csv.gz"))[:days]
    stop, most = threading.Event(), [0]

    def watch() -> None:
        # Anonymous memory: pages of mapped files are the machine's to take back at any time.
        while not stop.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            most[0] = max(most[0], int(next(line for line in lines if line.startswith("RssAnon")).split()[1]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as place:
        ingest_folder(Path(place), folder, files)
    stop.set()
    watcher.join()
    print(float(most[0] * 1024))


if __name__ == "__main__":
    main()
