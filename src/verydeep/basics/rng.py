"""Chance as a function: every random choice follows from the numbers that name it."""

import numpy as np


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return a generator that depends on `seed` and `key`, such as epoch and sample index, alone; none is negative.

    Whoever asks for `generator(seed, epoch, index)` gets the same draws, in whatever process and in whatever order;
    different keys give independent streams.

    Examples
    --------
    >>> bool(generator(1, 2, 3).integers(1000) == generator(1, 2, 3).integers(1000))
    True
    >>> bool(generator(1, 2, 3).integers(1000) == generator(1, 3, 2).integers(1000))
    False
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
