from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spikedeblur.pipeline.train.data.cache import LRUCache


def cache_of(limit: int) -> LRUCache:
    """A cache of so many bytes."""
    return LRUCache(limit / 2**30)


def block(size: int, value: int = 0) -> tuple[np.ndarray]:
    return (np.full(size, value, np.uint8),)


def test_least_recently_used_goes_first():
    cache = cache_of(30)
    for key in "abc":
        cache.put(key, block(10, ord(key)))
    assert cache.get("a") is not None
    cache.put("d", block(10))
    assert cache.get("b") is None
    assert [cache.get(key) is not None for key in "acd"] == [True] * 3
    assert (cache.hits, cache.misses, cache.evictions) == (4, 1, 1)


def test_what_is_larger_than_the_limit_is_not_kept_and_drops_nothing():
    cache = cache_of(10)
    cache.put("a", block(8))
    cache.put("b", block(11))
    assert (len(cache), cache.bytes) == (1, 8)


def test_a_part_of_a_large_array_is_held_alone():
    large = np.zeros((100, 10), np.uint8)
    cache = cache_of(100)
    cache.put("a", (large[:2],))
    (held,) = cache.get("a")
    assert held.base is None
    assert held.nbytes == 20
    assert not held.flags.writeable


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 12)), max_size=60),
    st.integers(0, 30),
)
def test_bytes_never_pass_the_limit_and_are_counted_right(puts, limit):
    cache = cache_of(limit)
    order: list[tuple[str, int]] = []  # the plain definition
    for key, size in puts:
        cache.put(key, block(size))
        order = [(k, s) for k, s in order if k != key]
        if size <= limit:
            while sum(s for _, s in order) + size > limit:
                order.pop(0)
            order.append((key, size))
        assert cache.bytes == sum(s for _, s in order) <= limit
        assert len(cache) == len(order)
    for key, size in order:
        assert cache.get(key)[0].nbytes == size
