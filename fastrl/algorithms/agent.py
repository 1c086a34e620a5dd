"""An actor-critic in a batch of environments: what the learners share that see a rollout whole.

A2C, REINFORCE and IMPALA take gradients of a loss over a rollout `[T, N]`, in which one pass of
the network gives the log-probabilities, the values and so the returns.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from fastrl import arguments, distributions, door, normalize, optim, sharding
from fastrl.algorithms import on_policy
from fastrl.algorithms.on_policy import Sample
from fastrl.metrics import Metrics
from fastrl.networks import ActorCritic, NetworkConfig, actor_critic
from fastrl.spaces import Space
from fastrl.storage import Storage, storage
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    PyTree,
    Recipe,
    ResetFactory,
    Scalar,
)
from fastrl.vec import VecEnv, VecState


class Statistics(NamedTuple):
    """What observations and rewards are normalised by."""

    observations: normalize.RunningStatistics
    rewards: normalize.ReturnScale


class LearnerState(Protocol):
    """What the state of a learner has."""

    @property
    def params(self) -> PyTree: ...
    @property
    def env(self) -> VecState: ...
    @property
    def statistics(self) -> Statistics: ...


class Rollout(NamedTuple):
    """What is learned from."""

    samples: Sample  # [T, N, ...]; observations as the network sees them, rewards scaled
    last_observation: Observation  # [N, ...], after the last step, as the network sees it


class Agent(NamedTuple):
    """A network, the environments that it acts in, and how it sees them."""

    network: ActorCritic
    vec_env: VecEnv
    observation_space: Space
    action_space: Space
    storage: Storage
    normalize_observation: bool
    normalize_reward: bool

    def statistics(self) -> Statistics:
        """Those of nothing seen yet."""
        return Statistics(
            normalize.init(self.observation_space),
            normalize.init_return_scale(self.vec_env.num_envs),
        )

    def see(self, state: LearnerState, observation: Observation) -> Observation:
        """The observation as the network sees it."""
        if not self.normalize_observation:
            return observation
        return normalize.normalize(state.statistics.observations, observation)

    def act(
        self, state: LearnerState, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        """The policy, as `Algorithm.act` has it."""
        policy = self.network.policy(state.params, self.see(state, observation))
        action = policy.mode() if key is None else policy.sample(key)
        return distributions.to_environment(self.action_space, action), carry

    def value(self, state: LearnerState, observation: Observation) -> Array:
        """What the critic expects, `[...]`."""
        return self.network.value(state.params, self.see(state, observation))

    def collect(
        self, key: Key, state: LearnerState, hparams: Any, task: Any, num_steps: int,
        acting: PyTree = None,
    ) -> tuple[VecState, Statistics, Rollout, Metrics]:  # fmt: skip
        """A rollout `[T, N]`, and the statistics that count it. Consumes `key`.

        It is seen by the statistics from before it.  `acting` are the parameters of the policy
        that acts, by default the learned ones; values are always those of the learned ones.
        """
        network, see = self.network, functools.partial(self.see, state)
        if acting is not None:
            network = network._replace(value=lambda _, x: self.network.value(state.params, x))
        env_state, samples, metrics = on_policy.collect(
            self.vec_env, network, see, self.storage.pack, self.action_space, key,
            state.params if acting is None else acting, state.env, task, num_steps,
        )  # fmt: skip
        observation = self.storage.unpack(samples.observation)
        observations, rewards = state.statistics
        reward = samples.reward * hparams.reward_scale
        if self.normalize_reward:
            done = samples.terminated | samples.truncated
            rewards, reward = normalize.scale_rewards(rewards, reward, done, hparams.gamma)
        if self.normalize_observation:
            observations = normalize.update(observations, observation)
        samples = samples._replace(observation=see(observation), reward=reward)
        last = see(sharding.collect(env_state.observation))
        return env_state, Statistics(observations, rewards), Rollout(samples, last), metrics


def build(env: Env, config: Any, shape: NetworkConfig, reset: ResetFactory) -> Agent:
    """The agent for `env`; `config` has `num_envs` and what is normalised.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    task = env.default_params()
    observation_space, action_space = env.observation_space(task), env.action_space(task)
    return Agent(
        actor_critic(observation_space, action_space, shape),
        VecEnv(env, config.num_envs, arguments.starts(env, reset)),
        observation_space, action_space, storage(observation_space),
        config.normalize_observation, config.normalize_reward,
    )  # fmt: skip


def algorithm(
    name: str, env: Env, config: Any, reset: ResetFactory, agent: Agent,
    init: Callable[..., Any], step: Callable[..., Any], hparams: Any,
    ranges: dict[str, door.Range],
) -> Algorithm:  # fmt: skip
    """The Algorithm of a learner that acts as `agent` does; its state has `params`."""
    return Algorithm(
        init, step, agent.act, config.num_envs * config.num_steps, hparams, env, agent.value,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=ranges),
        recipe=Recipe(name, env, config, reset),
    )  # fmt: skip


def next_values(samples: Sample, values: Array, last_value: Array) -> Array:
    """V(s') of every step `[T, N]` from the values of the steps and of what follows the last."""
    following = jnp.concatenate([values[1:], last_value[None]])
    return jnp.where(samples.truncated, samples.final_value, following)


def learning_rate(hparams: Any, iteration: Array, steps_per_iteration: int) -> Scalar:
    """The rate of this iteration: linear from `learning_rate` to `final_learning_rate`."""
    steps = iteration.astype(jnp.float32) * steps_per_iteration
    progress = steps / hparams.anneal_steps
    return optim.linear(hparams.learning_rate, hparams.final_learning_rate, progress)


def explained_variance(values: Array, targets: Array) -> Array:
    """The share of the targets' variance that the values explain; 1 at best."""
    values, targets = jax.lax.stop_gradient((values, targets))
    return 1.0 - jnp.var(targets - values) / (jnp.var(targets) + 1e-8)


def of_envs(rollout: Rollout, envs: Array) -> Rollout:
    """The share of some environments: `[T, B, ...]`, and `[B, ...]` of the last observation."""
    samples, last = rollout
    return Rollout(
        jax.tree.map(lambda x: x[:, envs], samples), jax.tree.map(lambda x: x[envs], last)
    )
