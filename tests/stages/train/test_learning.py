"""What the trainer learns where the best policy is known: short runs here, the whole evidence in `make acceptance`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from fakes.training import train_config
from scipy.stats import trim_mean

from quanto.core.store import write_json
from quanto.market.known_answers import (
    COST_ABOVE_EDGE,
    FORESIGHT,
    HOLDING,
    KELLY,
    PLANTED,
    REGIMES,
    CrossSection,
    RegimeMarket,
    benchmark_growth,
)
from quanto.stages.train.algorithms import ALGORITHMS
from quanto.stages.train.evidence import draws, known_tasks, score

FREE = {
    "constraints__max_weight": 1.0,
    "constraints__max_exposure": 1.0,
    "constraints__minimum_cash": 0.0,
    "constraints__max_turnover": 2.0,
}
SCORER = {"policy": "PerAssetPolicy", "network__hidden": [16]}
DIRECT = {"action__scale": 3.0, "action__cash": "logit", "shield__kind": "none", "optimizer__weight_decay": 0.0}
FLAT = {"policy": "MlpPolicy", "network__hidden": [64, 64]}


@pytest.fixture(autouse=True)
def _own_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))


def learn(market, cost, preset, history=20_000, fresh=3_000, **changes):
    """Return the ensemble's share, each member's share, the turnover and the last rows of the curves."""
    config = train_config(preset, **{**FREE, "seeds": [0], **changes})
    tasks = known_tasks(config, market.sample(draws(config.seed, "history"), history), cost)
    results = [ALGORITHMS[config.algorithm].train(task) for task in tasks]
    sample = market.sample(draws(config.seed, "fresh"), fresh)
    best, equal = benchmark_growth(market, sample, cost)
    members = [result.parameters for result in results]
    shares = [score(tasks, [member], sample, cost).share(best, equal) for member in members]
    whole = score(tasks, members, sample, cost)
    return whole.share(best, equal), shares, whole.turnover


# Above 1 by second-order terms of trading costs and by the luck of not trading exactly as the optimum does.
ABOVE = 1.01


def test_ppo_finds_the_optimum_of_an_observed_regime():
    share, _, _ = learn(REGIMES, 0.0, "myopic", timesteps=40_000)
    assert 0.9 < share < ABOVE


def test_ppo_learns_to_hold_where_trading_is_dear():
    share, _, turnover = learn(HOLDING, 0.005, "holding", timesteps=60_000)
    assert 0.9 < share < ABOVE
    assert turnover < 0.02


def test_ppo_does_nothing_where_every_trade_costs_more_than_it_earns():
    _, _, turnover = learn(COST_ABOVE_EDGE, 0.005, "holding", timesteps=60_000)
    assert turnover < 0.01


def test_the_scorer_finds_a_faint_signal_across_thirty_names_in_ten_years_of_sessions():
    share, _, _ = learn(PLANTED, 0.0, "myopic", history=2_500, timesteps=60_000, ppo__batch_size=256, **SCORER)
    assert 0.4 < share < ABOVE


def test_tomorrows_return_as_a_feature_is_exploited():
    share, _, _ = learn(FORESIGHT, 0.0, "myopic", timesteps=40_000)
    assert 0.8 < share < ABOVE


@pytest.mark.slow
def test_the_direct_gradient_is_the_yardstick_that_reaches_the_optimum():
    share, _, _ = learn(REGIMES, 0.001, "direct", timesteps=50_000, **DIRECT, **FLAT, episodes__cost_warm_up=0.5)
    assert 0.9 < share < ABOVE
    share, _, _ = learn(PLANTED, 0.0, "direct", history=2_500, timesteps=50_000, **DIRECT, **SCORER)
    assert 0.8 < share < ABOVE


def test_sac_learns_the_same_market():
    share, _, _ = learn(REGIMES, 0.0, "sac", timesteps=30_000)
    assert 0.5 < share < ABOVE


def test_nothing_is_learned_from_noise():
    noise = RegimeMarket(((0.9, 0.1), (0.1, 0.9)), ((0.0, 0.0, 0.0),) * 2, ((0.01, 0.01, 0.01),) * 2)
    config = train_config("myopic", **{**FREE, "seeds": [0], "timesteps": 40_000})
    tasks = known_tasks(config, noise.sample(draws(1, "history"), 5_000), 0.0)
    members = [ALGORITHMS["ppo"].train(tasks[0]).parameters]
    # A log return of mean 0 has a simple return of half its variance: no portfolio earns more than that.
    assert score(tasks, members, noise.sample(draws(1, "fresh"), 3_000), 0.0).growth < 0.01**2 / 2


EVIDENCE = {
    # name: (market, cost, preset, training sessions, changes, least share of the ensemble)
    "regimes, free": (REGIMES, 0.0, "myopic", 50_000, {}, 0.93),
    "regimes, 10 bp": (REGIMES, 0.001, "holding", 50_000, {}, 0.80),
    "regimes, 10 bp, a million steps": (REGIMES, 0.001, "holding", 50_000, {"timesteps": 1_000_000}, 0.90),
    "noisy regimes, 10 bp": (
        RegimeMarket(
            REGIMES.transition,
            ((0.0018, 0.0003, -0.0015), (-0.0015, 0.0, 0.0021)),
            ((0.03, 0.024, 0.03), (0.036, 0.027, 0.036)),
            correlation=0.3,
        ),
        0.001,
        "holding",
        50_000,
        {"ppo__gamma": 0.5},
        0.80,
    ),
    "faint regimes, free": (
        RegimeMarket(REGIMES.transition, ((0.0004, 0.0001, -0.0003), (-0.0003, 0.0, 0.0004)), REGIMES.deviation, correlation=0.3),
        0.0,
        "myopic",
        50_000,
        {},
        0.93,
    ),
    "two assets, fast regimes, free": (
        RegimeMarket(((0.8, 0.2), (0.2, 0.8)), ((0.001, 0.0), (-0.0005, 0.0005)), ((0.01, 0.01), (0.015, 0.01))),
        0.0,
        "myopic",
        50_000,
        {},
        0.93,
    ),
    "holding pays, 50 bp": (HOLDING, 0.005, "holding", 50_000, {}, 0.95),
    "holding pays, half the edge, 50 bp": (
        RegimeMarket(HOLDING.transition, ((0.001,), (-0.001,)), HOLDING.deviation),
        0.005,
        "holding",
        50_000,
        {},
        0.95,
    ),
    "cross-section of 30, 2,500 sessions": (PLANTED, 0.0, "myopic", 2_500, SCORER, 0.65),
    "cross-section of 20, IC .03, 5,000 sessions": (
        CrossSection(names=20, information=0.03, deviation=0.02, drift=0.0002),
        0.0,
        "myopic",
        5_000,
        SCORER,
        0.4,
    ),
    "foresight": (FORESIGHT, 0.0, "myopic", 20_000, {}, 0.93),
    "Kelly": (KELLY, 0.0, "myopic", 50_000, {}, 0.5),
}


@pytest.mark.acceptance
def test_shares_of_the_achievable_growth_reach_what_they_should(tmp_path):
    table, short = {}, []
    for name, (market, cost, preset, history, changes, least) in EVIDENCE.items():
        every = {"seeds": [0, 1, 2, 3, 4], "timesteps": 200_000, **changes}
        share, shares, turnover = learn(market, cost, preset, history, 5_000, **every)
        own = {key: value for key, value in changes.items() if key in ("policy", "network__hidden")} or FLAT
        direct, _, _ = learn(market, cost, "direct", history, 5_000, **DIRECT, **own, timesteps=200_000, episodes__cost_warm_up=0.5)
        table[name] = {
            "ensemble": round(share, 3),
            "iqm_of_members": round(float(trim_mean(shares, 0.25)), 3),
            "worst_member": round(min(shares), 3),
            "spread_of_members": round(float(np.ptp(shares)), 3),
            "direct": round(direct, 3),
            "turnover": round(turnover, 4),
            "least": least,
        }
        if not least <= share <= ABOVE:
            short.append(f"{name}: {share:.3f}, expected {least} to {ABOVE}")
    _, _, turnover = learn(COST_ABOVE_EDGE, 0.005, "holding", 50_000, seeds=[0, 1, 2, 3, 4], timesteps=200_000)
    table["cost above edge, 50 bp"] = {"turnover": round(turnover, 4), "most": 0.01}
    write_json(Path(os.environ.get("QUANTO_EVIDENCE", tmp_path)) / "known_answers.json", table)
    assert not short
    assert turnover < 0.01
