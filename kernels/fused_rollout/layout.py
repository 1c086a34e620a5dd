"""How a pytree of arrays, one entry per environment, lies in the kernel's memory.

Every leaf `[N, *S]` becomes one array `[K, N]` with K the product of S: a row per entry, so that
neighbouring threads read neighbouring numbers.  Inside the kernel a leaf is `Cells` of shape S.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels import prng
from fastrl.kernels.scalarize_cells import Cells, KeyCell

Struct = jax.ShapeDtypeStruct


class Layout:
    """The places of the leaves of `tree`, a pytree of `ShapeDtypeStruct`s of one environment."""

    def __init__(self, tree: Any) -> None:
        leaves, self.treedef = jax.tree.flatten(tree)
        self.leaves: list[Struct] = leaves
        self.stored = [_stored(leaf) for leaf in leaves]  # shape [K] and type in memory

    def pack(self, tree: Any) -> list[jax.Array]:
        """Leaves `[..., N, *S]` as arrays `[..., K, N]`."""
        return [jnp.moveaxis(x, -1, -2) for x in self.flat(tree)]

    def flat(self, tree: Any) -> list[jax.Array]:
        """Leaves `[..., *S]` as arrays `[..., K]`."""
        arrays = self.treedef.flatten_up_to(tree)
        return [_flat(x, s, k) for x, s, k in zip(arrays, self.leaves, self.stored, strict=True)]

    def unpack(self, arrays: Sequence[jax.Array]) -> Any:
        """The inverse of `pack`."""
        moved = [jnp.moveaxis(x, -2, -1) for x in arrays]
        leaves = [_restore(x, s) for x, s in zip(moved, self.leaves, strict=True)]
        return self.treedef.unflatten(leaves)

    def cells(self, read: Callable[[int, int], Any]) -> Any:
        """The pytree of cells; `read(leaf, row)` gives a row from memory."""
        leaves = []
        for i, leaf in enumerate(self.leaves):
            values = [read(i, row) for row in range(self.stored[i].shape[0])]
            leaves.append(_to_cells(values, leaf))
        return self.treedef.unflatten(leaves)

    def rows(self, tree: Any, shape: tuple[int, ...]) -> list[list[jax.Array]]:
        """For every leaf its rows as they are stored, each of `shape`: what `cells` has read."""
        return [
            [jnp.broadcast_to(jnp.asarray(v).astype(k.dtype), shape) for v in _from_cells(x)]
            for x, k in zip(self.treedef.flatten_up_to(tree), self.stored, strict=True)
        ]


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored(leaf: Struct) -> Struct:
    """Keys as two words, truth as integers."""
    size = math.prod(leaf.shape)
    if is_key(leaf):
        return Struct((2 * size,), np.uint32)
    return Struct((size,), np.dtype(np.int32) if leaf.dtype == bool else leaf.dtype)


def _flat(x: Any, leaf: Struct, stored: Struct) -> jax.Array:
    shape = leaf.shape
    if is_key(leaf):
        x, shape = jax.random.key_data(x), (*leaf.shape, 2)
    x = jnp.asarray(x, stored.dtype)
    return x.reshape(*x.shape[: x.ndim - len(shape)], -1)


def _restore(x: jax.Array, leaf: Struct) -> jax.Array:
    batch = x.shape[:-1]
    if is_key(leaf):
        return jax.random.wrap_key_data(x.reshape(*batch, *leaf.shape, 2), impl=prng.HASH32)
    return x.reshape(*batch, *leaf.shape).astype(leaf.dtype)


def _to_cells(values: list[Any], leaf: Struct) -> Cells:
    if is_key(leaf):
        values = [KeyCell(*values[k : k + 2]) for k in range(0, len(values), 2)]
    elif leaf.dtype == bool:
        values = [value != 0 for value in values]
    cells = np.empty(len(values), object)
    for k, value in enumerate(values):
        cells[k] = value
    return cells.reshape(leaf.shape)


def _from_cells(cells: Cells) -> list[Any]:
    values = [cells[i] for i in np.ndindex(cells.shape)]
    return [word for v in values for word in (v if isinstance(v, KeyCell) else (v,))]
