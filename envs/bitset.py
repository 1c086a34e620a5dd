"""Sets of cells as bits in a few uint32 words, for grids that are drawn, searched and looked up.

A cell is a pair (word, bit).  On CPU a lookup in an array costs a gather per environment; a
lookup in bits is a handful of instructions on whole vectors of environments, a set of a hundred
cells is four words, and a random free cell needs no table of probabilities.

`words` are uint32 scalars, one array for each: XLA vectorises those over environments, which it
does not do with a short axis.  Indices are int32 scalars.  Batches come by `vmap`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.types import Array

Words = Sequence[Any]

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


def unpack(words: Any, size: int) -> Array:
    """The `size` lowest bits of every word: bool `[..., W, size]`."""
    shifts = np.arange(size, dtype=np.uint32).reshape((1,) * words.ndim + (size,))
    return ((words[..., None] >> shifts) & np.uint32(1)) == 1


def split(words: Any) -> Words:
    """The words of an array `[W]`."""
    words = jnp.asarray(words)
    return tuple(words[i] for i in range(words.shape[0]))


def pick(words: Words, index: Array) -> Array:
    """`words[index]`, and 0 where there is no such word."""
    word = jnp.uint32(0)
    for i, w in enumerate(words):
        word = jnp.where(index == i, w, word)
    return word


def has(words: Words, index: Array, bit: Array) -> Array:
    """Whether (index, bit) is a member."""
    return ((pick(words, index) >> jnp.asarray(bit).astype(jnp.uint32)) & np.uint32(1)) == 1


def single(count: int, index: Array, bit: Array) -> Words:
    """The set of one cell, in `count` words."""
    one = jnp.uint32(1) << jnp.asarray(bit).astype(jnp.uint32)
    return tuple(jnp.where(index == i, one, jnp.uint32(0)) for i in range(count))


def below(count: int, limit: Array) -> Words:
    """The cells 0 .. limit-1, in `count` words of 32."""
    return tuple(_lowest(jnp.clip(limit - BITS * i, 0, BITS)) for i in range(count))


def union(*sets: Words) -> Words:
    """The cells that are in one of the sets."""
    return tuple(functools.reduce(jnp.bitwise_or, words) for words in zip(*sets, strict=True))


def minus(words: Words, without: Words) -> Words:
    """The cells of `words` that are not in `without`."""
    return tuple(w & ~o for w, o in zip(words, without, strict=True))


def size(words: Words) -> Array:
    """How many members there are, int32."""
    return functools.reduce(jnp.add, [_count(w) for w in words])


def nth(words: Words, n: Array) -> tuple[Array, Array]:
    """The `n`-th member, counted from 0: (word, bit).

    Some cell where there are not so many, and (0, 0) in an empty set.
    """
    index, rest, word, before = jnp.int32(0), n, words[0], jnp.int32(0)
    for i, w in enumerate(words):
        here = n >= before  # in this word or a later one
        index = jnp.where(here, jnp.int32(i), index)
        rest = jnp.where(here, n - before, rest)
        word = jnp.where(here, w, word)
        before = before + _count(w)
    bit = jnp.int32(0)
    for half in (16, 8, 4, 2, 1):
        low = _count(word & np.uint32((1 << half) - 1))
        right = rest >= low
        rest = jnp.where(right, rest - low, rest)
        word = jnp.where(right, word >> half, word)
        bit = jnp.where(right, bit + half, bit)
    there = before > 0
    return jnp.where(there, index, 0), jnp.where(there, bit, 0)


def member(uniform: Array, words: Words) -> tuple[Array, Array]:
    """A random member, from a `uniform` number in [0, 1): (word, bit)."""
    return nth(words, scaled(uniform, size(words)))


def scaled(uniform: Array, count: Array) -> Array:
    """An integer of 0 .. count-1 from a `uniform` float32 in [0, 1), for counts below 2**20."""
    return jnp.floor(uniform * count.astype(jnp.float32)).astype(jnp.int32)


def _count(word: Array) -> Array:
    return jax.lax.population_count(word).astype(jnp.int32)


def _lowest(count: Array) -> Array:
    """A word of `count` ones, 0 to 32."""
    partial = (jnp.uint32(1) << jnp.minimum(count, BITS - 1).astype(jnp.uint32)) - np.uint32(1)
    return jnp.where(count == BITS, np.uint32(0xFFFFFFFF), partial)
