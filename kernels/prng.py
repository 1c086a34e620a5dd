"""A counter hash as a JAX key implementation: keys that cost a few integer operations.

`jax.random` and every environment written with it work unchanged; only the keys differ.
Threefry, JAX's default, spends most of a vectorised rollout on splitting one key per
environment; here a key is 64 bits `(k, k')`, and the words that it gives at a counter `c` are

    inner  = mix((c xor k) + use)              use: drawing, splitting, folding in
    outer  = inner + (golden c xor k')
    first  = mix(outer)                        second = mix(outer + inner + golden)

with the two-multiplication mixer "lowbias32" of C. Wellons' hash prospector.  A draw is the
first word, so draws are no bijection of the counter and repeat as often as chance has it.  A
child key is both words: for a given counter they are a bijection of the parent, so a chain of
splits forgets nothing, and for a given parent no two children are equal.

All is addressed by counter: `split(key, n)[i]` does not depend on `n`, nor anything on how
arrays are batched or sharded.  A key gives 2**32 words before they repeat.  Not for
cryptography.  Statistical tests are in `tests/test_prng.py`; PractRand (pre-0.95) finds nothing in
1 GiB each of draws of one key, of successive seeds, of children, and of chains of splits.
"""

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import random as jex_random

Key = jax.Array

_GOLDEN = np.uint32(0x9E3779B9)
# One constant per use of a key, so that its draws, children and folded keys are unrelated.
_DRAW, _SPLIT, _FOLD = np.uint32(0), np.uint32(0x85EBCA6B), np.uint32(0x27D4EB2F)


def mix(x: Any) -> Any:
    """A bijection of uint32 in which every input bit flips every output bit half the time.

    Written in `jax.lax`, which traces in half the time of operators: programs hold many of them.
    """
    x = lax.bitwise_xor(x, lax.shift_right_logical(x, np.uint32(16)))
    x = lax.mul(x, np.uint32(0x7FEB352D))
    x = lax.bitwise_xor(x, lax.shift_right_logical(x, np.uint32(15)))
    x = lax.mul(x, np.uint32(0x846CA68B))
    return lax.bitwise_xor(x, lax.shift_right_logical(x, np.uint32(16)))


def _words(
    key: jax.Array | tuple[jax.Array, jax.Array], counter: jax.Array, use: np.uint32
) -> tuple[jax.Array, jax.Array]:
    """Two uint32 words for every `counter` under `key`: `[2]`, or a pair of arrays."""
    counter = jnp.asarray(counter)
    if isinstance(key, tuple):
        counter, first, second = jnp.broadcast_arrays(counter, *key)
    else:
        pair = (lax.squeeze(word, (0,)) for word in lax.split(key, (1, 1)))
        first, second = (lax.broadcast(word, counter.shape) for word in pair)
    inner = mix(lax.add(lax.bitwise_xor(counter, first), use))
    outer = lax.add(inner, lax.bitwise_xor(lax.mul(counter, _GOLDEN), second))
    return mix(outer), mix(lax.add(lax.add(outer, inner), _GOLDEN))


def _counter(shape: tuple[int, ...]) -> jax.Array:
    """0, 1, 2, ... in row-major order, written per axis so that it shards like `shape`."""
    index = jnp.zeros(shape, np.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index = index + lax.broadcasted_iota(np.uint32, shape, axis) * np.uint32(stride)
        stride = stride * shape[axis] % 2**32
    return index


def _from_words(high: jax.Array, low: jax.Array) -> jax.Array:
    first = mix(low + _GOLDEN)
    return jnp.stack([mix(first ^ high), mix(mix(high ^ _SPLIT) + low)])


def _seed(seed: jax.Array) -> jax.Array:
    seed = jnp.asarray(seed)
    high = jnp.zeros((), np.uint32)
    if seed.dtype.itemsize > 4:
        high = lax.shift_right_logical(seed, jnp.asarray(32, seed.dtype)).astype(np.uint32)
        seed = seed & jnp.asarray(0xFFFFFFFF, seed.dtype)
    return _from_words(high, seed.astype(np.uint32))


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_words(key, _counter(shape), _SPLIT), -1)


def _fold_in(key: jax.Array, data: Any) -> jax.Array:  # data: uint32
    return jnp.stack(_words(key, data, _FOLD))


def _random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    bits, more = _words(key, _counter(shape), _DRAW)
    if width == 64:
        return (more.astype(np.uint64) << np.uint64(32)) | bits.astype(np.uint64)
    return (bits >> np.uint32(32 - width)).astype(f"uint{width}")


# Compiled for calls outside of a program, where each operation would be one of its own; within
# one they leave no trace of it.
_program = functools.partial(jax.jit, inline=True)
HASH32 = jex_random.define_prng_impl(
    key_shape=(2,), seed=_program(_seed), split=_program(_split, static_argnums=1),
    random_bits=_program(_random_bits, static_argnums=(1, 2)), fold_in=_program(_fold_in),
    name="hash32", tag="h32",
)  # fmt: skip


def implementation() -> str:
    """Which keys the engine hands out: "hash32", or what FASTRL_PRNG says ("threefry2x32")."""
    name = os.environ.get("FASTRL_PRNG", "hash32")
    if name not in ("hash32", "threefry2x32"):
        raise ValueError(f"FASTRL_PRNG={name!r}: choose hash32 (the default) or threefry2x32")
    return name


def key(seed: int) -> Key:
    """The engine's key for `seed`: the same as `engine_key(jax.random.key(seed))`.

    Raises ValueError unless `seed` is an integer of 0 to 2**32 - 1, or an array of integers.
    """
    if not hasattr(seed, "dtype") and (type(seed) is not int or not 0 <= seed < 2**32):
        raise ValueError(f"seed={seed!r}: needs an integer of 0 to 2**32 - 1")
    if type(seed) is int and implementation() == "hash32":  # without a program of its own
        words = jax.device_put(np.array(_seed_words(seed), np.uint32))
        return jax.random.wrap_key_data(words, impl=HASH32)
    return engine_key(jax.random.key(seed, impl="threefry2x32"))


def _seed_words(seed: int) -> tuple[int, int]:
    """`_from_words(0, seed)` in Python's integers."""

    def mixed(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D & 0xFFFFFFFF
        x ^= x >> 15
        x = x * 0x846CA68B & 0xFFFFFFFF
        return x ^ x >> 16

    return mixed(mixed(seed + int(_GOLDEN) & 0xFFFFFFFF)), mixed(
        mixed(int(_SPLIT)) + seed & 0xFFFFFFFF
    )


def engine_key(key: Key) -> Key:
    """`key` as a key of the engine's implementation; one that is already stays as it is.

    Takes typed keys of any batch shape, also traced. Raises TypeError for raw uint32 keys.
    """
    if not jnp.issubdtype(getattr(key, "dtype", np.dtype(object)), jax.dtypes.prng_key):
        raise TypeError(f"expected a typed key such as jax.random.key(0), got {key!r}")
    if implementation() != "hash32" or jax.random.key_impl(key) == HASH32:
        return key
    data = jax.random.key_data(key)
    words = jnp.moveaxis(_from_words(data[..., 0], data[..., 1]), 0, -1)
    return jax.random.wrap_key_data(words, impl=HASH32)
