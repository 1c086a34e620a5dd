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
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import distributions, door, normalize, objectives, optim, sharding, storage
from fastrl import metrics as fm
from fastrl import reset as resets
from fastrl.algorithms import on_policy
from fastrl.algorithms.collectors import Collector
from fastrl.algorithms.on_policy import Sample
from fastrl.distributions import Distribution
from fastrl.kernels.permutation import permutation
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
    Reset,
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
    stop_on_kl: bool = False  # skip the rest of an iteration's updates past hparams.target_kl

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches", "shuffle_block"):
            door.integer(name, getattr(self, name), 1)
        for field in dataclasses.fields(self):
            if isinstance(field.default, bool):
                door.flag(field.name, getattr(self, field.name))
        door.choice("observation_storage", self.observation_storage, ("float32", "bfloat16"))
        if self.num_envs * self.num_steps % self.num_minibatches:
            raise ValueError(
                f"num_envs*num_steps={self.num_envs * self.num_steps} is not divisible by "
                f"num_minibatches={self.num_minibatches}"
            )
        if self.num_envs % self.shuffle_block or (
            self.num_envs * self.num_steps // self.num_minibatches % self.shuffle_block
        ):
            raise ValueError(
                f"shuffle_block={self.shuffle_block} does not divide num_envs={self.num_envs} and "
                f"a minibatch of {self.num_envs * self.num_steps // self.num_minibatches} samples"
            )
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(
            self.hidden_sizes, self.activation, self.torso, shared_torso=self.shared_torso
        )


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


_POSITIVE = door.Range(0.0, open=True)
RANGES = {
    "learning_rate": door.Range(0.0), "final_learning_rate": door.Range(0.0),
    "gamma": door.Range(0.0, 1.0), "gae_lambda": door.Range(0.0, 1.0),
    "clip": _POSITIVE, "value_clip": _POSITIVE, "max_grad_norm": _POSITIVE,
    "anneal_steps": _POSITIVE,
}  # fmt: skip


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
    door.environment(env)
    door.record("config", config, Config)
    door.function("objective", objective, "fastrl.objectives.clip")
    reset = reset or resets.default(env)
    door.function("reset", reset, "fastrl.reset.pool")
    return _make(env, config, objective, reset)


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, objective: Objective, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    action_space = env.action_space(task)
    starts = reset(env)
    door.record("what reset(env) returns", starts, Reset)
    network = actor_critic(env.observation_space(task), action_space, config.network)
    vec_env = VecEnv(env, config.num_envs, starts)
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
        return State(
            key,
            params,
            optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params),
            vec_env.init(env_key, task),
            normalize.init(env.observation_space(task)),
            normalize.init_return_scale(config.num_envs),
            jnp.int32(0),
        )

    def act(
        state: State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        policy = network.policy(state.params, _seen(config, state, observation))
        action = policy.mode() if key is None else policy.sample(key)
        return distributions.to_environment(action_space, action), carry

    def value(state: State, observation: Observation) -> Array:
        return network.value(state.params, _seen(config, state, observation))

    return Algorithm(
        init, functools.partial(_iterate, parts), act, batch_size, HParams(), env, value,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("ppo", env, config, reset, objective),
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
    see = functools.partial(_seen, config, state)
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
    params, optimizer, update_metrics = _update(parts, view, shuffle_key, state, samples, hparams)
    if config.normalize_observation:
        observations = normalize.update(observations, kept.unpack(raw_observation))
    state = State(key, params, optimizer, env_state, observations, rewards, state.iteration + 1)
    return state, metrics | update_metrics


def _seen(config: Config, state: State, observation: Observation) -> Observation:
    """The observation as the network sees it."""
    if not config.normalize_observation:
        return observation
    return normalize.normalize(state.observations, observation)


def _update(
    parts: _Parts, view: Callable[[Any], Observation], key: Key, state: State,
    samples: Sample, hparams: HParams,
) -> tuple[Any, Any, Metrics]:  # fmt: skip
    """`num_epochs` passes over the samples in shuffled minibatches."""
    config = parts.config
    steps = state.iteration.astype(jnp.float32) * (config.num_envs * config.num_steps)
    progress = steps / hparams.anneal_steps
    optimizer = optim.adam(
        optim.linear(hparams.learning_rate, hparams.final_learning_rate, progress),
        hparams.max_grad_norm,
    )
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)
    loss_of = functools.partial(_loss, parts, hparams, progress)

    def minibatch(carry: Any, index: Array) -> tuple[Any, Metrics]:
        params, optimizer_state = carry
        batch = sharding.shard_batch(jax.tree.map(lambda x: x[index], flat))
        batch = batch._replace(observation=view(batch.observation))
        grads, metrics = jax.grad(loss_of, has_aux=True)(params, batch)
        updates, optimizer_state = optimizer.update(grads, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), metrics

    def guarded(carry: Any, index: Array) -> tuple[Any, Metrics]:
        """Updates until the policy has moved too far from the one that took the actions."""
        inner, going = carry
        shapes = jax.eval_shape(minibatch, inner, index)[1]
        inner, metrics = jax.lax.cond(
            going, minibatch, lambda c, _: (c, fm.zeros_like(shapes)), inner, index
        )
        kl = metrics["approximate_kl"]
        return (inner, going & (kl.total <= hparams.target_kl * kl.weight)), metrics

    indices = _shuffled(config, key)
    start = state.params, state.optimizer
    if config.stop_on_kl:
        (end, _), metrics = jax.lax.scan(guarded, (start, jnp.bool_(True)), indices)
    else:
        end, metrics = jax.lax.scan(minibatch, start, indices)
    explained = 1.0 - jnp.var(flat.target - flat.value) / (jnp.var(flat.target) + 1e-8)
    return *end, fm.fold(metrics) | {"explained_variance": fm.mean(explained)}


def _shuffled(config: Config, key: Key) -> Array:
    """The samples of every minibatch: `[epochs * minibatches, B]`, all of them in every epoch."""
    block = config.shuffle_block
    shuffle = functools.partial(permutation, a=config.num_steps, b=config.num_envs // block)
    blocks = jax.vmap(shuffle)(jax.random.split(key, config.num_epochs))
    indices = blocks[..., None] * block + jnp.arange(block)[None, None]
    return indices.reshape(config.num_epochs * config.num_minibatches, -1)


def _loss(
    parts: _Parts, hparams: HParams, progress: Array, params: Any, batch: Sample
) -> tuple[Array, Metrics]:
    """`loss` of one minibatch `[B]` under `params`."""
    policy, value = parts.network.apply(params, batch.observation)
    normalized = parts.config.normalize_advantage
    return loss(parts.objective, normalized, hparams, progress, policy, value, batch)


def loss(
    objective: Objective, normalize_advantage: bool, hparams: HParams, progress: Array,
    policy: Distribution, value: Array, batch: Sample,
) -> tuple[Array, Metrics]:  # fmt: skip
    """Policy, value and entropy loss of samples `[...]` with the network's outputs on them."""
    log_prob, entropy = policy.log_prob(batch.action), policy.entropy()
    advantage = batch.advantage
    if normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    inputs = objectives.Inputs(
        log_prob, batch.log_prob, advantage, entropy, batch.reward, batch.terminated,
        batch.truncated, progress,
    )  # fmt: skip
    policy_loss, reported = objective(hparams.objective, inputs, hparams)
    near = batch.value + jnp.clip(value - batch.value, -hparams.value_clip, hparams.value_clip)
    value_loss = 0.5 * jnp.maximum((value - batch.target) ** 2, (near - batch.target) ** 2)
    total = (
        policy_loss.mean()
        + hparams.value_coefficient * value_loss.mean()
        - hparams.entropy_coefficient * entropy.mean()
    )
    log_ratio = log_prob - batch.log_prob
    metrics = reported | {
        "loss": total,
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approximate_kl": jnp.expm1(log_ratio) - log_ratio,  # Schulman's unbiased estimate
    }
    return total, {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in metrics.items()}
