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
import optax

from fastrl import arguments, continuous_networks, door
from fastrl.algorithms import continuous, off_policy, ranges, soft_policy
from fastrl.algorithms.continuous import Agent
from fastrl.algorithms.replay import Batch
from fastrl.algorithms.soft_policy import Learned, Networks
from fastrl.distributions import from_environment
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Env, Key, ResetFactory, Scalar


@dataclasses.dataclass(frozen=True)
class Config(soft_policy.Config):
    """What shapes the program; the fields of `soft_policy.Config` and these."""

    learning_starts: int = 5_000
    num_critics: int = 2
    fused_mlp: bool = False  # on CPU: faster updates by kernels; compiles for seconds more

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


RANGES = ranges.of(HParams)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """SAC on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    return continuous.algorithm("sac", env, config, reset, agent(env, config), HParams(), RANGES)


def agent(env: Env, config: Config) -> Agent:
    """The learner on the spaces of `env`."""
    task = env.default_params()
    space, seen = continuous_networks.box(env.action_space(task)), env.observation_space(task)
    sizes, activation, fused = config.hidden_sizes, config.activation, config.fused_mlp
    actor = continuous_networks.actor(seen, space, sizes, activation, fused_mlp=fused)
    critic = continuous_networks.critic(
        seen, space, config.num_critics, sizes, activation, fused_mlp=fused
    )
    built = Networks(space, actor, critic)
    return soft_policy.agent(
        config, built, functools.partial(soft_policy.with_target, built),
        functools.partial(_update, config, built), lambda values: values.min(0),
    )  # fmt: skip


def _update(
    config: Config, networks: Networks, learned: Learned, batch: Batch, key: Key,
    hparams: HParams, steps: Array,
) -> tuple[Learned, Metrics, Array]:  # fmt: skip
    next_key, policy_key = jax.random.split(key)
    space, actor, critics = networks
    policy, following = learned.policy, batch.next_observation
    next_value = soft_policy.next_value(
        actor, policy, following, next_key,
        lambda action: critics.apply(learned.target, following, action, None).min(0),
    )  # fmt: skip
    target = batch.reward + batch.discount * next_value
    action = from_environment(space, batch.action)

    def loss(variables: Any) -> tuple[Array, Array]:
        values = critics.apply(variables, batch.observation, action, None)
        return continuous.squared_error(values, target, batch.weight), values

    optimizer = optax.adam(hparams.critic_learning_rate)
    critic, values = continuous.descend(learned.critic, loss, optimizer)
    count = learned.updates + 1
    policy, metrics = continuous.every(
        config.policy_delay, count,
        lambda policy: soft_policy.improve(
            actor, config, policy, batch.observation, policy_key, hparams,
            lambda a: critics.apply(critic.variables, batch.observation, a, None).min(0),
        ),
        policy,
    )  # fmt: skip
    followed = continuous.follow(learned.target, critic.variables, hparams.tau)
    reported, error = continuous.critic_metrics(values, target)
    return Learned(policy, critic, followed, count), reported | metrics, error
