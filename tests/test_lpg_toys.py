"""A short walk as an environment, for tests of learned rules: tables of four rows."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.spaces import Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    prize: Any = 1.0
    max_steps: Any = 6


class State(NamedTuple):
    place: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class Walk:
    """Places 0 .. 3, start in 1; action 1 goes right, 0 left. Right of 3 are prize and end."""

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def sample_level(self, key: Key) -> Params:
        return Params(jax.random.uniform(key, minval=-1.0), jnp.int32(6))

    def sample_lifetime(self, key: Key) -> Array:
        return jnp.int32(4)

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        return State(jnp.int32(1), jnp.int32(0)), jnp.int32(1)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        place, time = jnp.maximum(state.place + 2 * action - 1, 0), state.time + 1
        end = place == 4
        reward = jnp.where(end, params.prize, 0.0)
        cut = (time >= params.max_steps) & ~end
        place = jnp.minimum(place, 3)
        return State(place, time), Step(place, reward, end, cut)

    def observation_space(self, params: Params) -> Discrete:
        return Discrete(4)

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)
