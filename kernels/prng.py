"""A counter hash as a JAX key implementation: keys that cost a few integer operations.

`jax.random` and every environment written with it work unchanged; only the keys differ.
Threefry, JAX's default, spends most of a vectorised rollout on splitting one key per
environment; here a child key or a draw is two rounds of a 32-bit mixer (the "lowbias32"
constants of C. Wellons' hash prospector) over a 64-bit key and a counter.

Not for cryptography. Statistical tests are in `tests/test_prng.py`.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as jex_random

Key = jax.Array

_GOLDEN = np.uint32(0x9E3779B9)
# One constant per use of a key, so that its children, folded keys and bits are unrelated.
_SPLIT_HI, _SPLIT_LO = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
_FOLD_HI, _FOLD_LO = np.uint32(0x27D4EB2F), np.uint32(0x165667B1)
_BITS, _BITS_HIGH = np.uint32(0x00000000), np.uint32(0xD3A2646C)


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every input bit flips every output bit half the time."""
    x = x ^ (x >> 16)
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _hash(key: jax.Array, counter: jax.Array, use: np.uint32) -> jax.Array:
    """uint32 of `counter` under `key` `[2]`. No bijection of the counter: draws may repeat."""
    inner = _mix((counter ^ key[0]) + use)
    return _mix(inner + (counter * _GOLDEN ^ key[1]))


def _counter(shape: tuple[int, ...]) -> jax.Array:
    """0, 1, 2, ... in row-major order, written per axis so that it shards like `shape`."""
    index = jnp.zeros(shape, np.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index = index + jax.lax.broadcasted_iota(np.uint32, shape, axis) * np.uint32(
            stride & 0xFFFFFFFF
        )
        stride *= shape[axis]
    return index


def _from_words(high: jax.Array, low: jax.Array) -> jax.Array:
    first = _mix(low + _GOLDEN)
    return jnp.stack([_mix(first ^ high), _mix(_mix(high ^ _SPLIT_LO) + low)])


def _seed(seed: jax.Array) -> jax.Array:
    seed = jnp.asarray(seed)
    high = jnp.zeros((), np.uint32)
    if seed.dtype.itemsize > 4:
        high = jax.lax.shift_right_logical(seed, jnp.asarray(32, seed.dtype)).astype(np.uint32)
        seed = seed & jnp.asarray(0xFFFFFFFF, seed.dtype)
    return _from_words(high, seed.astype(np.uint32))


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    counter = _counter(shape)
    return jnp.stack([_hash(key, counter, _SPLIT_HI), _hash(key, counter, _SPLIT_LO)], -1)


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    return jnp.stack([_hash(key, data, _FOLD_HI), _hash(key, data, _FOLD_LO)])


def _random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    bits = _hash(key, _counter(shape), _BITS)
    if width == 64:
        high = _hash(key, _counter(shape), _BITS_HIGH)
        return (high.astype(np.uint64) << np.uint64(32)) | bits.astype(np.uint64)
    return (bits >> np.uint32(32 - width)).astype(f"uint{width}")


HASH32 = jex_random.define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_random_bits, fold_in=_fold_in,
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
    return engine_key(jax.random.key(seed, impl="threefry2x32"))


def engine_key(key: Key) -> Key:
    """`key` as a key of the engine's implementation; one that is already stays as it is.

    Takes typed keys of any batch shape, also traced. Raises TypeError for raw uint32 keys.
    """
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        raise TypeError(f"expected a typed key such as jax.random.key(0), got {key!r}")
    if implementation() != "hash32" or jax.random.key_impl(key) == HASH32:
        return key
    data = jax.random.key_data(key)
    words = jnp.moveaxis(_from_words(data[..., 0], data[..., 1]), 0, -1)
    return jax.random.wrap_key_data(words, impl=HASH32)
