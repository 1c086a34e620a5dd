"""Where episodes start: `fresh`, `pool`, `snapshots`.

A Reset is a pair of functions (`fastrl.types.Reset`) made from an environment. Learners
never see it, so domain randomisation, level curricula and restarts from snapshots are
Resets and nothing else.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from fastrl.types import Array, Env, Key, Pool, PyTree, Reset, ResetFactory


def fresh(env: Env) -> Reset:
    """Every episode starts from `env.reset`, called for all environments at every step.

    Right and cheap for environments whose reset costs no more than a step.  An environment that
    has `reset_where(keys, params, done)` is asked for the starts that are taken, and no others.
    """
    reset_where = getattr(env, "reset_where", None)

    def init(key: Key, params: Any, num_envs: int) -> PyTree:
        return ()

    def draw(key: Key, memory: PyTree, params: Any, done: Array) -> Pool:
        keys = jax.random.split(key, done.shape[0])
        if reset_where is not None:
            return Pool((), (), *reset_where(keys, params, done))
        return Pool((), (), *jax.vmap(env.reset, (0, None))(keys, params))

    return Reset(init, draw)


def pool(env: Env, size: int = 1024) -> Reset:
    """Every episode starts from one of `size` start states, drawn once with `env.reset`.

    For environments with a dear reset (physics): it is paid `size` times and no more.  The
    pool is part of the training state and of its checkpoints.

    Raises ValueError if `size` is below 1.
    """
    if not 1 <= size < 2**31:
        raise ValueError(f"pool(size={size}): needs at least one and below 2**31 start states")

    def init(key: Key, params: Any, num_envs: int) -> PyTree:
        return jax.vmap(env.reset, (0, None))(jax.random.split(key, size), params)

    return Reset(init, _draw_from)


def snapshots(env: Env, states: PyTree, observations: PyTree, share: float = 1.0) -> Reset:
    """Episodes start from given states, leaves `[S, ...]`, with their `observations`.

    A `share` below 1 leaves the rest of the episodes to `env.reset`.

    Raises ValueError if the leading axes disagree or `share` is outside [0, 1].
    """
    leaves = [jnp.asarray(x) for x in jax.tree.leaves((states, observations))]
    sizes = {x.shape[0] if x.ndim else 0 for x in leaves}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"snapshots: states and observations have leading axes {sorted(sizes)}")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"snapshots(share={share}): must be within [0, 1]")
    plain = fresh(env)

    def init(key: Key, params: Any, num_envs: int) -> PyTree:
        return jax.tree.map(jnp.asarray, (states, observations))

    def draw(key: Key, memory: PyTree, params: Any, done: Array) -> Pool:
        snapshot_key, fresh_key, share_key = jax.random.split(key, 3)
        drawn = _draw_from(snapshot_key, memory, params, done)
        if share == 1.0:
            return drawn
        other = plain.draw(fresh_key, (), params, done)
        chosen = jax.random.uniform(share_key, done.shape) < share

        def pick(a: Array, b: Array) -> Array:
            return jnp.where(chosen.reshape(chosen.shape + (1,) * (a.ndim - 1)), a, b)

        state, observation = jax.tree.map(
            pick, (drawn.state, drawn.observation), (other.state, other.observation)
        )
        return Pool(memory, (), state, observation)

    return Reset(init, draw)


def default(env: Env) -> ResetFactory:
    """What suits `env`: `pool` where the environment says that its reset is dear, else `fresh`."""
    return pool if getattr(env, "dear_reset", False) else fresh


def _draw_from(key: Key, memory: PyTree, params: Any, done: Array) -> Pool:
    """A uniform choice from the start states in `memory` for every environment."""
    size = jax.tree.leaves(memory)[0].shape[0]
    index = jax.random.randint(key, done.shape, 0, size)
    state, observation = jax.tree.map(functools.partial(jnp.take, indices=index, axis=0), memory)
    return Pool(memory, (), state, observation)
