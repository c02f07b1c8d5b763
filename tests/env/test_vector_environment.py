"""The VecEnv of stable-baselines3 and the Gymnasium shell: one step, two shapes."""

from __future__ import annotations

import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from fakes.books import episodes, fuzzed_market, rules
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3

from quanto.core.errors import ConfigError, DataError
from quanto.env.action_map import ACTION_BOUND
from quanto.env.books import BookSet, Market
from quanto.env.gym_shell import ENVIRONMENT_ID, PortfolioEnv
from quanto.env.vector import PortfolioVecEnv


def vector(seed=0, books=8, sessions=20, market_seed=0, setting=None, **kwargs):
    return PortfolioVecEnv(fuzzed_market(market_seed, sessions=200), setting or rules(), episodes(books, sessions, **kwargs), seed)


def actions(rng, env):
    return rng.normal(size=(env.num_envs, env.action_space.shape[0])).astype(np.float32)


@pytest.mark.parametrize("version", ["reward_v1", "reward_v2"])
@pytest.mark.parametrize("reduction", ["none", "equal_weight"])
def test_the_gymnasium_shell_equals_the_batched_environment_bit_for_bit(version, reduction):
    setting = rules(version, reduction)
    env = vector(setting=setting)
    rng = np.random.default_rng(5)
    batch = env.reset().copy()
    shells = [PortfolioEnv(env.books.market, setting, episodes(1, 20)) for _ in range(env.num_envs)]
    starts = env.books.t.copy()
    held = env.books.books.weights.copy()
    singles = [shell.reset(options={"session": t, "weights": w})[0] for shell, t, w in zip(shells, starts, held, strict=True)]
    assert np.array_equal(batch, np.stack(singles))
    for _ in range(19):
        raw = actions(rng, env)
        batch, rewards, dones, infos = env.step(raw)
        stepped = [shell.step(action / np.float32(ACTION_BOUND)) for shell, action in zip(shells, raw, strict=True)]
        seen = np.stack([infos[b].get("terminal_observation", batch[b]) for b in range(env.num_envs)])
        assert np.array_equal(seen, np.stack([item[0] for item in stepped]))
        assert np.array_equal(rewards, np.array([item[1] for item in stepped], dtype=np.float32))
        assert np.array_equal(dones, np.array([item[2] or item[3] for item in stepped]))
        if dones.any():
            break


def test_gymnasium_and_stable_baselines_find_nothing_to_complain_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ENVIRONMENT_ID, market=fuzzed_market(1), rules=rules("reward_v2", "equal_weight"), episodes=episodes(1, 10))
        check_gymnasium(env.unwrapped, skip_render_check=True)
        check_sb3(PortfolioEnv(fuzzed_market(1), rules(), episodes(1, 10)))


def test_two_environments_of_one_seed_walk_side_by_side_and_another_seed_elsewhere():
    one, twin, other = vector(3), vector(3), vector(4)
    rng = np.random.default_rng(0)
    assert np.array_equal(one.reset(), twin.reset())
    assert not np.array_equal(one._observe(), other.reset())
    for _ in range(60):
        action = actions(rng, one)
        left, right = one.step(action), twin.step(action)
        assert all(np.array_equal(a, b) for a, b in zip(left[:3], right[:3], strict=True))


def test_an_observation_shows_the_session_of_the_decision_and_none_after_it():
    market = fuzzed_market(8)
    books = BookSet(market, rules(), 100, 3)
    t = np.array([0, 17, 40])
    weights = np.full((3, 4), 0.1)
    books.open(np.arange(3), t, weights)
    out = np.empty((3, books.observation_size), dtype=np.float32)
    books.observe(out)
    own = np.concatenate([market.asset[t], books.books.weights[..., None]], axis=-1).reshape(3, -1)
    np.testing.assert_allclose(out, np.concatenate([own, market.market[t], np.zeros((3, 1))], axis=1), rtol=1e-6)


def test_the_observation_that_a_learner_keeps_survives_the_next_step_and_restarts():
    env = vector(sessions=3)
    rng = np.random.default_rng(0)
    last = env.reset()
    for _ in range(30):
        copy = last.copy()
        new, *_ = env.step(actions(rng, env))
        assert np.array_equal(last, copy)
        assert not np.shares_memory(last, new)
        last = new


def test_windows_end_by_truncation_with_the_last_observation_and_books_start_anew():
    env = vector(sessions=7, books=5)
    env.reset()
    rng = np.random.default_rng(0)
    for k in range(1, 30):
        observation, _, dones, infos = env.step(actions(rng, env))
        for book in np.flatnonzero(dones):
            assert infos[book]["terminal_observation"].shape == observation[book].shape
            assert infos[book]["TimeLimit.truncated"] is True
            assert env.books.age[book] == 0
        assert (env.books.age <= 7).all()
        assert all(infos[book] == {} for book in np.flatnonzero(~dones)), k


def test_every_session_of_the_window_is_a_start_and_no_reward_needs_what_lies_behind_it():
    env = PortfolioVecEnv(fuzzed_market(2, sessions=12), rules(), episodes(256, 252), 0)
    env.reset()
    assert set(env.books.t.tolist()) == set(range(10))
    rng = np.random.default_rng(0)
    for _ in range(40):
        _, rewards, _, _ = env.step(actions(rng, env))
        assert np.isfinite(rewards).all()


def test_the_reward_of_an_action_does_not_change_with_anything_after_the_open_that_ends_it():
    market, setting = fuzzed_market(3), rules("reward_v2", "equal_weight")
    changed = {name: array.copy() for name, array in market.tape._asdict().items()}
    for name in ("open", "close", "cash_rate", "dividend"):
        changed[name][23:] *= 1.7
    # Only the open of session 22 and what is due at it may matter to the action of session 20.
    changed["close"][22] *= 1.3
    other = Market(market.tape._replace(**changed), market.asset, market.market, market.exposure_cap)
    action = np.random.default_rng(0).normal(size=(1, 5))
    rewards = []
    for each in (market, other):
        books = BookSet(each, setting, 100, 1)
        books.open(np.array([0]), np.array([20]), np.full((1, 4), 0.1))
        rewards.append(books.step(action).components)
    assert np.array_equal(rewards[0], rewards[1])


def test_a_ruined_book_terminates_with_a_finite_reward():
    market = fuzzed_market(4, symbols=1)
    tape = {name: array.copy() for name, array in market.tape._asdict().items()}
    tape["eligible"][:] = True
    tape["fillable"][:] = True
    tape["payout"][:] = np.nan
    tape["split"][:] = 1.0
    tape["dividend"][:] = 0.0
    tape["payout"][12, 0] = 0.0
    market = Market(market.tape._replace(**tape), market.asset, market.market, np.ones(60))
    setting = rules(cash="none", limits=rules().limits._replace(max_weight=1.0, max_exposure=1.0, minimum_cash=0.0, max_turnover=2.0))
    books = BookSet(market, setting, 100, 1)
    books.open(np.array([0]), np.array([9]), np.ones((1, 1)))
    assert not books.step(np.zeros((1, 1))).terminated[0]
    result = books.step(np.zeros((1, 1)))
    assert result.terminated[0]
    assert not result.truncated[0]
    assert np.isfinite(result.reward).all()


def quiet_market(seed, symbols=4):
    """A fuzzed market on which trading is free and always possible, and nothing but prices moves."""
    market = fuzzed_market(seed, symbols=symbols)
    calm = {name: array.copy() for name, array in market.tape._asdict().items()}
    calm["linear_cost"][:], calm["impact"][:], calm["dividend"][:] = 0.0, 0.0, 0.0
    calm["fillable"][:], calm["eligible"][:], calm["payout"][:] = True, True, np.nan
    return Market(market.tape._replace(**calm), market.asset, market.market, np.ones(60))


def test_the_self_critical_reference_is_what_the_policy_would_earn_without_exploring_and_needs_that_policy():
    limits = rules().limits._replace(max_weight=1.0, max_exposure=1.0, minimum_cash=0.0, max_turnover=2.0)
    setting = rules("reward_v1", "self_critical", limits=limits)
    books = BookSet(quiet_market(5), setting, 100, 4)
    books.open(np.arange(4), np.arange(4), np.zeros((4, 4)))
    action = np.random.default_rng(0).normal(size=(4, 5))
    with pytest.raises(ConfigError, match="needs a policy"):
        books.step(action)
    # Quantities are fixed at the close and the reference at the open, so the overnight move is all that is left.
    result = books.step(action, action)
    assert np.abs(result.reward).max() < 0.1 * np.abs(100 * result.growth).max()


@pytest.mark.parametrize("reduction", ["equal_weight", "self_critical"])
def test_a_reference_is_the_same_whatever_the_book_holds(reduction):
    setting = rules("reward_v1", reduction)
    books = BookSet(fuzzed_market(5), setting, 100, 6)
    books.open(np.arange(6), np.full(6, 7), np.random.default_rng(1).dirichlet(np.ones(5), 6)[:, :-1])
    neutral = np.empty((6, books.observation_size), dtype=np.float32)
    books.observe_neutral(neutral)
    assert (neutral == neutral[0]).all()
    result = books.step(np.random.default_rng(0).normal(size=(6, 5)), np.tile(neutral[:1, :5], (6, 1)))
    reference = 100 * result.growth - result.reward
    np.testing.assert_allclose(reference, reference[0], atol=1e-12)


def test_equal_weight_variance_reduction_leaves_the_equal_weight_book_nothing():
    limits = rules().limits._replace(max_weight=1.0, max_exposure=1.0, minimum_cash=0.0, max_turnover=2.0)
    market = quiet_market(6)
    same = {name: array.copy() for name, array in market.tape._asdict().items()}
    # No overnight gap: what is bought at the open is what was decided at the close.
    same["split"][:] = 1.0
    same["open"][1:] = same["close"][:-1]
    market = Market(market.tape._replace(**same), market.asset, market.market, np.ones(60))
    books = BookSet(market, rules("reward_v1", "equal_weight", cash="none", limits=limits), 1000, 1)
    books.open(np.array([0]), np.array([0]), np.full((1, 4), 0.25))
    rewards = [books.step(np.zeros((1, 4))).reward[0] for _ in range(30)]
    np.testing.assert_allclose(rewards, 0.0, atol=1e-9)


def test_a_warm_up_of_costs_scales_them_and_ends_at_their_size():
    env = vector()
    full = env.books.market.tape
    env.scale_costs(0.25)
    assert np.array_equal(env.books.market.tape.linear_cost, full.linear_cost * 0.25)
    assert np.array_equal(env.books.market.tape.impact, full.impact * 0.25)
    env.scale_costs(1.0)
    assert np.array_equal(env.books.market.tape.linear_cost, full.linear_cost)


def test_a_network_that_gives_nan_does_not_trade():
    env = vector()
    env.reset()
    broken = actions(np.random.default_rng(0), env)
    broken[2, 1] = np.nan
    with pytest.raises(DataError, match="action 1 of book 2 is nan"):
        env.step(broken)


def test_observations_that_are_not_finite_or_do_not_fit_are_refused():
    market = fuzzed_market(7)
    with pytest.raises(DataError, match="finite"):
        replace(market, market=np.full_like(market.market, np.nan))
    with pytest.raises(DataError, match="do not fit"):
        replace(market, exposure_cap=np.ones(3))


def test_attributes_and_methods_reach_all_books_at_once():
    env = vector()
    assert env.get_attr("render_mode") == [None] * 8
    assert env.env_is_wrapped(gymnasium.Wrapper) == [False] * 8
    with pytest.raises(ConfigError, match="share one environment"):
        env.set_attr("episodes", None, indices=[0])
