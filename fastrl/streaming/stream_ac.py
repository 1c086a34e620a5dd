"""Stream AC(lambda): a policy and a value, from one transition at a time.

Elsayed, Vasan and Mahmood 2024 (arXiv:2410.14606), algorithm 3, and their version of 2026; with
`Config.version("intentional")` the Intentional AC of Sharifnassab et al. 2026 (arXiv:2604.19033):

    delta    = r + gamma v(s') - v(s)
    g_value  = grad v(s)
    g_policy = grad [ log pi(a|s) + tau sign(delta) H(pi(.|s)) ]

Two networks, each with an optimiser and a trace of its own, take steps by the same delta.  The
entropy's gradient enters the trace, so that its newest part always acts towards more entropy.
Actions of a Box are normal, with mean and deviation (a softplus) from two heads; they are clipped
for the environment only, and never rescaled: the policy acts in the units of the box.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, distributions, door
from fastrl import metrics as fm
from fastrl import networks as fastrl_networks
from fastrl.distributions import Distribution
from fastrl.metrics import Metrics
from fastrl.spaces import Box, Space
from fastrl.streaming import config as configs
from fastrl.streaming import networks, optimizers
from fastrl.streaming import stream as streams
from fastrl.streaming.config import Numbers
from fastrl.streaming.networks import Network
from fastrl.streaming.optimizers import Optimizer
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


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """The fields of `config.Config`; its sizes are those of policy and value, each."""


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    gamma: Scalar = 0.99  # discount
    trace_decay: Scalar = 0.8  # lambda, of both traces
    entropy_coefficient: Scalar = 0.01  # tau
    learning_rate: Scalar = 1.0  # alpha of (adaptive) ObGD: it cancels where the bound is active
    kappa_policy: Scalar = 3.0  # of (adaptive) ObGD
    kappa_value: Scalar = 2.0
    step_size_policy: Scalar = 1e-4  # of the streaming optimiser: no weight moves further
    step_size_value: Scalar = 2e-4
    eta_policy: Scalar = 0.05  # of intentional updates: the mean change of log pi
    eta_value: Scalar = 0.5  # the share of the error that is removed
    second_decay: Scalar = 0.999  # of adaptive ObGD and intentional updates
    peak_decay: Scalar = 0.99995  # of the streaming optimiser
    clip: Scalar = 20.0  # of intentional updates, in deviations of the error
    clip_decay: Scalar = 0.9998  # of the running mean that says what one is
    time_limit: Scalar = 1000.0  # steps in which the time feature grows by 1


_LEAST_0 = door.Range(0.0)
RANGES = configs.RANGES | {
    "learning_rate": _LEAST_0, "kappa_policy": _LEAST_0, "kappa_value": _LEAST_0,
    "step_size_policy": _LEAST_0, "step_size_value": _LEAST_0, "eta_policy": _LEAST_0,
    "eta_value": _LEAST_0,
}  # fmt: skip


class State(NamedTuple):
    """All there is to go on with; parameters and optimisers are of policy and value."""

    key: Key
    params: tuple[networks.Params, networks.Params]
    optimizers: tuple[PyTree, PyTree]
    stream: Stream
    time_limit: Array


class _Learner(NamedTuple):
    """What is closed over."""

    stream: Parts
    space: Space  # of actions
    policy: Network
    critic: Network

    def distribution(self, outputs: Any, observation: Observation) -> Distribution:
        """Over actions, from the policy's outputs for one observation."""
        mask = fastrl_networks.split_views(observation)[2]
        log_std = jnp.log(jax.nn.softplus(outputs[1])) if len(outputs) > 1 else None
        return distributions.from_outputs(self.space, outputs[0], log_std, mask)

    def to_environment(self, action: Action) -> Action:
        """Within the bounds of a Box."""
        if not isinstance(self.space, Box):
            return action
        low, high = self.space.bounds()
        return jnp.clip(action, *(jnp.broadcast_to(b, action.shape) for b in (low, high)))

    def act(
        self, state: State, carry: PyTree, observation: Observation, key: Key | None
    ) -> tuple[Action, PyTree]:
        """The policy, as `Algorithm.act` has it."""
        one = lambda x, o: self.distribution(self.policy.apply(state.params[0], x), o)  # noqa: E731
        policy, carry = self.stream.act_on(one, state, carry, observation)
        return self.to_environment(policy.mode() if key is None else policy.sample(key)), carry

    def value(self, state: State, observation: Observation) -> Array:
        """What the critic expects, in units of scaled reward, `[...]`; as at a first step."""
        one = lambda x, o: self.critic.apply(state.params[1], x)[0][0]  # noqa: E731
        return self.stream.first(one, state, observation)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """Stream AC(lambda) on `env`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    parts = streams.parts(env, config, reset)
    space = env.action_space(env.default_params())
    size = distributions.num_outputs(space)
    shapes = [parts.shape((size, size) if isinstance(space, Box) else (size,)), parts.shape((1,))]
    made = networks.networks(shapes, config.initializer, config.sparsity, config.layer_norm)
    learner = _Learner(parts, space, *made)
    return streams.algorithm(
        Recipe("stream_ac", env, config, reset), learner, _init, _one, env, HParams(), RANGES,
        parts.carry, streams.side_by_side(shapes),
    )  # fmt: skip


def _optimizers(config: configs.Config, hparams: HParams) -> tuple[Optimizer, Optimizer]:
    """Of policy and value."""
    h = hparams
    policy = Numbers(h.learning_rate, h.kappa_policy, h.step_size_policy, h.eta_policy)
    value = Numbers(h.learning_rate, h.kappa_value, h.step_size_value, h.eta_value)
    return (
        configs.optimizer(config, h, policy, policy=True),
        configs.optimizer(config, h, value),
    )


def _init(learner: _Learner, key: Key, hparams: HParams, task: Any) -> State:
    key, policy_key, value_key, stream_key = jax.random.split(key, 4)
    params = learner.policy.init(policy_key), learner.critic.init(value_key)
    of_policy, of_value = _optimizers(learner.stream.config, hparams)
    traces = of_policy.init(params[0]), of_value.init(params[1])
    stream = learner.stream.begin(stream_key, task)
    return State(key, params, traces, stream, jnp.float32(hparams.time_limit))


def _one(learner: _Learner, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One transition and the updates on it."""
    key, action_key, env_key = jax.random.split(state.key, 3)
    (theta, w), before = state.params, state.stream
    outputs, policy_pullback = jax.vjp(lambda p: learner.policy.apply(p, before.x), theta)
    action = learner.distribution(outputs, before.observation).sample(action_key)
    v_t, value_pullback = jax.vjp(lambda p: learner.critic.apply(p, before.x)[0][0], w)
    stream, outcome, metrics = learner.stream.advance(
        env_key, before, learner.to_environment(action), hparams, task
    )
    v_tp1 = learner.critic.apply(w, outcome.x)[0][0]
    delta = outcome.reward + outcome.discount * v_tp1 - v_t
    weight = hparams.entropy_coefficient * jnp.sign(delta)

    def objective(outputs: tuple[Array, ...]) -> tuple[Array, Array]:
        policy = learner.distribution(outputs, before.observation)
        entropy = policy.entropy()
        return policy.log_prob(action) + weight * entropy, entropy

    cotangent, entropy = jax.grad(objective, has_aux=True)(outputs)
    gradients = policy_pullback(cotangent)[0], value_pullback(jnp.ones_like(v_t))[0]
    params, traces = [], []
    for optimizer, *mine in zip(
        _optimizers(learner.stream.config, hparams), state.params, state.optimizers, gradients,
        strict=True,
    ):  # fmt: skip
        updates, trace = optimizer.update(mine[2], mine[1], delta)
        params.append(optimizers.apply(mine[0], updates))
        traces.append(optimizers.cleared(trace, outcome.clears))
    limit = jnp.float32(hparams.time_limit)
    state = State(key, (params[0], params[1]), (traces[0], traces[1]), stream, limit)
    reports = streams.learned(v_t, delta) | {"entropy": fm.each(entropy)}
    return state, metrics | reports
