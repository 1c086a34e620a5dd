"""Pictures of grids in MiniGrid's look, on the host: tiles of 32 pixels, what the agent sees lit.

Shapes and colours are those of MiniGrid's `utils/rendering.py` and `core/world_object.py`. A tile
is drawn at three times its size by tests of points, and averaged down.
"""

import functools
import itertools
import math

import numpy as np

from fastrl.envs.minigrid import cells, lines, view
from fastrl.envs.minigrid.lines import Shape
from fastrl.envs.minigrid.world import State

PIXELS = 32
_FINE = 3  # of which one pixel is made
_RGB = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (112, 39, 195), (255, 255, 0), (100, 100, 100)]
)
_BLACK, _LAVA = np.zeros(3), np.array([255, 128, 0])
_NO_AGENT = -1


def picture(state: State, shape: Shape, image: np.ndarray) -> np.ndarray:
    """The whole grid: uint8 `[32 H, 32 W, 3]`. `image` is the agent's view, `[7, 7, 3]`."""
    agent, direction = int(state.agent), int(state.direction)
    lit = _lit(agent, direction, shape, image[:, :, 0] != cells.UNSEEN)
    codes = contents(state, shape)
    rows = []
    for y in range(shape[0]):
        facing = [
            direction if x + cells.STRIDE * y == agent else _NO_AGENT for x in range(shape[1])
        ]
        tiles = [_tile(int(codes[y, x]), facing[x], bool(lit[y, x])) for x in range(shape[1])]
        rows.append(np.concatenate(tiles, 1))
    return np.concatenate(rows)


def contents(state: State, shape: Shape) -> np.ndarray:
    """What is in each cell, `[H, W]`: an object's code, or EMPTY, or that of a wall or lava."""
    codes = np.where(lines.to_grid(np.asarray(state.open), shape), cells.EMPTY, cells.WALL_CODE)
    if not isinstance(state.lava, tuple):
        codes[lines.to_grid(np.asarray(state.lava), shape)] = cells.LAVA_CODE
    for cell, code in zip(
        np.asarray(state.object_cell), np.asarray(state.object_code), strict=True
    ):
        if cell not in (cells.CARRIED, cells.GONE):
            codes[cell // cells.STRIDE, cell % cells.STRIDE] = code
    return codes


def _lit(agent: int, direction: int, shape: Shape, seen: np.ndarray) -> np.ndarray:
    """The cells of the grid that the view `seen` `[column, row]` shows."""
    ahead = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][direction])
    right = np.array([-ahead[1], ahead[0]])
    lit = np.zeros(shape, bool)
    for column, row in np.argwhere(seen):
        x, y = (
            np.array([agent % cells.STRIDE, agent // cells.STRIDE])
            + ahead * (view.LAST - row)
            + right * (column - lines.MARGIN)
        )
        if 0 <= x < shape[1] and 0 <= y < shape[0]:
            lit[y, x] = True
    return lit


@functools.lru_cache(maxsize=1024)
def _tile(code: int, facing: int, lit: bool) -> np.ndarray:
    """One cell, with an agent that faces in a direction or without one."""
    side = PIXELS * _FINE
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    tile = np.zeros((side, side, 3))
    tile[(x <= 0.031) | (y <= 0.031)] = 100
    for where, colour in _shapes(code & 15, _RGB[code >> 4], x, y):
        tile[where] = np.floor(colour)
    if facing != _NO_AGENT:
        angle = -0.5 * math.pi * facing
        u = 0.5 + (x - 0.5) * math.cos(angle) - (y - 0.5) * math.sin(angle)
        v = 0.5 + (y - 0.5) * math.cos(angle) + (x - 0.5) * math.sin(angle)
        tile[_triangle(u, v)] = _RGB[cells.RED]
    if lit:
        tile = np.floor(tile + 0.3 * (255 - tile))
    return tile.reshape(PIXELS, _FINE, PIXELS, _FINE, 3).mean((1, 3)).astype(np.uint8)


def _shapes(kind: int, colour: np.ndarray, x: np.ndarray, y: np.ndarray) -> list:
    """What an object is painted of, one over the other: where, and in which colour."""

    def box(left: float, right: float, top: float, bottom: float) -> np.ndarray:
        return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)

    def disc(centre_x: float, centre_y: float, radius: float) -> np.ndarray:
        return (x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2

    whole = box(0, 1, 0, 1)
    match kind:
        case cells.WALL | cells.GOAL:
            return [(whole, colour)]
        case cells.LAVA:
            waves = [_wave(x, y, 0.3 + 0.2 * i) for i in range(3)]
            return [(whole, _LAVA), *((wave, _BLACK) for wave in waves)]
        case cells.OPEN_DOOR:
            return [(box(0.88, 1, 0, 1), colour), (box(0.92, 0.96, 0.04, 0.96), _BLACK)]
        case cells.CLOSED_DOOR:
            frames = [
                (box(edge, 1 - edge, edge, 1 - edge), colour if i % 2 == 0 else _BLACK)
                for i, edge in enumerate((0.0, 0.04, 0.08, 0.12))
            ]
            return [*frames, (disc(0.75, 0.5, 0.08), colour)]
        case cells.LOCKED_DOOR:
            inner = box(0.06, 0.94, 0.06, 0.94), 0.45 * colour
            return [(whole, colour), inner, (box(0.52, 0.75, 0.5, 0.56), colour)]
        case cells.KEY:
            bit = box(0.5, 0.63, 0.31, 0.88)
            teeth = box(0.38, 0.5, 0.59, 0.66) | box(0.38, 0.5, 0.81, 0.88)
            ring = disc(0.56, 0.28, 0.19)
            return [(bit | teeth | ring, colour), (disc(0.56, 0.28, 0.064), _BLACK)]
        case cells.BALL:
            return [(disc(0.5, 0.5, 0.31), colour)]
        case cells.BOX:
            inner = box(0.18, 0.82, 0.18, 0.82)
            outer, slit = box(0.12, 0.88, 0.12, 0.88), box(0.16, 0.84, 0.47, 0.53)
            return [(outer, colour), (inner, _BLACK), (slit, colour)]
    return []


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The agent, facing right."""
    slope = (0.50 - 0.19) / (0.87 - 0.12)
    half = slope * (0.87 - x)
    return (x >= 0.12) & (np.abs(y - 0.5) <= half)


def _wave(x: np.ndarray, y: np.ndarray, top: float) -> np.ndarray:
    """A line of four strokes, up and down."""
    points = [(0.1, top), (0.3, top + 0.1), (0.5, top), (0.7, top + 0.1), (0.9, top)]
    wave = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = math.hypot(x1 - x0, y1 - y0)
        along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, length)
        near_x, near_y = x0 + along * (x1 - x0) / length, y0 + along * (y1 - y0) / length
        near = np.hypot(x - near_x, y - near_y) <= 0.03
        low, high = min(y0, y1) - 0.03, max(y0, y1) + 0.03
        wave |= near & (x >= x0 - 0.03) & (x <= x1 + 0.03) & (y >= low) & (y <= high)
    return wave
