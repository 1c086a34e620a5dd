"""How candidates are drawn and what is made of their fitness: the search of `meta_evolution`.

OpenAI-ES (Salimans et al. 2017, arXiv:1703.03864): eta +- sigma eps in antithetic pairs, and

    g = 1 / (2 P sigma) sum over the P pairs of (u+ - u-) eps            (an ascent direction)

with utilities u (`fastrl.meta.evolution_shaping`), then a step of Adam.  A pair with a lifetime
that diverged has no part in sum and P.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import metrics as fm
from fastrl.meta.evolution_shaping import Shaping
from fastrl.metrics import Metrics
from fastrl.types import Array, Key, PyTree, Scalar

Optimizer = Callable[[Scalar], optax.GradientTransformation]  # of a learning rate


class Search(NamedTuple):
    """A distribution over eta that moves. `memory` is its state, `drawn` has leaves `[P, ...]`."""

    init: Callable[[Key, PyTree, Any], Any]  # (key, eta, hparams) -> memory
    mean: Callable[[Any], PyTree]  # memory -> eta
    draw: Callable[[Key, Any, Any], tuple[PyTree, Any]]  # (key, memory, hparams) -> drawn, memory
    place: Callable[[Any, PyTree, Any], PyTree]  # (memory, drawn, hparams) -> etas [P, 2, ...]
    # (key, memory, drawn, fitness [P, 2], ok [P], hparams) -> memory, metrics
    tell: Callable[[Key, Any, PyTree, Array, Array, Any], tuple[Any, Metrics]]


class Memory(NamedTuple):
    """Where OpenAI-ES stands."""

    eta: PyTree
    optimizer: optax.OptState
    generation: Array  # int32


def openai(pairs: int, shaping: Shaping, optimizer: Optimizer) -> Search:
    """OpenAI-ES; uses the learning rate, sigma, their decays and the weight decay of `hparams`.

    In `tell` a pair's `drawn` may be another than was placed: persistent ES hands in sums.
    """

    def init(key: Key, eta: PyTree, hparams: Any) -> Memory:
        return Memory(eta, optimizer(hparams.learning_rate).init(eta), jnp.int32(0))

    def draw(key: Key, memory: Memory, hparams: Any) -> tuple[PyTree, Memory]:
        leaves, treedef = jax.tree.flatten(memory.eta)
        keys = jax.random.split(key, len(leaves))
        noise = [
            jax.random.normal(k, (pairs, *x.shape), x.dtype)
            for k, x in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, noise), memory

    def place(memory: Memory, drawn: PyTree, hparams: Any) -> PyTree:
        width = sigma(hparams, memory.generation)
        both = lambda x, eps: jnp.stack([x + width * eps, x - width * eps], 1)  # noqa: E731
        return jax.tree.map(lambda x, eps: both(x[None], eps), memory.eta, drawn)

    def tell(
        key: Key, memory: Memory, drawn: PyTree, fitness: Array, ok: Array, hparams: Any
    ) -> tuple[Memory, Metrics]:
        width, rate = sigma(hparams, memory.generation), learning_rate(hparams, memory.generation)
        ascent = gradient(drawn, shaping(fitness, ok), ok, width)
        descent = jax.tree.map(lambda g, x: hparams.weight_decay * x - g, ascent, memory.eta)
        updates, state = optimizer(rate).update(descent, memory.optimizer, memory.eta)
        eta = optax.apply_updates(memory.eta, updates)
        metrics = {
            "gradient_norm": fm.mean(optax.tree.norm(ascent)),
            "learning_rate": fm.mean(rate),
            "sigma": fm.mean(width),
        }
        return Memory(eta, state, memory.generation + 1), metrics

    return Search(init, lambda memory: memory.eta, draw, place, tell)


def gradient(drawn: PyTree, utilities: Array, ok: Array, width: Scalar) -> PyTree:
    """The estimate of the gradient of mean utility, from `drawn` `[P, ...]`; pairs with `ok` count.

    For a quadratic fitness and raw utilities its expectation is exact at any width.
    """
    difference = jnp.where(ok, utilities[:, 0] - utilities[:, 1], 0.0)
    weight = difference / (2.0 * width * jnp.maximum(ok.sum(), 1))
    return jax.tree.map(lambda eps: jnp.tensordot(weight, eps, 1), drawn)


def learning_rate(hparams: Any, generation: Array) -> Array:
    """`learning_rate * learning_rate_decay^generation`, at least its limit."""
    decay = hparams.learning_rate_decay ** generation.astype(jnp.float32)
    return jnp.maximum(hparams.learning_rate * decay, hparams.learning_rate_limit)


def sigma(hparams: Any, generation: Array) -> Array:
    """`sigma * sigma_decay^generation`, at least its limit."""
    decay = hparams.sigma_decay ** generation.astype(jnp.float32)
    return jnp.maximum(hparams.sigma * decay, hparams.sigma_limit)
