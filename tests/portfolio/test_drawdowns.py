import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quanto.core.errors import DataError
from quanto.portfolio import drawdowns as module
from quanto.portfolio.drawdowns import DrawdownEpisode, deepest, drawdown_episodes, drawdown_within, drawdowns, runs

pytestmark = pytest.mark.filterwarnings("error")
any_returns = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-0.5, 0.5).map(lambda x: round(x, 4)))


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(module).failed == 0


def test_the_first_loss_counts_against_the_starting_wealth():
    np.testing.assert_allclose(drawdowns([-0.1, 0.0, 0.2]), [-0.1, -0.1, 0.0], atol=1e-15)


def test_episodes_run_from_the_peak_to_the_session_that_regains_it():
    found = drawdown_episodes([0.1, -0.5, 1.0, 0.2, -0.1, -0.1])
    first, second = found
    assert (first.peak, first.trough, first.recovery, first.sessions) == (1, 2, 3, 2)
    assert first.depth == pytest.approx(-0.5)
    assert (second.peak, second.trough, second.recovery, second.sessions) == (4, 6, None, 2)
    assert second.depth == pytest.approx(-0.19)
    assert deepest(found) == first


def test_a_peak_regained_up_to_rounding_is_regained():
    (episode,) = drawdown_episodes([-0.1, 1 / 9, 0.0])
    assert (episode.recovery, episode.sessions) == (2, 2)


def test_a_fall_from_the_start_has_its_peak_before_the_first_return():
    assert drawdown_episodes([-0.25]) == (DrawdownEpisode(peak=0, trough=1, recovery=None, depth=-0.25, sessions=1),)


def test_a_rising_series_has_no_episode():
    assert drawdown_episodes([0.1, 0.0, 0.2]) == ()
    assert drawdown_episodes([]) == ()
    assert deepest(()) is None


def test_the_earliest_of_equal_falls_is_the_deepest():
    found = drawdown_episodes([-0.5, 1.0, -0.5, 1.0])
    assert deepest(found) == found[0]


def test_a_fall_inside_a_run_does_not_see_the_peak_before_it():
    r = [-0.5, -0.1, 0.2, -0.3, -0.2]
    assert drawdown_within(r, np.array([False, True, True, False, True])) == pytest.approx(-0.2)
    assert drawdown_within(r, np.ones(5, dtype=bool)) == pytest.approx(drawdowns(r).min())
    assert drawdown_within(r, np.zeros(5, dtype=bool)) is None
    with pytest.raises(DataError, match="same 5 sessions"):
        drawdown_within(r, np.ones(4, dtype=bool))


def test_wealth_beyond_a_double_is_refused():
    with pytest.raises(DataError, match="wealth overflowed at session 2"):
        drawdowns([0.1, 1e200, 1e200, 0.0])


def test_runs_cover_the_mask_and_nothing_else():
    assert runs([]) == []
    assert runs([True]) == [(0, 1)]
    assert runs([True, True, False]) == [(0, 2)]


@given(any_returns)
@settings(deadline=None, max_examples=60)
def test_drawdowns_agree_with_the_wealth_path(r: np.ndarray):
    wealth = np.concatenate([[1.0], np.cumprod(1 + r)])
    falls = drawdowns(r)
    assert ((falls >= -1) & (falls <= 0)).all()
    np.testing.assert_allclose(falls, (wealth / np.maximum.accumulate(wealth) - 1)[1:], atol=1e-12)


@given(any_returns)
@settings(deadline=None, max_examples=60)
def test_episodes_cover_all_sessions_below_a_peak_once(r: np.ndarray):
    falls, covered = drawdowns(r), np.zeros(len(r), dtype=int)
    for episode in drawdown_episodes(r):
        end = len(r) if episode.recovery is None else episode.recovery - 1
        covered[episode.peak : end] += 1
        assert episode.depth == falls[episode.trough - 1] == falls[episode.peak : end].min()
        assert episode.sessions == (len(r) if episode.recovery is None else episode.recovery) - episode.peak
    np.testing.assert_array_equal(covered, (falls < -1e-12).astype(int))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.01])
def test_what_hides_a_peak_is_refused(bad: float):
    for call in (drawdowns, drawdown_episodes, lambda r: drawdown_within(r, np.ones(3, dtype=bool))):
        with pytest.raises(DataError, match=r"^returns must be .* at 1"):
            call([0.1, bad, 0.0])
