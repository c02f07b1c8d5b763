"""A kill at any instant, then the same command: the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from fakes.polygon import Bar, Market, PolygonFake
from fakes.scenarios import AS_OF, DAYS, END, KEYS, START

SYMBOLS = [f"S{number:02d}" for number in range(24)]
KILLS = 50

# Imports first, then a line: the kill falls into the work and not into the imports.
PROGRAM = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from quanto.core.config import load_section
from quanto.stages.ingest import stage
from quanto.stages.ingest.config import IngestConfig
config = load_section("ingest", json.loads(sys.argv[1]), IngestConfig)
print("ready", flush=True)
with ThreadPoolExecutor(2) as pool:
    stage.run(config, Path(sys.argv[2]), pool)
"""


def market() -> Market:
    def bar(number: int, index: int) -> Bar:
        price = 50.0 + number + index
        return Bar(price, price + 1.5, price - 1.0, price + 0.75, 1e6 + index)

    return Market(bars={name: {day: bar(number, index) for index, day in enumerate(DAYS)} for number, name in enumerate(SYMBOLS)})


def section(url: str, as_of: date) -> str:
    transport = {"requests": 100_000, "attempts": 3, "backoff_seconds": 0.01}
    options = {"base_url": url, "bars_per_page": 4, "transport": transport}
    return json.dumps(
        {
            "symbols": SYMBOLS, "start": str(START), "end": str(END), "as_of": str(as_of), "history_sessions": 0, "index_start": str(START),
            "series": [], "interval": "day", "mode": "rest", "offline": False, "tail_tolerance_sessions": 2,
            "vendors": [{"name": "polygon", "domains": ["equity_ohlcv", "corporate_actions"], "options": options}],
        }
    )  # fmt: skip


def start(config: str, folder: Path) -> subprocess.Popen[str]:
    (folder / "workspace").mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **KEYS, "QUANTO_DATA_ROOT": str(folder / "root"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, config, str(folder / "workspace")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def killed_and_resumed(tmp_path: Path, kills: int) -> dict[str, int]:
    """Kill running ingests at random instants, run each again and compare every byte; return the counts, for the evidence."""
    rng = np.random.default_rng(7)
    killed = unpublished = 0
    with PolygonFake(market(), AS_OF) as fake:
        fake.latency_seconds = 0.002
        config = section(fake.base_url, AS_OF)
        process = start(config, tmp_path / "undisturbed")
        begun = time.monotonic()
        assert process.wait(timeout=60) == 0
        length = time.monotonic() - begun
        right = contents(tmp_path / "undisturbed/workspace")
        assert len(right) > len(SYMBOLS)
        for number in range(4 * kills):
            if killed == kills:
                break
            folder = tmp_path / f"kill-{number}"
            process = start(config, folder)
            time.sleep(float(rng.random()) * length)
            process.send_signal(signal.SIGKILL)
            if process.wait(timeout=60) == 0:
                continue  # it was done before the kill: that is none
            killed += 1
            unpublished += not (folder / "workspace/data/raw").exists()
            process = start(config, folder)
            assert process.wait(timeout=60) == 0
            assert contents(folder / "workspace") == right
    assert killed == kills
    return {
        "kills": killed, "kills_before_publishing": unpublished,
        "files_compared": len(right), "bytes_compared": sum(map(len, right.values())),
    }  # fmt: skip


@pytest.mark.acceptance
def test_fifty_killed_ingests_resume_to_the_same_bytes(tmp_path: Path) -> None:
    found = killed_and_resumed(tmp_path, KILLS)
    path = Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "ingest_kills.json"
    path.write_text(json.dumps(found | {"rows_lost": 0, "rows_doubled": 0}, indent=1, sort_keys=True) + "\n")
