"""The numbers of the drones and of the air around them.

Constants of gym-pybullet-drones 2.1.0 (Panerati et al. 2021, arXiv:2103.02142), from its files
`cf2x.urdf`, `cf2p.urdf` and `racer.urdf`. Identified there from Förster 2015 (Crazyflie 2.0,
drag), Shi et al. 2019 (ground effect) and experiments at the Dynamic Systems Lab (downwash).
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from fastrl.envs.quadrotor.vectors import Vector
from fastrl.types import Array, Scalar


class Motors(NamedTuple):
    """One number per motor, in the original's order."""

    first: Any
    second: Any
    third: Any
    fourth: Any


_X = 0.0397 / math.sqrt(2)  # the Crazyflie's arms, 45 degrees off its axes


class Drone(NamedTuple):
    """The Crazyflie 2.0 flown as an X, by default.

    Units: metres, kilograms, seconds, newtons; motor speeds in revolutions a minute, RPM.
    Motor i sits at (`motor_x[i]`, `motor_y[i]`) in the body's frame and pushes along its z with
    `thrust_coefficient * rpm**2`; the torque about z is `spin[i] * torque_coefficient * rpm**2`.
    """

    mass: Scalar = 0.027
    inertia: Vector = Vector(1.4e-5, 1.4e-5, 2.17e-5)
    motor_x: Motors = Motors(_X, -_X, -_X, _X)
    motor_y: Motors = Motors(-_X, -_X, _X, _X)
    spin: Motors = Motors(-1.0, 1.0, -1.0, 1.0)
    thrust_coefficient: Scalar = 3.16e-10
    torque_coefficient: Scalar = 7.94e-12
    thrust_to_weight: Scalar = 2.25
    max_speed: Scalar = 30 / 3.6  # metres a second
    motor_lag: Scalar = 0.0  # seconds, time constant of the motors; 0: none, as in the original
    propeller_radius: Scalar = 2.31348e-2
    ground_coefficient: Scalar = 11.36859
    drag_coefficient: Vector = Vector(9.1785e-7, 9.1785e-7, 10.311e-7)  # of the world's axes
    downwash_strength: Scalar = 2267.18  # newtons
    downwash_spread: Scalar = 0.16  # the wash's width grows so much per metre ...
    downwash_width: Scalar = -0.11  # ... from this


class Air(NamedTuple):
    """Effects beside thrust and gravity: factors, 0 leaves one out and 1 is the original's.

    The original's `Physics.DYN` and `Physics.PYB` have none of them, `Physics.PYB_GND_DRAG_DW`
    has all.
    """

    ground_effect: Scalar = 0.0
    drag: Scalar = 0.0
    downwash: Scalar = 0.0
    wind: Vector = Vector(0.0, 0.0, 0.0)  # metres a second; acts through the drag
    linear_damping: Scalar = 0.04  # with physics="pyb" only, Bullet's: d (1 + |v|) v
    angular_damping: Scalar = 0.04  # the same of the rates


CF2X = Drone()
CF2P = Drone(
    inertia=Vector(2.3951e-5, 2.3951e-5, 3.2347e-5),
    motor_x=Motors(0.0397, 0.0, -0.0397, 0.0),
    motor_y=Motors(0.0, 0.0397, 0.0, -0.0397),
)
_X = 0.109 / math.sqrt(2)
RACER = Drone(
    mass=0.83,
    inertia=Vector(0.003113, 0.003113, 0.003113),
    motor_x=Motors(_X, -_X, -_X, _X),
    motor_y=Motors(_X, _X, -_X, -_X),
    spin=Motors(1.0, -1.0, 1.0, -1.0),
    thrust_coefficient=8.47e-9,
    torque_coefficient=2.13e-11,
    thrust_to_weight=4.17,
    max_speed=200 / 3.6,
    propeller_radius=12.7e-2,
)
DRONES = {"cf2x": CF2X, "cf2p": CF2P, "racer": RACER}

# The explicit model takes the arms' length for where motors are, Bullet the files' propellers.
URDF_MOTORS: dict[str, tuple[Motors, Motors]] = {
    "cf2x": (Motors(0.028, -0.028, -0.028, 0.028), Motors(-0.028, -0.028, 0.028, 0.028)),
    "cf2p": (CF2P.motor_x, CF2P.motor_y),
    "racer": (Motors(0.085, -0.085, -0.085, 0.085), Motors(0.0675, 0.0675, -0.0675, -0.0675)),
}


def hover_rpm(drone: Drone, gravity: Scalar) -> Array:
    """The speed at which four motors carry the weight."""
    return jnp.sqrt(gravity * drone.mass / (4 * drone.thrust_coefficient))


def max_rpm(drone: Drone, gravity: Scalar) -> Array:
    """The greatest speed of a motor, from `thrust_to_weight`."""
    return hover_rpm(drone, gravity) * jnp.sqrt(drone.thrust_to_weight)
