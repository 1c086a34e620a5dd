"""A level of the grid world: what it is, and how to write one by hand."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrl import door
from fastrl.envs import bitset
from fastrl.envs.grid_world.modes import Mode


class Params(NamedTuple):
    """A level. Cells are numbered row by row with the level's own width, from the top left.

    `M` is the mode's largest number of objects; entries from `num_objects` on mean nothing.
    """

    grid_size: Any  # int32, width and height
    walls: Any  # uint32 [W]: cell i is bit i % 32 of word i // 32
    start: Any  # int32
    num_objects: Any  # int32
    cells: Any  # int32 [M]: where objects are; unused where cells are random
    rewards: Any  # float32 [M]: for collecting an object
    terminates: Any  # float32 [M]: probability that collecting ends the episode
    respawns: Any  # float32 [M]: probability per step that it comes back
    max_steps: Any  # int32


class Object(NamedTuple):
    """What lies in a cell, for `make_level`."""

    cell: int
    reward: float
    terminate: float = 0.0
    respawn: float = 0.0


def make_level(
    mode: Mode,
    *,
    grid_size: int,
    objects: Sequence[Object],
    max_steps: int,
    start: int = 0,
    walls: Iterable[int] = (),
) -> Params:
    """The level with these cells, for an environment of `mode`.

    Raises ValueError for cells outside the grid, on walls or taken twice, for numbers that are
    no probabilities, and for a level that is larger than the mode's arrays.
    """
    grid_size = door.integer("grid_size", grid_size, 1, mode.size)
    max_steps = door.integer("max_steps", max_steps, 1)
    items = list(objects)
    if len(items) > mode.max_objects:
        raise ValueError(f"{len(items)} objects: the mode holds at most {mode.max_objects}")
    wall_cells = sorted({_cell("a wall's cell", c, grid_size) for c in walls})
    taken = dict.fromkeys(wall_cells, "a wall")
    _take(taken, "start", _cell("start", start, grid_size))
    for j, item in enumerate(items):
        _check_object(f"object {j}", item)
        _take(taken, f"object {j}", _cell(f"object {j}", item.cell, grid_size))
    columns = np.zeros((4, mode.max_objects), np.float32)
    if items:
        columns[:, : len(items)] = np.array(items, np.float32).T
    return Params(
        np.int32(grid_size),
        wall_words(wall_cells, mode.size),
        np.int32(start),
        np.int32(len(items)),
        columns[0].astype(np.int32),
        *columns[1:],
        max_steps=np.int32(max_steps),
    )


def wall_words(cells: Sequence[int], size: int) -> np.ndarray:
    """The walls of a level in an array for grids of `size`: uint32 `[W]`."""
    members = np.zeros(size * size, bool)
    members[list(cells)] = True
    return bitset.pack(members)


def _cell(name: str, cell: int, grid_size: int) -> int:
    return door.integer(name, cell, 0, grid_size**2 - 1)


def _take(taken: dict[int, str], name: str, cell: int) -> None:
    if cell in taken:
        raise ValueError(f"{name} is in cell {cell}, where {taken[cell]} is: choose a free cell")
    taken[cell] = name


def _check_object(name: str, item: Object) -> None:
    if not math.isfinite(item.reward):
        raise ValueError(f"{name}: reward={item.reward!r} must be finite")
    for field in ("terminate", "respawn"):
        if not 0.0 <= (value := getattr(item, field)) <= 1.0:
            raise ValueError(f"{name}: {field}={value!r} must be a probability, 0 to 1")
