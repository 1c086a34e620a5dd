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
t = 0, 1, ...; so `eta_0 = 1`.  `scheduled(method, rate)` has the powers of a public implementation.
B is never formed: B v is one forward derivative of a gradient.

There is no critic, so nothing is known of what follows a cut: a trajectory that is truncated, or
still running after `H` steps, counts up to there, as the paper's truncated objective has it.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, door
from fastrl import metrics as fm
from fastrl.algorithms import ranges, trajectories
from fastrl.algorithms import trajectory_gradients as gradients
from fastrl.algorithms.trajectory_gradients import Parts
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig, actor_critic
from fastrl.types import (
    Algorithm,
    Array,
    Env,
    Key,
    PyTree,
    Recipe,
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
    momentum_power: Scalar = 0.8  # of eta_t
    step_power: Scalar = 0.0  # of rate_t
    baseline_rate: Scalar = 0.1  # of the running mean, used with Config.baseline


# Powers of momentum and step in a public implementation of the same algorithms on garage.
_POWERS = {
    "reinforce": (1.0, 2 / 3), "n_pg_igt": (4 / 5, 1.0),
    "harpg": (1.0, 1 / 2), "n_harpg": (1.0, 1.0),
}  # fmt: skip


def scheduled(method: Method, learning_rate: Scalar, **numbers: Scalar) -> HParams:
    """The paper's schedule of `method` from `learning_rate` on, and other `numbers`.

    A normalised method moves by `2 learning_rate log(t / 2)` in `t` steps, whatever the gradient.
    """
    door.choice("method", method, _METHODS)
    momentum_power, step_power = _POWERS[method]
    return HParams(learning_rate, momentum_power=momentum_power, step_power=step_power, **numbers)


RANGES = ranges.of(
    HParams, momentum_power=ranges.NOT_NEGATIVE, step_power=ranges.NOT_NEGATIVE,
    baseline_rate=ranges.SHARE,
)  # fmt: skip


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree  # x_t
    previous: PyTree  # x_{t-1}
    direction: PyTree  # d_{t-1}
    baseline: Array  # float32 [H]
    memory: PyTree  # of the Reset
    iteration: Array


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """A policy-gradient method on `env`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    action_space = env.action_space(task)
    starts = arguments.starts(env, reset)
    network = gradients.fixed_deviation(
        actor_critic(env.observation_space(task), action_space, config.network), config
    )
    vec_env = VecEnv(env, config.num_trajectories, starts)
    parts = Parts(config, network, vec_env, action_space)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, reset_key = jax.random.split(key, 3)
        params = trajectories.policy_parameters(network.init(network_key))
        memory = starts.init(reset_key, task, config.num_trajectories)
        zeros = jax.tree.map(jnp.zeros_like, params)
        baseline = jnp.zeros(config.horizon, jnp.float32)
        return State(key, params, params, zeros, baseline, memory, jnp.int32(0))

    batches = 2 if config.uses_hessian else 1
    return Algorithm(
        init, functools.partial(_iterate, parts), trajectories.acting(network, action_space),
        batches * config.num_trajectories * config.horizon, HParams(), env,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("policy_gradient", env, config, reset),
    )  # fmt: skip


def _iterate(parts: Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One step of the method; the metrics are those of the trajectories that `g` saw."""
    config = parts.config
    key, play_key, other_key, mix_key = jax.random.split(state.key, 4)
    moved = jax.tree.map(jnp.subtract, state.params, state.previous)
    shrinking = 2.0 / (state.iteration.astype(jnp.float32) + 2.0)
    eta = shrinking**hparams.momentum_power
    at, start = state.params, state.direction
    if config.method == "n_pg_igt":
        at = _along(at, (1.0 - eta) / eta, moved)
    seen, memory, metrics = gradients.play(parts, play_key, at, state, hparams, task)
    gradient = jax.grad(functools.partial(gradients.phi, parts, seen))(at)
    if config.method == "reinforce":
        direction = gradient
    else:
        if config.uses_hessian:
            between = _along(state.params, -jax.random.uniform(mix_key), moved)
            carried = state._replace(memory=memory)
            other, memory, _ = gradients.play(parts, other_key, between, carried, hparams, task)
            curvature = gradients.hessian_vector(
                functools.partial(gradients.phi, parts, other),
                functools.partial(gradients.log_p, parts, other), between, moved,
            )  # fmt: skip
            start = jax.tree.map(jnp.add, start, curvature)
        direction = jax.tree.map(lambda d, g: (1.0 - eta) * d + eta * g, start, gradient)
    norm = optax.tree.norm(direction)
    rate = hparams.learning_rate * shrinking**hparams.step_power
    scale = rate / (norm + 1e-12) if config.method.startswith("n_") else rate
    params = _along(state.params, scale, direction)
    baseline = state.baseline
    if config.baseline:
        baseline = gradients.followed_baseline(baseline, seen, hparams)
    state = State(key, params, state.params, direction, baseline, memory, state.iteration + 1)
    reported = {"gradient_norm": optax.tree.norm(gradient), "direction_norm": norm}
    return state, metrics | {name: fm.mean(x) for name, x in reported.items()}


def _along(params: PyTree, scale: Array, direction: PyTree) -> PyTree:
    """`params + scale * direction`."""
    return jax.tree.map(lambda x, d: x + scale * d, params, direction)
