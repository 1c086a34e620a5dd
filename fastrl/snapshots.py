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
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.reset import fresh
from fastrl.snapshot_store import Rewind, Status, Store, collect, grouped
from fastrl.transforms.base import Transform
from fastrl.types import Action, Array, Env, Key, Observation, Pool, PyTree, Reset, Step

__all__ = ["Rewind", "Starts", "Status", "Store", "Visits", "collect", "grouped"]

NO_LIMIT = 2**31 - 1


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
