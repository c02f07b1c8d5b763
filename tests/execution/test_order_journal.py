"""The journal: what was written is read back, a torn end is repaired, a changed byte anywhere is found and named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import ExecutionError, IntegrityError
from quanto.execution.journal import GENESIS, Journal, chain, encode, read_journal

EVENTS = [{"kind": "mark", "nav": 1e6 / 3, "n": index, "text": 'ä"\\\n', "list": [1, None, True]} for index in range(5)]


def write(path: Path, events: list[dict[str, object]] = EVENTS) -> Journal:  # type: ignore[assignment]  # literals
    journal = Journal(path)
    for event in events:
        journal.append(event)
    journal.close()
    return journal


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    journal = write(tmp_path / "j.jsonl")
    assert list(read_journal(tmp_path / "j.jsonl", journal.head)) == EVENTS
    with Journal(tmp_path / "j.jsonl") as again:
        assert list(again.replay()) == EVENTS
        assert (again.count, again.head) == (5, journal.head)


def test_the_format_is_what_the_module_says(tmp_path: Path) -> None:
    write(tmp_path / "j.jsonl")
    head = GENESIS
    for line in (tmp_path / "j.jsonl").read_bytes().splitlines():
        record = json.loads(line)
        head = chain(head, encode(record["body"]))
        assert record["hash"] == head


def test_appending_continues_the_chain(tmp_path: Path) -> None:
    write(tmp_path / "two.jsonl", EVENTS[:2])  # type: ignore[arg-type]  # literals
    with Journal(tmp_path / "two.jsonl") as journal:
        for event in EVENTS[2:]:
            journal.append(event)
    write(tmp_path / "one.jsonl")
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_a_journal_in_memory_has_the_chain_of_one_on_disk(tmp_path: Path) -> None:
    memory = Journal(None)
    for event in EVENTS:
        memory.append(event)
    assert memory.head == write(tmp_path / "j.jsonl").head
    assert list(memory.replay()) == EVENTS


def test_every_changed_byte_is_found_and_its_line_named(tmp_path: Path) -> None:
    journal = write(tmp_path / "j.jsonl")
    content = (tmp_path / "j.jsonl").read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x01
        path = tmp_path / "changed.jsonl"
        path.write_bytes(bytes(changed))
        line = content[:place].count(b"\n") + 1
        with pytest.raises(IntegrityError, match=f"line {line}:"):
            list(read_journal(path, journal.head))
        with pytest.raises(IntegrityError, match=f"line {line}:"):
            Journal(path)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_moved_doubled_and_dropped_lines_are_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = write(folder / "j.jsonl")
    lines = (folder / "j.jsonl").read_bytes().splitlines(keepends=True)
    order = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=0, max_size=7))
    if order == list(range(len(lines))):
        return
    (folder / "changed.jsonl").write_bytes(b"".join(lines[index] for index in order))
    with pytest.raises(IntegrityError):
        list(read_journal(folder / "changed.jsonl", journal.head))


def test_a_torn_last_line_is_cut_off_and_its_length_told(tmp_path: Path) -> None:
    write(tmp_path / "whole.jsonl")
    content = (tmp_path / "whole.jsonl").read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == 10]
    for size in sorted({*range(0, len(content), 37), *(end + step for end in ends[:-1] for step in (-1, 0, 1))}):
        path = tmp_path / "torn.jsonl"
        path.write_bytes(content[:size])
        whole = max([end for end in ends if end <= size], default=0)
        with Journal(path) as journal:
            assert journal.repaired_bytes == size - whole
            assert journal.count == content[:whole].count(b"\n")
        assert path.read_bytes() == content[:whole]


def test_a_journal_cut_at_a_line_is_found_by_its_recorded_head(tmp_path: Path) -> None:
    journal = write(tmp_path / "j.jsonl")
    lines = (tmp_path / "j.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "j.jsonl").write_bytes(b"".join(lines[:-1]))
    assert len(list(read_journal(tmp_path / "j.jsonl"))) == 4
    with pytest.raises(IntegrityError, match="cut off or added"):
        list(read_journal(tmp_path / "j.jsonl", journal.head))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), [None, {"deep": float("nan")}], object(), {1, 2}, 2**70])
def test_what_json_has_not_is_refused_and_not_written(tmp_path: Path, value: object) -> None:
    with Journal(tmp_path / "j.jsonl") as journal:
        with pytest.raises(ExecutionError, match="'odd'"):
            journal.append({"kind": "odd", "value": value})
        assert journal.count == 0
    assert (tmp_path / "j.jsonl").read_bytes() == b""


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**63 - 1) | st.text(), lambda inner: st.lists(inner, max_size=4)
    )
)
@settings(deadline=None, max_examples=150)
def test_an_event_is_read_back_exactly_or_refused(value: object) -> None:
    try:
        expected = json.loads(json.dumps(value, allow_nan=False).encode("utf-8", "surrogatepass"))
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        with pytest.raises(ExecutionError, match="'odd'"):
            encode({"kind": "odd", "value": value})
    else:
        assert json.loads(encode({"kind": "odd", "value": value})) == {"kind": "odd", "value": expected}


def test_sync_makes_the_lines_readable_and_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    journal = Journal(tmp_path / "j.jsonl")
    synced.clear()
    journal.append({"kind": "mark"})
    assert (tmp_path / "j.jsonl").stat().st_size == 0
    journal.sync()
    assert synced == [(tmp_path / "j.jsonl").stat().st_size]
    assert synced[0] > 0
    journal.close()
