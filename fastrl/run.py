"""`run`: a whole training, wholly on the device."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fastrl.hparams import as_arrays
from fastrl.kernels import prng
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Key


def num_iterations(algorithm: Algorithm, steps: float) -> int:
    """The iterations that make at least `steps` environment steps.

    Raises ValueError unless `steps` is at least 1.
    """
    if not steps >= 1 or steps == math.inf:
        raise ValueError(f"steps={steps!r}: needs a number of environment steps of at least 1")
    return math.ceil(steps / algorithm.steps_per_iteration)


def axes(tree: Any) -> Any:
    """`in_axes` for `jax.vmap` over those leaves of `tree` that have a leading axis.

    `HParams(learning_rate=jnp.array([1e-3, 3e-3]))` gives 0 for the learning rate and None for
    the other, scalar, numbers.
    """
    return jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, tree)


def run(algorithm: Algorithm, steps: float) -> Callable[[Key, Any, Any], tuple[Any, Metrics]]:
    """The function `(key, hparams, task) -> (state, metrics)` of a training of `steps`.

    Pure: jit it, vmap it over keys, hparams (`in_axes=fastrl.axes(hparams)`) and tasks.
    The metrics have a leading axis `[iterations]`.  Takes at least `steps` environment steps,
    in whole iterations; the numbers equal those of `fastrl.train`.
    """
    iterations = num_iterations(algorithm, steps)

    def training(key: Key, hparams: Any, task: Any) -> tuple[Any, Metrics]:
        hparams, task = as_arrays(hparams), as_arrays(task)
        state = algorithm.init(prng.engine_key(key), hparams, task)
        return jax.lax.scan(
            lambda state, _: algorithm.step(state, hparams, task), state, None, iterations
        )

    return training
