"""What PROPS trains its target policy on: all of the buffer, as if that policy had played it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import metrics as fm
from fastrl import normalize, returns
from fastrl.algorithms.agent import Agent, Statistics
from fastrl.algorithms.props_sampler import flat, weighted_mean
from fastrl.metrics import Metrics
from fastrl.types import Action, Array, Observation, PyTree, Transition


class Parts(NamedTuple):
    """What is closed over."""

    config: Any
    agent: Agent


class Sample(NamedTuple):
    """What the target policy is trained on, `[B, ...]`."""

    observation: Observation
    action: Action
    log_prob: Array
    advantage: Array
    target: Array
    weight: Array


def counted(config: Any, statistics: Statistics, buffer: Transition, hparams: Any) -> Statistics:
    """The statistics with the newest rollout in them."""
    observations, rewards = statistics
    new = jax.tree.map(lambda x: x[-config.num_steps :], buffer)
    if config.normalize_observation:
        observations = normalize.update(observations, new.observation)
    if config.normalize_reward:
        done, reward = new.terminated | new.truncated, new.reward * hparams.reward_scale
        rewards, _ = normalize.scale_rewards(rewards, reward, done, hparams.gamma)
    return Statistics(observations, rewards)


def samples_of(parts: Parts, state: Any, valid: Array, hparams: Any) -> Sample:
    """All of the buffer, flat, with values, advantages and log-probabilities of `state.params`."""
    config, network, buffer = parts.config, parts.agent.network, state.buffer
    observation = parts.agent.see(state, buffer.observation)
    policy, values = network.apply(state.params, observation)
    next_values = network.value(state.params, parts.agent.see(state, buffer.next_observation))
    reward = buffer.reward * hparams.reward_scale
    if config.normalize_reward:
        deviation = jnp.sqrt(state.statistics.rewards.statistics.variance + normalize.EPSILON)
        reward = jnp.clip(reward / deviation, -10.0, 10.0)

    def by_rollout(x: Array) -> Array:
        return x.reshape(config.buffer_rollouts, config.num_steps, *x.shape[1:])

    numbers = reward, values, next_values, buffer.terminated, buffer.truncated
    each = functools.partial(returns.gae, gamma=hparams.gamma, lambda_=hparams.gae_lambda)
    advantage = jax.vmap(each)(*map(by_rollout, numbers)).reshape(values.shape)
    weight = jnp.broadcast_to(valid[:, None], values.shape).astype(jnp.float32)
    log_prob = policy.log_prob(buffer.action)
    return flat(
        Sample(observation, buffer.action, log_prob, advantage, advantage + values, weight)
    )  # fmt: skip


def loss(parts: Parts, hparams: Any, params: PyTree, batch: Sample) -> tuple[Array, Metrics]:
    """PPO's loss of the samples that count."""
    policy, value = parts.agent.network.apply(params, batch.observation)
    log_ratio, entropy = policy.log_prob(batch.action) - batch.log_prob, policy.entropy()
    ratio, mean = jnp.exp(log_ratio), functools.partial(weighted_mean, weight=batch.weight)
    centred = batch.advantage - mean(batch.advantage)
    advantage = centred / (jnp.sqrt(mean(centred**2)) + 1e-8)
    clipped = jnp.clip(ratio, 1.0 - hparams.clip, 1.0 + hparams.clip)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage)
    value_loss = 0.5 * (value - batch.target) ** 2
    each = policy_loss + hparams.value_coefficient * value_loss
    each = each - hparams.entropy_coefficient * entropy
    reported = {
        "loss": each, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy,
        "kl": ratio - 1.0 - log_ratio,
    }  # fmt: skip
    reported = jax.lax.stop_gradient(reported)
    return mean(each), {name: fm.mean(x, batch.weight > 0) for name, x in reported.items()}
