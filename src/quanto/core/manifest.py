"""Manifests: what a stage read and wrote, as a pure value without time, host, user, commit or absolute path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from quanto.core.digest import canonical_json, digest_bytes, digest_file, digest_tree, digest_value, pretty_json, tree_files
from quanto.core.errors import DataError

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class OutputFile:
    """One file that a stage wrote: SHA-256, size in bytes, and rows where it is a table."""

    sha256: str
    bytes: int
    rows: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What one stage computed from what: digests of inputs, sources and outputs, and the resolved configuration."""

    stage: str
    config: Mapping[str, object]
    inputs: Mapping[str, str]
    sources: Mapping[str, str]
    outputs: Mapping[str, OutputFile]
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """Return the manifest as deterministic JSON; the order of insertion does not matter."""
        return pretty_json(asdict(self))

    def digest(self) -> str:
        """Return the SHA-256 of the canonical form."""
        return digest_bytes(canonical_json(asdict(self)))


def manifest_from(value: object) -> Manifest:
    """Return the manifest that a parsed JSON value holds.

    Raises
    ------
    DataError
        If a field is missing or unknown, or the schema version is another.
    """
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"expected a manifest of schema version {SCHEMA_VERSION}")
    try:
        outputs = {name: OutputFile(**item) for name, item in value["outputs"].items()}
        return Manifest(**{**value, "outputs": outputs})
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"a manifest has missing or unknown fields: {error}") from error


def describe_outputs(root: Path, outputs: list[str]) -> dict[str, OutputFile]:
    """Return the description of every file below the given outputs, keyed by path relative to `root`.

    Raises
    ------
    DataError
        If an output does not exist.
    """
    files: dict[str, OutputFile] = {}
    for output in sorted(outputs):
        path = root / output
        if not path.exists():
            raise DataError(f"the stage ended without writing {output}, which dvc.yaml declares")
        names = [output] if path.is_file() else [f"{output}/{name}" for name in tree_files(path)]
        files |= {name: _describe(root / name) for name in names}
    return files


def describe_inputs(root: Path, inputs: list[str]) -> dict[str, str]:
    """Return the content digest of every input file or folder, keyed by path relative to `root`.

    Raises
    ------
    DataError
        If an input does not exist.
    """
    return {name: digest_tree(root / name) for name in sorted(inputs)}


def outputs_digest(manifest: Manifest, output: str) -> str:
    """Return the digest that `digest_tree` gives for one declared output, from the manifest alone."""
    if output in manifest.outputs:
        return manifest.outputs[output].sha256
    prefix = f"{output}/"
    inside = {name.removeprefix(prefix): item.sha256 for name, item in manifest.outputs.items() if name.startswith(prefix)}
    return digest_value(inside)


def differences(one: Manifest, other: Manifest) -> list[str]:
    """Return a sentence for every difference between two manifests; an empty list means equal."""
    found: list[str] = []
    _compare("", asdict(one), asdict(other), found)
    return found


def _compare(where: str, one: object, other: object, found: list[str]) -> None:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            _compare(f"{where}.{key}".lstrip("."), one.get(key, "absent"), other.get(key, "absent"), found)
    elif one != other:
        found.append(f"{where}: {one!r} against {other!r}")


def _describe(path: Path) -> OutputFile:
    rows = pq.ParquetFile(path).metadata.num_rows if path.suffix == ".parquet" else None
    return OutputFile(sha256=digest_file(path), bytes=path.stat().st_size, rows=rows)
