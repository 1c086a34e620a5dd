"""Policies for finding the best arm that were written by hand, and what a policy loses.

| policy | pulls |
|---|---|
| `uniform` | all arms in turn |
| `successive_rejects` | in A - 1 phases all arms that are left; at its end the worst leaves |
| `lucb` | the arm of the best average and the one that could be better, in turn |

Successive rejects is algorithm 1 of Audibert, Bubeck and Munos (COLT 2010).  LUCB (Kalyanakrishnan
et al. 2012, ICML) is for a fixed confidence; here its bound is sqrt(a / n_i) with the constant
a = 2 log(budget) and it stops when the budget is spent.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.meta.active_bandit import BestArm, Instance, Statistics
from fastrl.types import Array, Key


class Policy(NamedTuple):
    """A way to pull arms, with a memory of its own."""

    initial: Any
    # (memory, statistics, key) -> (arm int32 [], memory)
    query: Callable[[Any, Statistics, Key], tuple[Array, Any]]


def uniform(env: BestArm) -> Policy:
    """All arms in turn."""
    return Policy((), lambda memory, seen, key: (_least(seen.counts), memory))


def successive_rejects(env: BestArm) -> Policy:
    """Phase k ends when every arm that is left has n_k pulls,

    n_k = ceil((budget - A) / ((A + 1 - k) (1/2 + sum of 1/i, i = 2 .. A))).
    """
    k = np.arange(1, env.arms)
    harmonic = 0.5 + sum(1.0 / i for i in range(2, env.arms + 1))
    lengths = jnp.asarray(
        np.ceil((env.budget - env.arms) / ((env.arms + 1 - k) * harmonic)), jnp.float32
    )

    def query(left: Array, seen: Statistics, key: Key) -> tuple[Array, Array]:
        phase = env.arms - left.sum()
        over = jnp.where(left, seen.counts, jnp.inf).min() >= lengths[phase.clip(0, env.arms - 2)]
        worst = jnp.argmin(jnp.where(left, seen.averages(), jnp.inf))
        leaves = over & (phase < env.arms - 1) & (jnp.arange(env.arms) == worst)
        left = left & ~leaves
        return _least(jnp.where(left, seen.counts, jnp.inf)), left

    return Policy(jnp.ones(env.arms, bool), query)


def lucb(env: BestArm) -> Policy:
    """Every arm once, then leader and challenger in turn."""
    scale = float(np.sqrt(2.0 * np.log(env.budget)))

    def query(memory: Any, seen: Statistics, key: Key) -> tuple[Array, Any]:
        width = scale * jax.lax.rsqrt(jnp.maximum(seen.counts, 1.0))
        leader = jnp.argmax(seen.averages())
        others = jnp.where(jnp.arange(env.arms) == leader, -jnp.inf, seen.averages() + width)
        challenger = jnp.argmax(others)
        turn = (seen.counts.sum() - env.arms) % 2 == 0
        arm = jnp.where(turn, leader, challenger)
        return jnp.where(seen.counts.min() < 1, _least(seen.counts), arm), memory

    return Policy((), query)


class Episode(NamedTuple):
    """What was played; `T` is the budget."""

    loss: Array  # []
    end: Statistics
    seen: Statistics  # [T, ...]: before each pull
    arms: Array  # [T]


def play(env: BestArm, policy: Policy, key: Key, instance: Instance) -> Episode:
    """An episode on `instance`. Consumes `key`."""
    reset_key, episode_key = jax.random.split(key)
    start, _ = env.reset(reset_key, instance)
    keys = jax.random.split(episode_key, env.budget)

    def step(carry: Any, key: Key) -> tuple[Any, Any]:
        seen, memory = carry
        query_key, pull_key = jax.random.split(key)
        arm, memory = policy.query(memory, seen, query_key)
        after = env.pull(seen, arm, jax.random.normal(pull_key), instance)
        return (after, memory), (seen, arm)

    (end, _), history = jax.lax.scan(step, (start, policy.initial), keys)
    return Episode(env.loss(end, instance)[0], end, *history)


def losses(env: BestArm, policy: Policy, key: Key, instances: Instance, episodes: int) -> Array:
    """Mean losses `[I]` of `episodes` on each of the `instances` `[I, A]`, arms in any order.

    All instances get the same random numbers.  Consumes `key`.
    """

    def one(instance: Instance, key: Key) -> Array:
        order_key, play_key = jax.random.split(key)
        shuffled = Instance(jax.random.permutation(order_key, instance.means))
        return play(env, policy, play_key, shuffled).loss

    keys = jax.random.split(key, episodes)
    several = lambda instance: jax.vmap(functools.partial(one, instance))(keys).mean()  # noqa: E731
    return jax.lax.map(several, instances)


def _least(counts: Array) -> Array:
    return jnp.argmin(counts).astype(jnp.int32)
