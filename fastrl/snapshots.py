"""Snapshot starts: students begin where a trained teacher has been (S3RL).

Zhu, Li, Zhou and Zhang 2024, "SnapshotRL" (arXiv:2403.00673), with both of its parts:

* status classification: the snapshots of a teacher's episodes are put into `clusters` groups by a
  scalar, its value of the state, and a start is drawn from a group drawn uniformly, so that rare
  states are met as often as common ones;
* student trajectory truncation: an episode from a snapshot is cut off after `visit` steps, which is
  a truncation (what follows still has its value), so many short visits replace few long ones.

For the first `steps` environment steps episodes start so, afterwards from `env.reset`.  All of it
is a Reset and a transform, so it works with every learner and every environment:

    store = snapshots.collect(teacher, state, episodes=10)
    student = sac.make(snapshots.Visits(env), config, reset=snapshots.Starts(store, steps=100_000))

`Visits` alone changes nothing: what starts from `env.reset` is never cut off by it, so evaluation,
which always does, is that of the unchanged environment.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.evaluate import environment, seed_of
from fastrl.kernels import prng
from fastrl.reset import fresh
from fastrl.transforms.base import Transform
from fastrl.types import Action, Algorithm, Array, Env, Key, Observation, Pool, PyTree, Reset, Step

NO_LIMIT = 2**31 - 1
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


def k_means(x: np.ndarray, k: int) -> np.ndarray:
    """Groups 0 .. k - 1 of the numbers `x` `[S]`, ascending, with the least sum of squares.

    In one dimension the best groups are intervals, which dynamic programming finds (Wang and
    Song 2011): the cost of the first j numbers in i groups is the least over where the last
    group begins.  Takes `k S^2` operations in NumPy.
    """
    order = np.argsort(x, kind="stable")
    y = np.asarray(x, np.float64)[order]
    sums, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (y, y**2))
    size = len(y)
    begin, end = np.meshgrid(np.arange(size), np.arange(1, size + 1), indexing="ij")
    length = np.maximum(end - begin, 1)
    total = sums[end] - sums[begin]
    within = np.where(end > begin, squares[end] - squares[begin] - total**2 / length, np.inf)
    least = np.full(size + 1, np.inf)
    least[0] = 0.0
    choices = np.zeros((k, size + 1), int)
    for i in range(k):
        tried = least[:-1, None] + within  # [begin, end - 1]
        choices[i, 1:] = tried.argmin(0)
        least = np.concatenate([[np.inf], tried.min(0)])
    labels, last = np.zeros(size, int), size
    for i in reversed(range(k)):
        first = choices[i, last]
        labels[first:last] = i
        last = first
    unsorted = np.empty(size, int)
    unsorted[order] = labels
    return unsorted


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


class VisitState(NamedTuple):
    env: Any
    time: Array  # int32, steps since the start
    limit: Array  # int32, steps after which it is cut off


@dataclasses.dataclass(frozen=True)
class Visits(Transform):
    """`env` whose episodes are cut off after as many steps as their start says; see `Starts`.

    Limits that `env` has itself stay in force.  `from_snapshot` among the metrics is the share of
    steps in episodes that started from a snapshot.
    """

    own_state: ClassVar[bool] = True

    def reset(self, key: Key, params: Any) -> tuple[VisitState, Observation]:
        state, observation = self.env.reset(key, params)
        return VisitState(state, jnp.int32(0), jnp.int32(NO_LIMIT)), observation

    def step(
        self, key: Key, state: VisitState, action: Action, params: Any
    ) -> tuple[VisitState, Step]:
        inner, step = self.env.step(key, state.env, action, params)
        time = state.time + 1
        truncated = (step.truncated | (time >= state.limit)) & ~step.terminated
        visiting = (state.limit < NO_LIMIT).astype(jnp.float32)
        metrics = step.metrics | {"from_snapshot": visiting}
        step = step._replace(truncated=truncated, metrics=metrics)
        return VisitState(inner, time, state.limit), step


class _Memory(NamedTuple):
    """The memory of `Starts`."""

    states: PyTree
    observations: PyTree
    first: Array  # int32 [groups]: where each begins
    sizes: Array  # int32 [groups]
    taken: Array  # int32: steps of the batch


@dataclasses.dataclass(frozen=True, eq=False)
class Starts:
    """A ResetFactory for `Visits`: episodes start from `store` while fewer than `steps` are taken.

    `steps` counts environment steps, those of all environments together; an episode that is running
    then goes on as it began.  `visit` is how long an episode from a snapshot may be.
    """

    store: Store
    steps: int = 100_000
    visit: int = 100

    def __post_init__(self) -> None:
        door.record("store", self.store, Store)
        door.integer("steps", self.steps, 0, 2**31 - 1)
        door.integer("visit", self.visit, 1, NO_LIMIT)

    def __call__(self, env: Env) -> Reset:
        """Raises TypeError unless `env` is a `Visits`."""
        if not isinstance(env, Visits):
            raise TypeError(
                f"Starts cuts visits off, which {type(env).__name__} can't: pass Visits(env)"
            )
        plain = fresh(env)

        def init(key: Key, params: Any, num_envs: int) -> _Memory:
            states, observations = jax.tree.map(
                jnp.asarray, (self.store.states, self.store.observations)
            )
            count = jnp.asarray(self.store.count)
            return _Memory(states, observations, jnp.cumsum(count) - count, count, jnp.int32(-1))

        def draw(key: Key, memory: _Memory, params: Any, done: Array) -> Pool:
            snapshot_key, fresh_key, new_key = jax.random.split(key, 3)
            taken = memory.taken + 1  # the first draw is that of the starts, before any step
            early = taken * done.shape[0] < self.steps
            memory = memory._replace(taken=jnp.where(early, taken, memory.taken))

            def visits() -> tuple[VisitState, Observation]:
                state, observation = _drawn(snapshot_key, memory, done.shape[0])
                state = _with_new_keys(new_key, state)
                nothing = jnp.zeros(done.shape, jnp.int32)
                return VisitState(state, nothing, nothing + self.visit), observation

            def others() -> tuple[VisitState, Observation]:
                pool = plain.draw(fresh_key, (), params, done)
                return pool.state, pool.observation

            state, observation = jax.lax.cond(early, visits, others)
            return Pool(memory, (), state, observation)

        return Reset(init, draw)


def _drawn(key: Key, memory: _Memory, n: int) -> tuple[PyTree, PyTree]:
    """`n` snapshots: of each a group, uniformly, then one in it, uniformly."""
    group_key, place_key = jax.random.split(key)
    group = jax.random.randint(group_key, (n,), 0, memory.sizes.shape[0])
    place = jax.random.randint(place_key, (n,), 0, memory.sizes[group])
    index = memory.first[group] + place
    return jax.tree.map(lambda x: x[index], (memory.states, memory.observations))


def _with_new_keys(key: Key, state: PyTree) -> PyTree:
    """`state` with every typed key in it replaced: else all visits would meet the same chances."""
    leaves, treedef = jax.tree.flatten(state)
    for i, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            shape = jax.random.key_data(leaf).shape
            words = jax.random.bits(jax.random.fold_in(key, i), shape, jnp.uint32)
            leaves[i] = jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    return treedef.unflatten(leaves)
