"""Keeping XLA's CPU compiler from computing things again and again. No rule of a task is here.

XLA for CPU fuses cheap operations into the loop that reads them, and repeats them there for every
element that the loop writes: a draw that an observation of 50 cells depends on is hashed 50
times.  `optimization_barrier` is dropped before that happens.  Kept apart are

- a branch of a conditional: `branch`, `own_loop`, `batch_last`;
- what XLA takes for expensive, a reduction or a square root: `once`, and `fold`, a reduction;
- what is written into an array in place: `put`.

And its inner loops run over the last axis, which under `vmap` is one of an image's own, seven or
three long: `batch_last` puts batches there, `own_loop` is for vectors that are then reshaped.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.types import Array


def branch(f: Callable[..., Any], *arguments: Any) -> Any:
    """`f(*arguments)`, on CPU in a branch of its own, which is always taken.

    Arguments are arrays of integers or booleans, none of them empty.  Only for use within
    `batch_last`: under a `vmap` of JAX's own the branch would be a selection.
    """
    f = jax.jit(f)  # traced once, although it is used three times

    def on_cpu(*arguments: Any) -> Any:
        # True, which the compiler does not see unless all that it depends on is constant.
        some = [jnp.ravel(x)[0].astype(jnp.int32) for x in jax.tree.leaves(arguments)]
        always = functools.reduce(jnp.bitwise_or, some, jnp.int32(1)) != 0
        shapes = jax.eval_shape(f, *arguments)

        def never(*arguments: Any) -> Any:
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        return jax.lax.cond(always, f, never, *arguments)

    return jax.lax.platform_dependent(*arguments, cpu=on_cpu, default=f)


def own_loop(f: Callable[..., Array]) -> Callable[..., Array]:
    """`f(x, *arrays) -> vector`, which under `vmap` on CPU is compiled as a loop of its own.

    `x`: an integer scalar of 0 to 2**30 - 1, by which the branch is taken always, although the
    compiler can't know that.

    An image `[H, W, 3]` is written by loops whose innermost has three passes, where a vector of
    the same numbers takes a tenth of the time.  So: compute an observation's ingredients, expand
    them in `own_loop` to a vector, then `reshape`.  A maze's step takes a quarter of the time so.
    """

    @jax.custom_batching.custom_vmap
    def call(*args: Array) -> Array:
        return f(*args)

    @call.def_vmap
    def batched(size: int, is_batched: list[bool], *args: Array) -> tuple[Array, bool]:
        full = [
            a if b else jnp.broadcast_to(a, (size, *jnp.shape(a)))
            for a, b in zip(args, is_batched, strict=True)
        ]
        shape = jax.eval_shape(jax.vmap(f), *full)

        # Not by `branch`: a grid world whose objects move took twice the time so.
        def compute(*args: Array) -> Array:
            return jax.vmap(f)(*args)

        def on_cpu(*args: Array) -> Array:
            always = args[0].reshape(-1)[0] < np.array(1 << 30, args[0].dtype)
            return jax.lax.cond(
                always, compute, lambda *_: jnp.zeros(shape.shape, shape.dtype), *args
            )

        return jax.lax.platform_dependent(*full, cpu=on_cpu, default=compute), True

    return call


def batch_last(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` with a rule for `vmap` that hands it arrays whose batch axes come last, not first.

    `f` must serve any number of batch axes.  It is compiled as a stage of its own (`branch`).
    """

    @jax.custom_batching.custom_vmap
    def mapped(*arguments: Any) -> Any:
        return branch(f, *arguments)

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


def fold(pairs: Array) -> Array:
    """uint32 `[n]` from `[n, 2]`: the exclusive or of both, computed once."""
    return jax.lax.reduce(pairs, np.uint32(0), jax.lax.bitwise_xor, (1,))


def once(i: Array) -> Array:
    """`i`, an integer of 0 .. 4095, as the same float32: exact, since its square is."""
    return jnp.sqrt(jnp.asarray(i * i, jnp.float32))


def put(vector: Array, value: Array, at: int) -> Array:
    """`vector` with the scalar `value` at the fixed place `at`."""
    return jax.lax.dynamic_update_slice(vector, value.astype(vector.dtype)[None], (at,))
