"""The maze of unsupervised environment design: find the goal, seeing five cells ahead.

The partially observed maze of minimax (Jiang et al. 2023) and jaxued (Coward et al. 2024),
after MiniGrid.  A level is the params, so thousands of mazes run in one program.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs import checks
from fastrl.envs.compiling import own_loop
from fastrl.envs.maze import generate
from fastrl.envs.maze.layouts import LAYOUTS
from fastrl.envs.maze.level import MAX_SIZE, Level
from fastrl.envs.maze.solve import is_solvable
from fastrl.registry import unknown
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step

# Object, colour and state of a cell, of MiniGrid's codes, divided by 10.
_FREE, _WALL, _GOAL = (np.array(c, np.float32) / 10 for c in ((1, 0, 0), (2, 5, 0), (8, 1, 0)))


class State(NamedTuple):
    """Where the agent is, and whither it looks: 0 right, 1 down, 2 left, 3 up."""

    row: Array  # int32
    column: Array  # int32
    direction: Array  # int32
    time: Array  # int32


class Seen(NamedTuple):
    """What the agent sees."""

    # float32 [V, V, 3], axes from left to right, from far to near (the agent is in the middle of
    # the last), and object, colour, state: as MiniGrid has them, divided by 10
    image: Any
    direction: Any  # int32


@dataclasses.dataclass(frozen=True)
class Maze:
    """Turn left (0) or right (1), go forward (2); MiniGrid's actions 3 to 6 do nothing.

    Reward 1 - 0.9 * steps / max_steps for reaching the goal, which terminates.  The view looks
    through walls.  Params are a `Level` of `size`; the default is `level`, one of `LAYOUTS`, or
    "Random", a fixed random one that can be solved.
    """

    version: ClassVar[int] = 1

    level: str = "Random"
    size: int = 13
    view: int = 5

    def __post_init__(self) -> None:
        door.integer("size", self.size, 3, MAX_SIZE)
        if self.view not in (3, 5):
            raise ValueError(f"view={self.view!r}: choose 3 or 5")
        if self.level != "Random" and self.level not in LAYOUTS:
            raise ValueError(unknown("maze", self.level, ["Random", *LAYOUTS]))
        if self.level != "Random" and self.size != 13:
            raise ValueError(f"size={self.size}: the maze {self.level!r} is 13 by 13")

    def default_params(self) -> Level:
        """The maze called `level`."""
        return _random(self.size) if self.level == "Random" else Level.named(self.level)

    def sample_level(self, key: Key, num_walls: int = 25) -> Level:
        """A random level, at times without a way to the goal. Consumes `key`."""
        return generate.sample_level(key, self.size, num_walls)

    def reset(self, key: Key, params: Level) -> tuple[State, Seen]:
        self._check(params)
        start = jnp.asarray(params.start, jnp.int32)
        row = start // self.size
        direction = jnp.asarray(params.direction, jnp.int32)
        state = State(row, start - self.size * row, direction, jnp.int32(0))
        return state, self._observe(state, params)

    def step(self, key: Key, state: State, action: Array, params: Level) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        self._check(params)
        d = state.direction
        row = state.row + _where(d, 0, 1, 0, -1)
        column = state.column + _where(d, 1, 0, -1, 0)
        inside = (row >= 0) & (row < self.size) & (column >= 0) & (column < self.size)
        forward = (action == 2) & inside
        reached = forward & (row * self.size + column == params.goal)
        wall = (_row(params, row) >> jnp.maximum(column, 0).astype(jnp.uint32)) & np.uint32(1) == 1
        goes = forward & ~wall & ~reached
        turn = (action == 1).astype(jnp.int32) - (action == 0).astype(jnp.int32)
        time = state.time + 1
        state = State(
            jnp.where(goes, row, state.row),
            jnp.where(goes, column, state.column),
            (d + turn) & 3,
            time,
        )
        used = time.astype(jnp.float32) / jnp.asarray(params.max_steps, jnp.float32)
        reward = jnp.where(reached, np.float32(1) - np.float32(0.9) * used, np.float32(0))
        truncated = (time >= params.max_steps) & ~reached
        return state, Step(self._observe(state, params), reward, reached, truncated)

    def observation_space(self, params: Level) -> Seen:
        image: Any = Box(0.0, 1.0, (self.view, self.view, 3))
        direction: Any = Discrete(4)
        return Seen(image, direction)

    def action_space(self, params: Level) -> Discrete:
        return Discrete(7)

    def render(self, state: State, params: Level) -> np.ndarray:
        """The maze from above and what the agent sees of it."""
        from fastrl.envs.maze.drawing import draw

        return draw(jax.device_get(params), jax.device_get(state), self.view)

    def _observe(self, state: State, level: Level) -> Seen:
        """The square in front of the agent, turned so that the agent looks up."""
        v, d, last = self.view, state.direction, self.view - 1
        top = state.row - _where(d, v // 2, 0, v // 2, last)
        left = state.column - _where(d, 0, v // 2, last, v // 2)
        walls = _turned(_square(level, top, left, v), d, v)
        goal_row = jnp.asarray(level.goal, jnp.int32) // self.size
        row, column = goal_row - top, level.goal - self.size * goal_row - left
        seen = (row >= 0) & (row < v) & (column >= 0) & (column < v)
        right = _where(d, row, last - column, last - row, column)  # in the view
        down = _where(d, last - column, last - row, column, row)
        image = _IMAGES[v](walls, jnp.where(seen, v * right + down, -1))
        return Seen(image.reshape(v, v, 3), d)

    def _check(self, level: Level) -> None:
        if np.shape(level.rows) != (self.size,):
            raise ValueError(
                f"the level's rows have shape {np.shape(level.rows)}, but the maze is {self.size} "
                f"by {self.size}: build the environment with size={np.shape(level.rows)[-1]}"
            )


def _row(level: Level, row: Array) -> Array:
    """The word of a row, or of some row where there is none such."""
    return jnp.asarray(level.rows).at[row].get(mode="clip")


def _image(v: int) -> Callable[..., Array]:
    """From the walls and the goal's cell to the view of `v` by `v` cells, as a vector."""
    cell, k = np.divmod(np.arange(3 * v * v, dtype=np.int32), 3)
    free, wall, goal_code = _FREE[k], _WALL[k], _GOAL[k]

    def expand(walls: Array, goal: Array) -> Array:
        is_wall = ((walls >> cell.astype(np.uint32)) & np.uint32(1)) == 1
        return jnp.where(goal == cell, goal_code, jnp.where(is_wall, wall, free))

    return own_loop(expand)


_IMAGES = {v: _image(v) for v in (3, 5)}


def _where(direction: Array, right: int, down: int, left: int, up: int) -> Array:
    """One of four numbers."""
    other = jnp.where(direction == 2, jnp.int32(left), jnp.int32(up))
    return jnp.where(
        direction == 0, jnp.int32(right), jnp.where(direction == 1, jnp.int32(down), other)
    )


def _turned(square: Array, direction: Array, v: int) -> Array:
    """The square, `v` by `v` bits row by row, as the view: from left to right, far to near."""

    def moved(where: Callable[[int, int], int]) -> Array:
        """The bits that go from i, j to the bit where(i, j); as many at once as go equally far."""
        masks: dict[int, int] = {}
        for i, j in np.ndindex(v, v):
            far = where(i, j) - (v * i + j)
            masks[far] = masks.get(far, 0) | 1 << v * i + j
        parts = []
        for far, mask in masks.items():
            bits, by = word & np.uint32(mask), np.uint32(abs(far))
            parts.append(bits << by if far > 0 else bits >> by)
        return functools.reduce(jnp.bitwise_or, parts)

    word, last = square, v - 1
    word = jnp.where(direction & 1 == 1, moved(lambda i, j: v * j + i), word)
    word = jnp.where(direction < 2, moved(lambda i, j: v * i + last - j), word)
    upside_down = (direction == 1) | (direction == 2)
    return jnp.where(upside_down, moved(lambda i, j: v * (last - i) + j), word)


def _square(level: Level, top: Array, left: Array, v: int) -> Array:
    """The walls in `v` by `v` cells from (top, left), row by row in one word; outside is wall."""
    size, pad = np.shape(level.rows)[-1], v - 1
    full = np.uint32((1 << (size + 2 * pad)) - 1)
    sides = full & ~np.uint32(((1 << size) - 1) << pad)
    left, square = (left + pad).astype(jnp.uint32), jnp.uint32(0)
    for i in range(v):
        row = top + i
        inside = (row >= 0) & (row < size)
        line = jnp.where(inside, (_row(level, row) << np.uint32(pad)) | sides, full) >> left
        square = square | ((line & np.uint32((1 << v) - 1)) << np.uint32(v * i))
    return square


@functools.cache
def _random(size: int) -> Level:
    """The first solvable level of those drawn with keys 0, 1, ..."""
    draw = jax.jit(generate.sample_level, static_argnums=(1, 2))
    solvable = jax.jit(is_solvable)
    num_walls = 25 * size * size // 169
    with jax.ensure_compile_time_eval():
        for seed in range(1000):
            level = draw(jax.random.key(seed, impl="threefry2x32"), size, num_walls)
            if solvable(level):
                return jax.device_get(level)
    raise AssertionError(f"no solvable level of size {size}")
