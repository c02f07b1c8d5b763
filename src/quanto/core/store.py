"""Reading and writing files so that a reader sees the old or the new content, never a mixture."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quanto.core.digest import JsonValue, digest_bytes, pretty_json
from quanto.core.errors import DataError, MissingDataError

# Small enough that a reader of a few sessions decodes little else, large enough to compress well.
ROW_GROUP_ROWS = 1 << 17


def data_root() -> Path:
    """Return the folder for what outlives a checkout: QUANTO_DATA_ROOT, else `.quanto_data` of the main checkout.

    A relative value resolves against DVC_ROOT where DVC sets it (temporary workspaces), else the working folder.
    """
    base = Path(os.environ.get("DVC_ROOT", "."))
    return (base / os.environ.get("QUANTO_DATA_ROOT", ".quanto_data")).absolute()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically and durably: temporary file beside it, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename or a new file in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    """Write a value as deterministic, readable JSON, atomically; refuses NaN and infinity (DataError)."""
    write_bytes(path, pretty_json(value))


def read_json(path: Path) -> JsonValue:
    """Return the value of a JSON file.

    Raises
    ------
    MissingDataError
        If the file does not exist.
    DataError
        If it is no JSON.
    """
    try:
        value: JsonValue = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingDataError(f"{path} does not exist; run the stage that writes it (dvc repro)") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}; restore it with `dvc checkout` or re-run its stage") from error
    return value


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, atomically; equal tables give equal bytes for one pyarrow version."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(),
        sink,
        compression="zstd",
        compression_level=3,
        row_group_size=ROW_GROUP_ROWS,
        write_statistics=True,
        store_schema=True,
        version="2.6",
    )
    write_bytes(path, sink.getvalue().to_pybytes())


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Return the table of a Parquet file, or of all `*.parquet` below a folder in sorted order.

    Raises
    ------
    MissingDataError
        If nothing is there.
    DataError
        If a file is corrupt or its schema differs from `schema`; names the file and the difference.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        if path.is_dir() and schema is not None:
            return schema.empty_table()
        raise MissingDataError(f"{path} holds no table; run the stage that writes it (dvc repro)")
    tables = [_read_file(file, schema) for file in files]
    return pa.concat_tables(tables).combine_chunks()


def table_digest(table: pa.Table) -> str:
    """Return a digest of a table's logical content (Arrow IPC), the same for any Parquet writer version."""
    sink = pa.BufferOutputStream()
    plain = table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        for batch in plain.to_batches(max_chunksize=ROW_GROUP_ROWS):
            writer.write_batch(batch)
    return digest_bytes(sink.getvalue().to_pybytes())


def _read_file(file: Path, schema: pa.Schema | None) -> pa.Table:
    try:
        # One file, no dataset discovery: a folder called year=2001 must not add a column.
        table = pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is no readable Parquet file: {error}; restore it or re-run its stage") from error
    if schema is not None and not table.schema.equals(schema):
        found = {field.name: str(field.type) for field in table.schema}
        wanted = {field.name: str(field.type) for field in schema}
        faults = [
            f"{name}: expected {kind}, found {found.get(name, 'nothing')}" for name, kind in wanted.items() if found.get(name) != kind
        ]
        faults += [f"{name}: unexpected column" for name in found if name not in wanted]
        raise DataError(f"{file} has another schema than its contract: {'; '.join(faults) or 'other column order'}")
    return pa.Table.from_batches(table.to_batches(), schema=table.schema)
