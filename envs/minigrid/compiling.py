"""How the tasks are compiled: batch axes last, and stages kept apart. No rule of a task is here.

Two things make XLA for CPU slow on small images.  Its inner loops run over the last axis, which
under `vmap` is one of the image's own: seven long, or three.  And it fuses chains of cheap
operations into the loop that reads them, which then repeats them for every element that it
writes; `optimization_barrier` is dropped before that happens, a branch is not.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def batch_last(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` with a rule for `vmap` that hands it arrays whose batch axes come last, not first.

    `f` must serve any number of batch axes.  It is compiled as a stage of its own (`stage`).
    """

    @jax.custom_batching.custom_vmap
    def mapped(*arguments: Any) -> Any:
        return stage(f, *arguments)

    @mapped.def_vmap
    def _(axis_size: int, batched: Any, *arguments: Any) -> tuple[Any, Any]:
        def last(x: Any, is_batched: bool) -> Any:
            if is_batched:
                return jnp.moveaxis(x, 0, -1)
            return jnp.broadcast_to(x[..., None], (*jnp.shape(x), axis_size))

        result = mapped(*jax.tree.map(last, arguments, tuple(batched)))
        result = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), result)
        return result, jax.tree.map(lambda _: True, result)

    return mapped


def stage(f: Callable[..., Any], *arguments: Any) -> Any:
    """`f(*arguments)`, on CPU in a branch of its own, which is always taken.

    Arguments are arrays of integers or booleans, none of them empty.  Only for use within
    `batch_last`: under a `vmap` of JAX's own the branch would be a selection.
    """

    f = jax.jit(f)  # traced once, although it is used three times

    def in_branch(*arguments: Any) -> Any:
        # True, which the compiler does not see unless all that it depends on is constant.
        some = [jnp.ravel(x)[0].astype(jnp.int32) for x in jax.tree.leaves(arguments)]
        always = functools.reduce(jnp.bitwise_or, some, jnp.int32(1)) != 0
        shapes = jax.eval_shape(f, *arguments)

        def never(*arguments: Any) -> Any:
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        return jax.lax.cond(always, f, never, *arguments)

    return jax.lax.platform_dependent(*arguments, cpu=in_branch, default=f)
