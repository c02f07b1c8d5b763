"""Where ingest's outputs are built: beside their place, then moved there, so that a kill leaves old or nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from quanto.core.store import write_bytes, write_table
from quanto.stages.ingest.validate import Checked
from quanto.stages.ingest.vendor import Payload

OUTPUTS = ("payloads", "raw")


class Staging:
    """A folder beside data/raw and data/payloads that becomes them when all is well."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True)
        for left in data.glob(".ingest-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._data = data
        self.folder = Path(tempfile.mkdtemp(dir=data, prefix=".ingest-"))
        for name in OUTPUTS:
            (self.folder / name).mkdir()

    def keep(self, payload: Payload) -> None:
        """Add the bytes of a payload, named by their digest; the same bytes once."""
        path = self.folder / "payloads" / payload.sha256
        if not path.exists():
            write_bytes(path, payload.body)

    def add(self, vendor: str, domain: str, checked: Checked) -> None:
        """Add the rows of one vendor and domain, and what was quarantined."""
        folder = self.folder / "raw" / vendor / domain
        write_table(folder / "part.parquet", checked.table)
        write_table(folder / "rejected.parquet", checked.quarantine)

    def publish(self) -> None:
        """Move both folders to their place; what stood there is removed first."""
        for name in OUTPUTS:
            shutil.rmtree(self._data / name, ignore_errors=True)
            (self.folder / name).rename(self._data / name)
        self.discard()

    def discard(self) -> None:
        """Remove what was not published."""
        shutil.rmtree(self.folder, ignore_errors=True)
