"""The last few observations at once, for environments whose one frame hides the motion."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from fastrl.spaces import Box, Discrete, MultiDiscrete, Space
from fastrl.transforms.base import Transform, map_spaces
from fastrl.transforms.episode import check_count
from fastrl.types import Action, Array, Key, Observation, Step


class FrameStackState(NamedTuple):
    env: Any
    frames: Observation  # what the agent sees


@dataclasses.dataclass(frozen=True)
class FrameStack(Transform):
    """Observations of the last `size` steps, joined along the last axis, the oldest first.

    Leaves `[..., C]` become `[..., C * size]`, so vectors stay vectors and images `[H, W, C]`
    get channels, as dense and convolutional networks want them; scalars become `[size]`, and
    Discrete becomes MultiDiscrete.  At a reset all frames are the first one.  A field
    `action_mask` is not stacked.
    """

    size: int = 4

    own_state: ClassVar[bool] = True

    def _check(self) -> None:
        check_count(self, "size")

    def reset(self, key: Key, params: Any) -> tuple[FrameStackState, Observation]:
        state, first = self.env.reset(key, params)

        def repeat(_: Space, x: Array) -> Array:
            return jnp.concatenate([jnp.atleast_1d(x)] * self.size, axis=-1)

        frames = map_spaces(repeat, self.env.observation_space(params), first)
        return FrameStackState(state, frames), frames

    def step(
        self, key: Key, state: FrameStackState, action: Action, params: Any
    ) -> tuple[FrameStackState, Step]:
        inner, step = self.env.step(key, state.env, action, params)

        def push(_: Space, frames: Array, x: Array) -> Array:
            x = jnp.atleast_1d(x)
            return jnp.concatenate([frames[..., x.shape[-1] :], x], axis=-1)

        space = self.env.observation_space(params)
        frames = map_spaces(push, space, state.frames, step.observation)
        return FrameStackState(inner, frames), step._replace(observation=frames)

    def observation_space(self, params: Any) -> Space:
        return map_spaces(self._stacked, self.env.observation_space(params))

    def _stacked(self, space: Space) -> Space:
        if isinstance(space, Discrete):
            return MultiDiscrete((space.n,) * self.size)
        if isinstance(space, MultiDiscrete):
            return MultiDiscrete(space.nvec * self.size)
        low, high = (_joined(bound, space.shape, self.size) for bound in (space.low, space.high))
        *lead, last = space.shape or (1,)
        return Box(low, high, (*lead, last * self.size), space.dtype)


def _joined(bound: Any, shape: tuple[int, ...], size: int) -> Any:
    """A bound of the joined frames: a number stays one."""
    if np.ndim(bound) == 0:
        return bound
    return np.concatenate([np.broadcast_to(bound, shape)] * size, axis=-1)
