"""The motion of a quadrotor: an explicit rigid-body model, integrated as the original does.

`BaseAviary._dynamics` of gym-pybullet-drones 2.1.0: velocities first, from the accelerations at
the old state, then position and attitude with the new velocities. Entries are `[D]`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fastrl.envs.quadrotor import bullet, forces
from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.drones import Air, Drone, Motors
from fastrl.envs.quadrotor.forces import Body, Wrench
from fastrl.envs.quadrotor.vectors import Vector
from fastrl.types import Scalar


def fly(
    body: Body, frame: Any, rpm: Motors, command: Motors, drone: Drone, air: Air,
    gravity: Scalar, time_step: Scalar, substeps: int,
) -> tuple[Body, Any, Motors]:  # fmt: skip
    """`substeps` steps of `time_step` with motors that are told to turn at `command`.

    `rpm` is how fast they turn now; the new speeds are returned with the new state. `frame` is
    () for the explicit model, and for Bullet's (see `bullet`) the attitude of a step ago.
    """
    decay = jnp.exp(-time_step / jnp.maximum(drone.motor_lag, 1e-9))  # exactly 0 without lag

    def substep(_: int, now: tuple[Body, Any, Motors]) -> tuple[Body, Any, Motors]:
        body, frame, rpm = now
        new = Motors(*(c + (r - c) * decay for c, r in zip(command, rpm, strict=True)))
        if frame:
            acting = bullet.wrench(body, frame, rpm, new, drone, air)
            frame = body.attitude
        else:
            acting = forces.wrench(body, rpm, new, drone, air)
        return integrate(body, acting, drone, gravity, time_step), frame, new

    body, frame, rpm = jax.lax.fori_loop(0, substeps, substep, (body, frame, rpm))
    return body._replace(attitude=v.normalise(body.attitude)), frame, rpm


def integrate(body: Body, acting: Wrench, drone: Drone, gravity: Scalar, time_step: Scalar) -> Body:
    """One step with constant accelerations: Newton's and Euler's equations."""
    momentum = v.times(drone.inertia, body.rates)
    x, y, z = v.add(acting.torque, v.cross(momentum, body.rates))
    spin_up = Vector(x / drone.inertia.x, y / drone.inertia.y, z / drone.inertia.z)
    acceleration = v.subtract(v.scale(acting.force, 1.0 / drone.mass), Vector(0.0, 0.0, gravity))
    velocity = v.add(body.velocity, v.scale(acceleration, time_step))
    rates = v.add(body.rates, v.scale(spin_up, time_step))
    position = v.add(body.position, v.scale(velocity, time_step))
    return Body(position, velocity, v.turn(body.attitude, rates, time_step), rates)
