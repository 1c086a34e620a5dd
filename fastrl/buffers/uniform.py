"""Uniform replay: every window of steps that is there is drawn with the same chance."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from fastrl.buffers import ring as rings
from fastrl.buffers.ring import Ring, Shape
from fastrl.buffers.types import Buffer, Draw
from fastrl.types import Array, Key, PyTree


def uniform(capacity: int, num_envs: int, *, block: int = 1, window: int = 1) -> Buffer:
    """A buffer of at least `capacity` items, written `block` steps of `num_envs` at a time.

    Draws begin windows of `window` steps of one environment that are there to the end.
    Raises ValueError for sizes that do not fit one another.
    """
    shape = rings.shape(capacity, num_envs, block, window)
    return Buffer(
        functools.partial(rings.empty, shape),
        rings.write,
        functools.partial(_sample, shape, window),
        _unweighed,
        lambda ring: ring,
        lambda ring: windows(ring, window) * num_envs,
    )


def windows(ring: Ring, window: int) -> Array:
    """The rows at which a complete window begins: the oldest ones, int32 `[]`."""
    return jnp.maximum(ring.size - (window - 1), 0)


def _sample(shape: Shape, window: int, ring: Ring, key: Key, n: int) -> Draw:
    """`n` windows, drawn with replacement. Consumes `key`."""
    size = jnp.maximum(windows(ring, window), 1)
    total = size * shape.num_envs
    place = jax.random.randint(key, (n,), 0, total)
    row = place // shape.num_envs
    oldest = jnp.where(ring.size == shape.length, ring.head, 0)
    row = row + oldest
    row = jnp.where(row >= shape.length, row - shape.length, row)
    probability = jnp.broadcast_to(1.0 / total.astype(jnp.float32), (n,))
    return Draw(row, place % shape.num_envs, probability)


def _unweighed(ring: Ring, draw: Draw, priorities: Any) -> PyTree:
    return ring
