"""Stream TD(lambda): predictions of a discounted sum, from one transition at a time.

Elsayed, Vasan and Mahmood 2024 (arXiv:2410.14606), and their version of 2026:

    delta = c + gamma v(s') - v(s),    g = grad v(s)

`make(env)` predicts rewards in an environment under a fixed policy, by default one that acts by
chance.  For numbers that come from elsewhere see `fastrl.streaming.series`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, door, spaces
from fastrl.metrics import Metrics
from fastrl.streaming import config as configs
from fastrl.streaming import networks, optimizers
from fastrl.streaming import stream as streams
from fastrl.streaming.config import Numbers
from fastrl.streaming.networks import Network
from fastrl.streaming.stream import Parts, Stream
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
    Scalar,
)

# (key, observation [..., *]) -> action [..., *]; no key asks for the mode
Policy = Callable[[Key | None, Observation], Action]


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """The fields of `config.Config`, with wider layers."""

    hidden_sizes: tuple[int, ...] = (128, 128)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    gamma: Scalar = 0.99  # discount
    trace_decay: Scalar = 0.8  # lambda
    learning_rate: Scalar = 1.0  # alpha of (adaptive) ObGD: it cancels where the bound is active
    kappa: Scalar = 2.0  # of (adaptive) ObGD
    step_size: Scalar = 2e-4  # of the streaming optimiser: no weight moves further
    eta: Scalar = 0.5  # of intentional updates: the share of the error that is removed
    second_decay: Scalar = 0.999  # of adaptive ObGD and intentional updates
    peak_decay: Scalar = 0.99995  # of the streaming optimiser
    clip: Scalar = 20.0  # of intentional updates, in deviations of the error
    clip_decay: Scalar = 0.9998  # of the running mean that says what one is
    time_limit: Scalar = 1000.0  # steps in which the time feature grows by 1


_LEAST_0 = door.Range(0.0)
RANGES = configs.RANGES | {
    "learning_rate": _LEAST_0, "kappa": _LEAST_0, "step_size": _LEAST_0, "eta": _LEAST_0,
}  # fmt: skip


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: networks.Params
    optimizer: PyTree
    stream: Stream
    time_limit: Array


class _Learner(NamedTuple):
    """What is closed over."""

    stream: Parts
    network: Network
    policy: Policy

    def act(
        self, state: State, carry: PyTree, observation: Observation, key: Key | None
    ) -> tuple[Action, PyTree]:
        """The policy that is predicted, as `Algorithm.act` has it."""
        return self.policy(key, observation), carry

    def value(self, state: State, observation: Observation) -> Array:
        """The prediction in units of scaled reward, `[...]`; as at a first step."""
        one = lambda x, o: self.network.apply(state.params, x)[0][0]  # noqa: E731
        return self.stream.first(one, state, observation)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None,
    policy: Policy | None = None,
) -> Algorithm[HParams, State]:  # fmt: skip
    """Stream TD(lambda) on `env` under `policy`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    reset = arguments.checked(env, config, Config, reset)
    if policy is not None:
        door.function("policy", policy, "lambda key, observation: action")
    return _make(env, config, reset, policy)


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory, policy: Policy | None) -> Algorithm:
    parts = streams.parts(env, config, reset)
    shape = parts.shape((1,))
    network = value_network(config, shape)
    chosen = policy or functools.partial(by_chance, parts, env.action_space(env.default_params()))
    learner = _Learner(parts, network, chosen)
    recipe = None if policy else Recipe("stream_td", env, config, reset)
    return streams.algorithm(
        recipe, learner, _init, _one, env, HParams(), RANGES,
        None, streams.side_by_side([shape]),
    )  # fmt: skip


def value_network(config: configs.Config, shape: networks.Shape) -> Network:
    """The network of one value."""
    return networks.networks([shape], config.initializer, config.sparsity, config.layer_norm)[0]


def optimizer(config: configs.Config, hparams: HParams) -> optimizers.Optimizer:
    numbers = Numbers(hparams.learning_rate, hparams.kappa, hparams.step_size, hparams.eta)
    return configs.optimizer(config, hparams, numbers)


def _init(learner: _Learner, key: Key, hparams: HParams, task: Any) -> State:
    key, network_key, stream_key = jax.random.split(key, 3)
    params = learner.network.init(network_key)
    trace = optimizer(learner.stream.config, hparams).init(params)
    stream = learner.stream.begin(stream_key, task)
    return State(key, params, trace, stream, jnp.float32(hparams.time_limit))


def _one(learner: _Learner, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One transition and the update on it."""
    key, action_key, env_key = jax.random.split(state.key, 3)
    before = state.stream
    action = learner.policy(action_key, before.observation)
    stream, outcome, metrics = learner.stream.advance(env_key, before, action, hparams, task)
    learned = learn(
        memoryless(learner.network), optimizer(learner.stream.config, hparams), state.params,
        state.optimizer, (), before.x, outcome.reward, outcome.discount, outcome.x, outcome.clears,
    )  # fmt: skip
    limit = jnp.float32(hparams.time_limit)
    state = State(key, learned.params, learned.optimizer, stream, limit)
    return state, metrics | streams.learned(learned.value, learned.delta)


class Learned(NamedTuple):
    """What an update leaves."""

    params: PyTree
    optimizer: PyTree
    memory: PyTree  # that has seen `x_t`
    value: Array  # of `x_t`, before the update
    following: Array  # of `x_tp1`, before the update
    delta: Array


# (params, memory, x) -> (outputs [1], the memory that has seen x)
Apply = Callable[[Any, Any, Array], tuple[Array, Any]]


def memoryless(network: Network) -> Apply:
    """`network` as a function that hands a memory of nothing on."""
    return lambda params, memory, x: (network.apply(params, x)[0], memory)


def learn(
    apply: Apply, optimizer: optimizers.Optimizer, params: PyTree, trace: PyTree, memory: PyTree,
    x_t: Array, cumulant: Array, discount: Array, x_tp1: Array, clears: Array,
) -> Learned:  # fmt: skip
    """One update; `memory` is what was before `x_t`."""
    values = lambda p: apply(p, memory, x_t)  # noqa: E731
    (v_t,), pullback, memory = jax.vjp(values, params, has_aux=True)
    (v_tp1,), _ = apply(params, memory, x_tp1)
    delta = cumulant + discount * v_tp1 - v_t
    updates, trace = optimizer.update(pullback(jnp.ones(1))[0], trace, delta)
    params, trace = optimizers.apply(params, updates), optimizers.cleared(trace, clears)
    return Learned(params, trace, memory, v_t, v_tp1, delta)


def by_chance(
    parts: Parts, space: spaces.Space, key: Key | None, observation: Observation
) -> Action:
    """A uniform action; without a key zeros, or what a Box has nearest to them."""
    first = jax.tree.leaves(parts.space, is_leaf=spaces.is_leaf)[0]
    leaf = jax.tree.leaves(observation)[0]
    lead = jnp.shape(leaf)[: jnp.ndim(leaf) - len(first.shape)]
    if key is not None:
        return spaces.sample(key, space, lead)

    def nearest(s: spaces.Space, zero: Array) -> Array:
        if not isinstance(s, spaces.Box):
            return zero
        low, high = (jnp.broadcast_to(b, zero.shape) for b in s.bounds())
        return jnp.clip(zero, low, high)

    return spaces.tree_map(nearest, space, spaces.zeros(space, lead))
