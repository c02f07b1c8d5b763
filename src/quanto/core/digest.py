"""Canonical JSON and SHA-256 digests: how Quanto names content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TypeAlias

from quanto.core.errors import DataError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


def canonical_json(value: object) -> bytes:
    """Return `value` as UTF-8 JSON with sorted keys and no spaces: equal values, equal bytes.

    Dates become ISO text, tuples lists. Floats are written by `repr`, which round-trips.

    Raises
    ------
    DataError
        If a float is NaN or infinite (JSON has no such number) or a type has no JSON form; names the path.
    """
    return json.dumps(_plain(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def pretty_json(value: object) -> bytes:
    """Return `value` as deterministic JSON for people: sorted keys, two spaces, one final line feed.

    Raises
    ------
    DataError
        As `canonical_json`.
    """
    return (json.dumps(_plain(value, "$"), sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def digest_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content` as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def digest_value(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_tree(path: Path) -> str:
    """Return one digest for a file or a folder: relative names and contents, in sorted order.

    `__pycache__` folders are left out: they are no content.

    Raises
    ------
    DataError
        If the path does not exist.
    """
    if path.is_file():
        return digest_file(path)
    if not path.is_dir():
        raise DataError(f"{path} does not exist and so has no digest")
    return digest_value({name: digest_file(path / name) for name in tree_files(path)})


def tree_files(path: Path) -> list[str]:
    """Return the relative POSIX names of all files below a folder, sorted, without `__pycache__`."""
    return sorted(item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file() and "__pycache__" not in item.parts)


def _plain(value: object, where: str) -> JsonValue:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{where} is {value}, which JSON cannot hold; write None and say why beside it")
        return float(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise DataError(f"{where} is a {type(value).__name__}, which has no canonical JSON form")
