"""A shuffled order that is computed place by place, so that it takes no memory and no time.

The method is swap-or-not (V. T. Hoang, B. Morris, P. Rogaway: An Enciphering Scheme Based on a
Card Shuffle, CRYPTO 2012): each round pairs all places at random and swaps each pair or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROUNDS_A_BIT = 6  # of the size; the paper's advice


def shuffled(places: np.ndarray, size: int, key: Sequence[int]) -> np.ndarray:
    """Return the numbers at some places of 0 ... `size` - 1 in the shuffled order of a key.

    Args:
        places: (n,) integers, each in [0, size).
        size: number of places.
        key: integers that the order follows from.

    Returns:
        (n,) int64. All places together give each number once.
    """
    rounds = _ROUNDS_A_BIT * size.bit_length()
    keys = np.random.SeedSequence(key).generate_state(2 * rounds, np.uint64)
    partners = (keys[:rounds] % np.uint64(size)).astype(np.int64)
    salts = keys[rounds:]
    numbers = np.array(places, np.int64)
    for partner_sum, salt in zip(partners, salts, strict=True):
        partner = partner_sum - numbers
        partner += size * (partner < 0)
        # Both of a pair must agree on whether they swap: by the larger of them.
        swap = _coin(np.maximum(numbers, partner).astype(np.uint64) ^ salt)
        numbers = np.where(swap, partner, numbers)
    return numbers


def _coin(values: np.ndarray) -> np.ndarray:
    """Return a bit for each, by the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values >> np.uint64(63) != 0
