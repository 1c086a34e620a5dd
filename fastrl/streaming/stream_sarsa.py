"""Stream SARSA(lambda): values of the policy that explores, from one transition at a time.

Elsayed, Vasan and Mahmood 2024 (arXiv:2410.14606), algorithm 2, and their version of 2026:

    delta = r + gamma q(s', a') - q(s, a),    g = grad q(s, a)

with `a'` drawn epsilon-greedily from the weights before the update; the trace is cleared at the
end of an episode only.  In the official code the action that was drawn at the last observation of
an episode is then taken in the first state of the next; `resample_on_reset` (default) draws
another there.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments
from fastrl.metrics import Metrics
from fastrl.q_network import allowed, discrete, epsilon_greedy
from fastrl.streaming import action_values, networks
from fastrl.streaming import config as configs
from fastrl.streaming import stream as streams
from fastrl.streaming.action_values import RANGES, HParams, Learner
from fastrl.streaming.stream import Stream
from fastrl.types import Algorithm, Array, Env, Key, PyTree, Recipe, ResetFactory


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """The fields of `config.Config` and this."""

    resample_on_reset: bool = True  # False: an action outlives its episode


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: networks.Params
    optimizer: PyTree
    stream: Stream
    action: Array  # int32, drawn for the observation that the stream stands at
    fresh: Array  # bool: but it is drawn anew
    selections: Array  # int32, actions drawn so far
    time_limit: Array


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """Stream SARSA(lambda) on `env`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    num_actions = discrete(env.action_space(env.default_params())).n
    parts = streams.parts(env, config, reset)
    shape = parts.shape((num_actions,))
    made = networks.networks([shape], config.initializer, config.sparsity, config.layer_norm)
    learner = Learner(parts, made[0])
    return streams.algorithm(
        Recipe("stream_sarsa", env, config, reset), learner, _init, _one, env, HParams(), RANGES,
        parts.carry, streams.side_by_side([shape]),
    )  # fmt: skip


def _init(learner: Learner, key: Key, hparams: HParams, task: Any) -> State:
    key, network_key, stream_key = jax.random.split(key, 3)
    params = learner.network.init(network_key)
    trace = action_values.optimizer(learner.stream.config, hparams).init(params)
    stream = learner.stream.begin(stream_key, task)
    nothing, limit = jnp.int32(0), jnp.float32(hparams.time_limit)
    return State(key, params, trace, stream, nothing, jnp.bool_(True), nothing, limit)


def _one(learner: Learner, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One transition and the update on it."""
    config: Any = learner.stream.config
    key, first_key, next_key, env_key = jax.random.split(state.key, 4)
    before = state.stream
    q_t, gradient_of = learner.linearized(state.params, before)
    selections = state.selections + state.fresh
    epsilon = action_values.epsilon(hparams, selections)
    drawn = epsilon_greedy(first_key, q_t, epsilon, before.observation)
    action = jnp.where(state.fresh, drawn, state.action)
    stream, outcome, metrics = learner.stream.advance(env_key, before, action, hparams, task)
    q_tp1 = allowed(outcome.observation, learner.network.apply(state.params, outcome.x)[0])
    selections = selections + 1
    epsilon = action_values.epsilon(hparams, selections)
    following = epsilon_greedy(next_key, q_tp1, epsilon, outcome.observation)
    delta = outcome.reward + outcome.discount * q_tp1[following] - q_t[action]
    params, trace = action_values.updated(
        config, hparams, state.params, state.optimizer, gradient_of(action), delta, outcome
    )
    fresh = outcome.done if config.resample_on_reset else jnp.bool_(False)
    state = State(
        key, params, trace, stream, following, fresh, selections, jnp.float32(hparams.time_limit)
    )
    return state, metrics | streams.learned(q_t[action], delta)
