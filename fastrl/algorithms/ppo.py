"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), clipped variant.

The details are those of "The 37 implementation details of PPO" (Huang et al. 2022), with two
differences: a time limit is no end (the value of the true successor is bootstrapped), and
minibatches are drawn by a bijection of indices instead of a sorted permutation.

Discrete, multi-discrete and continuous actions; any observation that `fastrl.networks` takes,
with action masks and a view for the critic alone; observations and rewards normalised by
statistics in the state; everything numeric in `HParams` may be traced, vmapped, differentiated.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import (
    arguments,
    distributions,
    door,
    normalize,
    objectives,
    optim,
    sharding,
    storage,
)
from fastrl.algorithms import minibatches, on_policy, ppo_update, ranges
from fastrl.algorithms.collectors import Collector
from fastrl.algorithms.on_policy import Sample
from fastrl.metrics import Metrics
from fastrl.networks import Activation, ActorCritic, NetworkConfig, actor_critic
from fastrl.objectives import Objective
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    Recipe,
    ResetFactory,
    Scalar,
)
from fastrl.vec import VecEnv, VecState


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 64
    num_steps: int = 32  # of every environment, per iteration
    num_epochs: int = 4  # passes over the rollout
    num_minibatches: int = 8  # per pass
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    torso: Literal["mlp", "conv"] = "mlp"
    shared_torso: bool = False  # one torso for policy and value
    normalize_observation: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    normalize_advantage: bool = True  # per minibatch
    shuffle_block: int = 1  # environments side by side that stay together: cheaper to gather
    observation_storage: storage.Floats = "float32"  # of the rollout; bfloat16: half the memory
    fused_rollout: bool = True  # on an NVIDIA GPU one kernel, where env and network allow it
    fused_mlp: bool = False  # on CPU: faster updates, on all cores; compiles for seconds more
    stop_on_kl: bool = False  # skip the rest of an iteration's updates past hparams.target_kl

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches", "shuffle_block"):
            door.integer(name, getattr(self, name), 1)
        door.flags(self)
        door.choice("observation_storage", self.observation_storage, ("float32", "bfloat16"))
        minibatches.check(self.num_envs, self.num_steps, self.num_minibatches)
        samples = self.num_envs * self.num_steps // self.num_minibatches
        if self.num_envs % self.shuffle_block or samples % self.shuffle_block:
            raise ValueError(
                f"shuffle_block={self.shuffle_block} does not divide num_envs={self.num_envs} and "
                f"a minibatch of {samples} samples"
            )
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(
            self.hidden_sizes, self.activation, self.torso, shared_torso=self.shared_torso,
            fused_mlp=self.fused_mlp,
        )  # fmt: skip


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-3
    gamma: Scalar = 0.99  # discount
    gae_lambda: Scalar = 0.95
    clip: Scalar = 0.2  # of the probability ratio
    value_clip: Scalar = float("inf")  # of the value's change; inf: no clipping
    entropy_coefficient: Scalar = 0.01
    value_coefficient: Scalar = 0.5
    max_grad_norm: Scalar = 0.5
    target_kl: Scalar = float("inf")  # used with Config.stop_on_kl
    reward_scale: Scalar = 1.0
    anneal_steps: Scalar = float("inf")  # environment steps until the rate below is reached
    final_learning_rate: Scalar = 0.0
    objective: Any = ()  # parameters of a learned objective


RANGES = ranges.of(HParams)
SMALL = 256  # samples of a minibatch whose update is mostly time between operations on a CPU


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: Any
    optimizer: optax.OptState
    env: VecState
    observations: normalize.RunningStatistics
    rewards: normalize.ReturnScale
    iteration: Array


def make(
    env: Env,
    config: Config = Config(),
    *,
    objective: Objective = objectives.clip,
    reset: ResetFactory | None = None,
) -> Algorithm[HParams, State]:
    """PPO on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    `reset` says where episodes start: by default `fastrl.reset.default(env)`.
    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    reset = arguments.checked(env, config, Config, reset)
    door.function("objective", objective, "fastrl.objectives.clip")
    return _make(env, config, objective, reset)


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, objective: Objective, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    action_space = env.action_space(task)
    spaces = env.observation_space(task), action_space
    network = actor_critic(*spaces, config.network)
    # Who acts with it later need not wait until kernels are compiled.
    plain = actor_critic(*spaces, dataclasses.replace(config.network, fused_mlp=False))
    vec_env = VecEnv(env, config.num_envs, arguments.starts(env, reset))
    kept = storage.storage(env.observation_space(task), config.observation_storage)
    collector = Collector(
        vec_env, network, config.network, action_space, kept, config.num_steps, reset,
        config.normalize_observation, config.fused_rollout,
    )  # fmt: skip
    parts = _Parts(config, network, objective, collector, kept)
    batch_size = config.num_envs * config.num_steps

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, env_key = jax.random.split(key, 3)
        params = network.init(network_key)
        optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params)
        return State(
            key, params, optimizer, vec_env.init(env_key, task),
            normalize.init(env.observation_space(task)),
            normalize.init_return_scale(config.num_envs), jnp.int32(0),
        )  # fmt: skip

    def act(
        state: State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        policy = plain.policy(state.params, normalize.seen(config, state, observation))
        action = policy.mode() if key is None else policy.sample(key)
        return distributions.to_environment(action_space, action), carry

    def value(state: State, observation: Observation) -> Array:
        return plain.value(state.params, normalize.seen(config, state, observation))

    return Algorithm(
        init, functools.partial(_iterate, parts), act, batch_size, HParams(), env, value,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("ppo", env, config, reset, objective),
        side_by_side=8 if config.fused_mlp and batch_size <= SMALL * config.num_minibatches else 1,
    )  # fmt: skip


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    network: ActorCritic
    objective: Objective
    collector: Collector
    storage: storage.Storage


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One iteration: a rollout, its advantages, and `num_epochs` passes of minibatches."""
    config, network, kept = parts.config, parts.network, parts.storage
    key, rollout_key, shuffle_key = jax.random.split(state.key, 3)
    see = functools.partial(normalize.seen, config, state)
    env_state, samples, metrics = parts.collector(
        see, rollout_key, state.params, state.env, task, state.observations
    )
    raw_observation, reward = samples.observation, samples.reward * hparams.reward_scale
    rewards, observations = state.rewards, state.observations
    if config.normalize_reward:
        done = samples.terminated | samples.truncated
        rewards, reward = normalize.scale_rewards(rewards, reward, done, hparams.gamma)
    samples = samples._replace(reward=reward)
    view = lambda stored: see(kept.unpack(stored))  # noqa: E731
    if kept.plain:  # seen once, not in every epoch
        samples, view = samples._replace(observation=see(raw_observation)), lambda seen: seen
    samples = on_policy.add_advantages(
        samples, lambda stored: network.value(state.params, view(stored)),
        network.value(state.params, see(sharding.collect(env_state.observation))),
        hparams.gamma, hparams.gae_lambda, config.num_minibatches,
    )  # fmt: skip
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)

    def batch_of(rows: Array) -> Sample:
        batch = sharding.shard_batch(jax.tree.map(lambda x: x[rows], flat))
        return batch._replace(observation=view(batch.observation))

    params, optimizer, update_metrics = ppo_update.update(
        parts.objective, config, lambda params, x: (*network.apply(params, x.observation), x),
        batch_of, _shuffled(config, shuffle_key), state, flat, hparams, config.stop_on_kl,
        optim.adam_in_place if config.fused_mlp else optim.adam,
    )  # fmt: skip
    if config.normalize_observation:
        observations = normalize.update(observations, kept.unpack(raw_observation))
    state = State(key, params, optimizer, env_state, observations, rewards, state.iteration + 1)
    return state, metrics | update_metrics


def _shuffled(config: Config, key: Key) -> Array:
    """The samples of every minibatch."""
    return minibatches.shuffled(
        key, config.num_steps, config.num_envs, config.num_epochs, config.num_minibatches,
        config.shuffle_block,
    )  # fmt: skip
