"""The rigid body of a quadrotor: forces, torques, and one step of integration.

The equations of `BaseAviary._dynamics`, `_groundEffect`, `_drag` and `_downwash` of
gym-pybullet-drones 2.1.0, integrated as there: velocities first, from the accelerations at the
old state, then position and attitude with the new velocities. Entries are `[D]`, one per drone.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.drones import Air, Drone, Motors
from fastrl.envs.quadrotor.vectors import Axes, Quaternion, Vector
from fastrl.types import Array, Scalar

_LEAST_GAP = 1e-6  # metres, between heights: the downwash of a drone just above is finite
_DOWNWASH_REACH = 10.0  # metres


class Body(NamedTuple):
    """Where the drones are and how they move. Entries are `[D]`."""

    position: Vector  # world
    velocity: Vector  # world
    attitude: Quaternion
    rates: Vector  # radians a second, about the body's axes


def fly(
    body: Body, rpm: Motors, command: Motors, drone: Drone, air: Air,
    gravity: Scalar, time_step: Scalar, substeps: int,
) -> tuple[Body, Motors]:  # fmt: skip
    """`substeps` steps of `time_step` with motors that are told to turn at `command`.

    `rpm` is how fast they turn now; the new speeds are returned with the new state.
    """
    decay = jnp.exp(-time_step / jnp.maximum(drone.motor_lag, 1e-9))  # exactly 0 without lag

    def substep(_: int, now: tuple[Body, Motors]) -> tuple[Body, Motors]:
        body, rpm = now
        new = tuple(c + (r - c) * decay for c, r in zip(command, rpm, strict=True))
        return _integrate(body, rpm, new, drone, air, gravity, time_step), new

    body, rpm = jax.lax.fori_loop(0, substeps, substep, (body, rpm))
    return body._replace(attitude=v.normalise(body.attitude)), rpm


def _integrate(
    body: Body, old_rpm: Motors, rpm: Motors, drone: Drone, air: Air, gravity: Scalar,
    time_step: Scalar,
) -> Body:  # fmt: skip
    """One step with constant accelerations."""
    axes = v.axes(body.attitude)
    thrusts = [drone.thrust_coefficient * r * r for r in rpm]
    around = sum(s * r * r for s, r in zip(drone.spin, rpm, strict=True))
    effect = ground_effect(thrusts, body, axes, drone)
    thrusts = [t + air.ground_effect * e for t, e in zip(thrusts, effect, strict=True)]
    lift = sum(thrusts) + air.downwash * downwash(body.position, drone)
    force = v.add(
        v.scale(axes.z, lift),
        v.scale(drag(body.velocity, old_rpm, drone, air.wind), air.drag),
        v.scale(body.velocity, _damping(body.velocity, air.linear_damping) * drone.mass),
    )
    torque = Vector(
        sum(y * t for y, t in zip(drone.motor_y, thrusts, strict=True)),
        -sum(x * t for x, t in zip(drone.motor_x, thrusts, strict=True)),
        drone.torque_coefficient * around,
    )
    acceleration = v.subtract(v.scale(force, 1.0 / drone.mass), Vector(0.0, 0.0, gravity))
    velocity = v.add(body.velocity, v.scale(acceleration, time_step))
    rates = v.add(body.rates, v.scale(_spin_up(body.rates, torque, drone, air), time_step))
    position = v.add(body.position, v.scale(velocity, time_step))
    return Body(position, velocity, v.turn(body.attitude, rates, time_step), rates)


def _spin_up(rates: Vector, torque: Vector, drone: Drone, air: Air) -> Vector:
    """The angular acceleration: Euler's equation about the body's axes."""
    momentum = v.times(drone.inertia, rates)
    damped = v.scale(momentum, _damping(rates, air.angular_damping))
    x, y, z = v.add(torque, damped, v.cross(momentum, rates))
    return Vector(x / drone.inertia.x, y / drone.inertia.y, z / drone.inertia.z)


def _damping(velocity: Vector, damping: Scalar) -> Array:
    """Bullet's damping of a multi-body, per unit of momentum."""
    return -damping * (1.0 + v.norm(velocity))


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
    count = position.x.shape[0]
    if count == 1:
        return jnp.zeros_like(position.x)
    x, y, gap = (entry[None, :] - entry[:, None] for entry in position)  # [this, other]
    above, gap = gap > 0.0, jnp.maximum(gap, _LEAST_GAP)
    away = x * x + y * y
    strength = drone.downwash_strength * (drone.propeller_radius / (4 * gap)) ** 2
    width = drone.downwash_spread * gap + drone.downwash_width
    force = strength * jnp.exp(-0.5 * away / jnp.maximum(width * width, 1e-12))
    counts = above & (away < _DOWNWASH_REACH**2)
    return -jnp.where(counts, force, 0.0).sum(axis=1)
