"""Small environments with unusual spaces or tasks that differ, for tests of learners."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.spaces import Box, Discrete, MultiDiscrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    length: int = 4


class WalkParams(NamedTuple):
    prize: Any = 1.0
    max_steps: Any = 6


class State(NamedTuple):
    target: Array
    time: Array


class Place(NamedTuple):
    x: Array
    time: Array


class Masked(NamedTuple):
    view: Any
    action_mask: Any


class Asymmetric(NamedTuple):
    view: Any
    critic: Any


@dataclasses.dataclass(frozen=True)
class MaskedChoice:
    """Reward 1 for the target's number; half of the other actions are forbidden at each step."""

    version: ClassVar[int] = 1
    actions: int = 6

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Masked]:
        state = State(jax.random.randint(key, (), 0, self.actions), jnp.int32(0))
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        forbidden = ~self._observe(state).action_mask[action]
        reward = jnp.where(forbidden, -100.0, (action == state.target).astype(jnp.float32))
        state = State(jax.random.randint(key, (), 0, self.actions), state.time + 1)
        end = state.time >= params.length
        return state, Step(self._observe(state), reward, jnp.bool_(False), end)

    def observation_space(self, params: Params) -> Masked:
        view = Box(0.0, 1.0, (self.actions,))
        return Masked(view, Box(False, True, (self.actions,), np.dtype(bool)))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(self.actions)

    def _observe(self, state: State) -> Masked:
        index = jnp.arange(self.actions)
        allowed = (index == state.target) | ((index + state.time) % 2 == 0)
        return Masked((index == state.target).astype(jnp.float32), allowed)


@dataclasses.dataclass(frozen=True)
class Combination:
    """A lock: reward 1 when all digits are right. The actor sees two records, the critic more."""

    version: ClassVar[int] = 1
    digits: tuple[int, ...] = (2, 3)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Asymmetric]:
        target = jax.random.randint(key, (len(self.digits),), 0, jnp.asarray(self.digits))
        state = State(target, jnp.int32(0))
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        reward = (action == state.target).all().astype(jnp.float32)
        target = jax.random.randint(key, (len(self.digits),), 0, jnp.asarray(self.digits))
        state = State(target, state.time + 1)
        end = state.time >= params.length
        return state, Step(self._observe(state), reward, end, jnp.bool_(False))

    def observation_space(self, params: Params) -> Asymmetric:
        digits = MultiDiscrete(self.digits)
        return Asymmetric({"target": digits, "noise": Box(0, 255, (2, 2), np.dtype(np.uint8))},
                          Box(0.0, np.inf, (len(self.digits) + 1,)))  # fmt: skip

    def action_space(self, params: Params) -> MultiDiscrete:
        return MultiDiscrete(self.digits)

    def _observe(self, state: State) -> Asymmetric:
        view = {"target": state.target, "noise": jnp.full((2, 2), 7, jnp.uint8)}
        time = state.time[None].astype(jnp.float32)
        return Asymmetric(view, jnp.concatenate([state.target.astype(jnp.float32), time]))


@dataclasses.dataclass(frozen=True)
class ReachPoint:
    """Move a point to 0 within an odd box of speeds; reward is minus the distance."""

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params(length=8)

    def reset(self, key: Key, params: Params) -> tuple[Place, Array]:
        position = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return Place(position, jnp.int32(0)), position

    def step(self, key: Key, state: Place, action: Array, params: Params) -> tuple[Place, Step]:
        state = Place(state.x + action, state.time + 1)
        reward = -jnp.abs(state.x).sum()
        end = state.time >= params.length
        return state, Step(state.x, reward, jnp.bool_(False), end)

    def observation_space(self, params: Params) -> Any:
        return Box(-np.inf, np.inf, (2,))

    def action_space(self, params: Params) -> Box:
        return Box((-0.2, -0.4), (0.6, 0.4), (2,))


@dataclasses.dataclass(frozen=True)
class Walk:
    """Places 0 .. 3, start in 1; action 1 goes right, 0 left. Right of 3 are prize and end."""

    version: ClassVar[int] = 1

    def default_params(self) -> WalkParams:
        return WalkParams()

    def sample_level(self, key: Key) -> WalkParams:
        return WalkParams(jax.random.uniform(key, minval=-1.0), jnp.int32(6))

    def sample_lifetime(self, key: Key) -> Array:
        return jnp.int32(4)

    def reset(self, key: Key, params: WalkParams) -> tuple[Place, Array]:
        return Place(jnp.int32(1), jnp.int32(0)), jnp.int32(1)

    def step(self, key: Key, state: Place, action: Array, params: WalkParams) -> tuple[Place, Step]:
        place, time = jnp.maximum(state.x + 2 * action - 1, 0), state.time + 1
        end = place == 4
        reward = jnp.where(end, params.prize, 0.0)
        cut = (time >= params.max_steps) & ~end
        place = jnp.minimum(place, 3)
        return Place(place, time), Step(place, reward, end, cut)

    def observation_space(self, params: WalkParams) -> Discrete:
        return Discrete(4)

    def action_space(self, params: WalkParams) -> Discrete:
        return Discrete(2)
