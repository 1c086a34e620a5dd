"""Sets of cells as lines of bits: how walls and lava are stored and drawn.

Lines are uint32 `[H + W, *B]` (`B` batch axes, which come last here): a word for every row, then
one for every column.  Bit 3 + i of a line is its i-th cell, so that a view, which reaches three
cells beside the agent, is a shift away.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from fastrl.envs import bitset
from fastrl.envs.minigrid import cells
from fastrl.envs.minigrid.cells import Number
from fastrl.types import Array

MARGIN = 3
Shape = tuple[int, int]  # height, width


def rectangle(
    shape: Shape, x: Number, y: Number, to_x: Number, to_y: Number, axes: int = 0
) -> Array:
    """The cells of columns x to to_x - 1 and rows y to to_y - 1; at least `axes` batch axes."""
    axes = max(axes, *(np.ndim(v) for v in (x, y, to_x, to_y)))
    place = _column([*range(shape[0]), *range(shape[1])], axes)
    is_row = _column([True] * shape[0] + [False] * shape[1], axes)
    x, y, to_x, to_y = (_aligned(v, axes) for v in (x, y, to_x, to_y))
    first, end = jnp.where(is_row, y, x), jnp.where(is_row, to_y, to_x)
    bits = jnp.where(is_row, span(x, to_x), span(y, to_y))
    return jnp.where((place >= first) & (place < end), bits, jnp.uint32(0))


def cell(shape: Shape, x: Number, y: Number, axes: int = 0) -> Array:
    """One cell."""
    return rectangle(shape, x, y, x + 1, y + 1, axes)


def inside(shape: Shape, axes: int = 0) -> Array:
    """All cells but those of the border."""
    return rectangle(shape, 1, 1, shape[1] - 1, shape[0] - 1, axes)


def span(start: Array, end: Array) -> Array:
    """The bits of the cells start to end - 1 of a line."""
    one = jnp.uint32(1)
    return (one << _bit(end)) - (one << _bit(start))


def has(lines: Array, shape: Shape, cell: Array) -> Array:
    """Whether `cell` `[*B]` is a member."""
    line = bitset.pick(list(lines[: shape[0]]), cells.row(cell))
    return ((line >> _bit(cells.column(cell))) & 1) == 1


def from_grid(members: Any) -> Array:
    """Lines of a grid of booleans, `[H, W]`."""
    members = jnp.asarray(members, bool)

    def words(rows: Array) -> Array:
        weights = np.uint32(1) << np.arange(MARGIN, MARGIN + rows.shape[1], dtype=np.uint32)
        return jnp.where(rows, weights[None], np.uint32(0)).sum(1, dtype=jnp.uint32)

    return jnp.concatenate([words(members), words(members.T)])


def to_grid(lines: np.ndarray, shape: Shape) -> np.ndarray:
    """The grid of booleans `[H, W]` of one set of lines, on the host."""
    rows = np.asarray(lines)[: shape[0], None]
    return (rows >> np.arange(MARGIN, MARGIN + shape[1], dtype=np.uint32)) & 1 == 1


def _bit(place: Array) -> Array:
    return (place + MARGIN).astype(jnp.uint32)


def _column(values: list, axes: int) -> np.ndarray:
    a = np.array(values)
    return a.astype(np.int32 if a.dtype != bool else bool).reshape(-1, *(1,) * axes)


def _aligned(value: Number, axes: int) -> Array:
    array = jnp.asarray(value, jnp.int32)
    return array.reshape((1,) * (axes + 1 - array.ndim) + array.shape)
