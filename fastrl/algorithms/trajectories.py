"""Whole trajectories under one policy, for gradients that need an episode from its start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import distributions, sharding
from fastrl import metrics as fm
from fastrl.metrics import Metrics
from fastrl.networks import ActorCritic
from fastrl.spaces import Space
from fastrl.types import Action, Array, Key, Observation, PyTree, Transition
from fastrl.vec import VecEnv, VecState, rollout


class Played(NamedTuple):
    """The first episodes of a batch, `[H, N, ...]`; after the end of one nothing counts."""

    observation: Observation
    action: Action  # as sampled
    reward: Array  # 0 after the end
    alive: Array  # float32: 1 up to the end


def play(
    vec_env: VecEnv, network: ActorCritic, action_space: Space, horizon: int,
    key: Key, params: PyTree, memory: PyTree, task: Any,
) -> tuple[Played, PyTree, Metrics]:  # fmt: skip
    """`N` trajectories of at most `horizon` steps from starts of their own. Consumes `key`.

    `memory` is that of the Reset; what comes back is that after them, and their returns and
    lengths as metrics.
    """
    start_key, rollout_key = jax.random.split(key)
    count = vec_env.num_envs
    first = vec_env.reset.draw(start_key, memory, task, jnp.ones(count, bool))
    nothing = jnp.zeros(count, jnp.float32), jnp.zeros(count, jnp.int32)
    start = sharding.shard_envs(VecState(*first, *nothing), count)

    def policy(key: Key, observation: Observation) -> tuple[Action, Action]:
        action = network.policy(params, observation).sample(key)
        return distributions.to_environment(action_space, action), action

    def keep(t: Transition, action: Action) -> PyTree:
        return t.observation, action, t.reward, t.terminated | t.truncated

    after, kept, metrics = rollout(vec_env, policy, rollout_key, start, task, horizon, keep)
    observation, action, reward, done = sharding.collect(kept)
    alive = (jnp.cumsum(done, axis=0) - done == 0).astype(jnp.float32)  # none at an earlier step
    reward = alive * reward
    metrics = metrics | {
        "episode_return": fm.mean(reward.sum(0)),
        "episode_length": fm.mean(alive.sum(0)),
    }
    return Played(observation, action, reward, alive), after.memory, metrics


def acting(network: ActorCritic, action_space: Space) -> Callable[..., tuple[Action, Any]]:
    """`Algorithm.act` of a learner whose state has `params`, the policy's."""

    def act(
        state: Any, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        policy = network.policy(state.params, observation)
        action = policy.mode() if key is None else policy.sample(key)
        return distributions.to_environment(action_space, action), carry

    return act


def to_go(rewards: Array) -> Array:
    """The sum of what follows, this step included; `[H, ...]`."""
    return jnp.cumsum(rewards[::-1], axis=0)[::-1]


def policy_parameters(params: PyTree) -> PyTree:
    """Those of an actor-critic that its policy uses."""
    kept = {k: v for k, v in params["params"].items() if not k.startswith("critic")}
    return {"params": kept}
