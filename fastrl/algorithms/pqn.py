"""Parallelised Q-network (Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning",
arXiv:2407.04811, algorithm 1 and its lambda-returns): Q-learning on fresh rollouts.

No replay buffer, no target network.  Many environments act epsilon-greedily for a few steps; the
targets are the lambda-returns of the network that acted (Peng's Q(lambda)):

    G_t = r_t + gamma (1 - term_t) [(1 - l_t) max_a Q(s'_t, a) + l_t G_{t+1}]
    l_t = lambda (1 - done_t), and 0 at the end of the rollout
    loss = mean 1/2 (Q(s_t, a_t) - G_t)^2

with shuffled minibatches for some passes, RAdam, and layer normalisation before every
activation, which is what keeps it stable.  `max_a Q(s_t, a)` of the rollout comes from the very
pass that chose the actions.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, door, normalize, optim, returns, sharding
from fastrl import metrics as fm
from fastrl.algorithms import agent as agents
from fastrl.algorithms import minibatches, on_policy, q_learning, ranges
from fastrl.algorithms.on_policy import Sample
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.q_network import allowed, epsilon_greedy, q_network
from fastrl.storage import Storage, storage
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
    Transition,
)
from fastrl.vec import VecEnv, VecState


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 32
    num_steps: int = 64  # of every environment, per iteration
    num_epochs: int = 4  # passes over the rollout
    num_minibatches: int = 16  # per pass
    hidden_sizes: tuple[int, ...] = (128, 128)
    activation: Activation = "relu"
    torso: Literal["mlp", "conv"] = "mlp"
    layer_norm: bool = True  # before every activation
    normalize_observation: bool = False  # by running mean and variance
    fused_mlp: bool = False  # on CPU: faster updates by kernels; compiles for seconds more

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches"):
            door.integer(name, getattr(self, name), 1)
        door.flags(self)
        minibatches.check(self.num_envs, self.num_steps, self.num_minibatches)
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(
            self.hidden_sizes, self.activation, self.torso, layer_norm=self.layer_norm,
            fused_mlp=self.fused_mlp,
        )  # fmt: skip


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 5e-4
    gamma: Scalar = 0.99  # discount
    q_lambda: Scalar = 0.95
    epsilon: Scalar = 1.0  # chance of a random action at the start: falls linearly ...
    final_epsilon: Scalar = 0.05  # ... to this ...
    exploration_steps: Scalar = 100_000.0  # ... within so many environment steps
    max_grad_norm: Scalar = 10.0
    reward_scale: Scalar = 1.0
    anneal_steps: Scalar = float("inf")  # environment steps until the rate below is reached
    final_learning_rate: Scalar = 0.0


RANGES = ranges.of(HParams)


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: Any
    optimizer: optax.OptState
    env: VecState
    observations: normalize.RunningStatistics
    iteration: Array


class _Parts(NamedTuple):
    """What is closed over. `q_values(params, observation [..., *])` is `[..., A]`."""

    config: Config
    vec_env: VecEnv
    storage: Storage
    q_values: Callable[[Any, Observation], Array]

    def see(self, state: State, observation: Observation) -> Observation:
        """The observation as the network sees it."""
        return normalize.seen(self.config, state, observation)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """PQN on `env`, whose actions are Discrete. The same arguments give the same Algorithm.

    `reset` says where episodes start: by default `fastrl.reset.default(env)`.
    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    space = env.observation_space(task)
    network = q_network(space, env.action_space(task), config.network)

    def q_values(params: Any, observation: Observation) -> Array:
        return allowed(observation, network.apply(params, observation)[..., 0])

    vec_env = VecEnv(env, config.num_envs, arguments.starts(env, reset))
    parts = _Parts(config, vec_env, storage(space), q_values)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, env_key = jax.random.split(key, 3)
        params = network.init(network_key)
        optimizer = optim.radam(hparams.learning_rate, hparams.max_grad_norm).init(params)
        env_state = parts.vec_env.init(env_key, task)
        return State(key, params, optimizer, env_state, normalize.init(space), jnp.int32(0))

    def act(
        state: State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        q = q_values(state.params, parts.see(state, observation))
        return jnp.argmax(q, axis=-1).astype(jnp.int32), carry

    def value(state: State, observation: Observation) -> Array:
        return q_values(state.params, parts.see(state, observation)).max(-1)

    return Algorithm(
        init, functools.partial(_iterate, parts), act, config.num_envs * config.num_steps,
        HParams(), env, value, parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("pqn", env, config, reset),
    )  # fmt: skip


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One iteration: a rollout, its lambda-returns, and `num_epochs` passes of minibatches."""
    config = parts.config
    key, rollout_key, shuffle_key = jax.random.split(state.key, 3)
    env_state, samples, metrics = _collect(parts, rollout_key, state, hparams, task)
    observation = parts.storage.unpack(samples.observation)
    last = parts.see(state, sharding.collect(env_state.observation))
    last_best = parts.q_values(state.params, last).max(-1)
    targets = returns.lambda_returns(
        samples.reward * hparams.reward_scale,
        agents.next_values(samples, samples.value, last_best),
        samples.terminated, samples.truncated, hparams.gamma, hparams.q_lambda,
    )  # fmt: skip
    view, stored = parts.storage.unpack, samples.observation
    if config.normalize_observation:  # seen once, not in every epoch
        view, stored = lambda seen: seen, parts.see(state, observation)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (stored, samples.action, targets))
    params, optimizer, update_metrics = _update(parts, view, shuffle_key, state, flat, hparams)
    observations = state.observations
    if config.normalize_observation:
        observations = normalize.update(observations, observation)
    explained = agents.explained_variance(samples.value, targets)
    state = State(key, params, optimizer, env_state, observations, state.iteration + 1)
    return state, metrics | update_metrics | {"explained_variance": fm.mean(explained)}


def _collect(
    parts: _Parts, key: Key, state: State, hparams: HParams, task: Any
) -> tuple[VecState, Sample, Metrics]:
    """A rollout `[T, N]`, epsilon-greedy; values are `max_a Q`. Consumes `key`."""
    config, see = parts.config, functools.partial(parts.see, state)
    steps = state.iteration.astype(jnp.float32) * (config.num_envs * config.num_steps)
    epsilon = q_learning.epsilon(hparams, steps)

    def policy(key: Key, observation: Observation) -> tuple[Action, Array]:
        seen = see(observation)
        q = parts.q_values(state.params, seen)
        return epsilon_greedy(key, q, epsilon, seen), q.max(-1)

    def keep(t: Transition, best: Array, final: PyTree) -> Sample:
        kept = parts.storage.pack(t.observation)
        return Sample(
            kept, t.action, (), t.reward, t.terminated, t.truncated, final_value=final, value=best
        )

    env_state, samples, metrics = on_policy.rollout_with_final(
        parts.vec_env, policy, lambda x: parts.q_values(state.params, see(x)).max(-1), key,
        state.env, task, config.num_steps, keep,
    )  # fmt: skip
    return env_state, samples, metrics | {"epsilon": fm.mean(epsilon)}


def _update(
    parts: _Parts, view: Callable[[PyTree], Observation], key: Key, state: State,
    flat: tuple[PyTree, Array, Array], hparams: HParams,
) -> tuple[Any, Any, Metrics]:  # fmt: skip
    """`num_epochs` passes over observations, actions and targets in shuffled minibatches."""
    config = parts.config
    size = config.num_envs * config.num_steps
    rate = agents.learning_rate(hparams, state.iteration, size)
    optimizer = optim.radam(rate, hparams.max_grad_norm)

    def loss(params: Any, batch: tuple[PyTree, Array, Array]) -> tuple[Array, Metrics]:
        stored, action, target = batch
        q = parts.q_values(params, view(stored))
        taken = jnp.where(jax.nn.one_hot(action, q.shape[-1], dtype=bool), q, 0.0).sum(-1)
        loss = 0.5 * jnp.mean((taken - target) ** 2)
        return loss, {"loss": fm.mean(loss), "q_value": fm.mean(taken)}

    def batch_of(rows: Array) -> tuple[PyTree, Array, Array]:
        return sharding.shard_batch(jax.tree.map(lambda x: x[rows], flat))

    rows = minibatches.shuffled(
        key, config.num_steps, config.num_envs, config.num_epochs, config.num_minibatches
    )
    update = minibatches.update(optimizer, loss, batch_of)
    end, metrics = minibatches.descend(update, (state.params, state.optimizer), rows)
    return *end, metrics
