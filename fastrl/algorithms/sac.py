"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905) with a learned temperature.

Twin critics, a policy that is a squashed normal, and the update of every batch

    y = r + gamma^k (1 - terminated) (min_i Qbar_i(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')
    Q_i <- down mean (Q_i(s, a) - y)^2 / 2          (equation 5)
    pi, alpha: see `fastrl.algorithms.soft_policy`, with min_i Q_i
    Qbar <- Qbar + tau (Q - Qbar)

A time limit is no end: where an episode was cut off the value of the true successor counts.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import continuous_networks as networks
from fastrl import door
from fastrl.algorithms import continuous, off_policy, soft_policy
from fastrl.algorithms.continuous import Agent, Trained
from fastrl.algorithms.off_policy import Batch, Learner
from fastrl.algorithms.soft_policy import SoftPolicy
from fastrl.continuous_networks import Actor, Critic
from fastrl.distributions import from_environment
from fastrl.metrics import Metrics
from fastrl.spaces import Box
from fastrl.types import Action, Algorithm, Array, Env, Key, Observation, ResetFactory, Scalar


@dataclasses.dataclass(frozen=True)
class Config(soft_policy.Config):
    """What shapes the program; the fields of `soft_policy.Config` and these."""

    learning_starts: int = 5_000
    num_critics: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        door.integer("num_critics", self.num_critics, 1)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 3e-4  # of the policy
    critic_learning_rate: Scalar = 1e-3
    temperature_learning_rate: Scalar = 1e-3
    gamma: Scalar = 0.99  # discount
    tau: Scalar = 0.005  # share of the critics that the target takes on at every update
    target_entropy: Scalar = -1.0  # of each action, in units where the Box is [-1, 1]
    temperature: Scalar = 1.0  # at the start


RANGES = {
    "learning_rate": continuous.NOT_NEGATIVE, "critic_learning_rate": continuous.NOT_NEGATIVE,
    "temperature_learning_rate": continuous.NOT_NEGATIVE, "gamma": continuous.SHARE,
    "tau": continuous.SHARE, "temperature": continuous.POSITIVE,
}  # fmt: skip


class Learned(NamedTuple):
    """Networks and optimisers."""

    policy: SoftPolicy
    critic: Trained
    target: Any  # variables of the critics, some time ago
    updates: Array  # int32


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    space: Box
    actor: Actor
    critic: Critic


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """SAC on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, continuous.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    return continuous.algorithm("sac", env, config, reset, agent(env, config), HParams(), RANGES)


def agent(env: Env, config: Config) -> Agent:
    """The learner on the spaces of `env`."""
    task = env.default_params()
    space, seen = networks.box(env.action_space(task)), env.observation_space(task)
    actor = networks.actor(seen, space, config.hidden_sizes, config.activation)
    critic = networks.critic(
        seen, space, config.num_critics, config.hidden_sizes, config.activation
    )
    parts = _Parts(config, space, actor, critic)
    return Agent(
        Learner(
            functools.partial(_init, parts),
            functools.partial(_explore, parts),
            functools.partial(_update, parts),
        ),
        functools.partial(soft_policy.act, actor, space),
        functools.partial(_value, parts),
        lambda learned: learned.policy.actor.variables,
    )


def _init(parts: _Parts, key: Key, hparams: HParams) -> Learned:
    actor_key, critic_key = jax.random.split(key)
    variables = parts.critic.init(critic_key)
    critic = continuous.trained(variables, optax.adam(hparams.critic_learning_rate))
    policy = soft_policy.init(parts.actor, actor_key, hparams)
    return Learned(policy, critic, jax.tree.map(jnp.copy, variables), jnp.int32(0))


def _explore(
    parts: _Parts, learned: Learned, observation: Observation, key: Key, hparams: HParams,
    steps: Array,
) -> Action:  # fmt: skip
    policy_key, random_key = jax.random.split(key)
    policy = parts.actor.policy(learned.policy.actor.variables, observation)
    action = policy.sample(policy_key)
    return continuous.explored(parts.config, parts.space, action, random_key, steps)


def _update(
    parts: _Parts, learned: Learned, batch: Batch, key: Key, hparams: HParams, steps: Array
) -> tuple[Learned, Metrics, Array]:
    next_key, policy_key = jax.random.split(key)
    policy = learned.policy
    following = batch.next_observation
    next_value = soft_policy.next_value(
        parts.actor, policy, following, next_key,
        lambda action: parts.critic.apply(learned.target, following, action, None).min(0),
    )  # fmt: skip
    target = batch.reward + batch.discount * next_value
    action = from_environment(parts.space, batch.action)

    def loss(variables: Any) -> tuple[Array, Array]:
        values = parts.critic.apply(variables, batch.observation, action, None)
        return continuous.squared_error(values, target, batch.weight), values

    optimizer = optax.adam(hparams.critic_learning_rate)
    critic, values = continuous.descend(learned.critic, loss, optimizer)
    count = learned.updates + 1
    policy, metrics = continuous.every(
        parts.config.policy_delay, count,
        lambda policy: soft_policy.improve(
            parts.actor, parts.config, policy, batch.observation, policy_key, hparams,
            lambda a: parts.critic.apply(critic.variables, batch.observation, a, None).min(0),
        ),
        policy,
    )  # fmt: skip
    followed = continuous.follow(learned.target, critic.variables, hparams.tau)
    reported, error = continuous.critic_metrics(values, target)
    return Learned(policy, critic, followed, count), reported | metrics, error


def _value(parts: _Parts, learned: Learned, observation: Observation) -> Array:
    """The least of the critics' values of the policy's mode."""
    action = parts.actor.mode(learned.policy.actor.variables, observation)
    return parts.critic.apply(learned.critic.variables, observation, action, None).min(0)
