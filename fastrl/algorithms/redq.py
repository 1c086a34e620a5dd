"""Randomised ensembled double Q-learning: soft actor-critic at a high update-to-data ratio.

REDQ (Chen et al. 2021, arXiv:2101.05982): `num_critics` critics, `num_updates` updates of all of
them for each step, each towards the least of `num_chosen` that are drawn anew; the policy goes up
the mean of all, once per `policy_delay` updates:

    y = r + gamma^k (1 - terminated) (min_{i in M} Qbar_i(s', a') - alpha log pi(a'|s'))
    pi <- up mean( mean_i Q_i(s, a) - alpha log pi(a|s) )

DroQ (Hiraoka et al. 2022, arXiv:2110.02034) does with two critics, with dropout and then layer
normalisation before each activation, in the targets and the policy's step too: `DROQ`.

A time limit is no end: where an episode was cut off the value of the true successor counts.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import optax

from fastrl import arguments, door
from fastrl import continuous_networks as networks
from fastrl.algorithms import continuous, off_policy, ranges, soft_policy
from fastrl.algorithms.continuous import Agent
from fastrl.algorithms.replay import Batch
from fastrl.algorithms.soft_policy import Learned, Networks, SoftPolicy
from fastrl.continuous_networks import Actor, Critic, Dropout
from fastrl.distributions import from_environment
from fastrl.metrics import Metrics
from fastrl.spaces import Box
from fastrl.types import Algorithm, Array, Env, Key, ResetFactory, Scalar


@dataclasses.dataclass(frozen=True)
class Config(soft_policy.Config):
    """What shapes the program; the fields of `soft_policy.Config` and these."""

    learning_starts: int = 5_000
    num_updates: int = 20  # of the critics for each `num_steps` steps
    policy_delay: int = 20
    num_critics: int = 10
    num_chosen: int = 2  # critics in a target
    layer_norm: bool = False
    dropout: bool = False  # by hparams.dropout_rate

    def __post_init__(self) -> None:
        super().__post_init__()
        door.integer("num_critics", self.num_critics, 1)
        door.integer("num_chosen", self.num_chosen, 1)
        if self.num_chosen > self.num_critics:
            raise ValueError(
                f"num_chosen={self.num_chosen}: there are only num_critics={self.num_critics}"
            )


DROQ = Config(num_critics=2, layer_norm=True, dropout=True)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 3e-4  # of the policy
    critic_learning_rate: Scalar = 3e-4
    temperature_learning_rate: Scalar = 3e-4
    gamma: Scalar = 0.99  # discount
    tau: Scalar = 0.005  # share of the critics that the target takes on at every update
    target_entropy: Scalar = -1.0  # of each action, in units where the Box is [-1, 1]
    temperature: Scalar = 1.0  # at the start
    dropout_rate: Scalar = 0.01


RANGES = ranges.of(HParams, dropout_rate=door.Range(0.0, 0.99))


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    space: Box
    actor: Actor
    critic: Critic
    chosen: Critic  # `num_chosen` of its members


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """REDQ on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    return continuous.algorithm("redq", env, config, reset, agent(env, config), HParams(), RANGES)


def agent(env: Env, config: Config) -> Agent:
    """The learner on the spaces of `env`."""
    task = env.default_params()
    space, seen = networks.box(env.action_space(task)), env.observation_space(task)
    actor = networks.actor(seen, space, config.hidden_sizes, config.activation)
    critics = functools.partial(
        networks.critic, seen, space, hidden_sizes=config.hidden_sizes,
        activation=config.activation, norm="layer" if config.layer_norm else "none",
    )  # fmt: skip
    critic, chosen = critics(members=config.num_critics), critics(members=config.num_chosen)
    parts = _Parts(config, space, actor, critic, chosen)
    built = Networks(space, actor, critic)
    return soft_policy.agent(
        config, built, functools.partial(soft_policy.with_target, built),
        functools.partial(_update, parts), lambda values: values.mean(0),
    )  # fmt: skip


def _update(
    parts: _Parts, learned: Learned, batch: Batch, key: Key, hparams: HParams, steps: Array
) -> tuple[Learned, Metrics, Array]:
    target_key, loss_key, policy_key = jax.random.split(key, 3)
    target = batch.reward + batch.discount * _next_value(parts, learned, batch, target_key, hparams)
    action = from_environment(parts.space, batch.action)

    def loss(variables: Any) -> tuple[Array, Array]:
        dropout = _dropout(parts, loss_key, hparams)
        values = parts.critic.apply(variables, batch.observation, action, dropout)
        return continuous.squared_error(values, target, batch.weight), values

    optimizer = optax.adam(hparams.critic_learning_rate)
    critic, values = continuous.descend(learned.critic, loss, optimizer)
    count = learned.updates + 1
    policy, metrics = continuous.every(
        parts.config.policy_delay, count,
        lambda policy: _improve(parts, policy, critic.variables, batch, policy_key, hparams),
        learned.policy,
    )  # fmt: skip
    followed = continuous.follow(learned.target, critic.variables, hparams.tau)
    reported, error = continuous.critic_metrics(values, target)
    return Learned(policy, critic, followed, count), reported | metrics, error


def _next_value(parts: _Parts, learned: Learned, batch: Batch, key: Key, hparams: HParams) -> Array:
    """The soft value of the successor by the least of `num_chosen` target critics, `[B]`."""
    choice_key, action_key, dropout_key = jax.random.split(key, 3)
    config, target, following = parts.config, learned.target, batch.next_observation
    if config.num_chosen < config.num_critics:
        choice = jax.random.permutation(choice_key, config.num_critics)[: config.num_chosen]
        target = jax.tree.map(lambda x: x[choice], target)
    dropout = _dropout(parts, dropout_key, hparams)
    return soft_policy.next_value(
        parts.actor, learned.policy, following, action_key,
        lambda action: parts.chosen.apply(target, following, action, dropout).min(0),
    )  # fmt: skip


def _improve(
    parts: _Parts, policy: SoftPolicy, critic: Any, batch: Batch, key: Key, hparams: HParams
) -> tuple[SoftPolicy, Metrics]:
    """A step of the policy up the mean of all critics."""
    action_key, dropout_key = jax.random.split(key)
    dropout = _dropout(parts, dropout_key, hparams)
    return soft_policy.improve(
        parts.actor, parts.config, policy, batch.observation, action_key, hparams,
        lambda action: parts.critic.apply(critic, batch.observation, action, dropout).mean(0),
    )  # fmt: skip


def _dropout(parts: _Parts, key: Key, hparams: HParams) -> Dropout | None:
    return Dropout(key, hparams.dropout_rate) if parts.config.dropout else None
