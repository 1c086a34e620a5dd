"""The two compiled programs of the host driver: `init`, and `chunk`, any number of iterations.

The number of iterations of a chunk is traced and its metrics fold into the carry, so chunks of
all lengths, learning rates, seeds and tasks are one compilation per Algorithm.  A chunk stops at
the first iteration whose metrics or parameters are not finite.
"""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fastrl import metrics as fm
from fastrl.leaves import described, differences
from fastrl.metrics import Metrics
from fastrl.run import wrong_task
from fastrl.types import Algorithm, Array, Key, PyTree

# Names in a log row that are not an algorithm's to give.
RESERVED = frozenset(
    ("iteration", "steps", "seconds", "steps_per_second", "evaluation_return", "evaluation_length")
)


class Report(NamedTuple):
    """What a chunk tells the host."""

    iterations: Array  # int32: how many were run, the bad one included
    ok: Array  # bool: metrics and parameters were finite throughout
    finite: PyTree  # bool per leaf of the parameters at the end
    metrics: Metrics  # those given and those of the chunk, added up


# (state, metrics, hparams, task, n) -> (state, report)
ChunkProgram = Callable[[Any, Metrics, Any, Any, Any], tuple[Any, Report]]


def init_program(algorithm: Algorithm) -> Callable[[Key, Any, Any], Any]:
    """The jitted `algorithm.init`: the same algorithm never compiles twice."""
    return _init(algorithm.init)


def chunk_program(
    algorithm: Algorithm, donate: bool = False, layout: PyTree = None
) -> ChunkProgram:
    """The jitted function of `n` iterations: the same algorithm never compiles twice.

    `donate` lets a chunk reuse the memory of the state that it is given.  `layout` is a pytree
    of `NamedSharding`s like the state: chunks hand the state out as it came in, the rest is
    replicated.  None leaves that to the compiler.
    """
    leaves, treedef = jax.tree.flatten(layout)
    return _chunk(algorithm.step, algorithm.parameters, donate, tuple(leaves), treedef)


def check(algorithm: Algorithm, key: Key, hparams: Any, task: Any) -> tuple[Any, Metrics]:
    """The shapes of the algorithm's state and of the metrics of an iteration.

    Raises ValueError, with the user's line where it is their code that fails, if `init` or
    `step` can't be traced with `hparams` and `task`, or if `step` returns a state of another
    structure than it was given; nothing is compiled.
    """
    what = "the algorithm's init"
    try:
        state = jax.eval_shape(algorithm.init, key, hparams, task)
        what = "the algorithm's step"
        returned = jax.eval_shape(_traced_once(algorithm.step), state, hparams, task)
    except Exception as error:
        raise _failure(what, algorithm, hparams, task, error) from error
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        kinds = ", ".join(type(x).__name__ for x in returned) if type(returned) is tuple else ""
        raise ValueError(
            f"the algorithm's step returned {f'({kinds})' if kinds else type(returned).__name__}: "
            "it must return (state, metrics), metrics a dict"
        )
    following, metrics = returned
    for name, was, is_now in differences(described(state), described(following)):
        raise ValueError(
            f"the algorithm's step changes its state: {name} was {was} and becomes {is_now}"
        )
    reserved = sorted(metrics.keys() & RESERVED)
    if reserved:
        raise ValueError(f"the algorithm's metric {reserved[0]!r} has a name that a log row needs")
    return state, metrics


def _failure(
    what: str, algorithm: Algorithm, hparams: Any, task: Any, error: Exception
) -> ValueError | TypeError:
    """What to tell the user when tracing `what` raised `error`."""
    from fastrl.check_env import why_it_fails

    if wrong := wrong_task(algorithm, task):
        return TypeError(f"{wrong} ({why_it_fails(None, error)})")
    return ValueError(
        f"{what} fails with this task (a {type(task).__name__}) and these hparams "
        f"(a {type(hparams).__name__}): {why_it_fails(algorithm.env, error)}"
        + ("" if algorithm.env is None else " (`fastrl check-env` checks an environment)")
    )


def not_finite(report: Report) -> list[str]:
    """The metrics and the parameters' leaves that are not finite, by name; for messages.

    The loss and one leaf come first: they say most.
    """
    host = jax.device_get(report)
    metrics = [
        f"metric {name!r}"
        for name, m in sorted(host.metrics.items(), key=lambda item: item[0] != "loss")
        if not (np.isfinite(m.total).all() and np.isfinite(m.weight).all())
    ]
    leaves = jax.tree_util.tree_flatten_with_path(host.finite)[0]
    bad = [f"parameters{jax.tree_util.keystr(p)}" for p, good in leaves if not good]
    return metrics[:1] + bad[:2] + metrics[1:] + bad[2:]


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Python's garbage collector rests meanwhile: for tracing and compiling.

    These make many objects and hardly any garbage, and every full pass visits all of JAX: a
    tenth of the time in which a process starts with a warm compilation cache.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@functools.lru_cache(maxsize=64)
def _traced_once(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` with its trace kept: the check of its shapes and the chunk share one."""
    return jax.jit(step, inline=True)


@functools.lru_cache(maxsize=64)
def _init(init: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(init)


@functools.lru_cache(maxsize=64)
def _chunk(
    step: Callable[..., tuple[Any, Metrics]],
    parameters: Callable[[Any], PyTree],
    donate: bool,
    layout: tuple[NamedSharding, ...],
    treedef: Any,
) -> Callable[..., tuple[Any, Report]]:
    step = _traced_once(step)

    def chunk(
        state: Any, metrics: Metrics, hparams: Any, task: Any, n: Array
    ) -> tuple[Any, Report]:
        def going(carry: Any) -> Array:
            _, _, iteration, ok = carry
            return ok & (iteration < n)

        def body(carry: Any) -> Any:
            state, metrics, iteration, _ = carry
            state, new = step(state, hparams, task)
            ok = _all_finite(new) & _all_finite(parameters(state))
            return state, fm.add(metrics, new), iteration + 1, ok

        # Sound at the start: an initial state that is not shows after its first iteration.
        start = state, metrics, jnp.int32(0), jnp.bool_(True)
        state, metrics, iterations, ok = jax.lax.while_loop(going, body, start)
        finite = jax.tree.map(_finite, parameters(state))
        return state, Report(iterations, ok, finite, metrics)

    donated = (0,) if donate else ()
    if not layout:
        return jax.jit(chunk, donate_argnums=donated)
    replicated = NamedSharding(layout[0].mesh, PartitionSpec())
    as_given = jax.tree.unflatten(treedef, layout), replicated
    return jax.jit(chunk, donate_argnums=donated, out_shardings=as_given)


def _finite(x: Array) -> Array:
    return jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.bool_(True)


def _all_finite(tree: PyTree) -> Array:
    return functools.reduce(jnp.logical_and, map(_finite, jax.tree.leaves(tree)), jnp.bool_(True))
