"""What a level is worth to a learner, from one rollout on it.

All arrays are `[T, ...]`, with an episode's steps one after the other along T.  `<x>` is the mean
over the steps of every finished episode, then over these episodes; the unfinished last one is
dropped.  Without a finished episode there is no score: -inf.
"""

import jax
import jax.numpy as jnp

from fastrl.types import Array


def l1_value_loss(advantage: Array, done: Array) -> Array:
    """`<|A_t|>` (Jiang et al. 2021, arXiv:2010.03934)."""
    return episode_mean(jnp.abs(advantage), done)


def positive_value_loss(advantage: Array, done: Array) -> Array:
    """`<max(A_t, 0)>`, with generalised advantages as they are (Jiang et al. 2021b,
    arXiv:2110.02439)."""
    return episode_mean(jnp.maximum(advantage, 0.0), done)


def max_mc(values: Array, best_return: Array, done: Array) -> Array:
    """`<R_max - V(s_t)>`, with the best undiscounted return ever seen on the level `[...]`."""
    return episode_mean(best_return - values, done)


def learnability(solved: Array, finished: Array) -> Array:
    """p (1 - p), p = `solved / finished` (Rutherford et al. 2024, arXiv:2408.15099)."""
    p = solved / jnp.maximum(finished, 1)
    return jnp.where(finished > 0, p * (1 - p), -jnp.inf)


def best_return(reward: Array, done: Array) -> Array:
    """The largest undiscounted return of a finished episode `[...]`; -inf where none finished."""

    def step(total: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        reward_t, done_t = now
        total = total + reward_t
        return jnp.where(done_t, 0.0, total), jnp.where(done_t, total, -jnp.inf)

    return jax.lax.scan(step, jnp.zeros_like(reward[0]), (reward, done))[1].max(0)


def episode_mean(x: Array, done: Array) -> Array:
    """`<x>` `[...]`."""

    def step(carry: tuple[Array, ...], now: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        (total, length, means, episodes), (x_t, done_t) = carry, now
        total, length = total + x_t, length + 1
        means = means + jnp.where(done_t, total / length, 0.0)
        total, length = jnp.where(done_t, 0.0, total), jnp.where(done_t, 0.0, length)
        return (total, length, means, episodes + done_t), None

    zeros = jnp.zeros(x.shape[1:], x.dtype)
    (_, _, means, episodes), _ = jax.lax.scan(step, (zeros,) * 4, (x, done))
    return jnp.where(episodes > 0, means / jnp.maximum(episodes, 1), -jnp.inf)
