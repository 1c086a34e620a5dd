"""Transforms of what the agent sees, without memory. A field `action_mask` stays as it is."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door, spaces
from fastrl.spaces import Box, Discrete, MultiDiscrete, Space
from fastrl.transforms.base import MASK, Transform, leaf_spaces, map_spaces
from fastrl.types import Action, Array, Key, Observation, Step


@dataclasses.dataclass(frozen=True)
class _PerLeaf(Transform):
    """Changes every leaf of the observation by itself: subclasses write `_leaf` and `_space`."""

    def _leaf(self, space: Any, x: Array) -> Array:
        return x

    def _space(self, space: Any) -> Space:
        return space

    def reset(self, key: Key, params: Any) -> tuple[Any, Observation]:
        state, observation = self.env.reset(key, params)
        return state, map_spaces(self._leaf, self.env.observation_space(params), observation)

    def step(self, key: Key, state: Any, action: Action, params: Any) -> tuple[Any, Step]:
        state, step = self.env.step(key, state, action, params)
        space = self.env.observation_space(params)
        seen = map_spaces(self._leaf, space, step.observation)
        return state, step._replace(observation=seen)

    def observation_space(self, params: Any) -> Space:
        return map_spaces(self._space, self.env.observation_space(params))


@dataclasses.dataclass(frozen=True)
class ScaleObservation(_PerLeaf):
    """Observations in Boxes become `scale * x + shift`, float32; integers 0 .. n-1 are left.

    `scale` and `shift` are numbers, or tuples for the entries of an observation `[n]`; bytes
    become numbers in [0, 1] with `scale=1/255`.  For statistics learned on the way see
    `fastrl.normalize`.
    """

    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0

    def _check(self) -> None:
        space = self.env.observation_space(self.env.default_params())
        if not any(map(_is_box, leaf_spaces(space))):
            raise ValueError(f"ScaleObservation needs observations in a Box, not in {space}")
        scale, shift = np.asarray(self.scale), np.asarray(self.shift)
        given = f"ScaleObservation(scale={self.scale}, shift={self.shift})"
        if not (np.isfinite(scale).all() and np.isfinite(shift).all() and (scale != 0).all()):
            raise ValueError(f"{given}: needs finite numbers, and no scale of 0")
        try:
            map_spaces(self._space, space)
        except ValueError:
            raise ValueError(f"{given}: does not fit observations in {space}") from None

    def _leaf(self, space: Any, x: Array) -> Array:
        if not _is_box(space):
            return x
        return x.astype(jnp.float32) * _float32(self.scale) + _float32(self.shift)

    def _space(self, space: Any) -> Space:
        if not _is_box(space):
            return space
        ends = [self._scaled(space, bound) for bound in (space.low, space.high)]
        return Box(np.minimum(*ends), np.maximum(*ends), space.shape)

    def _scaled(self, space: Box, bound: Any) -> np.ndarray:
        scaled = _float32(bound) * _float32(self.scale) + _float32(self.shift)
        np.broadcast_to(scaled, space.shape)  # raises ValueError where it does not fit
        return scaled


@dataclasses.dataclass(frozen=True)
class OneHotObservation(_PerLeaf):
    """Discrete observations become one-hot vectors `[n]`, float32.

    MultiDiscrete ones become the vectors of their entries in a row, `[sum(nvec)]`; Boxes are
    left as they are.
    """

    def _check(self) -> None:
        space = self.env.observation_space(self.env.default_params())
        if not any(map(_is_discrete, leaf_spaces(space))):
            raise ValueError(f"OneHotObservation needs discrete observations, not {space}")

    def _leaf(self, space: Any, x: Array) -> Array:
        return _one_hot(space, x) if _is_discrete(space) else x

    def _space(self, space: Any) -> Space:
        return Box(0.0, 1.0, (_width(space),)) if _is_discrete(space) else space


@dataclasses.dataclass(frozen=True)
class OneHotChannels(_PerLeaf):
    """Images of codes, integers `[..., C]`, become one-hot planes, bool `[..., sum(sizes)]`.

    Channel `c` holds codes of 0 to `sizes[c] - 1`; of a greater one no plane is set.  Everything
    else is left as it is.  With `sizes=(11, 6, 3)` a MiniGrid image has a plane for every type,
    colour and state, as MiniGrid's own `OneHotPartialObsWrapper` encodes it.
    """

    sizes: tuple[int, ...]

    def _check(self) -> None:
        sizes = tuple(door.integer("sizes", n, 1) for n in self.sizes)
        object.__setattr__(self, "sizes", sizes)
        space = self.env.observation_space(self.env.default_params())
        if not any(map(self._holds_codes, leaf_spaces(space))):
            raise ValueError(
                f"OneHotChannels(sizes={sizes}) needs a Box of integers whose last axis has "
                f"{len(sizes)} entries, not {space}"
            )

    def _holds_codes(self, space: Any) -> bool:
        is_codes = _is_box(space) and np.issubdtype(space.dtype, np.integer)
        return is_codes and space.shape[-1:] == (len(self.sizes),)

    def _leaf(self, space: Any, x: Array) -> Array:
        if not self._holds_codes(space):
            return x
        planes = [
            x[..., c : c + 1] == np.arange(n, dtype=x.dtype).reshape((1,) * (x.ndim - 1) + (n,))
            for c, n in enumerate(self.sizes)
        ]
        return jnp.concatenate(planes, axis=-1)

    def _space(self, space: Any) -> Space:
        if not self._holds_codes(space):
            return space
        return Box(False, True, (*space.shape[:-1], sum(self.sizes)), np.dtype(bool))


@dataclasses.dataclass(frozen=True)
class FlattenObservation(Transform):
    """Observations become one vector, float32: leaves in a row, discrete ones one-hot."""

    def _check(self) -> None:
        space = self.env.observation_space(self.env.default_params())
        if len(leaf_spaces(space)) < len(jax.tree.leaves(space, is_leaf=spaces.is_leaf)):
            raise ValueError(f"FlattenObservation would hide the field {MASK} from the policy")

    def reset(self, key: Key, params: Any) -> tuple[Any, Observation]:
        state, observation = self.env.reset(key, params)
        return state, self._flat(observation, params)

    def step(self, key: Key, state: Any, action: Action, params: Any) -> tuple[Any, Step]:
        state, step = self.env.step(key, state, action, params)
        return state, step._replace(observation=self._flat(step.observation, params))

    def observation_space(self, params: Any) -> Box:
        leaves = jax.tree.leaves(self.env.observation_space(params), is_leaf=spaces.is_leaf)
        low, high = [], []
        for space in leaves:
            ends = (np.float32(0.0), np.float32(1.0)) if _is_discrete(space) else space.bounds()
            width = _width(space)
            for bounds, end in ((low, ends[0]), (high, ends[1])):
                bounds.extend(np.broadcast_to(np.ravel(end), (width,)).tolist())
        return Box(_simple(low), _simple(high), (len(low),))

    def _flat(self, observation: Observation, params: Any) -> Array:
        leaves = jax.tree.leaves(self.env.observation_space(params), is_leaf=spaces.is_leaf)
        parts = [
            _one_hot(space, x) if _is_discrete(space) else jnp.ravel(x).astype(jnp.float32)
            for space, x in zip(leaves, jax.tree.leaves(observation), strict=True)
        ]
        return jnp.concatenate(parts)


def _float32(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


def _is_box(space: Space) -> bool:
    return isinstance(space, Box)


def _is_discrete(space: Space) -> bool:
    return isinstance(space, (Discrete, MultiDiscrete))


def _width(space: Any) -> int:
    """The entries of a leaf as a vector."""
    if isinstance(space, Discrete):
        return space.n
    return sum(space.nvec) if isinstance(space, MultiDiscrete) else int(np.prod(space.shape))


def _one_hot(space: Any, x: Array) -> Array:
    if isinstance(space, Discrete):
        return jax.nn.one_hot(x, space.n)
    return jnp.concatenate([jax.nn.one_hot(x[i], n) for i, n in enumerate(space.nvec)])


def _simple(bounds: list[float]) -> Any:
    """One number where all are the same."""
    return bounds[0] if len(set(bounds)) == 1 else tuple(bounds)
