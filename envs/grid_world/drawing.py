"""Pictures of the grid world."""

import numpy as np

from fastrl.envs import drawing
from fastrl.envs.bitset import unpack
from fastrl.envs.grid_world.level import Params

PIXELS = 32  # a cell's width


def draw(
    params: Params, row: int, column: int, present: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    """The grid with `cells` of the objects that are `present`: uint8 `[32 g, 32 g, 3]`.

    Objects are discs, blue with a positive and orange with a negative reward, larger the more
    it is; a dark heart is the chance that collecting one ends the episode.
    """
    g = int(params.grid_size)
    canvas = drawing.Canvas(PIXELS * g, PIXELS * g, left=0.0, right=float(g), bottom=0.0)
    walls = np.asarray(unpack(np.asarray(params.walls), 32)).reshape(-1)
    for cell in range(g * g):
        at = _centre(cell, g)
        canvas.box(at, 0.94, 0.94, 0.08, drawing.INK if walls[cell] else drawing.FIELD)
    for j in np.flatnonzero(present):
        at, reward = _centre(int(cells[j]), g), float(params.rewards[j])
        colour = drawing.BLUE if reward > 0 else drawing.ORANGE
        canvas.disc(at, 0.2 + 0.2 * min(abs(reward), 1.0), colour)
        canvas.disc(at, 0.25 * float(params.terminates[j]), drawing.INK)
    agent = _centre(row * g + column, g)
    canvas.circle(agent, 0.3, 0.12, drawing.INK)
    return canvas.image()


def _centre(cell: int, g: int) -> tuple[float, float]:
    return cell % g + 0.5, g - cell // g - 0.5
