"""Every reward of the registry: frozen by goldens, never looking beyond its session, penalties that only cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from quanto.core.errors import UnknownNameError
from quanto.env.rewards import REWARDS, Penalties, RewardConfig, SessionResult, reward_components

# Two books: a gain after trading a fifth of the book, and a loss that deepens a drawdown of 10 % to 13 %.
RESULT = SessionResult(
    growth=np.array([0.012, -0.031]),
    reference=np.array([0.008, -0.01]),
    turnover=np.array([0.2, 0.0]),
    drawdown_before=np.array([-0.05, -0.10]),
    drawdown_after=np.array([-0.04, -0.13]),
)

# Worked out by hand from the sentences in the registry; a version never changes its behaviour.
GOLDEN = {
    "reward_v1": [[0.4], [-2.1]],
    "reward_v2": [[0.4, -0.02, 0.0], [-2.1, 0.0, -0.15]],
}


def config(version, **changes):
    base = {"version": version, "scale": 100.0, "variance_reduction": "none", "turnover_penalty": None, "drawdown_penalty": None}
    return RewardConfig(**{**base, **changes})


def test_every_reward_has_a_golden():
    assert set(GOLDEN) == set(REWARDS)


@pytest.mark.parametrize("version", list(REWARDS))
def test_the_components_of_a_version_are_frozen(version):
    np.testing.assert_allclose(reward_components(config(version), RESULT), GOLDEN[version], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("version", list(REWARDS))
def test_the_entry_names_one_component_per_column_and_says_what_it_is(version):
    entry = REWARDS[version]
    assert reward_components(config(version), RESULT).shape == (2, len(entry.components))
    assert entry.components[0] == "growth"
    assert entry.sentence.endswith(".")


numbers = st.floats(-0.5, 0.5)
shares = st.floats(0, 2)
falls = st.floats(-0.9, 0)


@pytest.mark.parametrize("version", list(REWARDS))
@settings(deadline=None, max_examples=50)
@given(growth=numbers, reference=numbers, turnover=shares, before=falls, after=falls, scale=st.floats(0.1, 1000))
def test_shaping_never_pays_and_the_scale_multiplies_every_component(version, growth, reference, turnover, before, after, scale):
    result = SessionResult(*(np.array([value]) for value in (growth, reference, turnover, before, after)))
    one = reward_components(config(version, scale=1.0), result)
    assert (one[:, 1:] <= 0).all()
    np.testing.assert_allclose(reward_components(config(version, scale=scale), result), one * scale, rtol=1e-12)


@pytest.mark.parametrize("version", list(REWARDS))
def test_variance_reduction_shifts_growth_alone(version):
    without = reward_components(config(version), RESULT._replace(reference=np.zeros(2)))
    difference = without - reward_components(config(version), RESULT)
    np.testing.assert_allclose(difference[:, 0], 100 * RESULT.reference)
    assert (difference[:, 1:] == 0).all()


def test_penalties_take_the_size_of_the_version_where_none_is_given():
    assert config("reward_v2").penalties() == Penalties(1e-3, 0.05)
    assert config("reward_v2", turnover_penalty=0.5).penalties() == Penalties(0.5, 0.05)


def test_a_penalty_for_a_reward_that_has_none_is_refused_rather_than_unread():
    with pytest.raises(ValidationError, match="reward_v1 has no penalties"):
        config("reward_v1", turnover_penalty=0.1)


def test_an_unknown_reward_names_the_closest_one():
    with pytest.raises((ValidationError, UnknownNameError), match="reward_v1"):
        config("reward_1")
