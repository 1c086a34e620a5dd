"""Stream TD(lambda) with memory: predictions from all that was seen, one transition at a time.

`fastrl.streaming.stream_td` with the value of what a memory makes of the stream, see
`fastrl.streaming.recurrent`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, door
from fastrl.metrics import Metrics
from fastrl.streaming import recurrent, stream_td
from fastrl.streaming import stream as streams
from fastrl.streaming.recurrent import Params, Recurrent
from fastrl.streaming.recurrent_cells import Memory
from fastrl.streaming.stream import Stream
from fastrl.streaming.stream_td import RANGES, HParams, Policy
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    PyTree,
    Recipe,
    ResetFactory,
)

__all__ = ["Config", "HParams", "State", "make"]


@dataclasses.dataclass(frozen=True)
class Config(recurrent.Config):
    """The fields of `recurrent.Config`, with wider layers."""

    hidden_sizes: tuple[int, ...] = (128, 128)


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: Params
    optimizer: PyTree
    memory: Memory  # before the stream's observation
    stream: Stream
    time_limit: Array


class _Learner(NamedTuple):
    """What is closed over."""

    recurrent: Recurrent
    policy: Policy

    @property
    def stream(self) -> streams.Parts:
        return self.recurrent.stream

    def act(
        self, state: State, carry: PyTree, observation: Observation, key: Key | None
    ) -> tuple[Action, PyTree]:
        """The policy that is predicted, as `Algorithm.act` has it."""
        return self.policy(key, observation), carry

    def value(self, state: State, observation: Observation) -> Array:
        """The prediction in units of scaled reward, `[...]`; as at a first step."""
        return self.recurrent.first(lambda v, o: v[0], state, observation)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None,
    policy: Policy | None = None,
) -> Algorithm[HParams, State]:  # fmt: skip
    """Stream TD(lambda) with memory on `env` under `policy`, by default one that acts by chance.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    reset = arguments.checked(env, config, Config, reset)
    if policy is not None:
        door.function("policy", policy, "lambda key, observation: action")
    return _make(env, config, reset, policy)


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory, policy: Policy | None) -> Algorithm:
    parts = streams.parts(env, config, reset)
    by_chance = functools.partial(
        stream_td.by_chance, parts, env.action_space(env.default_params())
    )
    learner = _Learner(recurrent.build(parts, config, 1), policy or by_chance)
    recipe = None if policy else Recipe("stream_td_memory", env, config, reset)
    return streams.algorithm(
        recipe, learner, _init, _one, env, HParams(), RANGES,
        None, learner.recurrent.side_by_side,
    )  # fmt: skip


def _init(learner: _Learner, key: Key, hparams: HParams, task: Any) -> State:
    key, network_key, stream_key = jax.random.split(key, 3)
    params = learner.recurrent.model.init(network_key)
    trace = stream_td.optimizer(learner.stream.config, hparams).init(params)
    memory = learner.recurrent.model.start()
    stream = learner.stream.begin(stream_key, task)
    return State(key, params, trace, memory, stream, jnp.float32(hparams.time_limit))


def _one(learner: _Learner, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One transition and the update on it."""
    key, action_key, env_key = jax.random.split(state.key, 3)
    before, model = state.stream, learner.recurrent.model
    action = learner.policy(action_key, before.observation)
    stream, outcome, metrics = learner.stream.advance(env_key, before, action, hparams, task)
    learned = stream_td.learn(
        model.apply, stream_td.optimizer(learner.stream.config, hparams), state.params,
        state.optimizer, state.memory, before.x, outcome.reward, outcome.discount, outcome.x,
        outcome.clears,
    )  # fmt: skip
    memory = model.forget(learned.memory, outcome.done)
    state = State(
        key, learned.params, learned.optimizer, memory, stream, jnp.float32(hparams.time_limit)
    )
    return state, metrics | streams.learned(learned.value, learned.delta)
