"""What SAC, REDQ and CrossQ share: all of a soft actor-critic but the update of its critics.

Haarnoja et al. 2018, arXiv:1812.05905: the policy goes up the soft value of its own actions,

    J(pi) = E[ Q(s, a) - alpha log pi(a|s) ],   a = tanh(mu + sigma noise)       (equation 7)

and the temperature `alpha` towards an entropy H of the policy, by steps on its logarithm:

    J(log alpha) = -log alpha E[ log pi(a|s) + H ]                (equation 18, of the logarithm)

`H = target_entropy * (number of actions)`, of densities in units where the Box is [-1, 1].
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import door
from fastrl import metrics as fm
from fastrl.algorithms import continuous
from fastrl.algorithms.continuous import Agent, Trained
from fastrl.algorithms.off_policy import Learner
from fastrl.continuous_networks import Actor, Critic
from fastrl.distributions import to_environment
from fastrl.metrics import Metrics
from fastrl.spaces import Box
from fastrl.types import Action, Array, Key, Observation, Scalar


@dataclasses.dataclass(frozen=True)
class Config(continuous.Config):
    """The fields of `continuous.Config`, and of the policy."""

    learn_temperature: bool = True  # or keep hparams.temperature
    policy_delay: int = 1  # updates of the critics before each of policy and temperature

    def __post_init__(self) -> None:
        super().__post_init__()
        door.integer("policy_delay", self.policy_delay, 1)


class SoftPolicy(NamedTuple):
    """The policy and the logarithm of its temperature."""

    actor: Trained
    temperature: Trained


class Learned(NamedTuple):
    """Networks and optimisers, of a learner with a target network."""

    policy: SoftPolicy
    critic: Trained
    target: Any  # variables of the critics, some time ago
    updates: Array  # int32


class Networks(NamedTuple):
    """What acts, and what judges."""

    space: Box  # of the actions
    actor: Actor
    critic: Critic


def agent(
    config: Config, networks: Networks, init: Callable[..., Any], update: Callable[..., Any],
    judge: Callable[[Array], Array],
) -> Agent:  # fmt: skip
    """The agent of a learner whose state has `policy` and `critic`.

    `init` and `update` are `Learner`'s, before `networks` are given; the value is that which
    `judge` makes of those of all critics, `[E, ...] -> [...]`, for the policy's mode.
    """
    space, actor, critic = networks

    def explore(
        learned: Any, observation: Observation, key: Key, hparams: Any, steps: Array
    ) -> Action:
        policy_key, random_key = jax.random.split(key)
        policy = actor.policy(learned.policy.actor.variables, observation)
        action = policy.sample(policy_key)
        return continuous.explored(config, space, action, random_key, steps)

    def act(learned: Any, observation: Observation, key: Key | None) -> Action:
        """For the environment: the mode, or with a key a sample."""
        variables = learned.policy.actor.variables
        if key is None:
            return to_environment(space, actor.mode(variables, observation))
        return to_environment(space, actor.policy(variables, observation).sample(key))

    def value(learned: Any, observation: Observation) -> Array:
        action = actor.mode(learned.policy.actor.variables, observation)
        return judge(critic.apply(learned.critic.variables, observation, action, None))

    return Agent(
        Learner(init, explore, update), act, value, lambda learned: learned.policy.actor.variables
    )


def with_target(networks: Networks, key: Key, hparams: Any) -> Learned:
    """The learner before its first update; the target network is a copy. Consumes `key`."""
    policy, critic = without_target(networks, key, hparams)
    return Learned(policy, critic, jax.tree.map(jnp.copy, critic.variables), jnp.int32(0))


def without_target(networks: Networks, key: Key, hparams: Any) -> tuple[SoftPolicy, Trained]:
    """The policy, at temperature `hparams.temperature`, and the critics. Consumes `key`."""
    actor_key, critic_key = jax.random.split(key)
    critic = networks.critic.init(critic_key)
    critic = continuous.trained(critic, optax.adam(hparams.critic_learning_rate))
    actor = networks.actor.init(actor_key)
    actor = continuous.trained(actor, optax.adam(hparams.learning_rate))
    return SoftPolicy(actor, start(hparams)), critic


def next_value(
    actor: Actor, state: SoftPolicy, observation: Observation, key: Key,
    value_of: Callable[[Array], Array],
) -> Array:  # fmt: skip
    """`V(s') = Q(s', a') - alpha log pi(a'|s')` with a sampled `a'`, `[B]`. Consumes `key`."""
    policy = actor.policy(state.actor.variables, observation)
    action, log_prob = policy.sample_and_log_prob(key)
    return value_of(action) - alpha(state.temperature) * log_prob


def improve(
    actor: Actor, config: Config, state: SoftPolicy, observation: Observation, key: Key,
    hparams: Any, value_of: Callable[[Array], Array], beta1: Scalar = 0.9,
) -> tuple[SoftPolicy, Metrics]:  # fmt: skip
    """A step of the policy up `value_of(action [B, *]) -> [B]`, and one of the temperature.

    Both from one sample of actions. Consumes `key`.
    """
    temperature = alpha(state.temperature)

    def loss(variables: Any) -> tuple[Array, tuple[Array, Any]]:
        policy, after = actor.train(variables, observation)
        action, log_prob = policy.sample_and_log_prob(key)
        return (temperature * log_prob - value_of(action)).mean(), (log_prob, after)

    trained, (log_prob, after) = continuous.descend(
        state.actor, loss, optax.adam(hparams.learning_rate, b1=beta1)
    )
    trained = trained._replace(variables={**after, "params": trained.variables["params"]})
    metrics = {"entropy": fm.mean(-log_prob), "temperature": fm.mean(temperature)}
    warmer = state.temperature
    if config.learn_temperature:
        target = hparams.target_entropy * actor.num_actions
        warmer = adapt(warmer, log_prob.mean() + target, hparams, beta1)
    return SoftPolicy(trained, warmer), metrics


def start(hparams: Any) -> Trained:
    """The temperature `hparams.temperature`, as its logarithm."""
    logarithm = jnp.log(jnp.asarray(hparams.temperature, jnp.float32))
    return continuous.trained({"params": logarithm}, optax.adam(hparams.temperature_learning_rate))


def alpha(temperature: Trained) -> Array:
    """The temperature itself."""
    return jnp.exp(temperature.variables["params"])


def adapt(temperature: Trained, missing: Array, hparams: Any, beta1: Scalar = 0.9) -> Trained:
    """A step down `-log alpha * missing`, where `missing` entropy makes the temperature rise."""

    def loss(variables: Any) -> tuple[Array, None]:
        return -variables["params"] * jax.lax.stop_gradient(missing), None

    optimizer = optax.adam(hparams.temperature_learning_rate, b1=beta1)
    return continuous.descend(temperature, loss, optimizer)[0]
