"""Sets of cells as bits in a few uint32 words, for grids that are drawn, searched and looked up.

A cell is a pair (word, bit).  On CPU a lookup in an array costs a gather per environment; a
lookup in bits is a handful of instructions on whole vectors of environments, a set of a hundred
cells is four words, and a random free cell needs no table of probabilities.

`words` is uint32 `[W]`; indices are int32 scalars.  Batches come by `vmap`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.types import Array

BITS = 32


def num_words(size: int) -> int:
    """Words that hold `size` cells, 32 in each."""
    return -(-size // BITS)


def pack(members: np.ndarray) -> np.ndarray:
    """uint32 `[..., W]` from bool `[..., n]`: cell `i` is bit `i % 32` of word `i // 32`."""
    members = np.asarray(members, bool)
    padding = num_words(members.shape[-1]) * BITS - members.shape[-1]
    padded = np.pad(members, [(0, 0)] * (members.ndim - 1) + [(0, padding)])
    bits = padded.reshape(*members.shape[:-1], -1, BITS).astype(np.uint32)
    return (bits << np.arange(BITS, dtype=np.uint32)).sum(-1, dtype=np.uint32)


def unpack(words: Array, size: int) -> Array:
    """The `size` lowest bits of every word: bool `[..., W, size]`."""
    shifts = np.arange(size, dtype=np.uint32).reshape((1,) * words.ndim + (size,))
    return ((words[..., None] >> shifts) & np.uint32(1)) == 1


def pick(words: Array, index: Array) -> Array:
    """`words[index]`, and 0 where there is no such word."""
    word = jnp.uint32(0)
    for i in range(words.shape[0]):
        word = word | jnp.where(index == i, words[i], jnp.uint32(0))
    return word


def has(words: Array, index: Array, bit: Array) -> Array:
    """Whether (index, bit) is a member."""
    return ((pick(words, index) >> jnp.asarray(bit).astype(jnp.uint32)) & np.uint32(1)) == 1


def single(count: int, index: Array, bit: Array) -> Array:
    """The set of one cell, in `count` words."""
    one = jnp.uint32(1) << jnp.asarray(bit).astype(jnp.uint32)
    return jnp.where(np.arange(count, dtype=np.int32) == index, one, jnp.uint32(0))


def below(count: int, limit: Array) -> Array:
    """The cells 0 .. limit-1, in `count` words of 32."""
    bits = jnp.clip(limit - BITS * np.arange(count, dtype=np.int32), 0, BITS)
    partial = (jnp.uint32(1) << jnp.minimum(bits, BITS - 1).astype(jnp.uint32)) - np.uint32(1)
    return jnp.where(bits == BITS, jnp.uint32(0xFFFFFFFF), partial)


def size(words: Array) -> Array:
    """How many members there are, int32."""
    return jax.lax.population_count(words).astype(jnp.int32).sum(-1)


def nth(words: Array, n: Array) -> tuple[Array, Array]:
    """The `n`-th member, counted from 0: (word, bit). Some cell where there are not so many, and (0, 0) in an empty set."""
    index, rest, word, before = jnp.int32(0), n, words[0], jnp.int32(0)
    for i in range(words.shape[0]):
        after = before + _count(words[i])
        here = (n >= before) & (n < after)
        index = jnp.where(here, jnp.int32(i), index)
        rest = jnp.where(here, n - before, rest)
        word = jnp.where(here, words[i], word)
        before = after
    bit = jnp.int32(0)
    for half in (16, 8, 4, 2, 1):
        low = _count(word & np.uint32((1 << half) - 1))
        right = rest >= low
        rest = jnp.where(right, rest - low, rest)
        word = jnp.where(right, word >> half, word)
        bit = jnp.where(right, bit + half, bit)
    return index, jnp.where(before > 0, bit, 0)


def member(uniform: Array, words: Array) -> tuple[Array, Array]:
    """A random member, from a `uniform` number in [0, 1): (word, bit)."""
    return nth(words, scaled(uniform, size(words)))


def scaled(uniform: Array, count: Array) -> Array:
    """An integer of 0 .. count-1 from a `uniform` float32 in [0, 1), for counts below 2**20."""
    return jnp.floor(uniform * count.astype(jnp.float32)).astype(jnp.int32)


def _count(word: Array) -> Array:
    return jax.lax.population_count(word).astype(jnp.int32)
