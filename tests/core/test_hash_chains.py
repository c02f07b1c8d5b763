from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.chain import GENESIS, Link, append, chain_bytes, head, read_chain
from quanto.core.errors import IntegrityError


def example(n: int = 5) -> tuple[Link, ...]:
    chain: tuple[Link, ...] = ()
    for index in range(n):
        chain = (*chain, append(chain, "trial", {"x": index, "r": [0.25, -1e-9]}))
    return chain


def test_a_chain_round_trips() -> None:
    assert read_chain(chain_bytes(example()), "ledger") == example()
    assert read_chain(b"", "ledger") == ()
    assert head(()) == GENESIS


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    content = chain_bytes(example())
    place = data.draw(st.integers(0, len(content) - 1))
    changed = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    with pytest.raises(IntegrityError, match="ledger"):
        read_chain(content[:place] + bytes([changed]) + content[place + 1 :], "ledger")


@pytest.mark.parametrize("order", [(0, 2, 3, 4), (1, 2, 3, 4), (0, 1, 3, 2, 4), (0, 1, 1, 2, 3, 4)])
def test_records_cut_out_moved_or_doubled_are_found(order: tuple[int, ...]) -> None:
    lines = chain_bytes(example()).splitlines(keepends=True)
    with pytest.raises(IntegrityError, match="does not follow"):
        read_chain(b"".join(lines[index] for index in order), "ledger")


def test_a_torn_last_line_is_found() -> None:
    with pytest.raises(IntegrityError, match="cut off"):
        read_chain(chain_bytes(example())[:-1], "ledger")
