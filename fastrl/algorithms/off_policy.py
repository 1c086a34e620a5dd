"""What off-policy learners share: acting into a buffer, and updates on batches drawn from it.

A round takes `num_steps` steps of `num_envs` environments into the buffer, then does
`num_updates` gradient updates; an iteration is `num_rounds` rounds in one scan.  The learner
itself is four functions (`Learner`).  A transition that was cut off keeps its true successor, whose
value is bootstrapped; only a termination has none.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import buffers, door, normalize, sharding, storage
from fastrl import metrics as fm
from fastrl.algorithms.replay import Batch, empty_item, item, n_step
from fastrl.buffers import Buffer, Draw
from fastrl.buffers import ring as rings
from fastrl.metrics import Metrics
from fastrl.types import (
    Action,
    Array,
    Env,
    Key,
    Observation,
    PyTree,
    Reset,
    Scalar,
)
from fastrl.vec import VecEnv, VecState, rollout


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields that the configs of all off-policy learners have.

    An iteration takes `num_envs * num_steps * num_rounds` environment steps.
    """

    num_envs: int = 1
    num_steps: int = 1  # of every environment, before each `num_updates` updates
    num_updates: int = 1
    num_rounds: int = 128  # of steps and updates in one iteration
    batch_size: int = 256
    buffer_size: int = 100_000  # transitions
    learning_starts: int = 1_000  # environment steps before the first update
    n_step: int = 1  # rewards in a target, before the value of what follows
    normalize_observation: bool = False  # by running mean and variance

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "num_updates", "num_rounds", "batch_size", "n_step"):
            door.integer(name, getattr(self, name), 1)
        door.integer("learning_starts", self.learning_starts, 0)
        door.flags(self)
        rings.shape(self.buffer_size, self.num_envs, self.num_steps, self.n_step)
        if self.batch_size > self.buffer_size:
            raise ValueError(
                f"batch_size={self.batch_size} is more than buffer_size={self.buffer_size}: "
                "every sample would be drawn several times; take a larger buffer"
            )

    @property
    def steps_per_round(self) -> int:
        """Environment steps between two groups of updates."""
        return self.num_envs * self.num_steps


class Learner(NamedTuple):
    """What makes one off-policy learner differ from another."""

    init: Callable[[Key, Any], PyTree]  # (key, hparams) -> learned state: networks, optimisers
    # (learned, observation [N, *], key, hparams, steps int32) -> action [N, *] to take
    explore: Callable[[PyTree, Observation, Key, Any, Array], Action]
    # (learned, batch, key, hparams, steps) -> (learned, metrics, |error| [B] for priorities)
    update: Callable[[PyTree, Batch, Key, Any, Array], tuple[PyTree, Metrics, Array]]


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    learned: PyTree
    env: VecState
    buffer: PyTree
    observations: normalize.RunningStatistics
    steps: Array  # int32: environment steps so far


class Parts(NamedTuple):
    """What is closed over."""

    config: Config
    learner: Learner
    vec_env: VecEnv
    buffer: Buffer
    storage: storage.Storage
    priority: Callable[[Array, Any], Array] | None  # (|error| [B], hparams) -> priority
    beta: Callable[[Any, Array], Scalar] | None  # (hparams, steps) -> exponent of the weights


def parts(
    env: Env,
    config: Config,
    reset: Reset,
    learner: Learner,
    *,
    priority: Callable[[Array, Any], Array] | None = None,
    beta: Callable[[Any, Array], Scalar] | None = None,
) -> Parts:
    """The parts of an off-policy algorithm; prioritised replay where `priority` is given."""
    kind = buffers.uniform if priority is None else buffers.prioritised
    buffer = kind(config.buffer_size, config.num_envs, block=config.num_steps, window=config.n_step)
    kept = storage.storage(env.observation_space(env.default_params()))
    vec_env = VecEnv(env, config.num_envs, reset)
    return Parts(config, learner, vec_env, buffer, kept, priority, beta)


def init(parts: Parts, key: Key, hparams: Any, task: Any) -> State:
    """The state before the first step. Consumes `key`."""
    key, learner_key, env_key = jax.random.split(key, 3)
    env, kept = parts.vec_env.env, parts.storage
    params = env.default_params()
    return State(
        key,
        parts.learner.init(learner_key, hparams),
        parts.vec_env.init(env_key, task),
        parts.buffer.init(empty_item(env, kept)),
        normalize.init(env.observation_space(params)),
        jnp.int32(0),
    )


def step(parts: Parts, state: State, hparams: Any, task: Any) -> tuple[State, Metrics]:
    """One iteration."""

    def one(state: State, _: None) -> tuple[State, Metrics]:
        key, act_key, update_key = jax.random.split(state.key, 3)
        state, acted = _collect(parts, state._replace(key=key), act_key, hparams, task)
        state, learned = _learn(parts, state, update_key, hparams)
        return state, acted | learned

    state, metrics = jax.lax.scan(one, state, None, parts.config.num_rounds)
    return state, fm.fold(metrics)


def _collect(
    parts: Parts, state: State, key: Key, hparams: Any, task: Any
) -> tuple[State, Metrics]:
    """A round's environment steps, into the buffer."""
    config, kept = parts.config, parts.storage

    def policy(key: Key, observation: Observation) -> tuple[Action, tuple[()]]:
        view = normalize.seen(config, state, observation)
        return parts.learner.explore(state.learned, view, key, hparams, state.steps), ()

    env, items, metrics = rollout(
        parts.vec_env,
        policy,
        key,
        state.env,
        task,
        config.num_steps,
        lambda t, _: item(kept, t),
    )
    items = sharding.collect(items)
    observations = state.observations
    if config.normalize_observation:
        observations = normalize.update(observations, kept.unpack(items.observation))
    state = state._replace(
        env=env, buffer=parts.buffer.add(state.buffer, items), observations=observations,
        steps=state.steps + config.steps_per_round,
    )  # fmt: skip
    return state, metrics


def _learn(parts: Parts, state: State, key: Key, hparams: Any) -> tuple[State, Metrics]:
    """A round's updates, none of them before `learning_starts` steps."""
    config, buffer = parts.config, parts.buffer

    def update(learned: PyTree, memory: PyTree, key: Key) -> tuple[PyTree, PyTree, Metrics]:
        draw_key, update_key = jax.random.split(key)
        draw = buffer.sample(memory, draw_key, config.batch_size)
        batch = _batch(parts, state, memory, draw, hparams)
        learned, metrics, error = parts.learner.update(
            learned, batch, update_key, hparams, state.steps
        )
        if parts.priority is not None:
            memory = buffer.reweigh(memory, draw, parts.priority(error, hparams))
        return learned, memory, metrics

    learned, memory, metrics = updates(
        config, buffer, update, state.learned, state.buffer, key, state.steps
    )
    return state._replace(learned=learned, buffer=memory), metrics


Update = Callable[[PyTree, PyTree, Key], tuple[PyTree, PyTree, Metrics]]


def updates(
    config: Config, buffer: Buffer, update: Update, learned: PyTree, memory: PyTree, key: Key,
    steps: Array,
) -> tuple[PyTree, PyTree, Metrics]:  # fmt: skip
    """`num_updates` times `update(learned, memory, key)`, or none before `learning_starts` steps.

    The loop's length is a number of the state: what it carries, priorities too, stays in place.
    """

    def body(i: Array, carry: tuple[Any, Any, Metrics]) -> tuple[Any, Any, Metrics]:
        learned, memory, sums = carry
        learned, memory, metrics = update(learned, memory, jax.random.fold_in(key, i))
        return learned, memory, fm.add(sums, metrics)

    nothing = fm.zeros_like(jax.eval_shape(update, learned, memory, key)[2])
    ready = (steps >= config.learning_starts) & (buffer.size(memory) > 0)
    count = jnp.where(ready, config.num_updates, 0)
    return jax.lax.fori_loop(0, count, body, (learned, memory, nothing))


def _batch(parts: Parts, state: State, memory: PyTree, draw: Draw, hparams: Any) -> Batch:
    """The transitions at `draw`, over up to `n_step` steps."""
    config, items = parts.config, parts.buffer.ring(memory).items
    view = lambda stored: normalize.seen(config, state, parts.storage.unpack(stored))  # noqa: E731
    observation, action = rings.take((items.observation, items.action), draw.row, draw.env)
    reward, discount, last = n_step(items, draw, hparams.gamma, config.n_step)
    following = rings.take(items.next_observation, last, draw.env)
    weight = jnp.ones_like(reward)
    if parts.beta is not None:
        size = parts.buffer.size(memory)
        weight = buffers.importance(draw, size, parts.beta(hparams, state.steps))
    batch = Batch(view(observation), action, reward, discount, view(following), weight)
    return sharding.shard_batch(batch)


def algorithm_functions(parts: Parts) -> tuple[Any, Any]:
    """`init` and `step` of the `Algorithm` made of `parts`."""
    return functools.partial(init, parts), functools.partial(step, parts)
