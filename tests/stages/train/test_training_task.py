"""Training as a function of its task: parameters that arrive, the same bytes twice, after a kill, with any workers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.training import ROOT, quick_config, small_market, train_config

from quanto.core.config import load_section
from quanto.core.errors import ConfigError, DataError, TrainingError
from quanto.env.books import Market
from quanto.policy.artefact import pack
from quanto.stages.train import learner
from quanto.stages.train.checkpoint import checkpoint_path, forget
from quanto.stages.train.config import TrainConfig
from quanto.stages.train.curves import curves_csv
from quanto.stages.train.learner import train_ppo
from quanto.stages.train.plan import plan_training
from quanto.stages.train.ppo import build_ppo


@pytest.fixture(autouse=True)
def _own_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTO_DATA_ROOT", str(tmp_path / "root"))


def tasks(**changes):
    return plan_training(quick_config(**changes), small_market(), "sources").tasks


def everything(result):
    return pack(result.parameters), curves_csv([result]), result.summary


@pytest.mark.parametrize("policy", ["MlpPolicy", "PerAssetPolicy", "ExposurePolicy"])
def test_every_parameter_of_the_configuration_reaches_ppo(policy):
    unusual = {
        "policy": policy, "ppo__gamma": 0.83, "ppo__gae_lambda": 0.71, "ppo__n_steps": 6, "ppo__batch_size": 24, "ppo__n_epochs": 3,
        "ppo__clip_range__start": 0.31, "ppo__clip_range__end": 0.11, "ppo__clip_range_vf": 0.4, "ppo__normalize_advantage": False,
        "ppo__ent_coef": 0.013, "ppo__vf_coef": 0.37, "ppo__max_grad_norm": 0.9, "ppo__target_kl": 0.05,
        "optimizer__learning_rate__start": 0.002, "optimizer__learning_rate__end": 0.0004, "optimizer__weight_decay": 0.03,
        "optimizer__epsilon": 0.0002, "ppo__log_std_init": -0.7, "network__hidden": [5, 7], "ppo__critic_hidden": [9],
        "ppo__critic_inputs": "all", "network__activation": "relu",
    }  # fmt: skip
    task = tasks(**unusual)[0]
    model = build_ppo(task)
    assert (model.gamma, model.gae_lambda, model.n_steps, model.batch_size, model.n_epochs) == (0.83, 0.71, 6, 24, 3)
    assert [model.clip_range(remaining) for remaining in (1.0, 0.5, 0.0)] == pytest.approx([0.31, 0.21, 0.11])
    assert model.clip_range_vf(1.0) == 0.4
    assert (model.normalize_advantage, model.ent_coef, model.vf_coef, model.max_grad_norm, model.target_kl) == (
        False,
        0.013,
        0.37,
        0.9,
        0.05,
    )
    assert [model.lr_schedule(remaining) for remaining in (1.0, 0.5, 0.0)] == pytest.approx([0.002, 0.0012, 0.0004])
    assert isinstance(model.policy.optimizer, torch.optim.AdamW)
    group = model.policy.optimizer.param_groups[0]
    assert (group["weight_decay"], group["eps"], group["lr"]) == (0.03, 0.0002, 0.002)
    assert model.policy.log_std.detach().numpy() == pytest.approx(-0.7)
    actor = list(model.policy.mlp_extractor.policy_net.actor)
    assert [layer.out_features for layer in actor[::2]][:2] == [5, 7]
    assert isinstance(actor[1], torch.nn.ReLU)
    critic = model.policy.mlp_extractor.value_net
    assert (critic[0].in_features, critic[0].out_features) == (task.sizes.observation, 9)
    assert (model.n_envs, model.seed, str(model.device)) == (8, task.torch_seed, "cpu")


def test_every_leaf_of_the_ppo_section_is_named_as_stable_baselines_names_it():
    model = build_ppo(tasks()[0])
    ours = {"critic_hidden", "critic_inputs", "log_std_init"}
    assert all(hasattr(model, name) for name in set(quick_config().ppo.model_dump()) - ours)


def test_two_runs_give_the_same_bytes_whatever_the_global_generators_did_before():
    task = tasks()[0]
    first = everything(train_ppo(task))
    random.random()
    np.random.rand(100)  # noqa: NPY002  # the global stream that SB3 uses
    torch.rand(17)
    assert everything(train_ppo(task)) == first


@pytest.mark.slow
def test_the_number_of_workers_and_their_order_change_no_byte():
    every = tasks()
    alone = [everything(train_ppo(task)) for task in every]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        reversed_order = [everything(result) for result in pool.map(train_ppo, every[::-1])]
    assert reversed_order[::-1] == alone


def test_members_differ_and_so_do_root_seeds():
    weights = [pack(train_ppo(task).parameters) for task in (*tasks(), *tasks(seed=8))]
    assert len(set(weights)) == 6


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


@pytest.mark.parametrize(
    "changes", [{}, {"validation__fraction": 0.2, "validation__every_rollouts": 1}, {"reward__variance_reduction": "self_critical"}]
)
@pytest.mark.parametrize("kill_at", [3, 5])
def test_a_kill_and_resume_ends_in_the_same_bytes(monkeypatch, changes, kill_at):
    task = tasks(**changes)[1]
    monkeypatch.setattr(learner, "CHECKPOINT_ROLLOUTS", 2)
    expected = everything(train_ppo(task))
    forget([task])
    look = learner.Watch._look

    def killed_look(self):
        look(self)
        if len(self.rows) == kill_at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(learner.Watch, "_look", killed_look)
        with pytest.raises(Killed):
            train_ppo(task)
    assert checkpoint_path(task.key).exists()
    np.random.rand(3)  # noqa: NPY002  # the global stream that SB3 uses
    torch.rand(3)
    steps = []
    add = learner.Watch._on_rollout_end
    monkeypatch.setattr(learner.Watch, "_on_rollout_end", lambda self: (steps.append(self.num_timesteps), add(self))[1])
    assert everything(train_ppo(task)) == expected
    assert steps[0] > 64, "the second run began at the checkpoint, not at the start"
    forget([task])
    assert not checkpoint_path(task.key).exists()


KILLED_RUN = """
import os, pickle, signal, sys
from quanto.stages.train import learner
learner.CHECKPOINT_ROLLOUTS = 2
task, die_at = pickle.loads(sys.stdin.buffer.read())
step = learner.Watch._on_step
def mortal(self):
    if self.n_calls == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self)
learner.Watch._on_step = mortal
result = learner.train_ppo(task)
sys.stdout.buffer.write(pickle.dumps(result))
"""


def test_real_sigkills_at_any_step_end_in_the_same_bytes():
    task = tasks(validation__fraction=0.2, validation__every_rollouts=2)[0]
    expected = everything(train_ppo(task))
    forget([task])
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    # A step counts from the resumed start: three lives end early, inside a rollout, at its end and before any checkpoint.
    for die_at in (5, 21, 24, None):
        life = subprocess.run(
            [sys.executable, "-c", KILLED_RUN], input=pickle.dumps((task, die_at)), env=environment, capture_output=True, check=False
        )
        assert life.returncode == (0 if die_at is None else -signal.SIGKILL), life.stderr.decode()
    assert everything(pickle.loads(life.stdout)) == expected  # our own child's words


def test_a_torn_checkpoint_is_none_and_training_starts_over(tmp_path):
    task = tasks()[0]
    expected = everything(train_ppo(task))
    checkpoint_path(task.key).parent.mkdir(parents=True, exist_ok=True)
    checkpoint_path(task.key).write_bytes(b"half a checkpoi")
    assert everything(train_ppo(task)) == expected


def test_other_data_settings_members_or_code_never_continue_a_checkpoint():
    task = tasks()[0]
    market = task.market
    changed = market.tape.close.copy()
    changed[5, 0] *= 1.0001
    others = [
        tasks()[1],
        tasks(ppo__gamma=0.5)[0],
        replace(task, sources="other code"),
        replace(task, market=Market(market.tape._replace(close=changed), market.asset, market.market, market.exposure_cap)),
    ]
    assert len({task.key, *(other.key for other in others)}) == 5


def test_a_parameter_that_stops_being_finite_stops_training_with_step_and_name(monkeypatch):
    task = tasks()[0]
    rollout_end = learner.Watch._on_rollout_end

    def poison(self):
        rollout_end(self)
        if self.num_timesteps == 128:
            with torch.no_grad():
                self.model.policy.mlp_extractor.policy_net.actor[0].weight[0, 0] = float("nan")

    monkeypatch.setattr(learner.Watch, "_on_rollout_end", poison)
    with pytest.raises(TrainingError, match=r"after 128 steps .*actor\.0\.weight.* not finite; there is no checkpoint yet"):
        train_ppo(task)


def test_an_observation_that_stops_being_finite_names_its_column(monkeypatch):
    task = tasks()[0]
    observe = learner.Watch._guard

    def poison(self, what, values):
        if what == "observation" and self.num_timesteps == 64:
            values = values.copy()
            values[3, 6] = np.inf
        observe(self, what, values)

    monkeypatch.setattr(learner.Watch, "_guard", poison)
    with pytest.raises(TrainingError, match=r"after 64 steps observation 'S1.volatility_21' of book 3 is inf"):
        train_ppo(task)


def test_validation_chooses_the_best_look_and_patience_stops():
    result = train_ppo(tasks(validation__fraction=0.3, validation__every_rollouts=1, validation__patience=2, timesteps=4096)[0])
    growth = [row["validation_growth"] for row in result.curves]
    assert result.summary["validation_growth"] == max(growth)
    assert result.summary["chosen_step"] == result.curves[int(np.argmax(growth))]["step"]
    assert len(growth) == int(np.argmax(growth)) + 3
    assert result.summary["steps"] < 4096


def test_the_gradient_never_sees_the_validation_window_nor_the_test_window():
    data = small_market()
    config = quick_config(validation__fraction=0.3, split__train_end="2002-01-31", split__test_start="2002-02-01")
    plan = plan_training(config, data, "")
    task = plan.tasks[0]
    start, stop = plan.split.train_range(data.sessions)
    assert len(task.market.tape.close) + len(task.validation.tape.close) - 1 == stop - start
    for t in (stop, stop + 20):
        data.features[t:], data.market[t:] = 99.0, 99.0
    assert plan_training(config, data, "").tasks[0].key == task.key


def test_the_curves_hold_every_component_and_what_the_update_recorded():
    rows = train_ppo(tasks(reward__version="reward_v2")[0]).curves
    assert [row["step"] for row in rows] == [64 * (k + 1) for k in range(8)]
    wanted = {"reward_growth", "reward_turnover", "reward_drawdown", "growth", "entropy", "approximate_kl", "clip_fraction"}
    assert wanted | {"explained_variance", "validation_growth", "exposure", "turnover", "cost"} <= set(rows[0])
    text = curves_csv([train_ppo(tasks()[0])]).decode().splitlines()
    assert len(text) == 9
    assert text[0].startswith("seed,step,reward_growth")


def test_a_missing_column_and_a_window_too_short_are_refused():
    with pytest.raises(DataError, match="lacks nothing_like_this"):
        plan_training(quick_config(asset_columns=["nothing_like_this"]), small_market(), "")
    with pytest.raises(DataError, match="no column 'vix'"):
        plan_training(quick_config(shield__column="vix"), small_market(), "")
    with pytest.raises(ConfigError, match=r"validation\.fraction"):
        plan_training(quick_config(validation__fraction=0.005, split__train_end="2001-01-31"), small_market(), "")


def test_settings_that_contradict_each_other_are_refused_together():
    with pytest.raises(ConfigError) as error:
        quick_config(policy="ExposurePolicy", action__cash="logit", ppo__batch_size=30, seeds=[1, 1])
    assert all(text in str(error.value) for text in ("seeds must be different", "action.cash must be none", "batch_size 30 must divide"))


def test_unknown_keys_wrong_types_and_unknown_policies_are_all_named_in_one_message():
    raw = train_config().model_dump(mode="json")
    raw["ppo"]["gama"] = 1.0
    raw["timesteps"] = "many"
    raw["policy"] = "LstmPolicy"
    with pytest.raises(ConfigError) as error:
        load_section("train", raw, TrainConfig)
    assert all(text in str(error.value) for text in ("train.ppo.gama: unknown key", "train.timesteps", "train.policy"))


@pytest.mark.parametrize("preset", ["default", "myopic", "holding"])
def test_the_presets_compose(preset):
    assert train_config(preset).ppo.gamma == {"default": 0.0, "myopic": 0.0, "holding": 0.9}[preset]
