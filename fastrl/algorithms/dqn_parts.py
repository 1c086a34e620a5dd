"""The network of DQN with its switches: what it says of actions, and what it should say."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import noisy, q_targets
from fastrl import value_distributions as distributions
from fastrl.algorithms import q_learning
from fastrl.algorithms.replay import Batch
from fastrl.q_network import QNetwork, allowed, q_network
from fastrl.spaces import Space
from fastrl.types import Array, Key
from fastrl.value_distributions import ValueDistribution


class Parts(NamedTuple):
    """What is closed over."""

    config: Any  # dqn.Config
    network: QNetwork
    distribution: ValueDistribution

    def weights(self, params: Any, key: Key | None = None) -> Any:
        """The network's parameters: noisy ones are drawn with a key, else they are the means."""
        if not self.config.noisy:
            return params
        return params.mean if key is None else noisy.sample(params, key)


def parts(observation_space: Space, action_space: Space, config: Any) -> Parts:
    """Those for a `dqn.Config`. Raises ValueError where a space does not fit."""
    makers = {
        "none": distributions.expected,
        "categorical": lambda: distributions.categorical(config.num_atoms),
        "quantile": lambda: distributions.quantile(config.num_atoms),
    }
    distribution = makers[config.distribution]()
    network = q_network(
        observation_space, action_space, config.network,
        num_outputs=distribution.num_outputs, dueling=config.dueling,
    )  # fmt: skip
    return Parts(config, network, distribution)


def bounds(hparams: Any) -> Array:
    """The outermost atoms of a categorical distribution, float32 `[2]`."""
    return jnp.stack([jnp.float32(hparams.value_min), jnp.float32(hparams.value_max)])


def target(
    parts: Parts, networks: q_learning.Learned, batch: Batch, key: Key, hparams: Any
) -> Array:
    """What the outputs of the actions taken should be, `[B, K]`; by the target network."""
    config, after, distribution = parts.config, batch.next_observation, parts.distribution
    ends, reward = bounds(hparams), batch.reward
    target_key, choice_key = jax.random.split(key)
    weights = parts.weights(networks.target, target_key)
    outputs = choice = parts.network.apply(weights, after)
    if config.double:
        choice = parts.network.apply(parts.weights(networks.params, choice_key), after)
    values = allowed(after, distribution.mean(choice, ends))
    if config.munchausen:
        now = distribution.mean(parts.network.apply(weights, batch.observation), ends)
        reward = reward + hparams.munchausen_scale * q_targets.munchausen(
            allowed(batch.observation, now), batch.action, hparams.temperature,
            hparams.log_policy_min,
        )  # fmt: skip
        best = q_targets.soft_following(outputs, values, hparams.temperature)
    else:
        best = q_targets.following(outputs, values)
    return distribution.target(best, reward, batch.discount, ends)
