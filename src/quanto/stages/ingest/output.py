"""Where ingest's outputs are built: beside their place, then moved there, so that a kill leaves old or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq

from quanto.core.store import ROW_GROUP_ROWS, write_table
from quanto.market.schema import RAW
from quanto.stages.ingest.spool import Spool
from quanto.stages.ingest.validate import Checked, quarantine
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
        self.spool = Spool(self.folder / "spool")
        for name in (*OUTPUTS, "spool"):
            (self.folder / name).mkdir()

    @property
    def raw(self) -> Path:
        """What becomes data/raw."""
        return self.folder / "raw"

    @property
    def minutes(self) -> Path:
        """Where minutes lie, by vendor and shard, until they are gathered by session."""
        return self.folder / "minutes"

    def keep(self, payload: Payload) -> None:
        """Add the bytes of a payload, named by their digest; the same bytes once."""
        path = self.folder / "payloads" / payload.sha256
        if not path.exists():
            path.write_bytes(payload.body)  # nobody reads the staging folder before it is complete

    def add(self, vendor: str, domain: str, partitions: Iterable[Checked]) -> None:
        """Add the rows of one vendor and domain, partition after partition, and what was quarantined."""
        folder = self.folder / "raw" / vendor / domain
        folder.mkdir(parents=True)
        set_aside = []
        with (
            pq.ParquetWriter(folder / "part.parquet", RAW[domain], compression="zstd", compression_level=3, version="2.6") as writer,
            ThreadPoolExecutor(1, thread_name_prefix="ingest-write") as pool,
        ):
            writing: Future[None] | None = None
            for checked in partitions:  # the next one is validated while this one is written
                if writing is not None:
                    writing.result()
                writing = pool.submit(writer.write_table, checked.table, row_group_size=ROW_GROUP_ROWS)
                set_aside.append(checked.quarantine)
            if writing is not None:
                writing.result()
        rows = [row for table in set_aside for row in table.to_pylist()]
        write_table(folder / "rejected.parquet", quarantine(rows))

    def publish(self) -> None:
        """Move both folders to their place; what stood there is moved away first, whole, and then removed."""
        for name in OUTPUTS:
            if (self._data / name).exists():
                (self._data / name).rename(self.folder / f"old-{name}")
            (self.folder / name).rename(self._data / name)
        self.discard()

    def discard(self) -> None:
        """Remove what was not published."""
        shutil.rmtree(self.folder, ignore_errors=True)
