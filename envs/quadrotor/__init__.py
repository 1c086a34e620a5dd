"""Quadrotors: the Crazyflie of gym-pybullet-drones as an exact rigid-body model."""

import functools

from fastrl.envs.quadrotor import baseline, controllers, drones
from fastrl.envs.quadrotor.hover import Hover
from fastrl.envs.quadrotor.trajectory import Trajectory
from fastrl.registry import register

__all__ = ["Hover", "Trajectory", "baseline", "controllers", "drones"]

register("quadrotor/Hover-v0", Hover, "Quadrotor: hover at a point, by the speeds of four motors.")
register(
    "quadrotor/HoverOneD-v0",
    functools.partial(Hover, action="one_d_rpm"),
    "Quadrotor: hover at a height, all motors alike.",
)
register(
    "quadrotor/MultiHover-v0",
    functools.partial(Hover, num_drones=2),
    "Quadrotor: two drones hover, each at a height of its own.",
)
register(
    "quadrotor/Trajectory-v0",
    Trajectory,
    "Quadrotor: follow a circle or a figure of eight.",
)
