from __future__ import annotations

from dataclasses import dataclass

import pytest

from quanto.core.errors import ConfigError, QuantoError, UnknownNameError
from quanto.core.registry import Registry


@dataclass(frozen=True)
class Entry:
    name: str


def test_an_unknown_name_is_answered_with_the_closest_match_and_the_full_list() -> None:
    registry = Registry("reward", Entry("reward_v1"), Entry("log_v1"))
    with pytest.raises(UnknownNameError, match=r"no reward is called 'reward_1'. Did you mean 'reward_v1'\? Known: reward_v1, log_v1\."):
        registry["reward_1"]


def test_a_name_is_given_once() -> None:
    with pytest.raises(ConfigError, match="two entries of the reward registry are called 'a'"):
        Registry("reward", Entry("a"), Entry("a"))


def test_a_registry_keeps_its_order_and_cannot_be_added_to() -> None:
    registry = Registry("reward", Entry("b"), Entry("a"))
    assert list(registry) == ["b", "a"]
    assert not hasattr(registry, "__setitem__")


def test_an_unknown_name_reads_as_written_although_it_is_a_key_error() -> None:
    error = UnknownNameError("no reward is called 'x'")
    assert isinstance(error, KeyError)
    assert isinstance(error, QuantoError)
    assert str(error) == "no reward is called 'x'"
