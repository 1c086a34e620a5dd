"""A level of the maze: walls, start, direction and goal, as numbers and as text."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs import bitset
from fastrl.envs.maze.layouts import LAYOUTS
from fastrl.registry import unknown
from fastrl.types import Array

MAX_STEPS = 250
MAX_SIZE = 24  # a row and its surroundings are one word
ARROWS = ">v<^"  # the agent in direction 0 right, 1 down, 2 left, 3 up


class Level(NamedTuple):
    """A maze of S by S cells, numbered row by row from the top left; a border is around it.

    The params of the environment.  Leaves may have leading axes: a batch of levels.
    """

    rows: Any  # uint32 [S]: bit c of row r is a wall in row r, column c
    start: Any  # int32, a cell
    direction: Any  # int32, the agent's at the start: 0 right, 1 down, 2 left, 3 up
    goal: Any  # int32, a cell
    max_steps: Any = MAX_STEPS

    @property
    def walls(self) -> Array:
        """bool `[..., S, S]`."""
        return bitset.unpack(jnp.asarray(self.rows), self.rows.shape[-1])

    @classmethod
    def of(
        cls, walls: Any, start: int, direction: int, goal: int, max_steps: int = MAX_STEPS
    ) -> "Level":
        """The level with bool `walls` `[S, S]`.

        Raises ValueError for walls that are not square, cells outside, and a start or goal on
        a wall or on each other.
        """
        walls = np.asarray(walls)
        if walls.ndim != 2 or walls.shape[0] != walls.shape[1] or walls.dtype != bool:
            raise ValueError(
                f"walls: {walls.dtype}{list(walls.shape)}, needs bool [S, S] with two equal sides"
            )
        size = door.integer("size of the maze", walls.shape[0], 2, MAX_SIZE)
        door.integer("direction", direction, 0, 3)
        for name, cell in (("start", start), ("goal", goal)):
            if walls.flat[door.integer(name, cell, 0, size * size - 1)]:
                raise ValueError(f"{name}={cell}: there is a wall in {_place(cell, size)}")
        if start == goal:
            raise ValueError(f"start and goal are both in {_place(goal, size)}")
        numbers = start, direction, goal, door.integer("max_steps", max_steps, 1)
        return cls(pack_rows(walls), *map(np.int32, numbers))

    @classmethod
    def from_text(cls, text: str, max_steps: int = MAX_STEPS) -> "Level":
        """The level that is drawn: `#` wall, `.` free, `G` goal, the agent as one of `>v<^`.

        Raises ValueError, with the place, for anything else.
        """
        if not isinstance(text, str) or not text.split():
            raise ValueError(f"maze {text!r}: needs rows of '#', '.', 'G' and one of '{ARROWS}'")
        lines = text.split()
        for r, line in enumerate(lines):
            if len(line) != len(lines):
                raise ValueError(
                    f"maze: row {r} {line!r} has {len(line)} cells, but there are {len(lines)} "
                    "rows: a maze is square"
                )
        cells = "".join(lines)
        for i, c in enumerate(cells):
            if c not in "#.G" + ARROWS:
                raise ValueError(
                    f"maze: {c!r} in {_place(i, len(lines))}: use '#', '.', 'G' and '{ARROWS}'"
                )
        start = _only("agent", ARROWS, cells, len(lines))
        goal = _only("goal", "G", cells, len(lines))
        walls = np.array([c == "#" for c in cells]).reshape(len(lines), -1)
        return cls.of(walls, start, ARROWS.index(cells[start]), goal, max_steps)

    @classmethod
    def named(cls, name: str) -> "Level":
        """One of the hold-out mazes in `LAYOUTS`. Raises ValueError for other names."""
        if name not in LAYOUTS:
            raise ValueError(unknown("maze", name, LAYOUTS))
        return cls.from_text(LAYOUTS[name])

    def to_text(self) -> str:
        """The drawing that `from_text` reads, of one level."""
        walls = np.asarray(self.walls)
        if walls.ndim != 2:
            raise ValueError(f"to_text: a batch of levels {list(walls.shape[:-2])}: index one")
        cells = np.where(walls, "#", ".").astype("<U1").reshape(-1)
        cells[int(self.goal)] = "G"
        cells[int(self.start)] = ARROWS[int(self.direction)]
        return "\n".join("".join(line) for line in cells.reshape(walls.shape))


def pack_rows(walls: Any) -> np.ndarray:
    """uint32 `[..., S]` from bool `[..., S, S]`: a word for each row."""
    walls = np.asarray(walls, bool)
    bits = walls.astype(np.uint32) << np.arange(walls.shape[-1], dtype=np.uint32)
    return bits.sum(-1, dtype=np.uint32)


def _only(name: str, signs: Iterable[str], cells: str, size: int) -> int:
    found = [i for i, c in enumerate(cells) if c in signs]
    if len(found) != 1:
        places = "; ".join(_place(i, size) for i in found) or "nowhere"
        wanted = " or ".join(map(repr, signs))
        raise ValueError(f"maze: needs one {name}, {wanted}, but it is drawn {places}")
    return found[0]


def _place(cell: int, size: int) -> str:
    return f"row {cell // size}, column {cell % size}"
