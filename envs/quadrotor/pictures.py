"""Drones from the side and from above, with NumPy on the host."""

import numpy as np

from fastrl.envs import drawing
from fastrl.envs.drawing import Canvas, Colour, Point
from fastrl.envs.quadrotor.controllers import Setpoint
from fastrl.envs.quadrotor.drones import Drone
from fastrl.envs.quadrotor.forces import Body

_REACH = 1.1  # metres from the middle of a view to its edge
_MIDDLE = {"side": 1.0, "top": 0.0}  # of the vertical axis of a view
_APART = 2.4  # metres of picture between the middles of the two views
_SIZE = 3.0  # how many times larger than life drones are drawn
_COLOURS: tuple[Colour, ...] = (drawing.BLUE, drawing.ORANGE, (120, 150, 90), (140, 100, 160))


def draw(body: Body, target: Setpoint, drone: Drone) -> np.ndarray:
    """uint8 `[360, 640, 3]`: x and z on the left, x and y on the right; targets are rings."""
    position, aim = np.stack(body.position, 1), np.stack(target.position, 1)  # [D, 3]
    motors = _SIZE * np.stack([drone.motor_x, drone.motor_y, np.zeros(4)], 1)  # [4, 3]
    turned = np.einsum("dij,mj->dmi", _matrices(np.stack(body.attitude, 1)), motors)
    edge = _APART / 2 + _REACH + 0.1
    canvas = Canvas(640, 360, left=-edge, right=edge, bottom=-edge * 360 / 640)
    for view, middle, axis in (("side", -_APART / 2, 2), ("top", _APART / 2, 1)):
        down = np.array([middle, -_MIDDLE[view]])
        canvas.box((middle, 0.0), 2 * _REACH, 2 * _REACH, 0.05, (240, 238, 232))
        if view == "side":
            floor = -_MIDDLE[view]
            canvas.rod((middle - _REACH, floor), (middle + _REACH, floor), 0.02, drawing.INK)
        for i in range(len(position)):
            seen = [0, axis]
            colour = _COLOURS[i % len(_COLOURS)]
            inside = lambda p: _inside(p, middle)  # noqa: B023, E731
            canvas.circle(inside(aim[i, seen] + down), 0.05, 0.015, drawing.GREY)
            centre = position[i, seen] + down
            rotors = [inside(centre + m) for m in turned[i][:, seen]]
            _drone(canvas, inside(centre), rotors, colour, flat=view == "side")
    return canvas.image()


def _drone(canvas: Canvas, centre: Point, rotors: list[Point], colour: Colour, flat: bool) -> None:
    """Arms, rotors and a hub; seen from the side rotors are dots."""
    for rotor in rotors:
        canvas.rod(centre, rotor, 0.025, drawing.INK)
    for rotor in rotors:
        canvas.disc(rotor, 0.02 if flat else 0.055, colour)
    canvas.disc(centre, 0.035, drawing.INK)


def _inside(point: np.ndarray, middle: float) -> Point:
    """The nearest point within the view around `middle`."""
    x = float(np.clip(point[0], middle - _REACH, middle + _REACH))
    return x, float(np.clip(point[1], -_REACH, _REACH))


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices `[D, 3, 3]` of quaternions `[D, 4]`, scalar last."""
    x, y, z, w = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)
