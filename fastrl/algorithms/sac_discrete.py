"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv:1910.07207).

Expectations over the actions in the place of samples, with critics `Q_i(s, .)` of all actions:

    V(s') = sum_a pi(a|s') (min_i Qbar_i(s', a) - alpha log pi(a|s'))
    Q_i <- down mean (Q_i(s, a) - r - gamma^k (1 - terminated) V(s'))^2 / 2
    pi <- down mean sum_a pi(a|s) (alpha log pi(a|s) - min_i Q_i(s, a))
    log alpha <- down mean -log alpha (sum_a pi log pi + H)

The entropy aimed at is a share of the greatest, `H = entropy_share * log(allowed actions)`.  The
paper's 0.98 is all but uniform, and how well the learner does depends on it much.

A time limit is no end: where an episode was cut off the value of the true successor counts.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, distributions, door, ensembles
from fastrl import metrics as fm
from fastrl.algorithms import continuous, off_policy, ranges, soft_policy
from fastrl.algorithms.continuous import Agent
from fastrl.algorithms.off_policy import Learner
from fastrl.algorithms.replay import Batch
from fastrl.algorithms.soft_policy import Learned, SoftPolicy
from fastrl.continuous_networks import width
from fastrl.distributions import Categorical
from fastrl.metrics import Metrics
from fastrl.networks import encoder, split_views
from fastrl.spaces import Discrete
from fastrl.types import Action, Algorithm, Array, Env, Key, Observation, ResetFactory, Scalar


@dataclasses.dataclass(frozen=True)
class Config(soft_policy.Config):
    """What shapes the program; the fields of `soft_policy.Config` and these."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    learning_starts: int = 1_000
    num_critics: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        door.integer("num_critics", self.num_critics, 1)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 3e-4  # of the policy
    critic_learning_rate: Scalar = 3e-4
    temperature_learning_rate: Scalar = 3e-4
    gamma: Scalar = 0.99  # discount
    tau: Scalar = 0.005  # share of the critics that the target takes on at every update
    entropy_share: Scalar = 0.5  # of the greatest entropy, that is aimed at
    temperature: Scalar = 1.0  # at the start


RANGES = ranges.of(HParams, entropy_share=ranges.SHARE)


class _Parts(NamedTuple):
    """What is closed over; both networks are of an observation `[..., *]`."""

    config: Config
    actor: ensembles.Ensemble
    critic: ensembles.Ensemble
    actor_input: Any  # observation -> [..., D]
    critic_input: Any


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """Discrete SAC on `env`. The same arguments give the same Algorithm: nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    return continuous.algorithm(
        "sac_discrete", env, config, reset, agent(env, config), HParams(), RANGES
    )


def agent(env: Env, config: Config) -> Agent:
    """The learner on the spaces of `env`."""
    task = env.default_params()
    actions = env.action_space(task)
    if not isinstance(actions, Discrete):
        raise ValueError(f"the actions are {actions}: sac_discrete needs Discrete ones; see sac")
    actor_view, critic_view, _ = split_views(env.observation_space(task))
    network = functools.partial(
        ensembles.EnsembleConfig, hidden_sizes=config.hidden_sizes, num_outputs=actions.n,
        activation=config.activation,
    )  # fmt: skip
    parts = _Parts(
        config,
        ensembles.ensemble(width(actor_view), network(1)),
        ensembles.ensemble(width(critic_view), network(config.num_critics)),
        lambda observation: encoder(actor_view)(split_views(observation)[0]),
        lambda observation: encoder(critic_view)(split_views(observation)[1]),
    )
    return Agent(
        Learner(
            functools.partial(_init, parts),
            functools.partial(_explore, parts),
            functools.partial(_update, parts),
        ),
        functools.partial(_act, parts),
        functools.partial(_value, parts),
        lambda learned: learned.policy.actor.variables,
    )


def _init(parts: _Parts, key: Key, hparams: HParams) -> Learned:
    actor_key, critic_key = jax.random.split(key)
    actor, critic = parts.actor.init(actor_key), parts.critic.init(critic_key)
    policy = SoftPolicy(
        continuous.trained(actor, optax.adam(hparams.learning_rate)), soft_policy.start(hparams)
    )
    trained = continuous.trained(critic, optax.adam(hparams.critic_learning_rate))
    return Learned(policy, trained, jax.tree.map(jnp.copy, critic), jnp.int32(0))


def _policy(parts: _Parts, variables: Any, observation: Observation) -> Categorical:
    logits = parts.actor.apply(variables, parts.actor_input(observation), None)[0]
    return distributions.categorical(logits, split_views(observation)[2])


def _values(parts: _Parts, variables: Any, observation: Observation) -> Array:
    """`[E, ..., A]`."""
    return parts.critic.apply(variables, parts.critic_input(observation), None)


def _explore(
    parts: _Parts, learned: Learned, observation: Observation, key: Key, hparams: HParams,
    steps: Array,
) -> Action:  # fmt: skip
    policy_key, random_key = jax.random.split(key)
    policy = _policy(parts, learned.policy.actor.variables, observation)
    even = distributions.categorical(jnp.zeros_like(policy.log_p), split_views(observation)[2])
    random = steps < parts.config.learning_starts
    return jnp.where(random, even.sample(random_key), policy.sample(policy_key))


def _act(parts: _Parts, learned: Learned, observation: Observation, key: Key | None) -> Action:
    policy = _policy(parts, learned.policy.actor.variables, observation)
    return policy.mode() if key is None else policy.sample(key)


def _update(
    parts: _Parts, learned: Learned, batch: Batch, key: Key, hparams: HParams, steps: Array
) -> tuple[Learned, Metrics, Array]:
    policy, alpha = learned.policy, soft_policy.alpha(learned.policy.temperature)
    log_p = _policy(parts, policy.actor.variables, batch.next_observation).log_p
    least = _values(parts, learned.target, batch.next_observation).min(0)
    next_value = (jnp.exp(log_p) * (least - alpha * log_p)).sum(-1)
    target = batch.reward + batch.discount * next_value

    def loss(variables: Any) -> tuple[Array, Array]:
        values = _values(parts, variables, batch.observation)
        chosen = jax.nn.one_hot(batch.action, values.shape[-1])[None]
        taken = (chosen * values).sum(-1)
        return continuous.squared_error(taken, target, batch.weight), taken

    optimizer = optax.adam(hparams.critic_learning_rate)
    critic, values = continuous.descend(learned.critic, loss, optimizer)
    count = learned.updates + 1
    policy, metrics = continuous.every(
        parts.config.policy_delay, count,
        lambda policy: _improve(parts, policy, critic.variables, batch, hparams),
        policy,
    )  # fmt: skip
    followed = continuous.follow(learned.target, critic.variables, hparams.tau)
    reported, error = continuous.critic_metrics(values, target)
    return Learned(policy, critic, followed, count), reported | metrics, error


def _improve(
    parts: _Parts, policy: SoftPolicy, critic: Any, batch: Batch, hparams: HParams
) -> tuple[SoftPolicy, Metrics]:
    """A step of the policy, and one of the temperature."""
    alpha = soft_policy.alpha(policy.temperature)
    least = _values(parts, critic, batch.observation).min(0)

    def loss(variables: Any) -> tuple[Array, Array]:
        log_p = _policy(parts, variables, batch.observation).log_p
        return (jnp.exp(log_p) * (alpha * log_p - least)).sum(-1).mean(), log_p

    actor, log_p = continuous.descend(policy.actor, loss, optax.adam(hparams.learning_rate))
    entropy = -(jnp.exp(log_p) * log_p).sum(-1)
    mask = split_views(batch.observation)[2]
    allowed = jnp.float32(log_p.shape[-1]) if mask is None else mask.sum(-1)
    aim = hparams.entropy_share * jnp.log(allowed)
    metrics = {"entropy": fm.mean(entropy), "temperature": fm.mean(alpha)}
    temperature = policy.temperature
    if parts.config.learn_temperature:
        temperature = soft_policy.adapt(temperature, (aim - entropy).mean(), hparams)
    return SoftPolicy(actor, temperature), metrics


def _value(parts: _Parts, learned: Learned, observation: Observation) -> Array:
    """The least of the critics' values of the best action, which the policy's mode is."""
    best = _policy(parts, learned.policy.actor.variables, observation).mode()
    values = _values(parts, learned.critic.variables, observation).min(0)
    return (jax.nn.one_hot(best, values.shape[-1]) * values).sum(-1)
