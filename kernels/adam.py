"""Adam after clipping the global norm, in one pass over the parameters.

    mean, square, params = adam.step(mean, square, params, gradients, numbers, decays=, epsilon=)

XLA makes several passes of it: gradients side by side in one vector, their norm, the clipping,
both means, the step, and an addition for every leaf.  The numba kernel reads the gradients twice
and all else once, and writes in place.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from fastrl.kernels._dispatch import Numba, op


def numbers(rate: Any, count: Any, max_norm: Any, decays: tuple[float, float]) -> Array:
    """What `step` is told of step number `count`, from 1: the rate and the factor of the squares'
    mean, both corrected for starts at 0, and the largest norm, `[3]`."""
    first, second = (1.0 - jnp.float32(decay) ** count for decay in decays)
    return jnp.stack([jnp.float32(x) for x in (rate / first, 1.0 / second, max_norm)])


def _step(
    mean: Array, square: Array, params: tuple[Array, ...], gradients: tuple[Array, ...],
    numbers: Array, *, decays: tuple[float, float], epsilon: float,
) -> tuple[Array, Array, tuple[Array, ...]]:  # fmt: skip
    """One step of Adam (Kingma and Ba 2015, algorithm 1) on leaves of any shape.

    `mean` and `square` `[n]` are of all leaves, one after the other; `epsilon` stands outside of
    the root.
    """
    rate, of_square, max_norm = numbers
    g = jnp.concatenate([x.ravel() for x in gradients])
    norm = jnp.sqrt(jnp.sum(g * g))
    g = g * jnp.where(norm < max_norm, 1.0, max_norm / norm)
    mean = decays[0] * mean + (1 - decays[0]) * g
    square = decays[1] * square + (1 - decays[1]) * g * g
    move = rate * mean / (jnp.sqrt(of_square * square) + epsilon)
    ends = [sum(p.size for p in params[:i]) for i in range(1, len(params))]
    moved = zip(params, jnp.split(move, ends), strict=True)
    return mean, square, tuple(p - m.reshape(p.shape) for p, m in moved)


def _numba_step(**static: Any) -> Any:
    from fastrl.kernels import _adam_numba  # imports numba

    return _adam_numba.step(**static)


step = op(_step, cpu=Numba(_numba_step, in_place=True, flat=True))
