"""Catch: move a paddle under a falling ball.

Rules and observation of bsuite's `catch` (Osband et al. 2020, "Behaviour Suite for
Reinforcement Learning"; Mnih et al. 2014 have the task first).
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.door import integer
from fastrl.envs import checks, compiling
from fastrl.envs.bsuite import _draws
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """What the last step of an episode pays."""

    caught: float = 1.0
    missed: float = -1.0


class State(NamedTuple):
    """Where ball and paddle are; the ball falls a row a step. The paddle is in the last row."""

    ball_column: Array  # int32
    ball_row: Array  # int32
    paddle: Array  # int32, a column


@dataclasses.dataclass(frozen=True)
class Catch:
    """Observation: float32 `[rows, columns]`, 1 at ball and paddle. Action: left, stay, right.

    Reward 0 until the ball is in the last row, where the episode terminates: then +1 if the
    paddle is there and -1 if it is not.
    """

    rows: int = 10
    columns: int = 5

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("rows", self.rows, 2)
        integer("columns", self.columns, 1)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        column = _draws.below(_draws.words(key, 1)[0], self.columns)
        state = State(column, jnp.int32(0), jnp.int32(self.columns // 2))
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        paddle = jnp.clip(state.paddle + action - 1, 0, self.columns - 1)
        state = State(state.ball_column, state.ball_row + 1, paddle)
        landed = state.ball_row >= self.rows - 1
        outcome = jnp.where(paddle == state.ball_column, params.caught, params.missed)
        reward = jnp.where(landed, outcome, 0.0).astype(jnp.float32)
        return state, Step(self._observe(state), reward, landed, jnp.zeros_like(landed))

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, 1.0, (self.rows, self.columns))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(3)

    def render(self, state: State, params: Params) -> np.ndarray:
        """The ball on its way and the paddle: uint8 `[40 rows, 40 columns, 3]`."""
        from fastrl.envs import drawing

        canvas = drawing.Canvas(
            40 * self.columns, 40 * self.rows, left=0, right=self.columns, bottom=0
        )
        for column in range(1, self.columns):
            canvas.rod((column, 0.0), (column, self.rows), 0.03, drawing.FIELD)
        ball = (int(state.ball_column) + 0.5, self.rows - int(state.ball_row) - 0.5)
        canvas.box((int(state.paddle) + 0.5, 0.15), 0.9, 0.2, 0.08, drawing.BLUE)
        canvas.disc(ball, 0.3, drawing.ORANGE)
        return canvas.image()

    def _observe(self, state: State) -> Array:
        cells = jax.lax.iota(jnp.float32, self.rows * self.columns)
        paddle = compiling.once((self.rows - 1) * self.columns + state.paddle)
        seen = (cells == paddle).astype(jnp.float32)
        ball = state.ball_row * self.columns + state.ball_column
        seen = jax.lax.dynamic_update_slice(seen, jnp.ones(1), (ball,))
        return seen.reshape(self.rows, self.columns)
