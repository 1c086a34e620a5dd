"""Random numbers from 32-bit words.

`words` draws all that a step needs in one call; the functions below make coins, small integers,
uniform and normal numbers of them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from fastrl.envs import compiling
from fastrl.types import Array, Key


def words(key: Key, n: int) -> Array:
    """`n` random words, uint32 `[n]`, each computed once. Consumes `key`."""
    return compiling.fold(jax.random.bits(key, (n, 2)))


def num_words(num_bits: int) -> int:
    """How many words hold `num_bits` coins."""
    return -(-num_bits // 32)


def coins(words: Array, num_bits: int) -> Array:
    """`num_bits` fair coins, bool `[num_bits]`, from `words`, uint32 `[num_words(num_bits)]`."""
    shifts = jax.lax.iota(jnp.uint32, 32)
    counts = [min(32, num_bits - 32 * i) for i in range(words.shape[0])]
    parts = [(words[i] >> shifts[:n]) & 1 for i, n in enumerate(counts)]
    return (parts[0] if len(parts) == 1 else jnp.concatenate(parts)).astype(bool)


def below(word: Array, n: int) -> Array:
    """An int32 of 0 .. n-1, each as likely as the other to n parts in 2**32."""
    return jax.lax.rem(word, jnp.uint32(n)).astype(jnp.int32)


def uniform(word: Array) -> Array:
    """A float32 in [0, 1), a multiple of 2**-24."""
    return (word >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def normal(word: Array) -> Array:
    """A float32 of the standard normal distribution, by its inverse; within +-5.4."""
    # The 2**24 midpoints between -1 and 1, of which the outermost are the largest below 1.
    symmetric = ((word >> 8).astype(jnp.float32) - jnp.float32(2**23 - 0.5)) * jnp.float32(2**-23)
    return jnp.float32(math.sqrt(2)) * jax.lax.erf_inv(symmetric)


def sized(name: str, array: Any, shape: tuple[int, ...]) -> Array:
    """`array`, a number of the params called `name`. Raises ValueError unless it has `shape`."""
    if jnp.shape(array) != shape:
        raise ValueError(f"params.{name} has shape {jnp.shape(array)}: needs {shape}")
    return jnp.asarray(array)
