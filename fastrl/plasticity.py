"""Plasticity: how much of a network still learns, after it has learned for long.

Activations are `[B, H]`: of `B` observations, `H` hidden units.

* dormant units (Sokar, Agarwal, Castro and Evci 2023, arXiv:2302.12902): the score of a unit is its
  mean size over that of its layer; at most `threshold`, it is dormant.
* effective rank (Roy and Vetterli 2007): `exp` of the entropy of the singular values over their
  sum; from 1 to H.  `stable_rank` counts the largest that hold `1 - delta` of that sum (Kumar et
  al. 2021, arXiv:2010.14498).
* weight norm: the root mean square of all weights, whatever their number.

`measured` puts them around any Algorithm, as metrics of every iteration.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door, spaces
from fastrl import metrics as fm
from fastrl import reset as resets
from fastrl.metrics import Metrics
from fastrl.types import Action, Algorithm, Array, Key, Observation, PyTree, Scalar
from fastrl.vec import VecEnv, rollout

# (state, observations [B, *]) -> the activations [B, H] of every hidden layer
Activations = Callable[[Any, Observation], Sequence[Array]]


def scores(activations: Array) -> Array:
    """Of each unit its mean size over the mean of that in its layer, `[H]`; 0 where all are 0."""
    size = jnp.abs(activations).mean(0)
    return size / jnp.maximum(size.mean(keepdims=True), 1e-12)


def dormant(activations: Array, threshold: Scalar = 0.025) -> Array:
    """The share of units whose score is at most `threshold`."""
    return (scores(activations) <= threshold).astype(jnp.float32).mean()


def effective_rank(activations: Array) -> Array:
    """`exp(-sum p log p)` with p the singular values over their sum; 0 of nothing but zeros."""
    values = jnp.linalg.svd(activations, compute_uv=False)
    total = values.sum(keepdims=True)
    p = values / jnp.maximum(total, 1e-12)
    entropy = -jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0).sum()
    return jnp.where(total[0] > 0, jnp.exp(entropy), 0.0)


def stable_rank(activations: Array, delta: Scalar = 0.01) -> Array:
    """The least number of singular values whose sum is `1 - delta` of that of all, int32."""
    values = jnp.linalg.svd(activations, compute_uv=False)
    held = jnp.cumsum(values) >= (1.0 - delta) * values.sum(keepdims=True)
    return jnp.where(values[0] > 0, jnp.argmax(held) + 1, 0).astype(jnp.int32)


def weight_norm(params: PyTree) -> Array:
    """The root of the mean of all squared weights."""
    leaves = [x for x in jax.tree.leaves(params) if jnp.issubdtype(x.dtype, jnp.floating)]
    total = jnp.stack([jnp.square(x).sum() for x in leaves]).sum()
    return jnp.sqrt(total / sum(x.size for x in leaves))


class State(NamedTuple):
    """The state of the algorithm inside, and what its network is looked at with."""

    inner: Any
    observations: Observation  # [B, *]


def measured(
    algorithm: Algorithm, activations: Activations, *, batch_size: int = 128,
    threshold: float = 0.025,
) -> Algorithm[Any, State]:  # fmt: skip
    """`algorithm` with plasticity among its metrics, and nothing else changed.

    `activations(state, observations)` gives those of each hidden layer; of stream learners it is
    `fastrl.streaming.hidden.activations(algorithm)`.  They are those of `batch_size` observations,
    of actions by chance, collected once: the numbers of two iterations differ by what was learned.
    After each iteration come `dormant_units` (over all layers), `effective_rank` (of the last) and
    `weight_norm` (of `algorithm.parameters`).

    Raises ValueError for an algorithm without an environment.
    """
    door.algorithm(algorithm)
    door.function("activations", activations, "fastrl.streaming.hidden.activations(algorithm)")
    door.integer("batch_size", batch_size, 2)
    door.number("threshold", threshold, 0.0)
    if algorithm.env is None:
        raise ValueError("plasticity is measured on observations: the algorithm has no environment")

    def init(key: Key, hparams: Any, task: Any) -> State:
        inner_key, look_key = jax.random.split(key)
        inner = algorithm.init(inner_key, hparams, task)
        return State(inner, observed(algorithm.env, look_key, task, batch_size))

    def step(state: State, hparams: Any, task: Any) -> tuple[State, Metrics]:
        inner, metrics = algorithm.step(state.inner, hparams, task)
        layers = activations(inner, state.observations)
        asleep = jnp.concatenate([scores(a) for a in layers]) <= threshold
        own = {
            "dormant_units": fm.mean(asleep), "effective_rank": fm.mean(effective_rank(layers[-1])),
            "weight_norm": fm.mean(weight_norm(algorithm.parameters(inner))),
        }  # fmt: skip
        return State(inner, state.observations), metrics | own

    def act(
        state: State, carry: PyTree, observation: Observation, key: Key | None
    ) -> tuple[Action, PyTree]:
        return algorithm.act(state.inner, carry, observation, key)

    value = algorithm.value
    return algorithm._replace(
        init=init, step=step, act=act, recipe=None,
        value=None if value is None else lambda state, o: value(state.inner, o),
        parameters=lambda state: algorithm.parameters(state.inner),
    )  # fmt: skip


def observed(env: Any, key: Key, task: Any, size: int) -> Observation:
    """`size` observations `[size, *]` in one environment, of actions by chance. Consumes `key`."""
    start_key, play_key = jax.random.split(key)
    vec_env = VecEnv(env, 1, resets.fresh(env))
    space = env.action_space(env.default_params())

    def by_chance(key: Key, observation: Observation) -> tuple[Action, tuple[()]]:
        return spaces.sample(key, space, (1,)), ()

    start = vec_env.init(start_key, task)
    keep = lambda transition, _: jax.tree.map(lambda x: x[0], transition.observation)  # noqa: E731
    return rollout(vec_env, by_chance, play_key, start, task, size, keep)[1]
