"""An environment that plays from a script, and notes what was done in it."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step

SIZE, ACTIONS, LENGTH = 12, 3, 251


def _script(seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(LENGTH, SIZE)) * rng.uniform(0.1, 10, SIZE) + 3.0
    observations[:, 0] = rng.random(LENGTH) < 0.05  # rarely other than 0
    ends = rng.random(LENGTH) < 0.06
    cuts = ~ends & (rng.random(LENGTH) < 0.04)
    return observations.astype(np.float32), rng.normal(size=LENGTH).astype(np.float32), ends, cuts


OBSERVATIONS, REWARDS, ENDS, CUTS = _script()


class Params(NamedTuple):
    poison: Any = 0  # 1: every reward is NaN


class State(NamedTuple):
    time: Array  # int32


@dataclasses.dataclass(frozen=True)
class Script:
    """Observations, ends and most of the reward by time; the action adds to the reward.

    A reset goes to a time by chance.  Actions: one of 3, or `[2]` with `continuous`.
    """

    version: ClassVar[int] = 1
    continuous: bool = False

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        start = jax.random.randint(key, (), 0, LENGTH)
        return State(start), self._observe(State(start))

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        at = state.time % LENGTH
        bonus = jnp.sum(jnp.sin(action.astype(jnp.float32)))
        reward = jnp.asarray(REWARDS)[at] + bonus
        reward = jnp.where(params.poison == 1, jnp.nan, reward)
        state = State(state.time + 1)
        ended, cut = jnp.asarray(ENDS)[at], jnp.asarray(CUTS)[at]
        noted = {} if self.continuous else {"action": action.astype(jnp.float32)}
        return state, Step(self._observe(state), reward, ended, cut, noted)

    def _observe(self, state: State) -> Array:
        return jnp.asarray(OBSERVATIONS)[state.time % LENGTH]

    def observation_space(self, params: Params) -> Box:
        return Box(-np.inf, np.inf, (SIZE,))

    def action_space(self, params: Params) -> Any:
        return Box(-0.5, 0.5, (2,)) if self.continuous else Discrete(ACTIONS)
