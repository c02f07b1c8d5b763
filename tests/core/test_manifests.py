from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from quanto.core.digest import digest_tree
from quanto.core.errors import DataError
from quanto.core.manifest import Manifest, describe_outputs, differences, manifest_from, outputs_digest
from quanto.core.store import write_bytes, write_table


def example(tmp_path: Path) -> Manifest:
    write_bytes(tmp_path / "out/b.txt", b"b")
    write_table(tmp_path / "out/a.parquet", pa.table({"x": [1, 2, 3]}))
    return Manifest("features", {"b": 1, "a": 2}, {"data": "1"}, {"src": "2"}, describe_outputs(tmp_path, ["out"]))


def test_a_manifest_round_trips_and_says_rows_of_tables(tmp_path: Path) -> None:
    manifest = example(tmp_path)
    assert manifest_from(json.loads(manifest.to_json())) == manifest
    assert manifest.outputs["out/a.parquet"].rows == 3
    assert manifest.outputs["out/b.txt"].rows is None


def test_the_order_of_insertion_does_not_matter(tmp_path: Path) -> None:
    manifest = example(tmp_path)
    shuffled = replace(manifest, config={"a": 2, "b": 1}, outputs=dict(reversed(list(manifest.outputs.items()))))
    assert shuffled.to_json() == manifest.to_json()
    assert shuffled.digest() == manifest.digest()


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    manifest = example(tmp_path)
    write_bytes(tmp_path / "out/b.txt", b"c")
    changed = replace(manifest, outputs=describe_outputs(tmp_path, ["out"]))
    assert [line.split(":")[0] for line in differences(manifest, changed)] == ["outputs.out/b.txt.sha256"]


def test_the_digest_of_an_output_is_that_of_its_folder(tmp_path: Path) -> None:
    assert outputs_digest(example(tmp_path), "out") == digest_tree(tmp_path / "out")


def test_a_declared_output_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without writing nothing"):
        describe_outputs(tmp_path, ["nothing"])


def test_an_unknown_schema_version_is_refused(tmp_path: Path) -> None:
    value = json.loads(example(tmp_path).to_json()) | {"schema_version": 99}
    with pytest.raises(DataError, match="schema version 2"):
        manifest_from(value)
