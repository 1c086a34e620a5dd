"""Lives that go on from generation to generation, a window of inner iterations in each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.meta.evolution_config import Config
from fastrl.types import Array, Key, PyTree


class Running(NamedTuple):
    """Where every pair stands. Leaves are `[P, ...]`."""

    state: Any  # of the inner algorithm, `[P, 2, ...]`
    task: Any
    age: Array  # int32: inner iterations so far
    path: PyTree  # what the pair was drawn, summed or as it is, since its life began


def first(
    config: Config, begin: Callable[[Key, Any, Array], Any], keys: Key, tasks: Any, drawn: PyTree
) -> Running:
    """The lives before the first generation, as if they had begun at different times.

    `begin(key, task, iterations)` is an inner state for a lifetime.
    """
    states = jax.vmap(begin)(keys, tasks, jnp.array(config.lengths, jnp.float32))
    both = jax.tree.map(lambda x: jnp.stack([x, x], 1), states)
    path = drawn if config.estimator == "reuse" else jax.tree.map(jnp.zeros_like, drawn)
    return Running(both, tasks, jnp.array(_ages(config), jnp.int32), path)


def _ages(config: Config) -> list[int]:
    """Ages at the start: spread evenly over the windows of a lifetime."""
    each = config.pairs // len(config.lifetimes)
    windows = [n // config.window for n in config.lifetimes]
    return [config.window * (i * w // each) for w in windows for i in range(each)]


def begins(config: Config, running: Running) -> Array:
    """Bool `[P]`: whose lifetime is over."""
    return running.age >= jnp.array(config.lengths)


def path(config: Config, new: Array, running: Running, drawn: PyTree) -> PyTree:
    """What eta is moved along: `drawn`, or for persistent ES its sum since the life began."""
    if config.estimator != "persistent":
        return drawn
    before = pick(new, jax.tree.map(jnp.zeros_like, running.path), running.path)
    return jax.tree.map(jnp.add, before, drawn)


def after(
    config: Config, key: Key, new: Array, running: Running, lived: Any, tasks: Any, ok: Array,
    along: PyTree,
) -> Running:  # fmt: skip
    """Where the pairs stand after a window that left them in the states `lived` `[P, 2, ...]`.

    Truncated ES goes on from the end of one member, whichever a coin says; a pair that is not
    `ok` begins a new life.  Consumes `key`.
    """
    if config.estimator == "truncated":
        coin = jax.random.bernoulli(key, shape=ok.shape)
        chosen = pick(coin, *(jax.tree.map(lambda x, i=i: x[:, i], lived) for i in range(2)))
        lived = jax.tree.map(lambda x: jnp.stack([x, x], 1), chosen)
    age = jnp.where(new, 0, running.age) + config.window
    age = jnp.where(ok, age, jnp.array(config.lengths))
    return Running(lived, tasks, age, along)


def pick(where: Array, a: PyTree, b: PyTree) -> PyTree:
    """Per pair one of two trees `[P, ...]`."""

    def one(x: Array, y: Array) -> Array:
        return jnp.where(where.reshape(where.shape + (1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(one, a, b)
