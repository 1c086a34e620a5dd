"""A ring of items `[L, N, ...]`: the last `L` steps of `N` environments, in place.

A block of `T` steps is one slice, so `L` is a multiple of `T` and no block is ever split.
"""

import math
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.types import Array, PyTree


class Ring(NamedTuple):
    """The items and where the next one goes."""

    items: PyTree  # leaves [L, N, ...]
    head: Array  # int32 []: the row that is written next, so the oldest one of a full ring
    size: Array  # int32 []: rows that are filled


class Shape(NamedTuple):
    """`length` rows of `num_envs` items, written in blocks of `block` rows."""

    length: int
    num_envs: int
    block: int


def shape(capacity: int, num_envs: int, block: int, window: int) -> Shape:
    """The ring for at least `capacity` items, of whole blocks.

    Raises ValueError unless it can hold a window of `window` rows beside one block.
    """
    door.integer("buffer_size", capacity, 1, 2**30)
    length = math.ceil(capacity / (num_envs * block)) * block
    if length < window + block - 1:
        needs = math.ceil((window + block - 1) / block) * block * num_envs
        raise ValueError(
            f"buffer_size={capacity}: {length} steps of {num_envs} environments do not hold a "
            f"window of {window} beside a block of {block}; needs at least {needs}"
        )
    return Shape(length, num_envs, block)


def empty(shape: Shape, item: PyTree) -> Ring:
    """A ring of zeros for items like `item` (arrays or `jax.ShapeDtypeStruct`s).

    Raises ValueError if the machine can't hold it, with the bytes that it takes.
    """
    leaves = jax.tree.leaves(item)
    size = sum(np.dtype(x.dtype).itemsize * math.prod(x.shape) for x in leaves)
    check_memory(size * shape.length * shape.num_envs, shape.length * shape.num_envs)
    front = shape.length, shape.num_envs
    items = jax.tree.map(lambda x: jnp.zeros((*front, *x.shape), x.dtype), item)
    return Ring(items, jnp.int32(0), jnp.int32(0))


def write(ring: Ring, items: PyTree) -> Ring:
    """`ring` with the block `items` `[T, N, ...]` over its oldest rows."""
    length = jax.tree.leaves(ring.items)[0].shape[0]
    block = jax.tree.leaves(items)[0].shape[0]
    put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(  # noqa: E731
        old, new.astype(old.dtype), ring.head, axis=0
    )
    head = ring.head + block
    return Ring(
        jax.tree.map(put, ring.items, items),
        jnp.where(head >= length, 0, head),
        jnp.minimum(ring.size + block, length),
    )


def take(leaves: PyTree, row: Array, env: Array) -> PyTree:
    """The items `[...]` at `row`, `env` `[...]` of some or all leaves `[L, N, ...]` of a ring.

    Rows go round: `row` may reach beyond the end.
    """

    def one(x: Array) -> Array:
        length, num_envs = x.shape[:2]
        index = jnp.where(row >= length, row - length, row) * num_envs + env
        return x.reshape(-1, *x.shape[2:]).at[index].get(mode="promise_in_bounds")

    return jax.tree.map(one, leaves)


def check_memory(needed: int, items: int) -> None:
    """Raises ValueError if `needed` bytes are more than the device has in all."""
    available = _available()
    if available is not None and needed > available:
        raise ValueError(
            f"buffer_size={items} takes {needed:,} bytes ({needed / items:,.0f} an item), but the "
            f"device has {available:,}: take at most {int(items * 0.8 * available / needed):,}"
        )


def _available() -> int | None:
    """Bytes of memory of the default device, None where nobody says."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return None
    return (device.memory_stats() or {}).get("bytes_limit")
