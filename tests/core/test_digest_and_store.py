from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.digest import canonical_json, digest_file, digest_tree, digest_value
from quanto.core.errors import DataError, MissingDataError
from quanto.core.store import data_root, read_json, read_table, table_digest, write_bytes, write_json, write_table

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
SCHEMA = pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.string())])


@settings(deadline=None)
@given(values)
def test_canonical_json_round_trips(value: object) -> None:
    assert json.loads(canonical_json(value)) == json.loads(json.dumps(value))


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_insertion_does_not_change_a_digest(value: dict[str, int]) -> None:
    assert digest_value(value) == digest_value(dict(reversed(list(value.items()))))


def test_canonical_json_refuses_nan_and_names_the_path() -> None:
    with pytest.raises(DataError, match=r"\$\.a\[1\] is nan"):
        canonical_json({"a": [1.0, float("nan")]})


def test_dates_are_iso_text_and_sets_are_refused() -> None:
    assert canonical_json({"d": date(2020, 1, 2)}) == b'{"d":"2020-01-02"}'
    with pytest.raises(DataError, match="set"):
        canonical_json({"d": {1}})


def test_a_tree_digest_follows_names_and_contents_but_not_caches(tmp_path: Path) -> None:
    write_bytes(tmp_path / "t/a.txt", b"1")
    first = digest_tree(tmp_path / "t")
    write_bytes(tmp_path / "t/__pycache__/a.pyc", b"x")
    assert digest_tree(tmp_path / "t") == first
    write_bytes(tmp_path / "t/b.txt", b"1")
    assert digest_tree(tmp_path / "t") != first


def test_equal_tables_give_equal_bytes_and_the_logical_digest_ignores_chunks(tmp_path: Path) -> None:
    whole = pa.table({"a": [1, 2], "b": ["x", "y"]}, schema=SCHEMA)
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 1)])
    write_table(tmp_path / "1.parquet", whole)
    write_table(tmp_path / "2.parquet", parts)
    assert digest_file(tmp_path / "1.parquet") == digest_file(tmp_path / "2.parquet")
    assert table_digest(whole) == table_digest(parts)
    assert read_table(tmp_path / "1.parquet", SCHEMA).equals(whole)


def test_a_corrupt_parquet_file_is_one_clear_error(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x.parquet", b"PAR1 not a table PAR1")
    with pytest.raises(DataError, match=r"x\.parquet is no readable Parquet file"):
        read_table(tmp_path / "x.parquet")


def test_another_schema_is_refused_with_every_difference(tmp_path: Path) -> None:
    write_table(tmp_path / "x.parquet", pa.table({"a": [1.5], "c": [1]}))
    with pytest.raises(DataError, match="a: expected int64, found double; b: expected string, found nothing; c: unexpected column"):
        read_table(tmp_path / "x.parquet", SCHEMA)


def test_a_partition_folder_adds_no_column(tmp_path: Path) -> None:
    table = pa.table({"a": [1], "b": ["x"]}, schema=SCHEMA)
    write_table(tmp_path / "d/year=2001/part.parquet", table)
    assert read_table(tmp_path / "d", SCHEMA).equals(table)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.json does not exist"):
        read_json(tmp_path / "none.json")
    with pytest.raises(MissingDataError, match="holds no table"):
        read_table(tmp_path / "none.parquet")


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(DataError):
        write_json(tmp_path / "a.json", {"x": float("inf")})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_relative_data_root_resolves_against_the_main_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("QUANTO_DATA_ROOT", "root")
    assert data_root() == tmp_path / "root"
    monkeypatch.delenv("QUANTO_DATA_ROOT")
    assert data_root() == tmp_path / ".quanto_data"
