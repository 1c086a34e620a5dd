"""Where episodes start: `fresh`, `pool`, `cached`, `snapshots`.

A Reset is a pair of functions (`fastrl.types.Reset`) made from an environment. Learners
never see it, so domain randomisation, level curricula and restarts from snapshots are
Resets and nothing else.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

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


def pool(env: Env, size: int = 1024, renewal: float = 0.0) -> Reset:
    """Every episode starts from one of `size` start states, drawn by chance.

    For environments with a dear reset (physics).  `renewal` start states are drawn anew in every
    step, the oldest first (below 1 rounded to one in so many steps: 0.1 is one in ten); with 0
    the pool stays as it was at the start.
    A start lives for `size / renewal` steps, and serves as many episodes as end in `1 / renewal`
    steps of the batch, on average; over many such lives the starts are distributed as those of
    `env.reset`.  The pool is part of the training state and of its checkpoints.

    Raises ValueError if `size` is below 1, or if `renewal` is negative, beyond `size`, or above 1
    and not whole.
    """
    if not 1 <= size < 2**31:
        raise ValueError(f"pool(size={size}): needs at least one and below 2**31 start states")
    block, period = _rate(renewal, size)

    def init(key: Key, params: Any, num_envs: int) -> PyTree:
        starts = jax.vmap(env.reset, (0, None))(jax.random.split(key, size), params)
        return _Pool(starts, jnp.int32(0), jnp.int32(0)) if block else starts

    def draw(key: Key, memory: PyTree, params: Any, done: Array) -> Pool:
        if not block:
            return _draw_from(key, memory, params, done)
        draw_key, renew_key = jax.random.split(key)
        starts = _renewed(
            memory.wait == 0, lambda: _several(env, renew_key, params, block),
            memory.starts, memory.at, block,
        )  # fmt: skip
        drawn = _draw_from(draw_key, starts, params, done)
        at = jnp.where(memory.wait == 0, _following(memory.at, block, size), memory.at)
        wait = jnp.where(memory.wait == 0, period - 1, memory.wait - 1)
        return drawn._replace(memory=_Pool(starts, at, wait))

    return Reset(init, draw)


class _Pool(NamedTuple):
    """The memory of a pool that renews itself."""

    starts: PyTree  # (states, observations), leaves [size, ...]
    at: Array  # int32: the oldest start
    wait: Array  # int32: steps until it is drawn anew


def cached(env: Env, every: int = 16) -> Reset:
    """Every environment has its next start ready, and draws another once it is used.

    For environments with a dear reset whose starts must not repeat.  At each step a block of
    `num_envs / every` environments is looked after, one block after the other: if one of them has
    used its start, all of the block draw new ones.  So a step costs that many resets at most,
    and episodes of at least `every` steps each start from a draw of `env.reset` of their own,
    as with `fresh`; the start of a shorter one can serve the next episode of its environment
    again.  The starts are part of the training state and of its checkpoints.

    Raises ValueError if `every` is below 1.
    """
    if not isinstance(every, int) or not 1 <= every < 2**31:
        raise ValueError(f"cached(every={every!r}): needs a whole number of at least one step")

    def init(key: Key, params: Any, num_envs: int) -> PyTree:
        starts = _several(env, key, params, num_envs)
        return _Cache(starts, jnp.zeros(num_envs, bool), jnp.int32(0))

    def draw(key: Key, memory: _Cache, params: Any, done: Array) -> Pool:
        size = done.shape[0]
        block = -(-size // every)
        needed = jax.lax.dynamic_slice_in_dim(memory.used, memory.at, block).any()
        starts = _renewed(
            needed, lambda: _several(env, key, params, block), memory.starts, memory.at, block
        )
        used = _write(jnp.zeros(block, bool), memory.used, memory.at) | done
        return Pool(_Cache(starts, used, _following(memory.at, block, size)), (), *starts)

    return Reset(init, draw)


class _Cache(NamedTuple):
    """The memory of `cached`."""

    starts: PyTree  # (states, observations), leaves [N, ...]
    used: Array  # bool [N]: an episode has started from it
    at: Array  # int32: the first environment of the block that is looked after next


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
    """What suits `env`: its own `default_reset`, or `fresh`; `pool` or `cached` for dear resets."""
    if own := getattr(env, "default_reset", None):
        return own
    dear = getattr(env, "dear_reset", False)
    if not dear or hasattr(env, "reset_where"):
        return fresh
    return cached if dear == "cached" else pool


def _draw_from(key: Key, memory: PyTree, params: Any, done: Array) -> Pool:
    """A uniform choice from the start states in `memory` for every environment."""
    size = jax.tree.leaves(memory)[0].shape[0]
    index = jax.random.randint(key, done.shape, 0, size)
    state, observation = jax.tree.map(functools.partial(jnp.take, indices=index, axis=0), memory)
    return Pool(memory, (), state, observation)


def _rate(renewal: float, size: int) -> tuple[int, int]:
    """How many start states are drawn anew at once, and in how many steps; (0, 1) for none."""
    if not 0 <= renewal <= size or (renewal > 1 and renewal != int(renewal)):
        raise ValueError(
            f"pool(size={size}, renewal={renewal}): needs a number of start states per step, "
            "at most one or whole, and no more than there are"
        )
    if renewal == 0:
        return 0, 1
    return max(int(renewal), 1), max(round(1 / renewal), 1)


def _several(env: Env, key: Key, params: Any, n: int) -> tuple[PyTree, PyTree]:
    """`n` starts: states and observations."""
    return jax.vmap(env.reset, (0, None))(jax.random.split(key, n), params)


def _renewed(due: Array, rows: Callable[[], PyTree], tree: PyTree, at: Array, size: int) -> PyTree:
    """`tree` with `rows()`, `size` of them, from row `at` on where that is `due`.

    The condition is about these rows: one about the whole tree would copy it at every step, and
    so does reading the old tree after the new one is made.
    """
    take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=at, slice_size=size, axis=0)
    kept = jax.tree.map(take, tree)
    return _write(jax.lax.cond(due, rows, lambda: kept), tree, at)


def _write(rows: PyTree, tree: PyTree, at: Array) -> PyTree:
    """`tree` with `rows` from row `at` on; they end with it where they would go beyond."""
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=at, axis=0)
    return jax.tree.map(lambda x, new: put(x, new), tree, rows)


def _following(at: Array, block: int, size: int) -> Array:
    """The row after the block that begins with row `at`; the first after the last."""
    return jnp.where(at + block >= size, 0, at + block)
