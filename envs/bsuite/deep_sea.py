"""DeepSea: dive to the bottom right corner, where the only reward is, at a cost for each move.

Rules of bsuite's `deep_sea` and `deep_sea_stochastic` (Osband et al. 2019, "Deep Exploration
via Randomized Value Functions"; Osband et al. 2018, "Randomized Prior Functions").  Which of
the two actions moves right is drawn cell by cell, once: the mapping is the task.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.door import integer
from fastrl.envs import checks
from fastrl.envs.bsuite import _draws
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step

MAPPING_SEED = 42  # of bsuite's experiments
_COMPARED = 8  # up to this size all cells are compared: three times as fast; beyond, half as fast


class Params(NamedTuple):
    """The mapping, and what it costs to move right."""

    mapping: Any  # bool [size, size]: whether action 1 moves right there; else action 0 does
    move_cost: float = 0.01  # of `size` moves to the right together


class StochasticParams(NamedTuple):
    """The same, with what bsuite's stochastic variant adds."""

    mapping: Any  # bool [size, size]
    move_cost: float = 0.01
    slip: float = 0.1  # probability that a move to the right stays in its column; 1 / size
    noise: float = 1.0  # standard deviation of rewards in the two corners of the last row


class State(NamedTuple):
    """Where the diver is. The row is also the time."""

    row: Array  # int32
    column: Array  # int32


@dataclasses.dataclass(frozen=True)
class DeepSea:
    """Observation: float32 `[size, size]`, 1 where the diver is. Action: 0 or 1, see `mapping`.

    Every step goes down a row, and left or right a column (not past the borders).  Reward 1
    for moving right in the last column, which only a dive that always went right reaches, and
    that is in the last row; every move to the right costs `move_cost / size`.  Terminates
    below the last row, where the observation is all 0.
    """

    size: int = 10

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("size", self.size, 2)

    def default_params(self) -> Any:
        return Params(mapping(MAPPING_SEED, self.size))

    def reset(self, key: Key, params: Any) -> tuple[State, Array]:
        state = State(jnp.int32(0), jnp.int32(0))
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: Array, params: Any) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        return self.move(state, action, jnp.bool_(False), jnp.float32(0.0), params)

    def move(
        self, state: State, action: Array, slips: Array, noise: Array, params: Any
    ) -> tuple[State, Step]:
        """A step whose chance events are given: whether it slips, the noise in the corners."""
        last = self.size - 1
        right = (action == 1) == self._look_up(params.mapping, state)
        rightmost = state.column == last
        reward = jnp.where(right & rightmost, jnp.float32(1.0), jnp.float32(0.0))
        reward = reward - jnp.where(right, params.move_cost / self.size, jnp.float32(0.0))
        corner = (state.row == last) & (rightmost | (state.column == 0))
        reward = reward + jnp.where(corner, noise, jnp.float32(0.0))
        moved = state.column + jnp.where(right, jnp.where(slips, 0, 1), -1)
        state = State(state.row + 1, jnp.clip(moved, 0, last))
        over = state.row >= self.size
        reward = reward.astype(jnp.float32)
        return state, Step(self._observe(state), reward, over, jnp.zeros_like(over))

    def observation_space(self, params: Any) -> Box:
        return Box(0.0, 1.0, (self.size, self.size))

    def action_space(self, params: Any) -> Discrete:
        return Discrete(2)

    def render(self, state: State, params: Any) -> np.ndarray:
        """The diver; cells where action 1 moves right are dark: uint8 `[400, 400, 3]`."""
        from fastrl.envs import drawing

        canvas = drawing.Canvas(400, 400, left=0, right=self.size, bottom=0)
        for (row, column), one in np.ndenumerate(np.asarray(params.mapping)):
            shade = drawing.FIELD if one else (238, 240, 236)
            canvas.box((column + 0.5, self.size - row - 0.5), 0.94, 0.94, 0.1, shade)
        canvas.disc((self.size - 0.5, 0.5), 0.32, drawing.ORANGE)
        row, column = int(state.row), int(state.column)
        if row < self.size:
            canvas.disc((column + 0.5, self.size - row - 0.5), 0.32, drawing.BLUE)
        return canvas.image()

    def _observe(self, state: State) -> Array:
        shown = (state.row < self.size).astype(jnp.float32)
        cell = state.row * self.size + state.column  # beyond the last one it writes a 0 there
        if self.size <= _COMPARED:
            sea = jnp.where(jnp.arange(self.size**2) == cell, jnp.float32(1.0), jnp.float32(0.0))
            return sea.reshape(self.size, self.size)
        sea = jax.lax.dynamic_update_slice(jnp.zeros(self.size**2), shown[None], (cell,))
        return sea.reshape(self.size, self.size)

    def _look_up(self, mapping: Array, state: State) -> Array:
        mapping = _draws.sized("mapping", mapping, (self.size, self.size))
        return mapping[state.row, state.column] != 0


@dataclasses.dataclass(frozen=True)
class DeepSeaStochastic(DeepSea):
    """DeepSea in which moves to the right fail now and then, and both corners pay noise.

    A move to the right stays in its column with probability `slip`, and costs all the same;
    every action in the first and last column of the last row is paid `noise` times a standard
    normal number more.
    """

    def default_params(self) -> StochasticParams:
        return StochasticParams(mapping(MAPPING_SEED, self.size), slip=1 / self.size)

    def step(self, key: Key, state: State, action: Array, params: Any) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        slip, noise = _draws.words(key, 2)
        slips = _draws.uniform(slip) < params.slip
        return self.move(state, action, slips, _draws.normal(noise) * params.noise, params)


def mapping(seed: int, size: int) -> np.ndarray:
    """bsuite's mapping for a `mapping_seed`: bool `[size, size]`, where action 1 moves right."""
    return np.random.RandomState(seed).binomial(1, 0.5, (size, size)).astype(bool)
