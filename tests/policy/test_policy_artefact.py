"""The artefact: the same bytes twice, refused when anything in it was changed, acting like the torch network it came from."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.training import ROOT, quick_config, small_market
from hypothesis import given, settings
from hypothesis import strategies as st

from quanto.core.errors import ConfigError, DataError, IntegrityError, MissingDataError
from quanto.env.books import BookSet
from quanto.env.kernel import Books
from quanto.env.simulation import simulate
from quanto.policy.artefact import load_policy, pack, save_policy
from quanto.policy.decision import decide, member_targets, prepare
from quanto.policy.network import Architecture, Sizes, act, layer_shapes, stack
from quanto.stages.train.networks import export
from quanto.stages.train.plan import plan_training, policy_spec
from quanto.stages.train.ppo import build_ppo

KINDS = [
    {"policy": "MlpPolicy", "action__cash": "none"},
    {"policy": "MlpPolicy", "action__cash": "logit"},
    {"policy": "PerAssetPolicy", "action__cash": "none"},
    {"policy": "PerAssetPolicy", "action__cash": "logit"},
    {"policy": "ExposurePolicy", "action__cash": "none"},
]


def scrambled(model, seed):
    """Return a model whose weights are large enough that its targets are far from equal."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


def made(folder, data=None, **changes):
    data = data or small_market()
    config = quick_config(**{"action__scale": 2.0, **changes})
    plan = plan_training(config, data, "")
    models = {task.member: scrambled(build_ppo(task), task.member) for task in plan.tasks}
    policy = save_policy(folder, policy_spec(config, data, plan), {member: export(model.policy) for member, model in models.items()})
    return policy, data, plan, models


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return folder, *made(folder)


@pytest.mark.parametrize("changes", KINDS)
def test_numpy_acts_like_torch_on_the_observations_of_the_environment(tmp_path, changes):
    policy, data, plan, models = made(tmp_path, **changes)
    task = plan.tasks[0]
    start, _ = plan.split.train_range(data.sessions)
    books = BookSet(task.market, task.rules, 1000, 16)
    rng = np.random.default_rng(0)
    books.open(np.arange(16), rng.integers(0, 50, 16), rng.dirichlet(np.ones(4), 16)[:, :-1])
    prepared = prepare(policy, data)
    for _ in range(20):
        observation = np.empty((16, books.observation_size), dtype=np.float32)
        books.observe(observation)
        states: Books = books.books
        for book in range(16):
            t = start + int(books.t[book])
            drawdown = states.nav_close[book] / states.peak[book] - 1
            asset = np.concatenate([prepared.asset[t], states.weights[book][:, None]], axis=1)
            actions = act(policy.networks, asset, np.append(prepared.market[t], drawdown))
            for index, model in enumerate(models.values()):
                with torch.no_grad():
                    expected = model.policy.get_distribution(torch.from_numpy(observation[book : book + 1])).distribution.mean
                np.testing.assert_allclose(actions[index], expected[0].numpy(), rtol=2e-5, atol=2e-5)
        books.step(rng.normal(size=(16, task.sizes.actions)))


def test_the_ensemble_wants_the_mean_of_its_members_targets(saved):
    _, policy, data, _, _ = saved
    prepared = prepare(policy, data)
    weights = np.array([0.2, 0.1, 0.0])
    targets = member_targets(policy, prepared, 100, weights, -0.1)
    assert len(targets) == 3
    assert np.ptp(targets, axis=0).max() > 0.01
    np.testing.assert_array_equal(decide(policy, prepared, 100, weights, -0.1), targets.mean(axis=0))
    for index in range(3):
        one = policy.member(index)
        np.testing.assert_allclose(decide(one, prepared, 100, weights, -0.1), targets[index], rtol=1e-12)


def test_what_is_not_eligible_is_not_wanted_and_the_sum_is_one_without_a_cash_logit(saved):
    _, policy, data, _, _ = saved
    prepared = prepare(policy, data)
    for t in range(len(data.sessions)):
        wanted = decide(policy, prepared, t, np.zeros(3), 0.0)
        assert (wanted[~data.eligible[t]] == 0).all()
        assert wanted.sum() == pytest.approx(float(data.eligible[t].any()))


def test_a_decision_depends_on_nothing_after_its_session(saved):
    _, policy, data, _, _ = saved
    weights = np.array([0.3, 0.2, 0.1])
    before = [decide(policy, prepare(policy, data), t, weights, -0.2) for t in range(50, 60)]
    features, market = data.features.copy(), data.market.copy()
    features[60:], market[60:] = 1e3, 9.0
    later = replace(data, features=features, market=market)
    after = prepare(policy, later)
    for t, wanted in zip(range(50, 60), before, strict=True):
        np.testing.assert_array_equal(decide(policy, after, t, weights, -0.2), wanted)


def test_the_shield_caps_at_target_over_volatility_and_at_nothing_where_it_is_unknown(saved):
    _, policy, data, _, _ = saved
    market = data.market.copy()
    market[:4, 0] = [0.5, 0.1, np.nan, 0.0]
    cap = prepare(policy, replace(data, market=market)).exposure_cap
    np.testing.assert_allclose(cap[:4], [0.5, 1.0, 0.0, 0.0])
    assert (prepare(policy.without_shield(), data).exposure_cap == 1.0).all()


def test_the_policy_drives_a_book_through_the_simulator_within_its_limits(saved):
    _, policy, data, _, _ = saved
    prepared = prepare(policy, data)
    limits = policy.spec.constraints.limits()
    run = simulate(data.tape, 1, 200, lambda t, w, d: decide(policy, prepared, t, w, d), limits, prepared.exposure_cap)
    assert (run.targets.sum(axis=1) <= prepared.exposure_cap[:199] + 1e-9).all()
    assert run.targets.max() <= limits.max_weight + 1e-9
    assert np.isfinite(run.nav).all()


def test_equal_parameters_give_equal_bytes_whatever_their_order():
    rng = np.random.default_rng(0)
    parameters = {name: rng.normal(size=shape).astype(np.float32) for name, shape in (("b", (2, 3)), ("a", (3,)), ("c", (1, 1)))}
    assert pack(parameters) == pack(dict(reversed(parameters.items())))


def test_saving_what_was_loaded_gives_the_same_files(saved, tmp_path):
    folder, _, _, _, models = saved
    spec = json.loads((folder / "policy.json").read_text())
    spec.pop("members")
    save_policy(tmp_path, spec, {member: export(model.policy) for member, model in models.items()})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["policy-0.safetensors", "policy-1.safetensors", "policy-2.safetensors", "policy.json"]
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in names)


def copy_of(folder, tmp_path, **changed):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spec = json.loads((tmp_path / "policy.json").read_text())
    for key, value in changed.items():
        *parents, last = key.split("__")
        place = spec
        for parent in parents:
            place = place[parent]
        place[last] = value
    (tmp_path / "policy.json").write_text(json.dumps(spec))
    return tmp_path


@settings(deadline=None, max_examples=25)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_weights_is_found(saved, tmp_path_factory, place, bit):
    folder = copy_of(saved[0], tmp_path_factory.mktemp("flipped"))
    path = folder / "policy-1.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=r"policy-1.safetensors has SHA-256 .*, policy.json says"):
        load_policy(folder)


def test_a_missing_member_another_schema_and_a_foreign_network_are_refused(saved, tmp_path):
    folder = saved[0]
    with pytest.raises(IntegrityError, match="schema 'policy_v0'"):
        load_policy(copy_of(folder, tmp_path, schema_version="policy_v0"))
    with pytest.raises(IntegrityError, match="the architecture needs"):
        load_policy(copy_of(folder, tmp_path, architecture__hidden=[16, 8]))
    with pytest.raises(ConfigError, match=r"observation\.version"):
        load_policy(copy_of(folder, tmp_path, observation__version="observation_v2"))
    with pytest.raises(ConfigError, match="unknown key"):
        load_policy(copy_of(folder, tmp_path, surprise=1))
    with pytest.raises(ConfigError, match="is called policy-0"):
        load_policy(copy_of(folder, tmp_path, members=[{"seed": 0, "file": "../elsewhere", "sha256": "0" * 64}]))
    copy_of(folder, tmp_path)
    (tmp_path / "policy-2.safetensors").unlink()
    with pytest.raises(MissingDataError, match="seed 2"):
        load_policy(tmp_path)
    with pytest.raises(MissingDataError, match="run the stage"):
        load_policy(tmp_path / "nowhere")


def test_other_symbols_and_missing_columns_are_refused_by_name(saved):
    _, policy, data, _, _ = saved
    with pytest.raises(DataError, match=r"trained on S0, S1, S2; found S0, S1, S9"):
        prepare(policy, replace(data, panel=replace(data.panel, symbols=("S0", "S1", "S9"))))
    with pytest.raises(DataError, match="lacks volatility_21"):
        prepare(policy, replace(data, asset_columns=("return_1", "other", "volume_zscore_20")))
    with pytest.raises(DataError, match="index_volatility_21"):
        prepare(policy, replace(data, market_columns=("vix", "index_trend_20")))
    with pytest.raises(DataError, match="finite"):
        decide(policy, prepare(policy, data), 5, np.array([np.nan, 0, 0]), 0.0)


def test_columns_in_another_order_are_found_by_name(saved):
    _, policy, data, _, _ = saved
    turned = replace(data, asset_columns=data.asset_columns[::-1], features=data.features[..., ::-1])
    weights = np.array([0.3, 0.2, 0.1])
    one, other = (decide(policy, prepare(policy, each), 80, weights, 0.0) for each in (data, turned))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("cash", [False, True])
def test_the_per_asset_network_does_not_care_in_which_order_the_names_stand(cash):
    rng = np.random.default_rng(0)
    sizes = Sizes(5, 3, 2, 5 + cash)
    architecture = Architecture(kind="per_asset", hidden=(8, 8), activation="tanh", squash=False)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in layer_shapes(architecture, sizes).items()}
    networks = stack(architecture, sizes, [weights])
    asset, market, order = rng.normal(size=(5, 5)), rng.normal(size=3), rng.permutation(5)
    straight, turned = act(networks, asset, market)[0], act(networks, asset[order], market)[0]
    np.testing.assert_allclose(turned[:5], straight[:5][order], rtol=1e-12)
    np.testing.assert_allclose(turned[5:], straight[5:])


def test_weights_that_are_not_finite_are_refused():
    sizes, architecture = Sizes(2, 1, 1, 2), Architecture(kind="mlp", hidden=(2,), activation="relu", squash=False)
    weights = {name: np.full(shape, np.nan, dtype=np.float32) for name, shape in layer_shapes(architecture, sizes).items()}
    with pytest.raises(IntegrityError, match="not finite"):
        stack(architecture, sizes, [weights])


def test_acting_imports_neither_torch_nor_pickle_based_loaders():
    code = (
        "import sys, quanto.policy.decision, quanto.policy.artefact; sys.exit('torch' in sys.modules or 'stable_baselines3' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""})
