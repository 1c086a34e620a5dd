"""Pictures of mazes."""

from typing import Any

import numpy as np

from fastrl.envs import drawing

PIXELS = 24  # a cell's width
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # row and column ahead, by direction


def draw(level: Any, state: Any, view: int) -> np.ndarray:
    """The maze inside its border, with what the agent sees lighter: uint8 `[H, H, 3]`."""
    walls = np.asarray(level.walls)
    size = walls.shape[0]
    canvas = drawing.Canvas(
        PIXELS * (size + 2), PIXELS * (size + 2), left=-1.0, right=size + 1.0, bottom=-1.0,
        background=drawing.INK,
    )  # fmt: skip
    at, ahead = (int(state.row), int(state.column)), _STEPS[int(state.direction)]
    for row, column in np.ndindex(size, size):
        offset = row - at[0], column - at[1]
        forward = offset[0] * ahead[0] + offset[1] * ahead[1]
        aside = offset[0] * ahead[1] - offset[1] * ahead[0]
        seen = 0 <= forward < view and abs(aside) <= view // 2
        free, wall = (drawing.PAPER, drawing.GREY) if seen else (drawing.FIELD, drawing.INK)
        colour = wall if walls[row, column] else free
        canvas.box((column + 0.5, size - row - 0.5), 0.96, 0.96, 0.06, colour)
    goal = divmod(int(level.goal), size)
    canvas.box((goal[1] + 0.5, size - goal[0] - 0.5), 0.7, 0.7, 0.12, drawing.BLUE)
    x, y, dx, dy = at[1] + 0.5, size - at[0] - 0.5, ahead[1], -ahead[0]
    tip = (x + 0.36 * dx, y + 0.36 * dy)
    base = [(x - 0.3 * dx + s * 0.28 * dy, y - 0.3 * dy - s * 0.28 * dx) for s in (1, -1)]
    canvas.polygon([tip, *base], drawing.ORANGE)
    return canvas.image()
