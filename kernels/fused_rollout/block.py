"""One step of a block of environments inside the kernel: observe, act, step, reset."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels.fused_rollout import heads
from fastrl.kernels.fused_rollout.network import Network
from fastrl.kernels.fused_rollout.program import Program
from fastrl.kernels.scalarize_cells import KeyCell, single
from fastrl.kernels.scalarize_keys import draw, split

Rows = list[list[jax.Array]]  # for every leaf of a layout its rows, each `[B]`


class Carry(NamedTuple):
    """What goes from step to step: vectors `[B]`, or the shapes and arrays where they end up."""

    state: Any  # rows
    observation: Any  # rows
    episode_return: Any  # so far
    episode_length: Any
    return_sum: Any  # of the episodes that ended in this rollout
    length_sum: Any
    episodes: Any  # how many
    metrics: Any  # list of sums over steps of what the environment reports


class Record(NamedTuple):
    """What is stored of a step, in the same forms; () for what is not asked for."""

    observation: Any  # rows
    action: Any  # rows
    log_prob: Any
    value: Any
    reward: Any
    ends: Any  # int8: 1 terminated, 2 truncated
    final_value: Any
    next_observation: Any


class Keys(NamedTuple):
    """The keys of one step, the same for all environments."""

    policy: KeyCell
    step: KeyCell
    reset: KeyCell


class Kept(NamedTuple):
    """What a rollout stores beside observations, actions, rewards and ends."""

    value: bool = True  # the critic's, of every observation
    final_value: bool = True  # the critic's, of true successors where truncated
    next_observation: bool = False  # the true successors


def one_step(
    program: Program, network: Network, kept: Kept, task: Any, statistics: Any, keys: Keys,
    env: jax.Array, carry: Carry,
) -> tuple[Carry, Record]:  # fmt: skip
    """A step of the environments with numbers `env`, uint32 `[B]`."""

    def inputs(observation: Any) -> list[jax.Array]:
        seen = heads.encode(program.observation_space, program.see(statistics, observation))
        return [jnp.broadcast_to(x, env.shape) for x in seen]  # some are alike for all

    state, observation = (
        _cells(program.state, carry.state),
        _cells(program.observation, carry.observation),
    )
    outputs, value = network.apply(inputs(observation), kept.value)
    drawn = _act(program, network, outputs, keys.policy, env)
    action = heads.to_environment(program.action_space, drawn.action)
    state, step = program.step(single(split(keys.step, env)), state, action, task)
    terminated, truncated = (_vector(x, bool, env) for x in (step.terminated, step.truncated))
    reward = _vector(step.reward, np.float32, env)
    done = terminated | truncated
    final_value: Any = ()
    if kept.final_value:
        final_value = _where_any(truncated, lambda: network.value(inputs(step.observation)))
    following = program.observation.rows(step.observation, env.shape)
    record = Record(
        carry.observation,
        [drawn.action],
        drawn.log_prob,
        value if kept.value else (),
        reward,
        terminated.astype(jnp.int8) + jnp.int8(2) * truncated.astype(jnp.int8),
        final_value,
        following if kept.next_observation else (),
    )
    fresh = program.reset(single(split(keys.reset, env)), task)
    now = program.state.rows(state, env.shape), following
    start = program.state.rows(fresh[0], env.shape), program.observation.rows(fresh[1], env.shape)
    return _advance(carry, done, reward, now, start, _metrics(program, step, env)), record


def _advance(
    carry: Carry, done: jax.Array, reward: jax.Array, now: Any, start: Any,
    metrics: list[jax.Array],
) -> Carry:  # fmt: skip
    """The next carry: a fresh start where `done`."""
    returns, lengths = carry.episode_return + reward, carry.episode_length + 1
    state, observation = jax.tree.map(lambda a, b: jnp.where(done, a, b), start, now)
    return Carry(
        state,
        observation,
        jnp.where(done, 0.0, returns),
        jnp.where(done, 0, lengths),
        carry.return_sum + jnp.where(done, returns, 0.0),
        carry.length_sum + jnp.where(done, lengths, 0).astype(jnp.float32),
        carry.episodes + done.astype(jnp.float32),
        [a + b for a, b in zip(carry.metrics, metrics, strict=True)],
    )


def _act(
    program: Program, network: Network, outputs: list[jax.Array], key: KeyCell, env: jax.Array
) -> heads.Drawn:
    """A draw from the policy, of the words that `jax.random` takes for a batch `[N, ...]`."""
    log_std = network.log_std
    entries = np.uint32(1 if log_std is None else len(outputs))

    def words(part: int, entry: int) -> jax.Array:
        own = key if part < 0 else split(key, np.uint32(part))
        return draw(own, env * entries + np.uint32(entry))

    return heads.sample(program.action_space, outputs, log_std, words)


def _metrics(program: Program, step: Any, env: jax.Array) -> list[jax.Array]:
    rows = program.metrics.rows(step.metrics, env.shape)
    return [row.astype(jnp.float32) for leaf in rows for row in leaf]


def _cells(layout: Any, rows: Rows) -> Any:
    return layout.cells(lambda leaf, row: rows[leaf][row])


def _vector(cells: Any, dtype: Any, env: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(np.asarray(cells, object)[()]).astype(dtype), env.shape)


def _where_any(where: jax.Array, f: Any) -> jax.Array:
    """`f()` where `where`, else 0; computed only if an environment of the block needs it."""
    needed = jnp.max(where.astype(jnp.int32)) > 0
    zeros = jnp.zeros(where.shape, jnp.float32)
    return jax.lax.cond(needed, lambda: jnp.where(where, f(), zeros), lambda: zeros)
