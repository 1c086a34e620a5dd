"""Where a trained teacher has been: snapshots of its episodes, grouped by how it values them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.evaluate import environment, seed_of
from fastrl.k_means import k_means
from fastrl.kernels import prng
from fastrl.types import Algorithm, Array, Env, Key, Observation, PyTree

Status = Callable[[Any, Observation], Array]  # (learner's state, observations [..., *]) -> [...]
Rewind = Callable[[Any], Any]  # (environment's state) -> the state to start from


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """Snapshots sorted by group, leaves `[S, ...]`; group `i` is `count[i]` long."""

    states: PyTree
    observations: PyTree
    status: np.ndarray  # float32 [S]
    count: np.ndarray  # int32 [groups], snapshots of each, all at least 1
    returns: np.ndarray  # float32 [E], of the teacher's episodes, best first

    @property
    def size(self) -> int:
        """How many snapshots there are."""
        return int(self.count.sum())


def collect(
    algorithm: Algorithm, state: Any, env: Env | None = None, params: Any = None, *,
    episodes: int = 10, best: int | None = None, every: int = 10, clusters: int = 6,
    status: Status | None = None, rewind: Rewind | None = None, deterministic: bool = False,
    max_steps: int = 1000, seed: int = 0,
) -> Store:  # fmt: skip
    """Plays `episodes` with the policy in `state` and keeps a snapshot every `every` steps.

    Of the episodes the `best` by return count (all by default).  `status` gives what snapshots are
    grouped by: by default `algorithm.value`; a learner of Q passes Q(s, pi(s)).  With
    `clusters=1` starts are uniform.  `rewind` changes states before they are stored, such as
    `lambda s: s._replace(time=jnp.zeros_like(s.time))`, where the environment counts its own
    limit.  Episodes longer than `max_steps` count up to there.

    Raises ValueError for bad arguments, and where there is nothing to group by.
    """
    door.algorithm(algorithm)
    for name, number in (("episodes", episodes), ("every", every), ("clusters", clusters),
                         ("max_steps", max_steps)):  # fmt: skip
        door.integer(name, number, 1)
    best = door.integer("best", episodes if best is None else best, 1, episodes)
    status = status or algorithm.value
    if status is None:
        raise ValueError(
            "this learner has no value function: pass status=, a function of its state and of "
            "observations, such as lambda state, observation: q(state, observation).max(-1)"
        )
    env, params = environment(algorithm, env, params)
    keys = jax.random.split(prng.key(seed_of(seed)), episodes)
    play = _player(algorithm, env, deterministic, max_steps)
    played = jax.jit(jax.vmap(play, (0, None, None)))(keys, state, params)
    states, observations, alive, rewards = played
    returns = np.asarray((rewards * alive).sum(1))
    order = np.argsort(-returns, kind="stable")[:best]
    taken = np.asarray(alive)[order, ::every] > 0
    episode, time = np.nonzero(taken)
    chosen = order[episode], time * every
    states, observations = jax.tree.map(lambda x: x[chosen], (states, observations))
    if rewind is not None:
        states = jax.vmap(rewind)(states)
    values = np.asarray(status(state, observations), np.float32)
    return grouped(states, observations, values, clusters, returns[order])


def grouped(
    states: PyTree, observations: PyTree, status: Any, clusters: int = 6, returns: Any = ()
) -> Store:
    """The store of snapshots, leaves `[S, ...]`, in `clusters` groups by their `status` `[S]`.

    The grouping is the best there is (see `k_means`); there may be fewer groups than asked for.
    Raises ValueError if `status` is not finite or of another length.
    """
    status = np.asarray(status, np.float32)
    sizes = {np.shape(x)[:1] for x in jax.tree.leaves((states, observations))}
    if sizes != {status.shape} or not status.size:
        raise ValueError(f"snapshots: leading axes {sorted(sizes)} for a status of {status.shape}")
    if not np.isfinite(status).all():
        raise ValueError("snapshots: a status is not finite: look at the teacher's value function")
    labels = k_means(status, min(door.integer("clusters", clusters, 1), status.size))
    order = np.argsort(labels, kind="stable")
    states, observations = jax.tree.map(lambda x: jnp.asarray(x)[order], (states, observations))
    count = np.bincount(labels)
    return Store(
        states, observations, status[order], count[count > 0].astype(np.int32),
        np.asarray(returns, np.float32),
    )  # fmt: skip


def _player(algorithm: Algorithm, env: Any, deterministic: bool, max_steps: int) -> Any:
    """The function of a key that plays one episode and keeps every state; leaves `[T, ...]`."""

    def play(key: Key, state: Any, params: Any) -> Any:
        reset_key, play_key = jax.random.split(key)

        def body(carry: Any, key: Key) -> Any:
            env_state, observation, memory, alive = carry
            act_key, step_key = jax.random.split(key)
            action, memory = algorithm.act(
                state, memory, observation, None if deterministic else act_key
            )
            following, step = env.step(step_key, env_state, action, params)
            kept = env_state, observation, alive.astype(jnp.float32), step.reward
            alive = alive & ~(step.terminated | step.truncated)
            return (following, step.observation, memory, alive), kept

        start = *env.reset(reset_key, params), algorithm.initial_carry(()), jnp.bool_(True)
        return jax.lax.scan(body, start, jax.random.split(play_key, max_steps))[1]

    return play
