"""Configurations that the tests of the ingest stage start from."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import yaml

from quanto.core.config import load_section
from quanto.stages.ingest.config import IngestConfig

REPOSITORY = Path(__file__).parents[3]


def section(name: str = "sample", **changes: Any) -> dict[str, Any]:
    """Return the raw section of a shipped configuration with the default experiment's values and the given changes."""
    raw: dict[str, Any] = yaml.safe_load((REPOSITORY / f"conf/ingest/{name}.yaml").read_text())
    shared = {"symbols": ["AAPL", "AMZN", "GOOG", "IBM", "MSFT", "NVDA"], "start": "2000-03-01", "end": "2013-03-01"}
    for vendor in raw["vendors"]:
        if vendor["name"] == "reference":
            vendor["options"]["path"] = str(REPOSITORY / "conf/reference/corporate_actions.csv")
    return raw | shared | changes


def config(name: str = "sample", **changes: Any) -> IngestConfig:
    """Return the same as a checked section."""
    return load_section("ingest", section(name, **changes), IngestConfig)


class HereAndNow(Executor):
    """An executor that runs each task at once, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  # an executor hands every error to its future
            future.set_exception(error)
        return future


def files_of(folder: Path) -> dict[str, bytes]:
    """Return relative name -> bytes of all files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
