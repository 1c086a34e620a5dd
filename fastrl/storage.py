"""How observations are kept until they are learned from: as they are, or smaller."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import spaces
from fastrl.spaces import Space
from fastrl.types import Array, Observation, PyTree

Floats = Literal["float32", "bfloat16"]


class Storage(NamedTuple):
    """A pair of functions; leading axes of any number are the batch."""

    pack: Callable[[Observation], PyTree]
    unpack: Callable[[PyTree], Observation]
    exact: bool  # whether `unpack(pack(x))` is x
    plain: bool  # whether `pack(x)` is x


def storage(space: Space, floats: Floats = "float32") -> Storage:
    """Storage for observations of `space`.

    Flags (bool arrays: board planes, action masks) are packed eight to a byte.  Bytes (uint8
    pictures) stay bytes.  With `floats="bfloat16"` float32 leaves are kept in half the memory,
    with 8 bits of precision: observations that need more, such as positions far from the
    origin, are better normalised first.
    """
    leaves = jax.tree.leaves(space, is_leaf=spaces.is_leaf)
    flags = [leaf.dtype == jnp.bool_ and len(leaf.shape) > 0 for leaf in leaves]
    halves = [floats == "bfloat16" and leaf.dtype == jnp.float32 for leaf in leaves]

    def pack(observation: Observation) -> PyTree:
        packed, treedef = jax.tree.flatten(observation)
        for i, x in enumerate(packed):
            if flags[i] and x.dtype == jnp.bool_:
                packed[i] = jnp.packbits(x, axis=-1)
            elif halves[i] and x.dtype == jnp.float32:
                packed[i] = x.astype(jnp.bfloat16)
        return treedef.unflatten(packed)

    def unpack(stored: PyTree) -> Observation:
        unpacked, treedef = jax.tree.flatten(stored)
        for i, x in enumerate(unpacked):
            if flags[i] and x.dtype == jnp.uint8:
                unpacked[i] = _bits(x, leaves[i].shape[-1])
            elif halves[i] and x.dtype == jnp.bfloat16:
                unpacked[i] = x.astype(jnp.float32)
        return treedef.unflatten(unpacked)

    return Storage(pack, unpack, not any(halves), not any(flags) and not any(halves))


def _bits(x: Array, count: int) -> Array:
    return jnp.unpackbits(x, axis=-1, count=count).astype(bool)
