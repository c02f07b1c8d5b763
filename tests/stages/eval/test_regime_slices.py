"""One alignment of label, weight and return, on a market made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.evaluation import eval_config, make_data, make_policy

from quanto.core.errors import DataError
from quanto.market.regimes import LABELLERS
from quanto.stages.eval.arena import build_arena
from quanto.stages.eval.books import policy_book
from quanto.stages.eval.slices import Record, arena_masks, record, regime_slices, slice_masks, slice_numbers, trend

WINDOW = {"split__train_start": None, "split__train_end": None, "split__test_start": None, "split__holdout_fraction": 0.5}


def test_a_hand_made_market_puts_label_weight_and_return_on_one_session() -> None:
    high = np.array([False, True, True, False, True, False])
    book = Record(
        returns=np.array([0.01, -0.10, -0.10, 0.50, 0.02, 0.01]),
        exposure=np.array([1.0, 0.4, 0.5, 1.0, 0.6, 1.0]),
        turnover=np.array([0.5, 0.3, 0.0, 0.3, 0.2, 0.2]),
    )
    other = Record(np.array([0.01, -0.2, -0.2, 0.5, 0.04, 0.01]), np.ones(6), np.zeros(6))
    found = slice_numbers(book, other, np.zeros(6), high)
    assert found["drawdown_within_episodes"] == pytest.approx(0.9 * 0.9 - 1)
    assert found["exposure_mean"] == pytest.approx(0.5)
    assert found["turnover_annual"] == pytest.approx(0.5 / 3 * 252)
    assert found["beta"] == pytest.approx(0.5)
    assert found["hit_rate"] == pytest.approx(1 / 3)


def test_a_fall_across_a_gap_counts_only_inside_each_episode() -> None:
    returns = np.array([-0.1, 0.0, -0.1])
    book = Record(returns, np.ones(3), np.zeros(3))
    found = slice_numbers(book, book, np.zeros(3), np.array([True, False, True]))
    assert found["drawdown_within_episodes"] == pytest.approx(-0.1)


def test_a_mask_of_another_length_is_refused() -> None:
    book = Record(np.zeros(3), np.zeros(3), np.zeros(3))
    with pytest.raises(DataError, match="3 sessions"):
        slice_numbers(book, book, np.zeros(3), np.ones(4, dtype=bool))


def test_an_empty_slice_has_no_numbers() -> None:
    book = Record(np.zeros(3), np.zeros(3), np.zeros(3))
    found = slice_numbers(book, book, np.zeros(3), np.zeros(3, dtype=bool))
    assert set(found.values()) == {None}


def test_slices_of_labelled_sessions_do_not_overlap_and_cover_them() -> None:
    rng = np.random.default_rng(0)
    high, known = rng.random(50) > 0.5, rng.random(50) > 0.2
    direction = np.where(rng.random(50) > 0.2, rng.normal(size=50), np.nan)
    masks = slice_masks(high, known, direction)
    assert not (masks["high_volatility"] & masks["normal_volatility"]).any()
    assert ((masks["high_volatility"] | masks["normal_volatility"]) == known).all()
    four = [masks[f"{state}_volatility_trend_{way}"] for state in ("high", "normal") for way in ("up", "down")]
    assert (np.sum(four, axis=0) == (known & np.isfinite(direction))).all()


def test_the_trend_of_a_session_was_known_before_it() -> None:
    level = np.cumsum(np.ones(250)) + 100
    own = trend(level)
    changed = level.copy()
    changed[220:] = 1.0
    assert np.isnan(own[:200]).all()
    assert own[200] == pytest.approx(level[199] / level[:200].mean() - 1)
    assert np.array_equal(trend(changed)[:221], own[:221], equal_nan=True)


def test_labels_are_those_of_the_index_with_its_history_from_before_the_window(tmp_path: Path) -> None:
    data, index = make_data()
    arena = build_arena(data, index, eval_config(**WINDOW))
    spx = index.filter(np.array([name == "SPX" for name in index["series"].to_pylist()]))
    level = spx["value"].to_numpy()
    returns = np.concatenate([[np.nan], level[1:] / level[:-1] - 1])
    labels = LABELLERS["volatility_hysteresis_v1"].label(returns)
    assert np.array_equal(arena.labels.high, labels.high[-700:])
    assert arena.labels.known.all()
    book = policy_book(arena, make_policy(tmp_path, data))
    found = regime_slices(arena, {"candidate": record(book)}, "candidate")
    high = labels.high[-350:]
    part = found["slices"]["high_volatility"]  # type: ignore[index]
    assert part["sessions"] == high.sum()
    assert part["books"]["candidate"]["exposure_mean"] == pytest.approx(book.exposure[high].mean())
    assert found["labels"]["high_volatility"] == high.tolist()  # type: ignore[index]


def test_shifted_labels_move_by_whole_sessions() -> None:
    data, index = make_data()
    arena = build_arena(data, index, eval_config(**WINDOW))
    own, late = (arena_masks(arena, shift)["high_volatility"] for shift in (0, 1))
    assert np.array_equal(late[1:], own[:-1])
