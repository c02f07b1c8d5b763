"""The limits on target weights: one function for the environment, for evaluation and in front of the broker."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from numba import njit
from pydantic import Field, model_validator

from quanto.core.config import Section
from quanto.core.errors import DataError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Weights are sums and quotients of doubles; a breach is more than this.
TOLERANCE = 1e-9


class ConstraintConfig(Section):
    """Limits as fractions of NAV; long only (shorting needs borrow fee, margin and a shortable list, and is refused)."""

    max_weight: float = Field(gt=0, le=1)
    max_exposure: float = Field(gt=0, le=1)
    minimum_cash: float = Field(ge=0, lt=1)
    max_turnover: float = Field(gt=0, description="one-way, per session; 1 never binds")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_exposure + self.minimum_cash > 1 + TOLERANCE:
            raise ValueError(f"max_exposure {self.max_exposure} and minimum_cash {self.minimum_cash} add to more than 1; lower one")
        return self

    def limits(self) -> Limits:
        """Return the limits as numbers for the kernel."""
        return Limits(self.max_weight, self.max_exposure, self.minimum_cash, self.max_turnover)


class Limits(NamedTuple):
    """The limits of `ConstraintConfig` as plain numbers."""

    max_weight: float
    max_exposure: float
    minimum_cash: float
    max_turnover: float


def constrain(targets: FloatArray, drifted: FloatArray, eligible: BoolArray, limits: Limits, exposure_cap: FloatArray) -> FloatArray:
    """Return the weights nearest in intent to `targets` that keep every limit.

    In this order: names that are not eligible go to 0; each name is cut to `max_weight`; the sum is scaled down to
    min(max_exposure, 1 - minimum_cash, exposure_cap); then rotation and additions are shortened to `max_turnover`.
    The turnover limit never binds a reduction: neither a smaller total, nor what the first three rules demand.
    What is cut stays in cash.

    Parameters
    ----------
    targets, drifted
        Shape (n_books, n_symbols): wanted weights, and weights held at the close of the deciding session. NaN is refused.
    eligible
        Shape (n_books, n_symbols): what may be held.
    exposure_cap
        Shape (n_books,): the cap of the session (a shield), in [0, 1].

    Raises
    ------
    DataError
        If a target is NaN, infinite or negative; names the first place.
    """
    if sound(targets, drifted, exposure_cap):
        return np.asarray(constrain_books(targets, drifted, eligible, limits, exposure_cap))
    if not (np.isfinite(targets).all() and (targets >= -TOLERANCE).all()):
        place = np.argwhere(~(np.isfinite(targets) & (targets >= -TOLERANCE)))[0]
        raise DataError(f"targets must be finite and not negative (long only); found {targets[tuple(place)]} at {tuple(place.tolist())}")
    raise DataError("drifted weights and the exposure cap must be finite; a missing one would hide a breach")


def breaches(weights: FloatArray, eligible: BoolArray, limits: Limits, exposure_cap: float = 1.0) -> list[str]:
    """Return a sentence for every limit that target weights break, computed apart from `constrain`; NaN is a breach.

    Parameters
    ----------
    weights, eligible
        Shape (n_symbols,).
    """
    found: list[str] = []
    if not np.isfinite(weights).all():
        return [f"weight {index} is not finite" for index in np.flatnonzero(~np.isfinite(weights))]
    cap = min(limits.max_exposure, 1 - limits.minimum_cash, exposure_cap)
    for index, weight in enumerate(weights):
        if weight < -TOLERANCE:
            found.append(f"weight {index} is {weight:.6f}, below 0")
        if weight > limits.max_weight + TOLERANCE:
            found.append(f"weight {index} is {weight:.6f}, above max_weight {limits.max_weight}")
        if abs(weight) > TOLERANCE and not eligible[index]:
            found.append(f"weight {index} is {weight:.6f} in a name that is not eligible")
    if weights.sum() > cap + TOLERANCE:
        found.append(f"exposure is {weights.sum():.6f}, above {cap:.6f}")
    return found


@njit(cache=True)
def sound(targets, drifted, exposure_cap):  # type: ignore[no-untyped-def]  # numba infers the types
    """Say whether everything is finite and no target negative: one pass instead of five array expressions per session."""
    for b in range(targets.shape[0]):
        if not np.isfinite(exposure_cap[b]):
            return False
        for i in range(targets.shape[1]):
            if not (np.isfinite(targets[b, i]) and targets[b, i] >= -TOLERANCE and np.isfinite(drifted[b, i])):
                return False
    return True


@njit(cache=True)
def constrain_books(targets, drifted, eligible, limits, exposure_cap):  # type: ignore[no-untyped-def]  # numba infers the types
    """Do what `constrain` says, compiled, to inputs that are `sound`."""
    books, symbols = targets.shape
    out = np.empty((books, symbols))
    start = np.empty(symbols)
    for b in range(books):
        cap = min(limits.max_exposure, 1.0 - limits.minimum_cash, exposure_cap[b])
        wanted_total = 0.0
        held_total = 0.0
        for i in range(symbols):
            out[b, i] = min(max(targets[b, i], 0.0), limits.max_weight) if eligible[b, i] else 0.0
            start[i] = min(max(drifted[b, i], 0.0), limits.max_weight) if eligible[b, i] else 0.0
            wanted_total += out[b, i]
            held_total += start[i]
        wanted_scale = cap / wanted_total if wanted_total > cap else 1.0
        held_scale = cap / held_total if held_total > cap else 1.0
        bought = 0.0
        sold = 0.0
        for i in range(symbols):
            out[b, i] *= wanted_scale
            start[i] *= held_scale
            move = out[b, i] - start[i]
            if move > 0.0:
                bought += move
            else:
                sold -= move
        if 0.5 * (bought + sold) <= limits.max_turnover:
            continue
        if sold >= bought:
            buy_scale = min(1.0, limits.max_turnover / bought) if bought > 0.0 else 1.0
            sell_scale = (sold - bought + buy_scale * bought) / sold
        else:
            buy_scale = limits.max_turnover / (0.5 * (bought + sold))
            sell_scale = buy_scale
        for i in range(symbols):
            move = out[b, i] - start[i]
            out[b, i] = start[i] + move * (buy_scale if move > 0.0 else sell_scale)
    return out
