"""Pictures of small worlds: a canvas in world units with smooth edges, and a palette.

Shapes are drawn by Pillow (it comes with matplotlib) at `OVERSAMPLING` times the size, then
averaged down. World coordinates have y upwards; lengths and widths are in world units.
"""

import math
from collections.abc import Sequence

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


def unit(x: float, y: float) -> Point:
    """The direction of (x, y), with length 1; to the right where there is none."""
    length = math.hypot(x, y)
    return (x / length, y / length) if length > 0 else (1.0, 0.0)
