"""What acts on a quadrotor: thrusts, torques, ground effect, drag and downwash.

The equations of `BaseAviary._dynamics`, `_groundEffect`, `_drag` and `_downwash` of
gym-pybullet-drones 2.1.0. Entries are `[D]`, one per drone.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.drones import Air, Drone, Motors
from fastrl.envs.quadrotor.vectors import Axes, Quaternion, Vector
from fastrl.types import Array

_LEAST_GAP = 1e-6  # metres, between heights: the downwash of a drone just above is finite
_DOWNWASH_REACH = 10.0  # metres


class Body(NamedTuple):
    """Where the drones are and how they move. Entries are `[D]`."""

    position: Vector  # world
    velocity: Vector  # world
    attitude: Quaternion
    rates: Vector  # radians a second, about the body's axes


class Wrench(NamedTuple):
    """What acts on the drones, besides gravity."""

    force: Vector  # world
    torque: Vector  # about the body's axes


def wrench(body: Body, old_rpm: Motors, rpm: Motors, drone: Drone, air: Air) -> Wrench:
    """Thrusts, the motors' torques, and the effects of the air."""
    axes = v.axes(body.attitude)
    thrusts = [drone.thrust_coefficient * r * r for r in rpm]
    effect = ground_effect(thrusts, body, axes, drone)
    thrusts = [t + air.ground_effect * e for t, e in zip(thrusts, effect, strict=True)]
    lift = sum(thrusts) + air.downwash * downwash(body.position, drone)
    push = v.scale(drag(body.velocity, old_rpm, drone, air.wind), air.drag)
    x, y = levers(thrusts, drone)
    return Wrench(v.add(v.scale(axes.z, lift), push), Vector(x, y, around(rpm, drone)))


def levers(thrusts: list[Array], drone: Drone) -> tuple[Any, Any]:
    """The torques about x and y of `thrusts` along z."""
    x = sum(y * t for y, t in zip(drone.motor_y, thrusts, strict=True))
    y = -sum(x * t for x, t in zip(drone.motor_x, thrusts, strict=True))
    return x, y


def around(rpm: Motors, drone: Drone) -> Any:
    """The torque about z."""
    return drone.torque_coefficient * sum(s * r * r for s, r in zip(drone.spin, rpm, strict=True))


def ground_effect(thrusts: list[Array], body: Body, axes: Axes, drone: Drone) -> list[Array]:
    """The additional thrust of every motor near the ground (z = 0), none beyond 90 degrees.

    thrust * coefficient * (radius / (4 height))^2, and at most 4/15 of the thrust: heights are
    clipped from below.
    """
    upright = (axes.z.z > 0.0) & (jnp.abs(axes.x.z) < v.GIMBAL)
    factor = drone.ground_coefficient * (drone.propeller_radius / 4) ** 2
    least = jnp.sqrt(15 / 4 * factor)
    extra = []
    for thrust, x, y in zip(thrusts, drone.motor_x, drone.motor_y, strict=True):
        height = body.position.z + x * axes.x.z + y * axes.y.z
        height = jnp.maximum(height, least)
        extra.append(jnp.where(upright, thrust * factor / (height * height), 0.0))
    return extra


def drag(velocity: Vector, rpm: Motors, drone: Drone, wind: Vector) -> Vector:
    """Rotor drag in the world's frame: -coefficient * (sum of motor speeds) * airspeed.

    The original takes the motor speeds of the step before, and coefficients of the world's axes.
    """
    turning = (2 * math.pi / 60) * sum(rpm)
    airspeed = v.subtract(velocity, wind)
    return v.scale(v.times(drone.drag_coefficient, airspeed), -turning)


def downwash(position: Vector, drone: Drone) -> Array:
    """The force `[D]` along a drone's own z axis from all drones above it.

    -strength (radius / (4 gap))^2 exp(-1/2 (distance / width(gap))^2) for each; `gap` is how much
    higher and `distance` how far away horizontally the other one is.
    """
    total = jnp.zeros_like(position.x)
    for shift in range(1, position.x.shape[0]):  # faster than all pairs in one array [D, D]
        x, y, gap = (jnp.roll(entry, shift) - entry for entry in position)
        total = total - jnp.where(gap > 0.0, _wash(x * x + y * y, gap, drone), 0.0)
    return total


def _wash(away: Array, gap: Array, drone: Drone) -> Array:
    """The strength of the wash `gap` below a drone, at a squared distance `away` from its axis."""
    gap = jnp.maximum(gap, _LEAST_GAP)
    strength = drone.downwash_strength * (drone.propeller_radius / (4 * gap)) ** 2
    width = drone.downwash_spread * gap + drone.downwash_width
    force = strength * jnp.exp(-0.5 * away / jnp.maximum(width * width, 1e-12))
    return jnp.where(away < _DOWNWASH_REACH**2, force, 0.0)
