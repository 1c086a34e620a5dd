"""What is passed to `step`, checked where it comes in; within programs nothing of it is left."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fastrl import door
from fastrl.spaces import Discrete
from fastrl.types import Array

# Numbers of steps, places or packs, of which there is at least one.
_COUNTS = ("pulls", "memory_length", "chain_length", "length", "decks")


def step(env: Any, action: Any, params: Any) -> Array:
    """`action` as an array.

    Raises ValueError for a concrete action that `env` does not take, and for concrete params that
    are none: NaN, time limits of no steps, lengths below 1.

    `env` takes one integer or one Box.  Numbers beyond a Box pass: tasks clip them.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if isinstance(leaf, Tracer):
            continue
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if _is_nan(leaf):
            raise ValueError(f"params.{name}={np.asarray(leaf).tolist()!r}: needs numbers")
        if name.split(".")[-1] in _COUNTS and not np.all(np.asarray(leaf) >= 1):
            raise ValueError(f"params.{name}={np.asarray(leaf).tolist()!r}: must be at least 1")
    door.time_limits(params)
    if isinstance(action, Tracer):
        return action
    value, space, name = np.asarray(action), env.action_space(params), type(env).__name__
    if isinstance(space, Discrete):
        whole = value.shape == () and value.dtype.kind in "iu"
        if not whole or not 0 <= value < space.n:
            raise ValueError(
                f"action={value.tolist()!r}: {name} takes one integer of 0 to {space.n - 1}"
            )
    elif value.size != np.prod(space.shape, dtype=int) or not np.isfinite(value).all():
        raise ValueError(
            f"action={value.tolist()!r}: {name} takes finite numbers of shape {space.shape}"
        )
    return jnp.asarray(action)


def _is_nan(leaf: Any) -> bool:
    """Whether there is a NaN in `leaf`; keys and whole numbers have none."""
    if jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.prng_key):
        return False
    value = np.asarray(leaf)
    return value.dtype.kind == "f" and bool(np.isnan(value).any())
