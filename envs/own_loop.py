"""Keeping XLA's CPU compiler from computing an observation's ingredients once per entry."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.types import Array


def own_loop(f: Callable[..., Array]) -> Callable[..., Array]:
    """`f(x, *arrays) -> vector`, which under `vmap` on CPU is compiled as a loop of its own.

    XLA fuses the elementwise operations that lead to an observation into one loop over its
    entries, which repeats for every entry what they share; and an image `[H, W, 3]` is written
    by loops whose innermost has three passes, where a vector of the same numbers takes a tenth of
    the time.  A branch of a conditional is not fused with what is around it.  So: compute the
    ingredients, expand them in `own_loop` to a vector, then `reshape`.  A maze's step takes a
    quarter of the time so.

    `x`: an integer scalar of 0 to 2**30 - 1, by which the branch is taken always, although the
    compiler can't know that.
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

        def compute(*args: Array) -> Array:
            return jax.vmap(f)(*args)

        def on_cpu(*args: Array) -> Array:
            always = args[0].reshape(-1)[0] < np.array(1 << 30, args[0].dtype)
            return jax.lax.cond(
                always, compute, lambda *_: jnp.zeros(shape.shape, shape.dtype), *args
            )

        return jax.lax.platform_dependent(*full, cpu=on_cpu, default=compute), True

    return call
