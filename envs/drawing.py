"""Pictures of small worlds: a canvas in world units with smooth edges, and a palette.

Shapes are drawn by Pillow (it comes with matplotlib) at `OVERSAMPLING` times the size, then
averaged down. World coordinates have y upwards; lengths and widths are in world units.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Point = tuple[float, float]
Colour = tuple[int, int, int]

PAPER: Colour = (250, 249, 246)
INK: Colour = (47, 52, 64)
GREY: Colour = (160, 166, 176)
FIELD: Colour = (222, 228, 218)
BLUE: Colour = (64, 120, 178)
ORANGE: Colour = (224, 122, 62)

OVERSAMPLING = 3


class Canvas:
    """A picture of `width` by `height` pixels that shows the world from `left` to `right`."""

    def __init__(
        self,
        width: int,
        height: int,
        *,
        left: float,
        right: float,
        bottom: float,
        background: Colour = PAPER,
    ) -> None:
        from PIL import Image, ImageDraw

        self._size = (width, height)
        self._left, self._bottom = left, bottom
        self._scale = width * OVERSAMPLING / (right - left)  # fine pixels for a unit
        big = (width * OVERSAMPLING, height * OVERSAMPLING)
        self._image = Image.new("RGB", big, background)
        self._draw = ImageDraw.Draw(self._image)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        self._draw.ellipse(self._around(centre, radius), fill=colour)

    def circle(self, centre: Point, radius: float, width: float, colour: Colour) -> None:
        """A circle's line."""
        box = self._around(centre, radius + width / 2)
        self._draw.ellipse(box, outline=colour, width=self._thick(width))

    def rod(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """A thick line with round ends."""
        along = unit(end[0] - start[0], end[1] - start[1])
        across = (-along[1] * width / 2, along[0] * width / 2)
        corners = [
            (p[0] + s * across[0], p[1] + s * across[1])
            for p, s in ((start, 1), (end, 1), (end, -1), (start, -1))
        ]
        self.polygon(corners, colour)
        self.disc(start, width / 2, colour)
        self.disc(end, width / 2, colour)

    def dashes(self, start: Point, end: Point, width: float, colour: Colour = GREY) -> None:
        """A dashed line, with dashes and gaps of four and three times its width."""
        length = math.dist(start, end)
        along = unit(end[0] - start[0], end[1] - start[1])
        for at in np.arange(0.0, length, 7 * width):
            until = min(at + 4 * width, length)
            ends = [(start[0] + d * along[0], start[1] + d * along[1]) for d in (at, until)]
            self.curve(ends, width, colour)

    def box(
        self, centre: Point, width: float, height: float, radius: float, colour: Colour
    ) -> None:
        """A filled, upright rectangle with rounded corners."""
        left, top = self._pixel((centre[0] - width / 2, centre[1] + height / 2))
        right, bottom = self._pixel((centre[0] + width / 2, centre[1] - height / 2))
        self._draw.rounded_rectangle(
            (left, top, right, bottom), radius=radius * self._scale, fill=colour
        )

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([self._pixel(p) for p in points], fill=colour)

    def curve(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line through `points`."""
        self._draw.line(
            [self._pixel(p) for p in points], fill=colour, width=self._thick(width), joint="curve"
        )

    def image(self) -> np.ndarray:
        """The picture: uint8 `[height, width, 3]`."""
        from PIL import Image

        return np.asarray(self._image.resize(self._size, Image.Resampling.BOX))

    def _pixel(self, point: Point) -> Point:
        x = (point[0] - self._left) * self._scale
        y = self._image.height - (point[1] - self._bottom) * self._scale
        return x, y

    def _around(self, centre: Point, radius: float) -> tuple[float, float, float, float]:
        x, y = self._pixel(centre)
        r = radius * self._scale
        return x - r, y - r, x + r, y + r

    def _thick(self, width: float) -> int:
        return max(1, round(width * self._scale))


def board(
    shades: np.ndarray, discs: Sequence[tuple[tuple[int, int], float, Colour]], pixels: int = 40
) -> np.ndarray:
    """Cells, darker where `shades` `[rows, columns]` are greater, and `discs` on them.

    A disc is a cell (row, column), a radius in widths of a cell and a colour. Returns uint8
    `[rows * pixels, columns * pixels, 3]`.
    """
    rows, columns = shades.shape
    canvas = Canvas(columns * pixels, rows * pixels, left=0, right=columns, bottom=0)
    strength = shades / max(float(np.abs(shades).max()), 1e-6)
    light, dark = np.array((238, 240, 236)), np.array((150, 172, 144))
    for (row, column), share in np.ndenumerate(np.clip(strength, 0.0, 1.0)):
        r, g, b = np.rint(light + share * (dark - light)).astype(int).tolist()
        canvas.box((column + 0.5, rows - row - 0.5), 0.94, 0.94, 0.1, (r, g, b))
    for (row, column), radius, colour in discs:
        canvas.disc((column + 0.5, rows - row - 0.5), radius, colour)
    return canvas.image()


def bars(values: Sequence[Any] | np.ndarray, greatest: float = 0.0) -> np.ndarray:
    """A bar for each of `values` from the zero line, the best in orange: uint8 `[300, 400, 3]`.

    The scale takes in all of them, and `greatest`.
    """
    values = np.asarray(values, np.float32)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), greatest)
    unit = 0.85 * 3.0 / max(high - low, 1e-6)
    zero = 0.2 - low * unit
    canvas = Canvas(400, 300, left=0.0, right=4.0, bottom=0.0)
    pitch = 3.6 / len(values)
    for i, value in enumerate(values.tolist()):
        colour = ORANGE if i == int(values.argmax()) else BLUE
        x, middle = 0.2 + (i + 0.5) * pitch, zero + value * unit / 2
        canvas.box((x, middle), 0.7 * pitch, max(abs(value) * unit, 0.01), 0.0, colour)
    canvas.rod((0.2, zero), (3.8, zero), 0.02, INK)
    return canvas.image()


def unit(x: float, y: float) -> Point:
    """The direction of (x, y), with length 1; to the right where there is none."""
    length = math.hypot(x, y)
    return (x / length, y / length) if length > 0 else (1.0, 0.0)
