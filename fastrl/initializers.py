"""Initialisers of networks that are cheap to compile."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fastrl.types import Array, Key


def orthogonal(scale: float = 1.0) -> Callable[..., Array]:
    """Orthonormal columns or rows, whichever are fewer, times `scale` (Saxe et al. 2014).

    The kernel `[..., fan_in, units]` is taken as a matrix of `units` columns.  Equal to
    `flax.linen.initializers.orthogonal` up to rounding: Gram-Schmidt on a Gaussian matrix is its
    QR decomposition with a positive diagonal.  Written as a loop it needs no LAPACK, whose import
    costs a program's start more than all the loops together.
    """

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return scale * _orthogonal(key, shape, dtype)

    return init


@functools.partial(jax.jit, static_argnums=(1, 2))  # traced once: flax asks for shapes often
def _orthogonal(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    columns = shape[-1]
    rows = math.prod(shape[:-1])
    tall = (max(rows, columns), min(rows, columns))
    basis = _orthonormal(jax.random.normal(key, tall, dtype))
    return (basis if rows >= columns else basis.T).reshape(shape)


def _orthonormal(matrix: Array) -> Array:
    """The columns `[N, K]` made orthonormal from left to right, to about 1e-4 in float32.

    Modified Gram-Schmidt: a column is finished, and what later ones share with it is taken away.
    """
    order = jnp.arange(matrix.shape[1])[None]

    def one(column: Array, matrix: Array) -> Array:
        vector = jax.lax.dynamic_index_in_dim(matrix, column, 1, keepdims=False)
        vector = vector * jax.lax.rsqrt(jnp.sum(jnp.square(vector)))
        share = jnp.where(order > column, vector[None] @ matrix, 0.0)
        rest = matrix - vector[:, None] * share
        return jnp.where(order == column, vector[:, None], rest)

    return jax.lax.fori_loop(0, matrix.shape[1], one, matrix)
