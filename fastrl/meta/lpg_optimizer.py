"""Gradient steps that can be differentiated: for agents whose learning is learned.

Like `optax.sgd` and `optax.adam` after clipping the global norm, with two differences that a
gradient through them needs: the norm of a zero gradient has the derivative 0 and not NaN, and
Adam's denominator is a constant for the outer gradient, as DiscoRL has it (Oh et al. 2025).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.types import Array, PyTree, Scalar

Name = Literal["sgd", "adam"]
NAMES = ("sgd", "adam")
_DECAYS = 0.9, 0.999
_EPSILON = 1e-8


class Optimizer(NamedTuple):
    """A way to take steps."""

    init: Callable[[PyTree], Any]  # (params) -> state
    # (state, params, gradient, learning_rate) -> (state, params)
    apply: Callable[[Any, PyTree, PyTree, Scalar], tuple[Any, PyTree]]


class Moments(NamedTuple):
    """The state of Adam."""

    first: PyTree
    second: PyTree
    steps: Array  # float32


def optimizer(name: Name) -> Optimizer:
    """The optimiser called `name`."""
    return {"sgd": Optimizer(lambda params: (), _sgd), "adam": Optimizer(_moments, _adam)}[name]


def norm(tree: PyTree) -> Array:
    """The global norm of all leaves."""
    return jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(tree)))


def clipped(gradient: PyTree, max_norm: Scalar) -> PyTree:
    """`gradient`, scaled down to the norm `max_norm` where it is longer."""
    square = sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient))
    longer = square > max_norm**2
    scale = jnp.where(longer, max_norm * jax.lax.rsqrt(jnp.where(longer, square, 1.0)), 1.0)
    return jax.tree.map(lambda g: g * scale, gradient)


def _sgd(state: Any, params: PyTree, gradient: PyTree, learning_rate: Scalar) -> Any:
    return state, jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)


def _moments(params: PyTree) -> Moments:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return Moments(zeros, zeros, jnp.float32(0))


def _adam(state: Moments, params: PyTree, gradient: PyTree, learning_rate: Scalar) -> Any:
    slow, slower = _DECAYS
    steps = state.steps + 1
    first = jax.tree.map(lambda m, g: slow * m + (1 - slow) * g, state.first, gradient)
    second = jax.tree.map(
        lambda v, g: slower * v + (1 - slower) * jax.lax.stop_gradient(g) ** 2,
        state.second, gradient,
    )  # fmt: skip
    mean, spread = 1 / (1 - slow**steps), 1 / (1 - slower**steps)

    def move(p: Array, m: Array, v: Array) -> Array:
        return p - learning_rate * mean * m / (
            jnp.sqrt(jax.lax.stop_gradient(v) * spread) + _EPSILON
        )

    return Moments(first, second, steps), jax.tree.map(move, params, first, second)
