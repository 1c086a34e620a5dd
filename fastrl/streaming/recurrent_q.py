"""Stream Q(lambda) with memory: values of actions from all that was seen.

`fastrl.streaming.stream_q` with the values of what a memory makes of the stream, see
`fastrl.streaming.recurrent`.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, door
from fastrl.metrics import Metrics
from fastrl.q_network import allowed, discrete, epsilon_greedy
from fastrl.streaming import action_values, optimizers, recurrent
from fastrl.streaming import stream as streams
from fastrl.streaming.action_values import RANGES, HParams
from fastrl.streaming.recurrent import Params, Recurrent
from fastrl.streaming.recurrent_cells import Memory
from fastrl.streaming.stream import Stream
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
    """The fields of `recurrent.Config` and this."""

    cut: Literal["after", "before"] = "after"  # where exploration clears the trace

    def __post_init__(self) -> None:
        super().__post_init__()
        door.choice("cut", self.cut, ("after", "before"))


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: Params
    optimizer: PyTree
    memory: Memory  # before the stream's observation
    stream: Stream
    selections: Array  # int32, actions chosen so far
    time_limit: Array


class _Learner(NamedTuple):
    """What is closed over."""

    recurrent: Recurrent

    @property
    def stream(self) -> streams.Parts:
        return self.recurrent.stream

    def act(
        self, state: State, carry: PyTree, observation: Observation, key: Key | None
    ) -> tuple[Action, PyTree]:
        """The best action, as `Algorithm.act` has it."""
        best = lambda q, o: jnp.argmax(allowed(o, q)).astype(jnp.int32)  # noqa: E731
        return self.recurrent.act_on(best, state, carry, observation)

    def value(self, state: State, observation: Observation) -> Array:
        """What the best action is worth, in units of scaled reward, `[...]`; as at a first step."""
        return self.recurrent.first(lambda q, o: allowed(o, q).max(), state, observation)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """Stream Q(lambda) with memory on `env`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    num_actions = discrete(env.action_space(env.default_params())).n
    parts = streams.parts(env, config, reset)
    learner = _Learner(recurrent.build(parts, config, num_actions))
    return streams.algorithm(
        Recipe("stream_q_memory", env, config, reset), learner, _init, _one, env, HParams(), RANGES,
        learner.recurrent.carry, learner.recurrent.side_by_side,
    )  # fmt: skip


def _init(learner: _Learner, key: Key, hparams: HParams, task: Any) -> State:
    key, network_key, stream_key = jax.random.split(key, 3)
    params = learner.recurrent.model.init(network_key)
    trace = action_values.optimizer(learner.stream.config, hparams).init(params)
    memory = learner.recurrent.model.start()
    stream = learner.stream.begin(stream_key, task)
    limit = jnp.float32(hparams.time_limit)
    return State(key, params, trace, memory, stream, jnp.int32(0), limit)


def _one(learner: _Learner, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One transition and the update on it."""
    config: Any = learner.stream.config
    key, action_key, env_key = jax.random.split(state.key, 3)
    before, selections, model = state.stream, state.selections + 1, learner.recurrent.model
    values = lambda p: model.apply(p, state.memory, before.x)  # noqa: E731
    outputs, pullback, memory = jax.vjp(values, state.params, has_aux=True)
    q_t = allowed(before.observation, outputs)
    epsilon = action_values.epsilon(hparams, selections)
    action = epsilon_greedy(action_key, q_t, epsilon, before.observation)
    explores = action != jnp.argmax(q_t)
    stream, outcome, metrics = learner.stream.advance(env_key, before, action, hparams, task)
    q_tp1 = allowed(outcome.observation, model.apply(state.params, memory, outcome.x)[0])
    delta = outcome.reward + outcome.discount * q_tp1.max() - q_t[action]
    trace, cut = state.optimizer, explores
    if config.cut == "before":
        trace, cut = optimizers.cleared(trace, explores), False
    gradient = pullback(jax.nn.one_hot(action, outputs.shape[0], dtype=outputs.dtype))[0]
    params, trace = action_values.updated(
        config, hparams, state.params, trace, gradient, delta, outcome, cut
    )
    memory = model.forget(memory, outcome.done)
    limit = jnp.float32(hparams.time_limit)
    state = State(key, params, trace, memory, stream, selections, limit)
    return state, metrics | streams.learned(q_t[action], delta)
