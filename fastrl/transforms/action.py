"""Transforms of what the agent does."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import spaces
from fastrl.spaces import Box, Space
from fastrl.transforms.base import Transform, where
from fastrl.types import Action, Array, Key, Observation, Step


def _is_float_box(space: Space) -> bool:
    return isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)


def _float_boxes(transform: Transform) -> list[Box]:
    """The Boxes of real numbers among the inner actions. Raises ValueError if there are none."""
    space = transform.env.action_space(transform.env.default_params())
    boxes = [s for s in jax.tree.leaves(space, is_leaf=spaces.is_leaf) if _is_float_box(s)]
    if not boxes:
        name = type(transform).__name__
        raise ValueError(f"{name} needs actions in a Box of real numbers, not in {space}")
    return boxes


@dataclasses.dataclass(frozen=True)
class ClipAction(Transform):
    """Actions may be any real numbers; `env` gets them clipped to its Box, entry by entry.

    For policies without bounds (Gaussian), whose log-probabilities are those of the action
    before clipping.  Integer leaves of the action are left as they are.
    """

    def _check(self) -> None:
        _float_boxes(self)

    def step(self, key: Key, state: Any, action: Action, params: Any) -> tuple[Any, Step]:
        def clip(space: Space, a: Array) -> Array:
            return jnp.clip(a, *space.bounds()) if _is_float_box(space) else a

        inside = spaces.tree_map(clip, self.env.action_space(params), action)
        return self.env.step(key, state, inside, params)

    def action_space(self, params: Any) -> Space:
        def unbounded(space: Space) -> Space:
            if not _is_float_box(space):
                return space
            return Box(-np.inf, np.inf, space.shape, space.dtype)

        return spaces.tree_map(unbounded, self.env.action_space(params))


@dataclasses.dataclass(frozen=True)
class RescaleAction(Transform):
    """Actions in `[low, high]`, by default [-1, 1], become those of `env`'s Box, linearly.

    Every entry has its own bounds in `env`; actions outside `[low, high]` are clipped to it.
    Integer leaves of the action are left as they are.
    """

    low: float = -1.0
    high: float = 1.0

    def _check(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"RescaleAction(low={self.low}, high={self.high}): needs finite low < high"
            )
        for box in _float_boxes(self):
            if not box.bounded:
                raise ValueError(f"RescaleAction needs finite bounds of the actions, not {box}")

    def step(self, key: Key, state: Any, action: Action, params: Any) -> tuple[Any, Step]:
        def rescale(space: Space, a: Array) -> Array:
            if not _is_float_box(space):
                return a
            low, high = space.bounds()
            share = (a - self.low) / (self.high - self.low)
            return jnp.clip(low + share * (high - low), low, high).astype(space.dtype)

        inside = spaces.tree_map(rescale, self.env.action_space(params), action)
        return self.env.step(key, state, inside, params)

    def action_space(self, params: Any) -> Space:
        def rescaled(space: Space) -> Space:
            if not _is_float_box(space):
                return space
            return Box(self.low, self.high, space.shape, space.dtype)

        return spaces.tree_map(rescaled, self.env.action_space(params))


class StickyParams(NamedTuple):
    env: Any
    probability: float | Array


class StickyState(NamedTuple):
    env: Any
    action: Action  # the last that `env` got
    first: Array  # bool: whether there is none yet


@dataclasses.dataclass(frozen=True)
class StickyActions(Transform):
    """With `probability`, `env` gets its last action again instead of the new one.

    Machado et al. 2018, section 5.2, who use 0.25; the first action of an episode is always
    the agent's.  The probability is a traced number of the params.
    """

    probability: float = 0.25

    own_state: ClassVar[bool] = True
    own_params: ClassVar[bool] = True

    def _check(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"StickyActions(probability={self.probability}): is not in [0, 1]")

    def default_params(self) -> StickyParams:
        return StickyParams(self.env.default_params(), self.probability)

    def reset(self, key: Key, params: StickyParams) -> tuple[StickyState, Observation]:
        state, observation = self.env.reset(key, params.env)
        none = spaces.zeros(self.env.action_space(params.env))
        return StickyState(state, none, jnp.bool_(True)), observation

    def step(
        self, key: Key, state: StickyState, action: Action, params: StickyParams
    ) -> tuple[StickyState, Step]:
        step_key, sticky_key = jax.random.split(key)
        again = jax.random.bernoulli(sticky_key, params.probability) & ~state.first
        chosen = jax.tree.map(lambda a, last: jnp.asarray(a, last.dtype), action, state.action)
        executed = where(again, state.action, chosen)
        inner, step = self.env.step(step_key, state.env, executed, params.env)
        return StickyState(inner, executed, jnp.bool_(False)), step
