"""Corners: a room without walls inside, whose goal is a corner that is not shown.

The goal is a number of the task, so that it can switch while the room is played
(`fastrl.transforms.continual.Changing`), as in studies of continual learning; an agent notices by
what it is paid only.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs import checks, drawing
from fastrl.spaces import Discrete
from fastrl.types import Array, Key, Step

NORTH, EAST, SOUTH, WEST = range(4)


class Params(NamedTuple):
    goal: int = 0  # corner: 0 north-west, 1 north-east, 2 south-west, 3 south-east
    goal_reward: float = 1.0
    step_reward: float = -0.01
    max_steps: int = 100


class State(NamedTuple):
    row: Array  # int32, 0 in the north
    column: Array  # int32, 0 in the west
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class Corners:
    """Observation: the cell, a number from 0 to size^2 - 1. Action: north, east, south, west.

    Starts in any cell but the goal; reaching the goal terminates and pays `goal_reward`, every
    other step pays `step_reward`.
    """

    size: int = 5
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        door.integer("size", self.size, 2)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        cell = jax.random.randint(key, (), 0, self.size**2 - 1)
        row, column = self._goal(params)
        cell = cell + (cell >= row * self.size + column)  # the goal is left out
        cell = cell.astype(jnp.int32)
        state = State(cell // self.size, cell % self.size, jnp.int32(0))
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        down = jnp.where(action == SOUTH, 1, jnp.where(action == NORTH, -1, 0))
        right = jnp.where(action == EAST, 1, jnp.where(action == WEST, -1, 0))
        row = jnp.clip(state.row + down, 0, self.size - 1).astype(jnp.int32)
        column = jnp.clip(state.column + right, 0, self.size - 1).astype(jnp.int32)
        goal_row, goal_column = self._goal(params)
        there = (row == goal_row) & (column == goal_column)
        reward = jnp.where(there, params.goal_reward, params.step_reward).astype(jnp.float32)
        state = State(row, column, state.time + 1)
        truncated = (state.time >= params.max_steps) & ~there
        return state, Step(self._observe(state), reward, there, truncated)

    def observation_space(self, params: Params) -> Discrete:
        return Discrete(self.size**2)

    def action_space(self, params: Params) -> Discrete:
        return Discrete(4)

    def render(self, state: State, params: Params) -> np.ndarray:
        """The room, the goal in orange and the agent: uint8 `[40 size, 40 size, 3]`."""
        goal = tuple(int(x) for x in self._goal(params))
        agent = int(state.row), int(state.column)
        discs = [(goal, 0.42, drawing.ORANGE), (agent, 0.3, drawing.BLUE)]
        return drawing.board(np.zeros((self.size, self.size)), discs)

    def _goal(self, params: Params) -> tuple[Array, Array]:
        last = self.size - 1
        goal = jnp.asarray(params.goal)
        return last * (goal // 2), last * (goal % 2)

    def _observe(self, state: State) -> Array:
        return state.row * self.size + state.column
