"""CrossQ (Bhatt et al. 2024, arXiv:1902.05605): soft actor-critic without target networks.

Critics with batch renormalisation look at `(s, a)` and `(s', a')` in one batch, so that both are
normalised alike; the second half, without gradient, is the target's:

    q, q' = Q([s; s'], [a; a']),   a' ~ pi(.|s')
    y = r + gamma^k (1 - terminated) (min_i q'_i - alpha log pi(a'|s'))
    Q_i <- down mean (q_i - y)^2 / 2

Wide critics, Adam with beta1 = 0.5, and a policy (batch-normalised too) that is updated at every
third step.  The policy's step, like acting, uses the running statistics of the critics.

A time limit is no end: where an episode was cut off the value of the true successor counts.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, continuous_networks, door
from fastrl.algorithms import continuous, off_policy, ranges, soft_policy
from fastrl.algorithms.continuous import Agent, Trained
from fastrl.algorithms.replay import Batch
from fastrl.algorithms.soft_policy import Networks, SoftPolicy
from fastrl.distributions import from_environment
from fastrl.metrics import Metrics
from fastrl.networks import NetworkConfig
from fastrl.types import Algorithm, Array, Env, Key, ResetFactory, Scalar


@dataclasses.dataclass(frozen=True)
class Config(soft_policy.Config):
    """What shapes the program; the fields of `soft_policy.Config` and these."""

    learning_starts: int = 5_000
    policy_delay: int = 3
    num_critics: int = 2
    critic_hidden_sizes: tuple[int, ...] = (2048, 2048)  # hidden_sizes are the policy's

    def __post_init__(self) -> None:
        super().__post_init__()
        door.integer("num_critics", self.num_critics, 1)
        try:
            sizes = NetworkConfig(self.critic_hidden_sizes).hidden_sizes
        except ValueError as error:
            raise ValueError(f"critic_{error}") from None
        object.__setattr__(self, "critic_hidden_sizes", sizes)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-3  # of the policy
    critic_learning_rate: Scalar = 1e-3
    temperature_learning_rate: Scalar = 1e-3
    gamma: Scalar = 0.99  # discount
    target_entropy: Scalar = -1.0  # of each action, in units where the Box is [-1, 1]
    temperature: Scalar = 1.0  # at the start
    beta1: Scalar = 0.5  # of Adam


RANGES = ranges.of(HParams, beta1=door.Range(0.0, 0.999))


class Learned(NamedTuple):
    """Networks and optimisers."""

    policy: SoftPolicy
    critic: Trained
    updates: Array  # int32


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """CrossQ on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    return continuous.algorithm("crossq", env, config, reset, agent(env, config), HParams(), RANGES)


def agent(env: Env, config: Config) -> Agent:
    """The learner on the spaces of `env`."""
    task = env.default_params()
    space, seen = continuous_networks.box(env.action_space(task)), env.observation_space(task)
    activation, sizes = config.activation, config.critic_hidden_sizes
    actor = continuous_networks.actor(seen, space, config.hidden_sizes, activation, norm="batch")
    critic = continuous_networks.critic(
        seen, space, config.num_critics, sizes, activation, norm="batch"
    )
    built = Networks(space, actor, critic)
    return soft_policy.agent(
        config, built, functools.partial(_init, built),
        functools.partial(_update, config, built), lambda values: values.min(0),
    )  # fmt: skip


def _init(networks: Networks, key: Key, hparams: HParams) -> Learned:
    return Learned(*soft_policy.without_target(networks, key, hparams), jnp.int32(0))


def _update(
    config: Config, networks: Networks, learned: Learned, batch: Batch, key: Key,
    hparams: HParams, steps: Array,
) -> tuple[Learned, Metrics, Array]:  # fmt: skip
    next_key, policy_key = jax.random.split(key)
    optimizer = optax.adam(hparams.critic_learning_rate, b1=hparams.beta1)  # type: ignore[arg-type]
    loss = functools.partial(_loss, networks, learned.policy, batch, next_key)
    critic, (values, target, after) = continuous.descend(learned.critic, loss, optimizer)
    critic = critic._replace(variables={**after, "params": critic.variables["params"]})
    count = learned.updates + 1
    policy, metrics = continuous.every(
        config.policy_delay, count,
        lambda policy: soft_policy.improve(
            networks.actor, config, policy, batch.observation, policy_key, hparams,
            lambda a: networks.critic.apply(critic.variables, batch.observation, a, None).min(0),
            hparams.beta1,
        ),
        learned.policy,
    )  # fmt: skip
    reported, error = continuous.critic_metrics(values, target)
    return Learned(policy, critic, count), reported | metrics, error


def _loss(
    networks: Networks, policy: SoftPolicy, batch: Batch, key: Key, variables: Any
) -> tuple[Array, tuple[Array, Array, Any]]:
    """The loss of the critics; their values `[E, B]`, the target `[B]`, the variables after it."""
    following = networks.actor.policy(policy.actor.variables, batch.next_observation)
    next_action, log_prob = following.sample_and_log_prob(key)
    action = from_environment(networks.space, batch.action)
    both = lambda x, y: jnp.concatenate([x, y])  # noqa: E731
    seen = jax.tree.map(both, batch.observation, batch.next_observation)
    values, after = networks.critic.train(variables, seen, both(action, next_action))
    values, next_values = jnp.split(values, 2, axis=1)
    next_value = next_values.min(0) - soft_policy.alpha(policy.temperature) * log_prob
    target = jax.lax.stop_gradient(batch.reward + batch.discount * next_value)
    loss = continuous.squared_error(values, target, batch.weight)
    return loss, (values, target, after)
