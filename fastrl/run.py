"""`run`: a whole training, wholly on the device."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.hparams import as_arrays, conform
from fastrl.kernels import prng
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, HParamsT, Key, StateT


def num_iterations(algorithm: Algorithm, steps: float) -> int:
    """The iterations that make at least `steps` environment steps.

    Raises ValueError unless `steps` is at least 1.
    """
    door.algorithm(algorithm)
    steps = door.number("steps", steps, 1)
    return math.ceil(steps / algorithm.steps_per_iteration)


def axes(tree: Any) -> Any:
    """`in_axes` for `jax.vmap` over those leaves of `tree` that have a leading axis.

    `HParams(learning_rate=jnp.array([1e-3, 3e-3]))` gives 0 for the learning rate and None for
    the other, scalar, numbers.
    """
    return jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, tree)


def run(
    algorithm: Algorithm[HParamsT, StateT], steps: float
) -> Callable[[Key, HParamsT, Any], tuple[StateT, Metrics]]:
    """The function `(key, hparams, task) -> (state, metrics)` of a training of `steps`.

    Pure: jit it, vmap it over keys, hparams (`in_axes=fastrl.axes(hparams)`) and tasks.
    The metrics have a leading axis `[iterations]`.  Takes at least `steps` environment steps,
    in whole iterations; the numbers equal those of `fastrl.train`.
    """
    iterations = num_iterations(algorithm, steps)

    def training(key: Key, hparams: HParamsT, task: Any) -> tuple[StateT, Metrics]:
        hparams = conform(hparams, algorithm.default_hparams)
        algorithm.check(hparams)
        task = as_arrays(task, "task")
        door.time_limits(task)
        key = prng.engine_key(key)
        if key.shape:
            raise ValueError(f"key has shape {key.shape}: for several keys use fastrl.members")
        with _explaining(algorithm, task):
            state = algorithm.init(key, hparams, task)
            return jax.lax.scan(
                lambda state, _: algorithm.step(state, hparams, task), state, None, iterations
            )

    return training


@contextlib.contextmanager
def _explaining(algorithm: Algorithm, task: Any) -> Iterator[None]:
    """An error about a task that is no params of the environment says so."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if wrong := wrong_task(algorithm, task):
            raise TypeError(f"{wrong} ({error})") from error
        raise


def wrong_task(algorithm: Algorithm, task: Any) -> str:
    """What is wrong with `task` if it is no params of the algorithm's environment, else ""."""
    if algorithm.env is None:
        return ""
    own = algorithm.env.default_params()
    if isinstance(task, type(own)):
        return ""
    return (
        f"task is a {type(task).__name__}: {type(algorithm.env).__name__} needs params like "
        f"env.default_params(), a {type(own).__module__}.{type(own).__name__}"
    )
