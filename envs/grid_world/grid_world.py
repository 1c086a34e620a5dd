"""The random grid world: collect objects that come back, in levels that are all different.

The tabular and random grid worlds of "Discovering Reinforcement Learning Algorithms" (Oh et
al. 2020), in the form of the released GROOVE code (EmptyJackson/groove 0c091c0).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs import bitset, checks
from fastrl.envs.compiling import own_loop
from fastrl.envs.grid_world import sampling
from fastrl.envs.grid_world.level import Params, make_level
from fastrl.envs.grid_world.modes import MODES, Mode
from fastrl.registry import unknown
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step

# up, down, left, right, stay; then up-left, up-right, down-left, down-right
_ROWS = (-1, 1, 0, 0, 0, -1, -1, 1, 1)
_COLUMNS = (0, 0, -1, 1, 0, -1, 1, -1, 1)
_TIME_SCALE = np.float32(0.001)


class State(NamedTuple):
    """Where the agent is, and which objects there are."""

    row: Array  # int32
    column: Array  # int32
    present: Array  # bool [M]
    cells: Any  # int32 [M]: of objects; () where they are the level's
    time: Array  # int32


class Tabular(NamedTuple):
    """The observation of a table: which of its rows, and when."""

    entry: Array  # int32: cell + size^2 * (sum of 2^j over the objects j that are there)
    time: Array  # float32 [1]: 0.001 a step


@dataclasses.dataclass(frozen=True)
class GridWorld:
    """Move with 0 up, 1 down, 2 left, 3 right, 4 stay; walls and edges hold the agent back.

    Entering an object's cell collects it: its reward, with some probability the end of the
    episode, and it is gone until it comes back.  Terminates so, truncated after `max_steps`.

    `mode` is a name of `MODES`, or a `Mode`.  Observation "index": the row of a table over cell
    and objects (`Tabular`), which networks expand to one-hot and tables use as it is.  "vector":
    that one-hot, or in modes with random cells one-hot over cells for the agent and for each
    type of object; 0.001 * time behind.  "auto": "index" where there is one, else "vector".

    `moves=9` adds the diagonals.  With `explicit_collect` actions `moves .. 2 * moves - 1` move
    and then collect, others only move.
    """

    version: ClassVar[int] = 1

    mode: str | Mode = "all"
    observation: Literal["auto", "index", "vector"] = "auto"
    moves: Literal[5, 9] = 5
    explicit_collect: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.mode, Mode) and self.mode not in MODES:
            raise ValueError(unknown("mode", self.mode, MODES))
        door.choice("observation", self.observation, ("auto", "index", "vector"))
        if self.observation == "index" and self.levels.random_cells:
            raise ValueError(
                f"observation='index': in mode {self.mode!r} objects are in random cells, "
                "which no table has rows for: choose 'vector'"
            )
        if self.moves not in (5, 9):
            raise ValueError(f"moves={self.moves!r}: choose 5, or 9 with the diagonals")
        door.flag("explicit_collect", self.explicit_collect)

    @property
    def indexed(self) -> bool:
        """Whether the observation is `Tabular`."""
        chosen = self.observation
        return chosen == "index" or (chosen == "auto" and not self.levels.random_cells)

    @property
    def levels(self) -> Mode:
        """The distribution of levels."""
        return self.mode if isinstance(self.mode, Mode) else MODES[self.mode]

    def default_params(self) -> Params:
        """A fixed level of the mode; the same on every machine."""
        return _default_level(self.levels)

    def sample_level(self, key: Key) -> Params:
        """A random level of the mode. Consumes `key`."""
        return sampling.sample_level(key, self.levels)

    def sample_lifetime(self, key: Key) -> Array:
        """How many updates an agent gets, int32: see `Mode.lifetime`. Consumes `key`."""
        return sampling.sample_lifetime(key, self.levels)

    def level(self, **numbers: Any) -> Params:
        """A level of your own: the keywords of `make_level`, which checks them."""
        return make_level(self.levels, **numbers)

    def reset(self, key: Key, params: Params) -> tuple[State, Array | Tabular]:
        self._check(params)
        mode, p = self.levels, params
        start, grid_size = jnp.asarray(p.start, jnp.int32), jnp.asarray(p.grid_size, jnp.int32)
        cells: Any = ()
        if mode.random_cells:
            free = _free_cells(p, start)
            cells = sampling.distinct_members(jax.random.uniform(key, (mode.max_objects,)), free)
        row = start // grid_size
        present = np.arange(mode.max_objects, dtype=np.int32) < p.num_objects
        state = State(row, start - row * grid_size, present, cells, jnp.int32(0))
        return state, self._observe(state, p)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        self._check(params)
        mode, p, objects = self.levels, params, self.levels.max_objects
        draws = jax.random.uniform(key, (1 + (2 if mode.random_cells else 1) * objects,))
        row, column = self._move(state, action, p)
        cell = row * p.grid_size + column
        where = state.cells if mode.random_cells else jnp.asarray(p.cells)
        collected = state.present & (where == cell) & self._collects(action)
        back = (draws[1 : 1 + objects] < p.respawns) & ~state.present
        if mode.random_cells:
            where = _new_cells(draws[1 + objects :], where, back, p, cell)
        used = np.arange(objects, dtype=np.int32) < p.num_objects
        present = (state.present | back) & ~collected & used
        time = state.time + 1
        cells = where if mode.random_cells else ()
        state = State(row, column, present, cells, time)
        reward = jnp.where(collected, p.rewards, np.float32(0)).sum()
        terminated = draws[0] < jnp.where(collected, p.terminates, np.float32(0)).sum()
        truncated = (time >= p.max_steps) & ~terminated
        return state, Step(self._observe(state, p), reward, terminated, truncated)

    def observation_space(self, params: Params) -> Box | Tabular:
        mode = self.levels
        cells = mode.size**2
        if self.indexed:
            any_time: Any = Box(0.0, math.inf, (1,))
            rows: Any = Discrete(cells * 2**mode.max_objects)
            return Tabular(rows, any_time)
        length = cells * (mode.num_types + 1 if mode.random_cells else 2**mode.max_objects)
        return Box(0.0, math.inf, (length + 1,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(self.moves * (2 if self.explicit_collect else 1))

    def render(self, state: State, params: Params) -> np.ndarray:
        """The grid, the objects that are there, and the agent: uint8 `[32 g, 32 g, 3]`."""
        from fastrl.envs.grid_world.drawing import draw

        cells = state.cells if self.levels.random_cells else params.cells
        return draw(
            params, int(state.row), int(state.column), np.asarray(state.present), np.asarray(cells)
        )

    def _check(self, level: Params) -> None:
        """Raises ValueError for a level of another mode's size."""
        objects, words = self.levels.max_objects, bitset.num_words(self.levels.size**2)
        for name in ("walls", "cells", "rewards", "terminates", "respawns"):
            shape, needed = np.shape(getattr(level, name)), (words if name == "walls" else objects,)
            if shape != needed:
                raise ValueError(
                    f"params.{name} has shape {shape}: {self!r} needs {needed}, as its `level` "
                    "and `sample_level` give"
                )

    def _move(self, state: State, action: Array, p: Params) -> tuple[Array, Array]:
        move = action % self.moves if self.explicit_collect else action
        row, column = state.row, state.column
        for i in range(self.moves):
            row = row + jnp.where(move == i, jnp.int32(_ROWS[i]), 0)
            column = column + jnp.where(move == i, jnp.int32(_COLUMNS[i]), 0)
        inside = (row >= 0) & (row < p.grid_size) & (column >= 0) & (column < p.grid_size)
        cell = row * p.grid_size + column
        wall = bitset.has(bitset.split(p.walls), cell // bitset.BITS, cell % bitset.BITS)
        free = inside & ~wall
        return jnp.where(free, row, state.row), jnp.where(free, column, state.column)

    def _collects(self, action: Array) -> Array:
        return action >= self.moves if self.explicit_collect else jnp.bool_(True)

    def _observe(self, state: State, p: Params) -> Array | Tabular:
        mode = self.levels
        cells = mode.size**2
        cell = state.row * p.grid_size + state.column
        time = _TIME_SCALE * state.time.astype(jnp.float32)
        if mode.random_cells:
            plane = cells * (1 + np.array(mode.types, np.int32))
            objects = jnp.where(state.present, state.cells + plane, -1)
            return _planes(cells * (mode.num_types + 1))(cell, objects, time)
        powers = np.array([2**j for j in range(mode.max_objects)], np.int32)
        index = cell + cells * jnp.where(state.present, powers, 0).sum()
        if self.indexed:
            return Tabular(index, time[None])
        here = np.arange(cells * 2**mode.max_objects + 1, dtype=np.int32)
        return jnp.where(here == here[-1], time, (here == index).astype(jnp.float32))


@functools.cache
def _planes(length: int) -> Callable[..., Array]:
    """From the agent's and the objects' entries to a vector of `length` with the time behind."""
    here = np.arange(length + 1, dtype=np.int32)

    def expand(cell: Array, objects: Array, time: Array) -> Array:
        on = here == cell
        for j in range(objects.shape[0]):
            on = on | (here == objects[j])
        return jnp.where(here == length, time, on.astype(jnp.float32))

    return own_loop(expand)


def _free_cells(p: Params, cell: Array) -> bitset.Words:
    """Where objects may appear: no wall, and not the agent's `cell`."""
    walls = bitset.split(p.walls)
    agent = bitset.single(len(walls), cell // bitset.BITS, cell % bitset.BITS)
    inside = bitset.below(len(walls), jnp.asarray(p.grid_size**2))
    return bitset.minus(inside, bitset.union(walls, agent))


def _new_cells(draws: Array, cells: Array, back: Array, p: Params, cell: Array) -> Array:
    """`cells` of the objects, with new ones for those that come `back`.

    New cells are free, also of the objects' old cells, and differ.
    """
    free = _free_cells(p, cell)
    for j in range(cells.shape[0]):
        old = bitset.single(len(free), cells[j] // bitset.BITS, cells[j] % bitset.BITS)
        free = bitset.minus(free, old)

    def choose(free: bitset.Words, object_: tuple[Array, ...]) -> tuple[bitset.Words, Array]:
        draw, old, appears = object_
        index, bit = bitset.member(draw, free)
        taken = bitset.single(len(free), jnp.where(appears, index, -1), bit)
        new = jnp.where(appears, index * bitset.BITS + bit, old)
        return bitset.minus(free, taken), new

    return jax.lax.scan(choose, free, (draws, cells, back))[1]


@functools.cache
def _default_level(mode: Mode) -> Params:
    key = jax.random.key(0, impl="threefry2x32")  # not the engine's: the level is to stay
    with jax.ensure_compile_time_eval():
        level = jax.device_get(jax.jit(sampling.sample_level, static_argnums=1)(key, mode))
    if mode.layout:
        start, *cells = mode.layout
        level = level._replace(start=np.int32(start), cells=np.array(cells, np.int32))
    return level
