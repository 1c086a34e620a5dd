"""The egocentric view: 7 by 7 cells before the agent, which sits in the middle of the last row.

All of it is done on bits.  A row of the view is a line of the grid, shifted and, where the agent
looks down or left, reversed; what the agent sees spreads over such rows by a few shifts.  Only
at the end words are unpacked to cells.  Batch axes come last, if there are any.
"""

import jax.numpy as jnp
import numpy as np

from fastrl.envs.minigrid import cells
from fastrl.envs.minigrid.lines import MARGIN, Shape
from fastrl.types import Array

SIZE = 2 * MARGIN + 1  # cells to a side
LAST = SIZE - 1
AGENT = SIZE * MARGIN + LAST  # where the agent is, as `indices` number the view
OUTSIDE = 255
_ROW = np.uint32(2**SIZE - 1)
_COLUMNS = (4, 3)  # of the 7 columns, so many go into each of two words


def rows(lines: Array, shape: Shape, agent: Array, direction: Array) -> list[Array]:
    """The members of `lines` in each row of the view, farthest first; bit 0 is the leftmost cell.

    There are none outside of the grid.
    """
    height, width = shape
    sideways, behind = (direction & 1) == 0, direction >= 2
    x, y = cells.column(agent), cells.row(agent)
    ahead, across = jnp.where(sideways, x, y), jnp.where(sideways, y, x)
    nothing = jnp.zeros(agent.shape, jnp.uint32)
    columns = [lines[height + i] if i < width else nothing for i in range(max(shape))]
    along = [
        jnp.where(sideways, column, lines[i] if i < height else nothing)
        for i, column in enumerate(columns)
    ]
    beyond = [nothing] * LAST
    # Seven lines in the order of the grid, from the agent's on, or those up to it.
    found = _window([*beyond, *along, *beyond], jnp.where(behind, ahead, ahead + LAST))
    mirrored = (direction == 1) | (direction == 2)
    view = []
    for near, far in zip(found, reversed(found), strict=True):
        row = (jnp.where(behind, near, far) >> across.astype(jnp.uint32)) & _ROW
        view.append(jnp.where(mirrored, _reversed(row), row))
    return view


def indices(cell: Array, agent: Array, direction: Array) -> Array:
    """Where in the view each `cell` `[K, *B]` is: 7 column + row, or OUTSIDE."""
    dx = cells.column(cell) - cells.column(agent)[None]
    dy = cells.row(cell) - cells.row(agent)[None]
    sideways, behind = (direction & 1)[None] == 0, direction[None] >= 2
    ahead, right = jnp.where(sideways, dx, dy), jnp.where(sideways, dy, -dx)
    ahead, right = jnp.where(behind, -ahead, ahead), jnp.where(behind, -right, right)
    within = (ahead >= 0) & (ahead <= LAST) & (jnp.abs(right) <= MARGIN)
    return jnp.where(within, (right + MARGIN) * SIZE + LAST - ahead, OUTSIDE)


def without(rows: list[Array], index: Array, chosen: Array) -> list[Array]:
    """`rows` without the cells at those `index` `[K, *B]` that are `chosen`."""
    column = (index * 37) >> 8  # a seventh of it, for 0 to 48
    row = jnp.where(chosen & (index != OUTSIDE), index - SIZE * column, SIZE)
    bit = jnp.uint32(1) << jnp.where(row < SIZE, column, 0).astype(jnp.uint32)
    result = []
    for i, members in enumerate(rows):
        for k in range(index.shape[0]):
            members = jnp.where(row[k] == i, members & ~bit[k], members)
        result.append(members)
    return result


def seen(clear: list[Array]) -> list[Array]:
    """What the agent sees in each row, given what it sees through.

    What is seen and clear shows its neighbours to the left and right, and these three of the
    next row: MiniGrid's `process_vis`, whose two sweeps of a row reach as far as this flood.
    """
    result = []
    row = jnp.full(clear[0].shape, 1 << MARGIN, jnp.uint32)
    for through in reversed(clear):
        lit = _flood(row & through, through)
        lit = (lit | (lit << 1) | (lit >> 1)) & _ROW
        result.append(row | lit)
        row = lit
    return result[::-1]


def pack(rows: list[Array]) -> list[Array]:
    """Rows of bits as two words in the order of `indices`: of four columns, and of three."""
    words = []
    for first, count in zip((0, _COLUMNS[0]), _COLUMNS, strict=True):
        factor = np.uint32(sum(1 << 6 * m for m in range(count)))
        kept = np.uint32(sum(1 << 7 * m for m in range(count)))
        word = jnp.zeros(rows[0].shape, jnp.uint32)
        for i, row in enumerate(rows):
            # The product has bit c at c + 6 m for every m; what is kept is m = c.
            few = (row >> first) & np.uint32(2**count - 1)
            word = word | ((few * factor & kept) << i)
        words.append(word)
    return words


def unpack(words: list[Array]) -> Array:
    """The bits of `pack`, bool `[49, *B]`."""
    index = positions(words[0].ndim)
    low = index < SIZE * _COLUMNS[0]
    shift = np.where(low, index, index - SIZE * _COLUMNS[0]).astype(np.uint32)
    return ((jnp.where(low, words[0][None], words[1][None]) >> shift) & 1) == 1


def positions(axes: int) -> np.ndarray:
    """0 to 48, int32 `[49, 1, ...]`, for `axes` batch axes."""
    return np.arange(SIZE**2, dtype=np.int32).reshape(-1, *(1,) * axes)


def _window(lines: list[Array], start: Array) -> list[Array]:
    """The seven `lines` from `start` on, by halves: a gather costs more."""
    shift = 32
    while shift > 1:
        shift //= 2
        if shift + SIZE <= len(lines):
            shifted, last = (start & shift) != 0, len(lines) - 1
            lines = [
                jnp.where(shifted, lines[min(i + shift, last)], lines[i])
                for i in range(min(SIZE + shift - 1, len(lines)))
            ]
    return lines


def _flood(seed: Array, clear: Array) -> Array:
    """All cells of `clear` that neighbouring clear cells join to `seed`; 7 bits."""
    up, down, to_up, to_down = seed, seed, clear, clear
    for shift in (1, 2, 4):
        up, to_up = up | (to_up & (up << shift)), to_up & (to_up << shift)
        down, to_down = down | (to_down & (down >> shift)), to_down & (to_down >> shift)
    return up | down


def _reversed(row: Array) -> Array:
    """7 bits in reverse order."""
    a = (row * np.uint32(0x0802)) & np.uint32(0x22110)
    b = (row * np.uint32(0x8020)) & np.uint32(0x88440)
    return (((a | b) * np.uint32(0x10101)) >> 17) & _ROW
