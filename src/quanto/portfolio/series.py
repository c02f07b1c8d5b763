"""The checks that every series passes before a number is made of it, and the one annualisation factor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quanto.core.errors import DataError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SESSIONS_PER_YEAR = 252

# Below this fraction of a series' own size a spread is the rounding of equal values, not a variation.
ROUNDING = 1e-12


def finite(name: str, values: npt.ArrayLike, ndim: int = 1) -> FloatArray:
    """Return `values` as a float64 array of `ndim` dimensions; an empty one is allowed.

    Raises
    ------
    DataError
        If a value is NaN or infinite (names how many and the first place: a missing session would count as one),
        or the number of dimensions differs.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim:
        raise DataError(f"{name} must have {ndim} dimension(s); found shape {array.shape}")
    bad = ~np.isfinite(array)
    if bad.any():
        place = tuple(np.argwhere(bad)[0].tolist())
        where = place[0] if ndim == 1 else place
        raise DataError(f"{name} must be finite; found {int(bad.sum())} NaN or infinite value(s), the first {array[place]} at {where}")
    return array


def simple_returns(name: str, values: npt.ArrayLike) -> FloatArray:
    """Return simple period returns, each -1 (ruin) or more. Shape (n_sessions,).

    Raises
    ------
    DataError
        If a value is NaN, infinite or below -1; names the first place.
    """
    array = finite(name, values)
    if (array < -1).any():
        place = int(np.flatnonzero(array < -1)[0])
        raise DataError(f"{name} must be simple returns of -1 or more; found {array[place]} at {place}: a book cannot lose more than all")
    return array


def rates(name: str, values: npt.ArrayLike, sessions: int) -> FloatArray:
    """Return one rate per session; a single number stands for a constant series. Shape (sessions,).

    Raises
    ------
    DataError
        If a value is not finite or the length differs.
    """
    array = np.asarray(values, dtype=np.float64)
    return same_length(name, np.full(sessions, array) if array.ndim == 0 else array, sessions)


def same_length(name: str, values: npt.ArrayLike, sessions: int) -> FloatArray:
    """Return a finite series that must have one value per session.

    Raises
    ------
    DataError
        If a value is not finite or the length differs.
    """
    array = finite(name, values)
    if len(array) != sessions:
        raise DataError(f"{name} must cover the same {sessions} sessions as the returns; found {len(array)}")
    return array


def is_constant(values: FloatArray) -> bool:
    """Return whether all values of a finite series are equal up to rounding; true for an empty one."""
    if len(values) == 0:
        return True
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())
