"""Policy gradients of whole trajectories: REINFORCE, N-PG-IGT, HARPG and N-HARPG.

The pair of Fatkhullin, Barakat, Kireeva and He 2023, "Stochastic Policy Gradient Methods: Improved
Sample Complexity for Fisher-non-degenerate Policies" (arXiv:2302.01734), algorithms 1 and 2, beside
the plain gradient (Williams 1992). With a trajectory `tau` of at most `H` steps,

    Phi(tau, x) = sum_t G_t log pi_x(a_t | s_t),   G_t = sum_{h >= t} gamma^h r_h
    g(tau, x)   = grad Phi                          (its mean is the gradient of the return)
    B(tau, x)   = grad Phi (grad log p(tau | x))^T + grad^2 Phi    (its mean is the Hessian)

    reinforce   d_t = g(tau_t, x_t)
    n_pg_igt    d_t = (1 - eta_t) d_{t-1} + eta_t g(tau_t, y_t),
                y_t = x_t + (1 - eta_t) / eta_t (x_t - x_{t-1})       (implicit gradient transport)
    harpg       d_t = (1 - eta_t) (d_{t-1} + B(tau'_t, z_t) (x_t - x_{t-1})) + eta_t g(tau_t, x_t),
                z_t = q x_t + (1 - q) x_{t-1},  q uniform in [0, 1],  tau'_t played by z_t

    x_{t+1} = x_t + rate_t d_t,   normalised methods (n_...): x_t + rate_t d_t / |d_t|

with `eta_t = (2 / (t + 2))^momentum_power` and `rate_t = learning_rate (2 / (t + 2))^step_power`,
t = 0, 1, ...; so `eta_0 = 1`.  B is never formed: B v is one forward derivative of a gradient.

There is no critic, so nothing is known of what follows a cut: a trajectory that is truncated, or
still running after `H` steps, counts up to there, as the paper's truncated objective has it.
"""

import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import distributions, door
from fastrl import metrics as fm
from fastrl.algorithms import agent as agents
from fastrl.algorithms import trajectories
from fastrl.metrics import Metrics
from fastrl.networks import Activation, ActorCritic, NetworkConfig, actor_critic
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    PyTree,
    Recipe,
    Reset,
    ResetFactory,
    Scalar,
)
from fastrl.vec import VecEnv

Method = Literal["reinforce", "n_pg_igt", "harpg", "n_harpg"]
_METHODS = ("reinforce", "n_pg_igt", "harpg", "n_harpg")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program."""

    method: Method = "n_harpg"
    num_trajectories: int = 1  # averaged in every g and B; the paper has one
    horizon: int = 500  # H, steps of a trajectory at most
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    std: float = 0.0  # above 0: a fixed deviation of continuous policies, else it is learned
    baseline: bool = False  # less the running mean of G_t at each t: as unbiased, less noise

    def __post_init__(self) -> None:
        door.choice("method", self.method, _METHODS)
        door.integer("num_trajectories", self.num_trajectories, 1)
        door.integer("horizon", self.horizon, 1)
        door.number("std", self.std, 0.0)
        door.flag("baseline", self.baseline)
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(self.hidden_sizes, self.activation)

    @property
    def uses_hessian(self) -> bool:
        """Whether every iteration plays a second batch of trajectories."""
        return self.method in ("harpg", "n_harpg")


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 0.02
    gamma: Scalar = 0.99  # discount
    momentum_power: Scalar = 0.8  # of eta_t; the paper: 4/5 for n_pg_igt, 1 for (n_)harpg
    step_power: Scalar = 0.0  # of rate_t; the paper's theory: 1 for normalised steps
    baseline_rate: Scalar = 0.1  # of the running mean, used with Config.baseline


RANGES = {
    "learning_rate": door.Range(0.0), "gamma": door.Range(0.0, 1.0),
    "momentum_power": door.Range(0.0), "step_power": door.Range(0.0),
    "baseline_rate": door.Range(0.0, 1.0),
}  # fmt: skip


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree  # x_t
    previous: PyTree  # x_{t-1}
    direction: PyTree  # d_{t-1}
    baseline: Array  # float32 [H]
    memory: PyTree  # of the Reset
    iteration: Array


class Trajectories(NamedTuple):
    """Complete first episodes of a batch, `[H, N, ...]`; after the end nothing counts."""

    observation: Observation
    action: Action
    weight: Array  # G_t less the baseline, 0 after the end
    alive: Array  # float32: 1 up to the end


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """A policy-gradient method on `env`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, agents.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    action_space = env.action_space(task)
    starts = reset(env)
    door.record("what reset(env) returns", starts, Reset)
    network = _policy(
        actor_critic(env.observation_space(task), action_space, config.network), config
    )
    vec_env = VecEnv(env, config.num_trajectories, starts)
    parts = _Parts(config, network, vec_env, action_space)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, reset_key = jax.random.split(key, 3)
        params = trajectories.policy_parameters(network.init(network_key))
        memory = starts.init(reset_key, task, config.num_trajectories)
        zeros = jax.tree.map(jnp.zeros_like, params)
        baseline = jnp.zeros(config.horizon, jnp.float32)
        return State(key, params, params, zeros, baseline, memory, jnp.int32(0))

    def act(
        state: State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        policy = network.policy(state.params, observation)
        action = policy.mode() if key is None else policy.sample(key)
        return distributions.to_environment(action_space, action), carry

    batches = 2 if config.uses_hessian else 1
    return Algorithm(
        init, functools.partial(_iterate, parts), act,
        batches * config.num_trajectories * config.horizon, HParams(), env,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("policy_gradient", env, config, reset),
    )  # fmt: skip


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    network: ActorCritic
    vec_env: VecEnv
    action_space: Any


def _policy(network: ActorCritic, config: Config) -> ActorCritic:
    """`network` whose deviations are those of `config`, if it fixes them."""
    if not config.std:
        return network
    log_std = math.log(config.std)

    def fixed(params: PyTree, observation: Observation) -> distributions.Distribution:
        layers = params["params"]
        if "log_std" in layers:
            layers = layers | {"log_std": jnp.full_like(layers["log_std"], log_std)}
        return network.policy({"params": layers}, observation)

    return network._replace(policy=fixed)


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One step of the method; the metrics are those of the trajectories that `g` saw."""
    config = parts.config
    key, play_key, other_key, mix_key = jax.random.split(state.key, 4)
    moved = jax.tree.map(jnp.subtract, state.params, state.previous)
    shrinking = 2.0 / (state.iteration.astype(jnp.float32) + 2.0)
    eta = shrinking**hparams.momentum_power
    at, start = state.params, state.direction
    if config.method == "n_pg_igt":
        at = _along(at, (1.0 - eta) / eta, moved)
    seen, memory, metrics = _play(parts, play_key, at, state, hparams, task)
    gradient = jax.grad(functools.partial(_phi, parts, seen))(at)
    if config.method == "reinforce":
        direction = gradient
    else:
        if config.uses_hessian:
            between = _along(state.params, -jax.random.uniform(mix_key), moved)
            carried = state._replace(memory=memory)
            other, memory, _ = _play(parts, other_key, between, carried, hparams, task)
            curvature = hessian_vector(functools.partial(_phi, parts, other),
                                       functools.partial(_log_p, parts, other),
                                       between, moved)  # fmt: skip
            start = jax.tree.map(jnp.add, start, curvature)
        direction = jax.tree.map(lambda d, g: (1.0 - eta) * d + eta * g, start, gradient)
    norm = optax.tree.norm(direction)
    rate = hparams.learning_rate * shrinking**hparams.step_power
    scale = rate / (norm + 1e-12) if config.method.startswith("n_") else rate
    params = _along(state.params, scale, direction)
    baseline = _baseline(state.baseline, seen, hparams) if config.baseline else state.baseline
    state = State(key, params, state.params, direction, baseline, memory, state.iteration + 1)
    reported = {"gradient_norm": optax.tree.norm(gradient), "direction_norm": norm}
    return state, metrics | {name: fm.mean(x) for name, x in reported.items()}


def _along(params: PyTree, scale: Array, direction: PyTree) -> PyTree:
    """`params + scale * direction`."""
    return jax.tree.map(lambda x, d: x + scale * d, params, direction)


def hessian_vector(phi: Any, log_p: Any, params: PyTree, vector: PyTree) -> PyTree:
    """`B v`, the mean over trajectories of `grad Phi (grad log p . v) + grad^2 Phi v`.

    `phi(x, w)` is the mean of `w Phi` and `log_p(x)` `[N]`.  With `w(x)` the likelihood ratio
    of each trajectory to the one at which it was played, the derivative of `grad_x phi(x, w(x))`
    along `v` has both terms.
    """
    here = jax.lax.stop_gradient(log_p(params))

    def gradient(x: PyTree) -> PyTree:
        return jax.grad(phi)(x, jnp.exp(log_p(x) - here))

    return jax.jvp(gradient, (params,), (vector,))[1]


def _phi(parts: _Parts, seen: Trajectories, params: PyTree, ratio: Any = 1.0) -> Array:
    """The mean over trajectories of `ratio Phi`."""
    log_prob = parts.network.policy(params, seen.observation).log_prob(seen.action)
    return (ratio * (seen.weight * log_prob).sum(0)).mean()


def _log_p(parts: _Parts, seen: Trajectories, params: PyTree) -> Array:
    """The policy's share of `log p(tau)`, `[N]`."""
    log_prob = parts.network.policy(params, seen.observation).log_prob(seen.action)
    return (seen.alive * log_prob).sum(0)


def _play(
    parts: _Parts, key: Key, params: PyTree, state: State, hparams: HParams, task: Any
) -> tuple[Trajectories, PyTree, Metrics]:
    """`N` trajectories from their starts, the Reset's memory after them, and their metrics."""
    config = parts.config
    played, memory, metrics = trajectories.play(
        parts.vec_env, parts.network, parts.action_space, config.horizon, key, params,
        state.memory, task,
    )  # fmt: skip
    discounts = hparams.gamma ** jnp.arange(config.horizon, dtype=jnp.float32)[:, None]
    followed = trajectories.to_go(discounts * played.reward)
    weight = played.alive * (followed - state.baseline[:, None])
    return Trajectories(played.observation, played.action, weight, played.alive), memory, metrics


def _baseline(baseline: Array, seen: Trajectories, hparams: HParams) -> Array:
    """The running mean of `G_t`, `[H]`, of those trajectories that were alive at `t`."""
    alive = seen.alive.sum(1)
    error = seen.weight.sum(1) / jnp.maximum(alive, 1.0)
    return baseline + hparams.baseline_rate * error
