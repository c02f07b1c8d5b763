"""The yardstick: growth differentiated through the known prices, with no reinforcement learning at all.

A window of sessions is unrolled: the network's weights earn the known relatives of the next open, pay for what they
trade against what the last ones drifted to, and the mean reward of all windows is climbed by its exact gradient. The
limits enter but for the one on turnover, which has no useful gradient; the environment keeps it when the policy acts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from quanto.core.errors import ConfigError
from quanto.core.rng import generator
from quanto.env.books import START_NAV, random_weights
from quanto.env.reference import open_to_open
from quanto.env.rewards import REWARDS
from quanto.stages.train.config import DirectConfig
from quanto.stages.train.networks import Actor, linear_parameters
from quanto.stages.train.task import Parameters, Row, TrainResult, TrainTask, refuse_broken

Tensor = torch.Tensor

# Rows of the curves.
CURVE_ROWS = 60


@dataclass(frozen=True)
class Tensors:
    """The market as float32 tensors; shapes as in `env.books.Market` and `env.tape.Tape`."""

    asset: Tensor
    market: Tensor
    eligible: Tensor
    cap: Tensor
    relatives: Tensor
    cash: Tensor
    linear: Tensor
    impact: Tensor


@dataclass(frozen=True)
class Window:
    """The state of the windows of one gradient step: weights (n_windows, n_symbols), log value and its peak (n_windows,)."""

    weights: Tensor
    value: Tensor
    peak: Tensor


def train_direct(task: TrainTask) -> TrainResult:
    """Return the trained member; the same bytes on any worker.

    Raises
    ------
    TrainingError
        If a parameter is not finite at the end.
    """
    torch.set_num_threads(1)
    settings = _section(task)
    torch.manual_seed(task.torch_seed)
    rng = generator(task.config.seed, "direct", task.member)
    data = _tensors(task)
    actor = Actor(task.config.architecture, task.sizes)
    decay, epsilon = task.config.optimizer.weight_decay, task.config.optimizer.epsilon
    optimizer = torch.optim.AdamW(actor.parameters(), weight_decay=decay, eps=epsilon, fused=True)
    per_update = settings.windows * settings.unroll_sessions
    updates = -(-task.config.timesteps // per_update)
    rows: list[Row] = []
    for update in tqdm(range(updates), desc=f"seed {task.member}", unit="update", disable=not sys.stderr.isatty()):
        for group in optimizer.param_groups:
            group["lr"] = task.config.optimizer.learning_rate.at(1 - update / updates)
        factor = task.cost_factor(update * per_update, updates * per_update)
        growth, reward = unroll(task, actor, data, rng, factor)
        optimizer.zero_grad()
        (-reward).backward()  # type: ignore[no-untyped-call]  # torch
        torch.nn.utils.clip_grad_norm_(actor.parameters(), settings.max_grad_norm)
        optimizer.step()
        if update % max(1, updates // CURVE_ROWS) == 0 or update == updates - 1:
            row: Row = {"seed": task.member, "step": (update + 1) * per_update}
            rows.append(row | {"reward": float(reward.detach()), "growth": float(growth.detach())})
    parameters = _export(actor)
    steps = updates * per_update
    refuse_broken(parameters, steps, "lower optimizer.learning_rate")
    return TrainResult(
        task.member, parameters, tuple(rows), {"member": task.member, "steps": steps, "chosen_step": steps, "validation_growth": None}
    )  # fmt: skip


def unroll(task: TrainTask, actor: Actor, data: Tensors, rng: np.random.Generator, cost_factor: float) -> tuple[Tensor, Tensor]:
    """Return the mean growth and the mean reward per session of fresh windows, as differentiable scalars.

    Raises
    ------
    ConfigError
        If the train window is shorter than a window.
    """
    settings = _section(task)
    last = len(data.cash) - 2 - settings.unroll_sessions
    if last < 0:
        raise ConfigError(f"direct.unroll_sessions {settings.unroll_sessions} needs a longer train window than {len(data.cash)} sessions")
    t = rng.integers(0, last + 1, size=settings.windows)
    start = np.zeros((settings.windows, task.sizes.symbols))
    if task.config.episodes.random_weights:
        start = random_weights(rng, task.market.tape.eligible[t])
    zero = torch.zeros(settings.windows)
    state = Window(torch.from_numpy(start).float(), zero, zero)
    growths, rewards = [], []
    for _ in range(settings.unroll_sessions):
        state, growth, reward = _session(task, actor, data, torch.from_numpy(t), state, cost_factor)
        growths.append(growth)
        rewards.append(reward)
        t = t + 1
    return torch.stack(growths).mean(), torch.stack(rewards).mean()


def _session(
    task: TrainTask, actor: Actor, data: Tensors, t: Tensor, state: Window, cost_factor: float
) -> tuple[Window, Tensor, Tensor]:  # fmt: skip
    drawdown = torch.exp(state.value - state.peak) - 1
    own = torch.cat([data.asset[t], state.weights[:, :, None]], dim=2).flatten(1)
    held = _weights(task, actor(torch.cat([own, data.market[t], drawdown[:, None]], dim=1)), data.eligible[t], data.cap[t])
    moved = (held - state.weights).abs()
    cost = cost_factor * (data.linear[t + 1] * moved.sum(dim=1) + (data.impact[t + 1] * moved**1.5).sum(dim=1) * START_NAV**0.5)
    worth = held * data.relatives[t]
    total = worth.sum(dim=1) + (1 - held.sum(dim=1)) * (1 + data.cash[t + 2])
    growth = torch.log(total) + torch.log1p(-cost)
    value = state.value + growth
    peak = torch.maximum(state.peak, value)
    fall = (drawdown - (torch.exp(value - peak) - 1)).clamp(min=0)
    penalties = task.config.reward.penalties()
    penalised = REWARDS[task.config.reward.version].defaults is not None
    shaping = penalties.turnover * moved.sum(dim=1) / 2 + penalties.drawdown * fall if penalised else torch.zeros_like(growth)
    reward = task.config.reward.scale * (growth - shaping)
    return Window(worth / total[:, None], value, peak), growth, reward


def _weights(task: TrainTask, actions: Tensor, eligible: Tensor, cap: Tensor) -> Tensor:
    """Return the limits' answer to raw actions, as `env.action_map` and `portfolio.constraints` give it without a turnover cap."""
    settings, limits = task.config.action_map, task.config.constraints
    if settings.kind == "exposure":
        held = torch.sigmoid(settings.scale * actions) * eligible / eligible.sum(dim=1, keepdim=True).clamp(min=1)
    else:
        free = torch.ones(len(actions), 1, dtype=torch.bool)
        open_to = torch.cat([eligible, free], dim=1) if settings.cash == "logit" else eligible
        logits = (settings.scale * actions).masked_fill(~open_to, -torch.inf)
        # Where nothing may be held there is no softmax: the row is all cash.
        logits = torch.where(open_to.any(dim=1, keepdim=True), logits, torch.zeros_like(logits))
        held = torch.softmax(logits, dim=1)[:, : eligible.shape[1]] * eligible
    held = held.clamp(max=limits.max_weight)
    ceiling = torch.clamp(cap, max=min(limits.max_exposure, 1 - limits.minimum_cash))
    return held * (ceiling / held.sum(dim=1).clamp(min=1e-12)).clamp(max=1.0)[:, None]


def _tensors(task: TrainTask) -> Tensors:
    tape = task.market.tape
    relatives = np.nan_to_num(open_to_open(tape), nan=1.0)
    floats = (task.market.exposure_cap, relatives, tape.cash_rate, tape.linear_cost, tape.impact)
    cap, worth, cash, linear, impact = (torch.from_numpy(np.ascontiguousarray(array)).float() for array in floats)
    eligible = torch.from_numpy(np.ascontiguousarray(tape.eligible))
    asset, market = (torch.from_numpy(np.ascontiguousarray(array)) for array in (task.market.asset, task.market.market))
    return Tensors(asset, market, eligible, cap, worth, cash, linear, impact)


def _export(actor: Actor) -> Parameters:
    out = linear_parameters("actor", actor.actor)
    return out if actor.cash is None else out | linear_parameters("cash", actor.cash)


def _section(task: TrainTask) -> DirectConfig:
    if task.config.direct is None:
        raise ConfigError(f"a task of {task.config.algorithm} was given to direct")
    return task.config.direct
