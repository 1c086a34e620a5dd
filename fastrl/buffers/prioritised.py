"""Prioritised replay (Schaul et al. 2016, arXiv:1511.05952, the proportional variant).

A window that begins at item i is drawn with probability `p_i / sum_k p_k`; the exponent alpha is
the caller's: it passes `|error|^alpha`.  What is new has the greatest priority seen so far.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastrl.buffers import ring as rings
from fastrl.buffers.ring import Ring, Shape
from fastrl.buffers.types import Buffer, Draw
from fastrl.buffers.uniform import windows
from fastrl.kernels import sum_tree
from fastrl.kernels.sum_tree import SumTree
from fastrl.types import Array, Key, PyTree


class State(NamedTuple):
    """The items and the priorities of the windows that begin with them."""

    ring: Ring
    tree: SumTree  # leaf `row * N + env`; 0 where no complete window begins
    greatest: Array  # float32 []: of all priorities so far


def prioritised(capacity: int, num_envs: int, *, block: int = 1, window: int = 1) -> Buffer:
    """As `fastrl.buffers.uniform`, but drawn by priority.

    Raises ValueError for sizes that do not fit one another.
    """
    shape = rings.shape(capacity, num_envs, block, window)
    return Buffer(
        functools.partial(_init, shape),
        functools.partial(_add, shape, window),
        functools.partial(_sample, shape),
        functools.partial(_reweigh, shape),
        lambda state: state.ring,
        lambda state: windows(state.ring, window) * num_envs,
    )


def importance(draw: Draw, size: Array, beta: Array | float) -> Array:
    """The weights `(size * P(i))^-beta`, `[B]`, over the greatest of the batch (section 3.4)."""
    weight = jnp.power(size.astype(jnp.float32) * jnp.maximum(draw.probability, 1e-20), -beta)
    return weight / weight.max()


def _init(shape: Shape, item: PyTree) -> State:
    tree = sum_tree.init(shape.length * shape.num_envs)
    return State(rings.empty(shape, item), tree, jnp.float32(1.0))


def _add(shape: Shape, window: int, state: State, items: PyTree) -> State:
    """Windows that cross the new end begin nowhere, those that are complete now do."""
    head, block = state.ring.head, shape.block
    ring = rings.write(state.ring, items)
    offsets = jnp.arange(-(window - 1), block)  # rows, from the first new one
    rows = (head + offsets) % shape.length
    complete = offsets <= block - window
    # Before the ring is full, what stands before its first row is nothing.
    exists = (head + offsets >= 0) | (ring.size == shape.length)
    priority = jnp.where(complete & exists, state.greatest, 0.0)
    leaves = (rows[:, None] * shape.num_envs + jnp.arange(shape.num_envs)[None]).reshape(-1)
    priority = jnp.repeat(priority, shape.num_envs)
    # A row that became complete keeps what it has been given since: it has been given nothing.
    return State(ring, sum_tree.update(state.tree, leaves, priority), state.greatest)


def _sample(shape: Shape, state: State, key: Key, n: int) -> Draw:
    """`n` windows, one from each of `n` equal parts of the priorities. Consumes `key`."""
    leaf, probability = sum_tree.sample(state.tree, key, n)
    return Draw(leaf // shape.num_envs, leaf % shape.num_envs, probability)


def _reweigh(shape: Shape, state: State, draw: Draw, priorities: Array) -> State:
    """`state` with new priorities `[B]` for the windows of `draw`."""
    leaves = draw.row * shape.num_envs + draw.env
    priorities = jax.lax.stop_gradient(priorities)
    tree = sum_tree.update(state.tree, leaves, priorities)
    return State(state.ring, tree, jnp.maximum(state.greatest, priorities.max()))
