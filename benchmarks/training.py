"""How fast the environment steps, PPO learns and a policy replays, each against a limit or a peer of the same run.

- kernel: `env.kernel.step` with 256 books, against the same number of books in plain NumPy (prices, weights, costs, no
  corporate actions);
- PPO end to end (64 books x 16 sessions, networks 64 x 64, batch 1024, 4 epochs), against nothing but the gradient
  steps in bare torch, and against stable-baselines3's defaults on FinRL's environment: the real one where
  QUANTO_FINRL names a folder into which its wheel was unpacked (pip download finrl --no-deps; unzip), else a bare loop
  of the same shape (one book in Python, one share count per action);
- replay: `env.simulation.simulate` with a NumPy policy of one member, per session;
- memory of a training run that goes on.

All times are CPU seconds of one thread. Imports and compilation are not counted.

    PYTHONPATH=src python benchmarks/training.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One core, also for the matrix products: set before NumPy loads.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.setdefault("QUANTO_DATA_ROOT", tempfile.mkdtemp())

import gymnasium
import numpy as np
import pandas as pd
import torch
import yaml
from gymnasium import spaces
from omegaconf import OmegaConf
from stable_baselines3 import PPO
from torch.distributions import Distribution

from quanto.core.config import load_section
from quanto.core.rng import generator
from quanto.env.action_map import wanted_weights
from quanto.env.books import Market
from quanto.env.kernel import open_books, step
from quanto.env.simulation import simulate
from quanto.env.tape import Tape
from quanto.policy.network import act, stack
from quanto.stages.train.checkpoint import forget
from quanto.stages.train.config import TrainConfig
from quanto.stages.train.learner import train_ppo
from quanto.stages.train.networks import export
from quanto.stages.train.ppo import build_ppo
from quanto.stages.train.task import TrainTask

ROOT = Path(__file__).parents[1]
SESSIONS, COLUMNS, MARKET_COLUMNS = 2500, 8, 4
BOOKS = 256
GOALS = {"kernel": {3: 4e6, 30: 2e6}, "ppo": {3: 36e3, 30: 22e3}}
PPO_STEPS = 100_000
PEER_STEPS = 4096


def market(symbols: int) -> Market:
    rng = generator(1, "training benchmark")
    shape = (SESSIONS, symbols)
    close = 50 * np.exp(np.cumsum(0.0003 + 0.012 * rng.standard_normal(shape), axis=0))
    opens = np.vstack([close[:1], close[:-1] * np.exp(0.002 * rng.standard_normal((SESSIONS - 1, symbols)))])
    yes, zero = np.ones(shape, dtype=bool), np.zeros(shape)
    cost, rate = np.full(SESSIONS, 5e-4), np.full(SESSIONS, 1e-4)
    tape = Tape(opens, close, yes, yes, np.ones(shape), zero, np.full(shape, np.nan), rate, cost, zero)
    asset = np.concatenate([rng.standard_normal((*shape, COLUMNS)), np.ones((*shape, 1))], axis=-1)
    return Market(tape, asset.astype(np.float32), rng.standard_normal((SESSIONS, MARKET_COLUMNS)).astype(np.float32), np.ones(SESSIONS))


def config(timesteps: int) -> TrainConfig:
    base = OmegaConf.create(yaml.safe_load((ROOT / "conf/config.yaml").read_text()))
    base.train = OmegaConf.merge(*(OmegaConf.load(ROOT / f"conf/train/{name}.yaml") for name in ("default", "myopic")))
    base.train.pop("defaults")
    base.train.timesteps, base.train.seeds = timesteps, [0]
    # Not the reward's variance reduction, which asks the policy twice: the plain step is measured.
    base.train.reward.variance_reduction = "equal_weight"
    base.universe, base.name = OmegaConf.load(ROOT / "conf/universe/hindsight.yaml"), "benchmark"
    return load_section("train", OmegaConf.to_container(base, resolve=True)["train"], TrainConfig)


def task(symbols: int, timesteps: int) -> TrainTask:
    return TrainTask(config(timesteps), 0, market(symbols), None, ("?",) * 1000, "benchmark")


def cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def kernel_rate(symbols: int) -> tuple[float, float]:
    """Return steps per CPU second of the kernel and of plain NumPy."""
    tape = market(symbols).tape
    rng = generator(1, "weights")
    targets = np.ascontiguousarray(rng.dirichlet(np.ones(symbols + 1), BOOKS)[:, :-1])
    t = rng.integers(0, SESSIONS - 3, BOOKS)
    books = open_books(tape, t, np.full(BOOKS, 1e6), targets)
    step(tape, t, books, targets, 0.0)

    def plain() -> None:
        price, after = tape.open[t + 1], tape.open[t + 2]
        shares = targets * books.nav_close[:, None] / tape.close[t]
        moved = (shares - books.shares) * price
        cost = np.abs(moved).sum(axis=1) * tape.linear_cost[t + 1]
        cash = books.cash - moved.sum(axis=1) - cost
        close = cash + (shares * tape.close[t + 1]).sum(axis=1)
        weights = shares * tape.close[t + 1] / close[:, None]
        nav = cash * (1 + tape.cash_rate[t + 2]) + (shares * after).sum(axis=1)
        np.log(nav / books.nav_open), np.maximum(books.peak, close), weights

    repeat = 400
    ours = min(cpu(lambda: [step(tape, t, books, targets, 0.0) for _ in range(repeat)]) for _ in range(5))
    bare = min(cpu(lambda: [plain() for _ in range(repeat)]) for _ in range(5))
    return BOOKS * repeat / ours, BOOKS * repeat / bare


def ppo_rate(symbols: int) -> float:
    """Return steps per CPU second of a whole training run."""
    train_ppo(task(symbols, 2048))  # compiles and warms up
    job = task(symbols, PPO_STEPS)

    def from_the_start() -> float:
        forget([job])
        return cpu(lambda: train_ppo(job))

    return PPO_STEPS / min(from_the_start() for _ in range(3))


def bare_update_rate(symbols: int) -> float:
    """Return steps per CPU second of nothing but the gradient steps in torch: shuffle, gather, losses, clipping, AdamW."""
    model = build_ppo(task(symbols, 2048))
    policy, size, batch, epochs = model.policy, 1024, 1024, 4
    rng = torch.Generator().manual_seed(0)
    observations = torch.randn(size, model.observation_space.shape[0], generator=rng)
    actions = torch.randn(size, model.action_space.shape[0], generator=rng)
    old = policy.evaluate_actions(observations, actions)[1].detach()
    advantages, returns = torch.randn(size, generator=rng), torch.randn(size, generator=rng)

    def update() -> None:
        some = torch.randperm(size, generator=rng)[:batch]
        values, log_prob, entropy = policy.evaluate_actions(observations[some], actions[some])
        gain = (advantages[some] - advantages[some].mean()) / (advantages[some].std() + 1e-8)
        ratio = torch.exp(log_prob - old[some])
        loss = -torch.min(gain * ratio, gain * ratio.clamp(0.8, 1.2)).mean()
        loss = loss + 0.5 * torch.nn.functional.mse_loss(values.flatten(), returns[some]) - 0.0 * entropy.mean()
        policy.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        policy.optimizer.step()

    repeat = 200
    return size * repeat / epochs / min(cpu(lambda: [update() for _ in range(repeat)]) for _ in range(3))


class OneBook(gymnasium.Env[np.ndarray, np.ndarray]):
    """A bare loop of the shape of FinRL's: one book, Python, whole shares, state as a list."""

    def __init__(self, data: Market) -> None:
        self.data, n = data, data.n_symbols
        self.observation_space = spaces.Box(-np.inf, np.inf, (1 + n * (2 + COLUMNS),), np.float32)
        self.action_space = spaces.Box(-1, 1, (n,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:  # noqa: ARG002
        """Start over."""
        super().reset(seed=seed)
        self.day, self.cash, self.shares = 0, 1e6, [0] * self.data.n_symbols
        return self._state(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Sell, buy, move on a day."""
        prices = self.data.tape.close[self.day]
        before = self.cash + sum(prices[i] * n for i, n in enumerate(self.shares))
        wanted = (action * 100).astype(int)
        for i in np.argsort(wanted):
            if wanted[i] < 0:
                sold = min(-wanted[i], self.shares[i])
                self.cash, self.shares[i] = self.cash + prices[i] * sold * 0.999, self.shares[i] - sold
            else:
                bought = min(self.cash // (prices[i] * 1.001), wanted[i])
                self.cash, self.shares[i] = self.cash - prices[i] * bought * 1.001, self.shares[i] + bought
        self.day += 1
        prices = self.data.tape.close[self.day]
        after = self.cash + sum(prices[i] * n for i, n in enumerate(self.shares))
        return self._state(), (after - before) * 1e-4, self.day == SESSIONS - 1, False, {}

    def _state(self) -> np.ndarray:
        prices = self.data.tape.close[self.day].tolist()
        return np.array([self.cash, *prices, *self.shares, *self.data.asset[self.day, :, :-1].ravel().tolist()], dtype=np.float32)


def finrl(data: Market) -> gymnasium.Env[Any, Any] | None:
    """Return FinRL's StockTradingEnv on the same market, or None where QUANTO_FINRL does not lead to it."""
    folder = os.environ.get("QUANTO_FINRL", "")
    path = Path(folder) / "finrl/meta/env_stock_trading/env_stocktrading.py"
    if not folder or not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("finrl_env", path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    n, names = data.n_symbols, [f"f{column}" for column in range(COLUMNS)]
    frame = pd.DataFrame(data.asset[..., :-1].reshape(-1, COLUMNS), columns=names)
    frame.insert(0, "close", data.tape.close.ravel())
    frame.insert(0, "tic", np.tile([f"S{i}" for i in range(n)], SESSIONS))
    frame.insert(0, "date", np.repeat(pd.bdate_range("2000-01-03", periods=SESSIONS).astype(str), n))
    frame.index = np.repeat(np.arange(SESSIONS), n)
    return module.StockTradingEnv(
        df=frame, stock_dim=n, hmax=100, initial_amount=1_000_000, num_stock_shares=[0] * n, buy_cost_pct=[0.001] * n,
        sell_cost_pct=[0.001] * n, reward_scaling=1e-4, state_space=1 + n * (2 + COLUMNS), action_space=n, tech_indicator_list=names,
        print_verbosity=10**9,
    )  # fmt: skip


def peer_rate(symbols: int) -> tuple[float, str]:
    """Return steps per CPU second of stable-baselines3's defaults on a per-step Python environment, and which one it was."""
    Distribution.set_default_validate_args(True)
    data = market(symbols)
    env = finrl(data)
    name = "FinRL 0.3.7 StockTradingEnv + stable-baselines3 defaults"
    if env is None:
        env, name = OneBook(data), "bare per-step Python environment of FinRL's shape + stable-baselines3 defaults"
    model = PPO("MlpPolicy", env, seed=0, device="cpu")
    spent = cpu(lambda: model.learn(PEER_STEPS))
    Distribution.set_default_validate_args(False)
    return PEER_STEPS / spent, name


def replay_microseconds(symbols: int) -> tuple[float, float]:
    """Return CPU microseconds per session of a replay, and of torch's own forward pass alone (SB3's predict)."""
    job = task(symbols, 2048)
    model = build_ppo(job)
    networks = stack(job.config.architecture, job.sizes, [export(model.policy)])
    data = job.market
    asset, regime = data.asset.astype(np.float64), data.market.astype(np.float64)

    def decide(t: int, weights: np.ndarray, drawdown: float) -> np.ndarray:
        actions = act(networks, np.concatenate([asset[t], weights[:, None]], axis=1), np.concatenate((regime[t], (drawdown,))))
        targets = wanted_weights(job.config.action_map, actions, data.tape.eligible[t : t + 1])
        return np.add.reduce(targets, axis=0) / len(targets)

    def replay() -> None:
        simulate(data.tape, 1, SESSIONS, decide, job.config.constraints.limits())

    replay()
    observation = np.zeros(model.observation_space.shape, dtype=np.float32)
    predict = cpu(lambda: [model.predict(observation, deterministic=True) for _ in range(500)]) / 500
    return min(cpu(replay) for _ in range(5)) / (SESSIONS - 1) * 1e6, predict * 1e6


def memory_growth() -> float:
    """Return how many MiB the peak grows from 50,000 steps of training to 200,000."""
    train_ppo(task(3, 50_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train_ppo(task(3, 200_000))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def claim(name: str, value: float, unit: str, peer: str, ratio: float, goal: float, ok: bool) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "peer": peer, "ratio": round(ratio, 2), "goal": goal, "ok": bool(ok)}


def main() -> None:
    torch.set_num_threads(1)
    claims = []
    for symbols in (3, 30):
        rate, plain = kernel_rate(symbols)
        goal = GOALS["kernel"][symbols]
        claims.append(claim(f"kernel_{symbols}", rate, "steps/CPU s", "plain NumPy, no actions", rate / plain, goal, rate >= goal))
        ppo, bare, goal = ppo_rate(symbols), bare_update_rate(symbols), GOALS["ppo"][symbols]
        claims.append(claim(f"ppo_{symbols}", ppo, "steps/CPU s", "the gradient steps in bare torch", ppo / bare, goal, ppo >= goal))
        share = ppo / bare
        claims.append(claim(f"ppo_{symbols}_of_bare_torch", share, "share", "the gradient steps in bare torch", share, 0.6, share >= 0.6))
        peer, name = peer_rate(symbols)
        claims.append(claim(f"ppo_{symbols}_against_finrl", ppo / peer, "times", name, ppo / peer, 40, ppo / peer >= 40))
        print("\n".join(json.dumps(item) for item in claims[-4:]), file=sys.stderr)
    replay, predict = replay_microseconds(3)
    claims.append(claim("replay_3", replay, "us/session", "stable-baselines3 predict, no environment", predict / replay, 20, replay <= 20))
    growth = memory_growth()
    claims.append(claim("training_memory_growth", growth, "MiB", "none", 1.0, 16, growth <= 16))
    print(json.dumps(claims))


if __name__ == "__main__":
    main()
