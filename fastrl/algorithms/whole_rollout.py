"""Learners that take one gradient step on every rollout, and then throw it away: A2C, REINFORCE."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import door
from fastrl.algorithms import agent as agents
from fastrl.algorithms.agent import Agent, Rollout, Statistics
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Env, Key, PyTree, ResetFactory, Scalar
from fastrl.vec import VecState


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree
    optimizer: optax.OptState
    env: VecState
    statistics: Statistics
    iteration: Array


class Learner(NamedTuple):
    """What makes one of them differ from another."""

    optimizer: Callable[[Any, Scalar], optax.GradientTransformation]  # of (hparams, rate)
    # (agent, config, hparams, params, rollout) -> (loss, metrics)
    loss: Callable[[Agent, Any, Any, PyTree, Rollout], tuple[Array, Metrics]]
    default_hparams: Any
    ranges: dict[str, door.Range]


def algorithm(name: str, env: Env, config: Any, reset: ResetFactory, learner: Learner) -> Algorithm:
    """The Algorithm of `learner` on `env`; `config` has the fields of `a2c.Config`."""
    agent = agents.build(env, config, config.network, reset)

    def init(key: Key, hparams: Any, task: Any) -> State:
        key, network_key, env_key = jax.random.split(key, 3)
        params = agent.network.init(network_key)
        optimizer = learner.optimizer(hparams, hparams.learning_rate).init(params)
        env_state = agent.vec_env.init(env_key, task)
        return State(key, params, optimizer, env_state, agent.statistics(), jnp.int32(0))

    step = functools.partial(_iterate, agent, config, learner)
    return agents.algorithm(
        name, env, config, reset, agent, init, step, learner.default_hparams, learner.ranges
    )


def _iterate(
    agent: Agent, config: Any, learner: Learner, state: State, hparams: Any, task: Any
) -> tuple[State, Metrics]:
    """One iteration: a rollout and one gradient step on it."""
    key, rollout_key = jax.random.split(state.key)
    env_state, statistics, rollout, metrics = agent.collect(
        rollout_key, state, hparams, task, config.num_steps
    )
    loss = functools.partial(learner.loss, agent, config, hparams)
    grads, update_metrics = jax.grad(loss, has_aux=True)(state.params, rollout)
    batch_size = config.num_envs * config.num_steps
    rate = agents.learning_rate(hparams, state.iteration, batch_size)
    optimizer = learner.optimizer(hparams, rate)
    updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    state = State(key, params, optimizer_state, env_state, statistics, state.iteration + 1)
    return state, metrics | update_metrics
