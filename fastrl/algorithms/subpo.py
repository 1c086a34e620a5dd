"""SubPO: policy gradients of rewards with diminishing returns.

Prajapat, Mutny, Zeilinger and Krause 2024, "Submodular Reinforcement Learning" (arXiv:2307.13372),
algorithm 1.  The return of a trajectory is a set function F of the states in it, which need not
be a sum.  It is the telescoping sum of marginal gains, so (theorem 2 of the paper)

    grad J = E sum_i grad log pi(a_i | s_i) (sum_{j >= i} F(s_{j+1} | s_0 .. s_j) - b_i)
    F(s | S) = F(S and s) - F(S)

An environment whose reward is the marginal gain is all that this needs (`coverage/...` of fastrl):
a policy that sees the state and the time alone is the paper's SubPO-M, one that also sees what
was visited its SubPO-NM.  `b_i` is the mean over the other trajectories of the batch of what they
gain from step i on.  Adam, as in the paper's code, and its entropy bonus that falls as 1 / (t + 1).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, door, optim
from fastrl import metrics as fm
from fastrl.algorithms import ranges, trajectories
from fastrl.algorithms.trajectories import Played
from fastrl.metrics import Metrics
from fastrl.networks import Activation, ActorCritic, NetworkConfig, actor_critic
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


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_trajectories * horizon` steps."""

    num_trajectories: int = 64  # of a gradient; the paper's code has 500
    horizon: int = 40  # steps of a trajectory at most
    hidden_sizes: tuple[int, ...] = (64, 32)
    activation: Activation = "tanh"
    baseline: bool = True  # less what the other trajectories gain from the same step on

    def __post_init__(self) -> None:
        door.integer("num_trajectories", self.num_trajectories, 2 if self.baseline else 1)
        door.integer("horizon", self.horizon, 1)
        door.flag("baseline", self.baseline)
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(self.hidden_sizes, self.activation)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 0.01
    gamma: Scalar = 1.0  # discount of gains
    entropy_coefficient: Scalar = 0.0  # divided by t + 1
    max_grad_norm: Scalar = float("inf")


RANGES = ranges.of(HParams)


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree
    optimizer: optax.OptState
    memory: PyTree  # of the Reset
    iteration: Array


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    network: ActorCritic
    vec_env: VecEnv
    action_space: Any


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """SubPO on `env`, whose rewards are marginal gains. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    action_space = env.action_space(task)
    network = actor_critic(env.observation_space(task), action_space, config.network)
    vec_env = VecEnv(env, config.num_trajectories, arguments.starts(env, reset))
    parts = _Parts(config, network, vec_env, action_space)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, reset_key = jax.random.split(key, 3)
        params = trajectories.policy_parameters(network.init(network_key))
        optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params)
        memory = vec_env.reset.init(reset_key, task, config.num_trajectories)
        return State(key, params, optimizer, memory, jnp.int32(0))

    return Algorithm(
        init, functools.partial(_iterate, parts), trajectories.acting(network, action_space),
        config.num_trajectories * config.horizon, HParams(), env,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("subpo", env, config, reset),
    )  # fmt: skip


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """A batch of trajectories and one step of Adam."""
    key, play_key = jax.random.split(state.key)
    played, memory, metrics = trajectories.play(
        parts.vec_env, parts.network, parts.action_space, parts.config.horizon, play_key,
        state.params, state.memory, task,
    )  # fmt: skip
    weight = advantages(played, hparams.gamma, parts.config.baseline)
    loss = functools.partial(_loss, parts, played, weight, hparams, state.iteration)
    gradient, reported = jax.grad(loss, has_aux=True)(state.params)
    adam = optim.adam(hparams.learning_rate, hparams.max_grad_norm)
    updates, optimizer = adam.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(key, params, optimizer, memory, state.iteration + 1), metrics | reported


def advantages(played: Played, gamma: Scalar, baseline: bool) -> Array:
    """What is gained from each step on, `[H, N]`, less the mean of that of the others."""
    times = jnp.arange(played.reward.shape[0], dtype=jnp.float32)[:, None]
    gained = trajectories.to_go(gamma**times * played.reward)
    if baseline:
        others = gained.shape[1] - 1
        gained = gained - (gained.sum(1, keepdims=True) - gained) / others
    return played.alive * gained


def _loss(
    parts: _Parts, played: Played, weight: Array, hparams: HParams, iteration: Array,
    params: PyTree,
) -> tuple[Array, Metrics]:  # fmt: skip
    policy = parts.network.policy(params, played.observation)
    gained = (weight * policy.log_prob(played.action)).sum(0).mean()
    alive, entropy = played.alive, policy.entropy()
    spread = (alive * entropy).sum() / alive.sum()
    coefficient = hparams.entropy_coefficient / (iteration.astype(jnp.float32) + 1.0)
    loss = -gained - coefficient * spread
    reported = {"loss": fm.mean(loss), "entropy": fm.mean(entropy, alive > 0)}
    return loss, jax.lax.stop_gradient(reported)
