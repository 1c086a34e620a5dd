"""What is passed to `step`, checked where it comes in; within programs nothing of it is left."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fastrl import door
from fastrl.spaces import Discrete


def step(env: Any, action: Any, params: Any) -> None:
    """Raises ValueError for a concrete `action` that `env` does not take, or params that are NaN.

    `env` takes one integer or one Box.  Numbers beyond a Box pass: tasks clip them.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if not isinstance(leaf, Tracer) and _is_nan(leaf):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"params.{name}={np.asarray(leaf).tolist()!r}: needs numbers")
    door.time_limits(params)
    if isinstance(action, Tracer):
        return
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


def _is_nan(leaf: Any) -> bool:
    """Whether there is a NaN in `leaf`; keys and whole numbers have none."""
    if jnp.issubdtype(getattr(leaf, "dtype", np.int32), jax.dtypes.prng_key):
        return False
    value = np.asarray(leaf)
    return value.dtype.kind == "f" and bool(np.isnan(value).any())
