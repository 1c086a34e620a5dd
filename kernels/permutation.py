"""Shuffled indices without a sort: a keyed bijection, computed for each index alone.

A Feistel network over the pair `(i // b, i % b)` of an index i < n = a b, with modular
additions in place of xor, so `a` and `b` need be no powers of two (Black and Rogaway 2002,
"Ciphers with arbitrary finite domains"):

    left  <- left  + h(right xor k_r)   (mod a)
    right <- right + h(left  xor k'_r)  (mod b)

Both sides must have some size, or little is mixed (with a = 1 all this is a rotation).  So
`n` is cut into nearly equal sides whatever shape was asked for; where no such factors exist
(n is a prime, say) the rectangle is a little too large, and indices that come out beyond `n`
walk on until they fall below it.  Four rounds pass the tests of `tests/test_permutation.py`
from 1,000 indices on, six from 64 on; small arrays are sorted.  `jax.random.permutation` sorts
always, which at 262,144 indices on a CPU costs a hundred times as much.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fastrl.kernels.prng import mix

_SORTED = 128  # up to here a sort is cheap, and a network is too small to mix
_FEW = 1024  # up to here more rounds
_ROUNDS, _MORE_ROUNDS = 4, 6


def permutation(key: jax.Array, a: int, b: int) -> jax.Array:
    """A random order of the flat indices of an `[a, b]` array: int32 `[a * b]`. Consumes `key`.

    Depends on `a * b` only.  Raises ValueError unless 1 <= a * b < 2**31.
    """
    n = a * b
    if a < 1 or b < 1 or n > 2**31 - 1:
        raise ValueError(f"permutation of [{a}, {b}]: needs between 1 and 2**31 - 1 indices")
    if n <= _SORTED:
        return jax.random.permutation(key, n).astype(jnp.int32)
    rounds = _MORE_ROUNDS if n <= _FEW else _ROUNDS
    round_keys = jax.random.bits(key, (rounds, 2), jnp.uint32)
    a, b = _sides(n)
    shuffled = _feistel(jnp.arange(n, dtype=jnp.uint32), round_keys, a, b)
    if a * b > n:
        beyond = _walk(jnp.arange(n, a * b, dtype=jnp.uint32), round_keys, n, a, b)
        outside = shuffled >= n
        shuffled = jnp.where(outside, beyond[jnp.where(outside, shuffled - n, 0)], shuffled)
    return shuffled.astype(jnp.int32)


def _feistel(index: jax.Array, round_keys: jax.Array, a: int, b: int) -> jax.Array:
    """A bijection of 0 .. a b - 1 for every `round_keys` `[R, 2]`; uint32, elementwise."""
    a, b = np.uint32(a), np.uint32(b)  # type: ignore[assignment]
    left, right = lax.div(index, b), lax.rem(index, b)
    keys = [lax.squeeze(k, (0,)) for k in lax.split(round_keys.reshape(-1), [1] * round_keys.size)]
    for key_left, key_right in zip(keys[::2], keys[1::2], strict=True):
        key_left, key_right = (lax.broadcast(k, index.shape) for k in (key_left, key_right))
        left = lax.rem(lax.add(left, lax.rem(mix(lax.bitwise_xor(right, key_left)), a)), a)
        right = lax.rem(lax.add(right, lax.rem(mix(lax.bitwise_xor(left, key_right)), b)), b)
    return lax.add(lax.mul(left, b), right)


def _walk(index: jax.Array, round_keys: jax.Array, n: int, a: int, b: int) -> jax.Array:
    """Where each `index` `[E]` not below `n` comes out when it is mapped on until it is.

    No walk from below `n` takes more than E steps outside; cycles among the E have no entry.
    """

    def step(_: int, x: jax.Array) -> jax.Array:
        return jnp.where(x >= n, _feistel(x, round_keys, a, b), x)

    return lax.fori_loop(0, len(index), step, index)


@functools.cache
def _sides(n: int) -> tuple[int, int]:
    """Nearly equal `a` and `b` of the least product that is not below `n`."""
    root = math.isqrt(n)
    a = min(range(root, root // 2, -1), key=lambda a: -n % a)
    return a, -(-n // a)
