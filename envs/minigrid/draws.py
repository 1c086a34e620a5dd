"""Random choices from random words, without loops. Batch axes come last, if there are any."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import bitset
from fastrl.envs.minigrid.cells import Number
from fastrl.types import Array


def below(word: Array, count: Any) -> Array:
    """An integer of 0 .. count - 1, int32, for counts of at most 2**12.

    No value is more likely than another by more than one part in 2**12.
    """
    unit = (word >> 8).astype(jnp.float32) * np.float32(2.0**-24)
    return jnp.floor(unit * jnp.asarray(count, jnp.float32)).astype(jnp.int32)


def between(word: Array, low: Number, high: Number) -> Any:
    """An integer of low .. high - 1."""
    return low + below(word, high - low)


def member(word: Array, sets: list[Array]) -> Array:
    """A member of the set whose bits are in `sets`, words of 32: its number, int32."""
    counts = [jax.lax.population_count(bits).astype(jnp.int32) for bits in sets]
    index, bit = bitset.nth(sets, below(word, sum(counts)))
    return bitset.BITS * index + bit


def distinct(words: Array, count: int, among: int) -> list[Array]:
    """The first `count` of a random order of 0 .. among - 1; takes as many words."""
    left = jnp.full(words.shape[1:], 2**among - 1, jnp.uint32)
    chosen = []
    for i in range(count):
        chosen.append(member(words[i], [left]))
        left = left & ~(jnp.uint32(1) << chosen[-1].astype(jnp.uint32))
    return chosen


def skip(index: Array, taken: Array) -> Array:
    """The `index`-th number that is not `taken`."""
    return index + (index >= taken).astype(jnp.int32)
