"""Random streams that are named, not shared: the same seed and key give the same numbers anywhere."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """Return an independent generator for a seed and a key such as ("bootstrap", 3).

    The stream depends on nothing but its arguments, so workers may draw in any order.
    """
    words = np.frombuffer(hashlib.sha256("\x1f".join(map(str, key)).encode()).digest(), dtype=np.uint32)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words.tolist()])))
