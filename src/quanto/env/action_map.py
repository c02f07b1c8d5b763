"""From a network's raw action to wanted weights: the same map in training, evaluation and replay, before constraints."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from numba import njit
from pydantic import Field

from quanto.core.config import Section
from quanto.core.errors import DataError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Raw actions are clipped to this: a Gaussian policy needs room to explore, a Box needs bounds. A power of two, so that
# the unit box of the Gymnasium shell scales exactly.
ACTION_BOUND = 8.0


class ActionMap(Section):
    """How raw actions become wanted weights.

    `softmax`: one logit per name (and one for cash where `cash` is `logit`); weights are the softmax of scale x
    logits over the eligible names. `exposure`: one number; the equal-weight mix of the eligible names times its
    sigmoid.
    """

    kind: Literal["softmax", "exposure"]
    scale: float = Field(gt=0)
    cash: Literal["none", "logit"]

    def size(self, n_symbols: int) -> int:
        """Return how many numbers an action has."""
        if self.kind == "exposure":
            return 1
        return n_symbols + (self.cash == "logit")


def wanted_weights(action_map: ActionMap, actions: FloatArray | npt.NDArray[np.float32], eligible: BoolArray) -> FloatArray:
    """Return wanted weights, shape (n_books, n_symbols): 0 where not eligible, the sum at most 1.

    Parameters
    ----------
    actions
        Shape (n_books, action_map.size(n_symbols)); clipped to +-8.
    eligible
        Shape (n_books, n_symbols), or (1, n_symbols) for all books alike.

    Raises
    ------
    DataError
        If an action is NaN or infinite: a broken network must not trade.
    """
    # The sum is the quick look: it is finite only where every action is.
    if not math.isfinite(float(actions.sum())) and not np.isfinite(actions).all():
        book, place = np.argwhere(~np.isfinite(actions))[0]
        raise DataError(f"action {place} of book {book} is {actions[book, place]}; the network or its observation is broken")
    if action_map.kind == "exposure":
        return np.asarray(_exposure(actions, eligible, action_map.scale))
    return np.asarray(_softmax(actions, eligible, action_map.scale, action_map.cash == "logit"))


@njit(cache=True)
def _softmax(actions, eligible, scale, cash):  # type: ignore[no-untyped-def]  # numba infers the types
    books, symbols = actions.shape[0], eligible.shape[1]
    out = np.zeros((books, symbols))
    for b in range(books):
        row = eligible[b if eligible.shape[0] > 1 else 0]
        highest = scale * _clip(actions[b, symbols]) if cash else -np.inf
        for i in range(symbols):
            if row[i]:
                out[b, i] = scale * _clip(actions[b, i])
                highest = max(highest, out[b, i])
        total = np.exp(scale * _clip(actions[b, symbols]) - highest) if cash else 0.0
        for i in range(symbols):
            if row[i]:
                out[b, i] = np.exp(out[b, i] - highest)
                total += out[b, i]
        for i in range(symbols):
            if row[i]:
                out[b, i] /= total
    return out


@njit(cache=True)
def _exposure(actions, eligible, scale):  # type: ignore[no-untyped-def]  # numba infers the types
    books, symbols = actions.shape[0], eligible.shape[1]
    out = np.zeros((books, symbols))
    for b in range(books):
        row = eligible[b if eligible.shape[0] > 1 else 0]
        names = 0
        for i in range(symbols):
            names += row[i]
        held = 1.0 / (1.0 + np.exp(-scale * _clip(actions[b, 0])))
        for i in range(symbols):
            if row[i]:
                out[b, i] = held / names
    return out


@njit(cache=True)
def _clip(action):  # type: ignore[no-untyped-def]  # numba infers the types
    return min(max(np.float64(action), -ACTION_BOUND), ACTION_BOUND)
