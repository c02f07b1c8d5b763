import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.measures import deflated_sharpe_ratio, probabilistic_sharpe_ratio

from quanto.core.errors import DataError
from quanto.core.rng import generator
from quanto.portfolio.sharpe import (
    SharpeMoments,
    deflated_sharpe,
    expected_maximum_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
    sharpe_moments,
    sharpe_standard_error,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "published_statistics.json").read_text())


def record(seed: int, sessions: int = 400) -> np.ndarray:
    return 0.0006 + 0.01 * generator(seed, "record").standard_t(4, sessions)


def test_psr_of_the_published_hedge_fund():
    case = GOLDEN["probabilistic_sharpe"]
    for sessions, expected in case["by_sessions"].items():
        moments = SharpeMoments(case["sharpe"], int(sessions), case["skew"], case["kurtosis"])
        assert probabilistic_sharpe(moments) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("case", GOLDEN["minimum_track_record"]["cases"])
def test_minimum_track_records_are_those_published(case: dict[str, float]):
    moments = SharpeMoments(2 / math.sqrt(case["periods"]), 1000, case["skew"], case["kurtosis"])
    found = minimum_track_record(moments, 1 / math.sqrt(case["periods"]), 0.95)
    assert found / case["periods"] == pytest.approx(case["years"], abs=5e-3)


@pytest.mark.parametrize("case", GOLDEN["deflated_sharpe"]["cases"])
def test_deflated_sharpe_ratios_are_those_published(case: dict[str, float]):
    example = GOLDEN["deflated_sharpe"]
    moments = SharpeMoments(example["annual_sharpe"] / math.sqrt(250), example["sessions"], case["skew"], case["kurtosis"])
    variance = example["annual_variance"] / example["periods"]
    assert deflated_sharpe(moments, variance, case["trials"]) == pytest.approx(case["probability"], abs=6e-5)
    assert expected_maximum_sharpe(variance, 100) == pytest.approx(example["expected_maximum"], abs=5e-5)


@pytest.mark.parametrize("seed", range(4))
def test_psr_and_dsr_agree_with_skfolio(seed: int):
    r, trials = record(seed), generator(seed, "trials").standard_normal(12) * 0.03
    assert probabilistic_sharpe(sharpe_moments(r), 0.01) == pytest.approx(probabilistic_sharpe_ratio(r, 0.01), rel=1e-10)
    variance = float(np.var(trials, ddof=1))
    assert deflated_sharpe(sharpe_moments(r), variance, 12) == pytest.approx(deflated_sharpe_ratio(r, trials), rel=1e-10)


def test_a_normal_record_without_skill_has_the_textbook_error():
    assert sharpe_standard_error(SharpeMoments(0.0, 101)) == pytest.approx(0.1)
    assert probabilistic_sharpe(SharpeMoments(0.0, 101)) == 0.5
    assert sharpe_standard_error(SharpeMoments(0.0, 2)) == pytest.approx(1.0)
    assert sharpe_standard_error(SharpeMoments(0.5, 101, -1.0, 7.0)) == pytest.approx(math.sqrt(1.875) / 10)


def test_the_minimum_record_is_where_the_psr_reaches_the_confidence():
    moments = sharpe_moments(record(3) + 0.002)
    needed = minimum_track_record(moments, 0.01, 0.9)
    there = SharpeMoments(moments.sharpe, math.ceil(needed), moments.skew, moments.kurtosis)
    before = SharpeMoments(moments.sharpe, math.ceil(needed) - 1, moments.skew, moments.kurtosis)
    assert minimum_track_record(moments, 0.01) == minimum_track_record(moments, 0.01, 0.95) > needed
    assert probabilistic_sharpe(before, 0.01) < 0.9 <= probabilistic_sharpe(there, 0.01)


def test_a_record_at_or_below_the_benchmark_never_becomes_long_enough():
    assert minimum_track_record(SharpeMoments(0.05, 100), 0.05) is None
    assert minimum_track_record(SharpeMoments(-0.05, 100)) is None


def test_one_trial_needs_no_deflation():
    moments = SharpeMoments(0.1, 300)
    assert expected_maximum_sharpe(0.5, 1) == expected_maximum_sharpe(0.0, 9) == 0.0
    assert deflated_sharpe(moments, 0.5, 1) == probabilistic_sharpe(moments)


def test_the_expected_maximum_is_near_the_mean_of_simulated_maxima():
    maxima = generator(1, "maxima").standard_normal((20_000, 20)).max(axis=1)
    assert expected_maximum_sharpe(1.0, 20) == pytest.approx(maxima.mean(), rel=0.03)


@given(st.floats(-0.3, 0.3), st.integers(10, 3000), st.integers(1, 500), st.floats(1e-6, 0.02))
@settings(deadline=None, max_examples=60)
def test_more_trials_never_raise_the_deflated_ratio(sharpe: float, sessions: int, trials: int, variance: float):
    moments = SharpeMoments(sharpe, sessions)
    assert deflated_sharpe(moments, variance, trials + 1) <= deflated_sharpe(moments, variance, trials) + 1e-15
    assert probabilistic_sharpe(moments, 0.02) <= probabilistic_sharpe(moments, 0.01)


def test_short_and_constant_records_have_no_moments():
    assert sharpe_moments([0.01, 0.02]) is None
    assert sharpe_moments([]) is None
    assert sharpe_moments(np.full(50, 0.001)) is None
    assert sharpe_moments([0.01, 0.02, 0.03]) == SharpeMoments(pytest.approx(2.0), 3, pytest.approx(0, abs=1e-12), pytest.approx(1.5))


def test_two_values_have_the_least_kurtosis_and_are_accepted():
    moments = sharpe_moments([0.0, 0.0, 0.0, 0.01])
    assert moments.kurtosis == pytest.approx(1 + moments.skew**2)
    assert 0 < probabilistic_sharpe(moments) < 1


@pytest.mark.parametrize(
    "moments",
    [SharpeMoments(0.1, 100, 3.0, 4.0), SharpeMoments(0.1, 1), SharpeMoments(math.nan, 100), SharpeMoments(0.1, 100, 0.0, math.nan)],
)
def test_impossible_moments_are_refused(moments: SharpeMoments):
    for call in (sharpe_standard_error, probabilistic_sharpe, minimum_track_record):
        with pytest.raises(DataError, match="needs 2 sessions, finite moments"):
            call(moments)


def test_nan_is_refused():
    with pytest.raises(DataError, match="excess returns must be finite"):
        sharpe_moments([0.01, math.nan, 0.02])
    for variance, trials in ((math.nan, 3), (-0.1, 3), (0.1, 0)):
        with pytest.raises(DataError, match="variance of the trials"):
            expected_maximum_sharpe(variance, trials)
