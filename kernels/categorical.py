"""Categorical draws from one uniform each: the distribution function is inverted.

`jax.random.categorical` draws a uniform per class, takes two logarithms of each, and the arg max.
Here a draw costs one uniform, an exponential per class and a running sum:

    w_i = exp(logits_i - max logits)        the least i with  w_0 + ... + w_i > u (w_0 + ... )

(Devroye 1986, "Non-Uniform Random Variate Generation", section III.2).
"""

import jax
import jax.numpy as jnp

from fastrl.kernels import _rows
from fastrl.kernels._dispatch import op

_WIDTH = 32  # up to so many classes in one running sum; more are first summed by so many


def sample(key: jax.Array, logits: jax.Array, *, impl: str = "auto") -> jax.Array:
    """Classes, int32 `[...]`, drawn from softmax(`logits`), `[..., A]`. Consumes `key`.

    A class with logit -inf is never drawn; where all are, class 0 is.  Probabilities are right to
    the resolution of the uniforms, 2**-23.  Raises TypeError or ValueError for `logits`
    that are no floats or have no class.
    """
    _check(logits)
    return draw(jax.random.uniform(key, logits.shape[:-1]), logits, impl=impl)


def _draw(uniform: jax.Array, logits: jax.Array) -> jax.Array:
    """The classes, int32 `[...]`, of `uniform` `[...]` in [0, 1) for `logits` `[..., A]`."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - jnp.where(jnp.isfinite(highest), highest, 0.0))
    sums = [weights]  # of single classes, then of 32 of them, ...
    while sums[-1].shape[-1] > _WIDTH:
        sums.append(_rows.total(_in_rows(sums[-1])))
    top = sums.pop()
    mass = uniform.astype(top.dtype) * _last_running_sum(top)
    place, mass, _ = _rows.choose(top, mass)
    while sums:
        rows = _in_rows(sums.pop())
        chosen = jnp.take_along_axis(rows, place[..., None, None], axis=-2)[..., 0, :]
        below, mass, _ = _rows.choose(chosen, mass)
        place = place * _WIDTH + below
    return place


draw = op(_draw)


def _in_rows(x: jax.Array) -> jax.Array:
    """`[..., n]` as `[..., rows, 32]`, filled up with zeros."""
    fill = -x.shape[-1] % _WIDTH
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, fill)])
    return x.reshape(*x.shape[:-1], -1, _WIDTH)


def _last_running_sum(row: jax.Array) -> jax.Array:
    total = row[..., 0]
    for i in range(1, row.shape[-1]):
        total = total + row[..., i]
    return total


def _check(logits: jax.Array) -> None:
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits are {logits.dtype}{list(logits.shape)}: needs floats")
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits of shape {list(logits.shape)}: needs a last axis of classes")
