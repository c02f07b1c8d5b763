from __future__ import annotations

import numpy as np

from quanto.core.rng import generator


def test_equal_seed_and_key_give_equal_numbers() -> None:
    assert np.array_equal(generator(1, "a", 2).random(8), generator(1, "a", 2).random(8))


def test_another_key_or_seed_gives_another_stream() -> None:
    first = generator(1, "a", 2).random(8)
    for other in (generator(2, "a", 2), generator(1, "a", 3), generator(1, "a2"), generator(1, "b", 2)):
        assert not np.array_equal(first, other.random(8))
