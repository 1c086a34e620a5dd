"""Transforms of time: when an episode is cut off, and how long an action lasts."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import spaces
from fastrl.transforms.base import Transform, where
from fastrl.types import Action, Array, Key, Observation, Step


def check_count(transform: Transform, name: str) -> None:
    """Raises ValueError unless the field `name` is an integer of at least 1."""
    value = getattr(transform, name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        kind = type(transform).__name__
        raise ValueError(f"{kind}({name}={value!r}): needs an integer of at least 1")


class TimeLimitParams(NamedTuple):
    env: Any
    max_steps: int | Array


class TimeLimitState(NamedTuple):
    env: Any
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class TimeLimit(Transform):
    """Episodes are truncated after `max_steps` steps, unless they terminate there.

    A limit that `env` has itself stays in force.  `max_steps` is a traced number of the
    params.
    """

    max_steps: int

    own_state: ClassVar[bool] = True
    own_params: ClassVar[bool] = True

    def _check(self) -> None:
        check_count(self, "max_steps")

    def default_params(self) -> TimeLimitParams:
        return TimeLimitParams(self.env.default_params(), self.max_steps)

    def reset(self, key: Key, params: TimeLimitParams) -> tuple[TimeLimitState, Observation]:
        state, observation = self.env.reset(key, params.env)
        return TimeLimitState(state, jnp.int32(0)), observation

    def step(
        self, key: Key, state: TimeLimitState, action: Action, params: TimeLimitParams
    ) -> tuple[TimeLimitState, Step]:
        inner, step = self.env.step(key, state.env, action, params.env)
        time = state.time + 1
        truncated = (step.truncated | (time >= params.max_steps)) & ~step.terminated
        return TimeLimitState(inner, time), step._replace(truncated=truncated)


@dataclasses.dataclass(frozen=True)
class ActionRepeat(Transform):
    """Every action is taken `repeats` times, or until the episode ends.

    Rewards are summed, the observation is the last one seen (at an end the true final one),
    metrics are averaged over the steps taken.  The rollout's steps, and a time limit outside,
    count agent's decisions; a time limit inside counts the environment's steps.
    """

    repeats: int = 4

    def _check(self) -> None:
        check_count(self, "repeats")

    def step(self, key: Key, state: Any, action: Action, params: Any) -> tuple[Any, Step]:
        def body(
            now: tuple[Any, Observation, Array, Array], key: Key
        ) -> tuple[Any, tuple[Array, Array, dict[str, Array]]]:
            state, _, terminated, truncated = now
            over = terminated | truncated
            following, step = self.env.step(key, state, action, params)
            after = following, step.observation, step.terminated, step.truncated
            return where(over, now, after), (~over, step.reward, step.metrics)

        nothing = spaces.zeros(self.env.observation_space(params))
        start = state, nothing, jnp.bool_(False), jnp.bool_(False)
        keys = jax.random.split(key, self.repeats)
        last, (taken, rewards, metrics) = jax.lax.scan(body, start, keys)
        state, observation, terminated, truncated = last
        reward = jnp.where(taken, rewards, 0.0).sum()
        means = jax.tree.map(lambda x: jnp.where(taken, x, 0).sum() / taken.sum(), metrics)
        return state, Step(observation, reward, terminated, truncated, means)
