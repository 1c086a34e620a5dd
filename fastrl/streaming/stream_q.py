"""Stream Q(lambda): Q-learning with traces, from one transition at a time.

Elsayed, Vasan and Mahmood 2024 (arXiv:2410.14606), algorithm 1, and their version of 2026; with
`Config.version("intentional")` the Intentional Q(lambda) of Sharifnassab et al. 2026
(arXiv:2604.19033):

    delta = r + gamma max_b q(s', b) - q(s, a),    g = grad q(s, a)

with `fastrl.streaming.optimizers`, sparse weights, normalised layers, observations and rewards.
The trace is cleared at the end of an episode and at actions that are not the greedy one.  The
official code clears it *after* such an action's update (`cut="after"`): the error still
reaches older pairs, and the pair itself leaves no trace.  Watkins's Q(lambda) (Sutton and Barto
2018, section 12.10) clears before the pair is added (`cut="before"`).
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, door
from fastrl.metrics import Metrics
from fastrl.q_network import allowed, discrete, epsilon_greedy
from fastrl.streaming import action_values, networks, optimizers
from fastrl.streaming import config as configs
from fastrl.streaming import stream as streams
from fastrl.streaming.action_values import RANGES, HParams, Learner
from fastrl.streaming.stream import Stream
from fastrl.types import Algorithm, Array, Env, Key, PyTree, Recipe, ResetFactory


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """The fields of `config.Config` and this."""

    cut: Literal["after", "before"] = "after"  # where exploration clears the trace

    def __post_init__(self) -> None:
        super().__post_init__()
        door.choice("cut", self.cut, ("after", "before"))


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: networks.Params
    optimizer: PyTree
    stream: Stream
    selections: Array  # int32, actions chosen so far
    time_limit: Array


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """Stream Q(lambda) on `env`. The same arguments give the same Algorithm.

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
        Recipe("stream_q", env, config, reset), learner, _init, _one, env, HParams(), RANGES,
        parts.carry, streams.side_by_side([shape]),
    )  # fmt: skip


def _init(learner: Learner, key: Key, hparams: HParams, task: Any) -> State:
    key, network_key, stream_key = jax.random.split(key, 3)
    params = learner.network.init(network_key)
    trace = action_values.optimizer(learner.stream.config, hparams).init(params)
    stream = learner.stream.begin(stream_key, task)
    return State(key, params, trace, stream, jnp.int32(0), jnp.float32(hparams.time_limit))


def _one(learner: Learner, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One transition and the update on it."""
    config: Any = learner.stream.config
    key, action_key, env_key = jax.random.split(state.key, 3)
    before, selections = state.stream, state.selections + 1
    q_t, gradient_of = learner.linearized(state.params, before)
    epsilon = action_values.epsilon(hparams, selections)
    action = epsilon_greedy(action_key, q_t, epsilon, before.observation)
    explores = action != jnp.argmax(q_t)
    stream, outcome, metrics = learner.stream.advance(env_key, before, action, hparams, task)
    q_tp1 = allowed(outcome.observation, learner.network.apply(state.params, outcome.x)[0])
    delta = outcome.reward + outcome.discount * q_tp1.max() - q_t[action]
    trace, cut = state.optimizer, explores
    if config.cut == "before":
        trace, cut = optimizers.cleared(trace, explores), False
    params, trace = action_values.updated(
        config, hparams, state.params, trace, gradient_of(action), delta, outcome, cut
    )
    state = State(key, params, trace, stream, selections, jnp.float32(hparams.time_limit))
    return state, metrics | streams.learned(q_t[action], delta)
