"""Checkpoints of a running PPO: all state that the remaining steps depend on, so that a killed run ends in the same bytes.

One safetensors file per task below `QUANTO_DATA_ROOT/checkpoints/`: tensors, and beside them what is no tensor as
JSON. The file is written by rename: it is the old or the new state, never a mixture.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from stable_baselines3 import PPO

from quanto.core.store import data_root, write_bytes
from quanto.env.kernel import Books
from quanto.env.vector import PortfolioVecEnv
from quanto.stages.train.task import TrainTask

Tensors = dict[str, torch.Tensor]


def checkpoint_path(key: str) -> Path:
    """Return where the checkpoint of a task lives."""
    return data_root() / "checkpoints" / f"{key}.safetensors"


def forget(tasks: Iterable[TrainTask]) -> None:
    """Delete the checkpoints of tasks whose results are written."""
    for task in tasks:
        checkpoint_path(task.key).unlink(missing_ok=True)


def save_checkpoint(path: Path, model: PPO, notes: dict[str, Any], extra: Tensors) -> None:
    """Write the state of a model between two rollouts.

    Parameters
    ----------
    notes, extra
        What the caller needs to continue: JSON values, and tensors (their names must not begin with a reserved word).
    """
    env = cast(PortfolioVecEnv, model.env)
    tensors: Tensors = {f"policy/{name}": value for name, value in model.policy.state_dict().items()}
    for index, state in model.policy.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors |= {f"books/{name}": torch.from_numpy(value) for name, value in env.books.books._asdict().items()}
    tensors |= {"env/t": torch.from_numpy(env.books.t), "env/age": torch.from_numpy(env.books.age)}
    tensors |= {f"extra/{name}": value for name, value in extra.items()}
    tensors["last_observation"] = torch.from_numpy(cast(np.ndarray, model._last_obs))
    tensors["last_starts"] = torch.from_numpy(cast(np.ndarray, model._last_episode_starts).astype(np.bool_))
    tensors["torch_rng"] = torch.get_rng_state()
    # SB3 shuffles its minibatches with the global NumPy generator.
    numpy_rng = np.random.get_state(legacy=False)  # noqa: NPY002  # the stream is SB3's, not ours
    state = {
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "environment_rng": env.rng.bit_generator.state,
        "numpy_rng": {**numpy_rng, "state": {"key": numpy_rng["state"]["key"].tolist(), "pos": numpy_rng["state"]["pos"]}},
        "notes": notes,
    }
    content = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    write_bytes(path, save(content, metadata={"state": json.dumps(state)}))


def load_checkpoint(path: Path, model: PPO) -> tuple[dict[str, Any], Tensors] | None:
    """Put a model back to its checkpoint and return the caller's notes and tensors; None where there is none to use.

    A file that is no checkpoint is none: training starts over.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    env = cast(PortfolioVecEnv, model.env)
    model.policy.load_state_dict(_part(tensors, "policy"))
    optimizer = model.policy.optimizer.state_dict()
    moments: dict[int, Tensors] = {}
    for name, value in _part(tensors, "optimizer").items():
        index, field = name.split("/")
        moments.setdefault(int(index), {})[field] = value
    model.policy.optimizer.load_state_dict({**optimizer, "state": moments})
    env.books.books = Books(**{name: value.numpy().copy() for name, value in _part(tensors, "books").items()})
    env.books.t, env.books.age = tensors["env/t"].numpy().copy(), tensors["env/age"].numpy().copy()
    env.rng.bit_generator.state = state["environment_rng"]
    model._last_obs = tensors["last_observation"].numpy().copy()
    model._last_episode_starts = tensors["last_starts"].numpy().copy()
    model.num_timesteps, model._n_updates = state["steps"], state["updates"]
    torch.set_rng_state(tensors["torch_rng"])
    numpy_rng = state["numpy_rng"]
    numpy_rng["state"]["key"] = np.array(numpy_rng["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_rng)  # noqa: NPY002  # the stream is SB3's, not ours
    return state["notes"], _part(tensors, "extra")


def _part(tensors: Tensors, name: str) -> Tensors:
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
