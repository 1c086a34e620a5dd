"""What on-policy learners with memory share: a rollout that carries it, and whole trajectories."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import distributions, sharding
from fastrl import metrics as fm
from fastrl.algorithms.on_policy import Sample, final_value
from fastrl.memory import Recurrent
from fastrl.metrics import Metrics
from fastrl.spaces import Space
from fastrl.types import Array, Key, Observation, PyTree
from fastrl.vec import VecEnv, VecState


class Remembered(NamedTuple):
    """What a policy with memory stands on before its next step."""

    carry: PyTree  # leaves [N, ...]
    start: Array  # bool [N]: an episode begins, so that the carry does not count


class Trajectories(NamedTuple):
    """What is learned from: whole trajectories, and the memory from before them."""

    samples: Sample  # [T, N, ...]
    start: Array  # bool [T, N]: an episode begins
    carry: PyTree  # [N, ...]

    def of(self, envs: Array) -> "Trajectories":
        """The share of some environments."""
        samples, start = jax.tree.map(lambda x: x[:, envs], (self.samples, self.start))
        return Trajectories(samples, start, jax.tree.map(lambda x: x[envs], self.carry))


def collect(
    vec_env: VecEnv,
    network: Recurrent,
    see: Callable[[Observation], Observation],
    pack: Callable[[Observation], PyTree],
    action_space: Space,
    key: Key,
    params: PyTree,
    state: VecState,
    remembered: Remembered,
    task: Any,
    num_steps: int,
) -> tuple[VecState, Remembered, Trajectories, Metrics]:
    """A rollout `[T, N]` of `network` on `see(observation)`, with values. Consumes `key`.

    The samples hold `pack(observation)`.  The true successor of a step that was truncated is valued
    by the memory that has seen the episode.
    """

    def body(carry: tuple[VecState, Remembered], key: Key) -> Any:
        state, (memory, start) = carry
        policy_key, step_key = jax.random.split(key)
        memory, policy, value = network.step(params, memory, see(state.observation), start)
        action = policy.sample(policy_key)
        state, t, metrics = vec_env._step(
            step_key, state, distributions.to_environment(action_space, action), task
        )
        going = jnp.zeros_like(start)
        beyond = lambda x: network.step(params, memory, see(x), going)[2]  # noqa: E731
        final = final_value(beyond, t.truncated, t.next_observation)
        sample = Sample(
            pack(t.observation), action, policy.log_prob(action), t.reward, t.terminated,
            t.truncated, final, value,
        )  # fmt: skip
        done = t.terminated | t.truncated
        return (state, Remembered(memory, done)), (sample, start, metrics)

    keys = jax.random.split(key, num_steps)
    end, (samples, start, metrics) = jax.lax.scan(body, (state, remembered), keys)
    collected = sharding.collect(Trajectories(samples, start, remembered.carry))
    return *end, collected, fm.summed(metrics)
