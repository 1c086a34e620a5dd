"""The cascaded PID controller that flies the Crazyflie: position, then attitude.

`DSLPIDControl` of gym-pybullet-drones 2.1.0 (Zhou, Xu, Du, Vukosavljev, Ngan, Hou; Dynamic
Systems Lab, Toronto) as a pure function: `memory, rpm = control(memory, ...)`. Entries are
`[D]`, one per drone.
"""

from typing import NamedTuple

import jax.numpy as jnp

from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.drones import Drone, Motors
from fastrl.envs.quadrotor.forces import Body
from fastrl.envs.quadrotor.vectors import Axes, Vector
from fastrl.types import Array, Scalar

_X_MIXER = Motors(
    Vector(-0.5, -0.5, -1.0), Vector(-0.5, 0.5, 1.0), Vector(0.5, 0.5, -1.0), Vector(0.5, -0.5, 1.0)
)
_PLUS_MIXER = Motors(
    Vector(0.0, -1.0, -1.0), Vector(1.0, 0.0, 1.0), Vector(0.0, 1.0, -1.0), Vector(-1.0, 0.0, 1.0)
)


class Gains(NamedTuple):
    """Of position errors (metres) to newtons, and of attitude errors to PWM of the motors."""

    force_p: Vector = Vector(0.4, 0.4, 1.25)
    force_i: Vector = Vector(0.05, 0.05, 0.05)
    force_d: Vector = Vector(0.2, 0.2, 0.5)
    torque_p: Vector = Vector(70000.0, 70000.0, 60000.0)
    torque_i: Vector = Vector(0.0, 0.0, 500.0)
    torque_d: Vector = Vector(20000.0, 20000.0, 12000.0)
    max_position_integral: Vector = Vector(2.0, 2.0, 0.15)
    max_attitude_integral: Vector = Vector(1.0, 1.0, 1500.0)
    max_torque: Scalar = 3200.0  # PWM
    pwm_to_rpm: Scalar = 0.2685
    rpm_of_no_pwm: Scalar = 4070.3
    min_pwm: Scalar = 20000.0
    max_pwm: Scalar = 65535.0
    mixer: Motors = _X_MIXER  # torques to motors


X_GAINS = Gains()
PLUS_GAINS = Gains(mixer=_PLUS_MIXER)


class Setpoint(NamedTuple):
    """Where a drone is to be. Entries are `[D]`."""

    position: Vector
    velocity: Vector
    yaw: Array


class Memory(NamedTuple):
    """What the controller carries from call to call. Entries are `[D]`."""

    position_integral: Vector
    attitude_integral: Vector
    angles: Vector  # roll, pitch and yaw at the last call


def init(body: Body) -> Memory:
    """The memory before the first call: nothing summed up, and no change of angles seen.

    The original begins with angles 0, which is the same for its level starts.
    """
    zero = Vector(*(jnp.zeros_like(x) for x in body.position))
    return Memory(zero, zero, v.to_angles(body.attitude))


def control(
    gains: Gains, drone: Drone, gravity: Scalar, time_step: Scalar, memory: Memory, body: Body,
    target: Setpoint,
) -> tuple[Memory, Motors]:  # fmt: skip
    """The motors' speeds, RPM, that bring `body` to `target`; called every `time_step` seconds.

    `drone` is what the controller takes the drone for: its mass and thrust coefficient count.
    """
    axes = v.axes(body.attitude)
    integral, thrust, wanted = _position(
        gains, drone, gravity, time_step, memory, body, axes, target
    )
    angles = v.to_angles(body.attitude)
    rates = v.scale(v.subtract(angles, memory.angles), 1.0 / time_step)
    error = _attitude_error(wanted, axes)
    attitude_integral = v.clip(
        v.subtract(memory.attitude_integral, v.scale(error, time_step)),
        gains.max_attitude_integral,
    )
    torque = v.subtract(
        v.times(gains.torque_i, attitude_integral),
        v.add(v.times(gains.torque_p, error), v.times(gains.torque_d, rates)),
    )
    torque = v.clip(torque, Vector(*(gains.max_torque,) * 3))
    pwm = [thrust + v.dot(row, torque) for row in gains.mixer]
    rpm = (
        gains.pwm_to_rpm * jnp.clip(p, gains.min_pwm, gains.max_pwm) + gains.rpm_of_no_pwm
        for p in pwm
    )
    return Memory(integral, attitude_integral, angles), Motors(*rpm)


def _position(
    gains: Gains, drone: Drone, gravity: Scalar, time_step: Scalar, memory: Memory, body: Body,
    axes: Axes, target: Setpoint,
) -> tuple[Vector, Array, Axes]:  # fmt: skip
    """The new integral, the thrust as PWM of every motor, and the axes that are wanted."""
    error = v.subtract(target.position, body.position)
    integral = v.clip(
        v.add(memory.position_integral, v.scale(error, time_step)), gains.max_position_integral
    )
    force = v.add(
        v.times(gains.force_p, error),
        v.times(gains.force_i, integral),
        v.times(gains.force_d, v.subtract(target.velocity, body.velocity)),
        Vector(0.0, 0.0, gravity * drone.mass),
    )
    along = jnp.maximum(v.dot(force, axes.z), 0.0)
    rpm = jnp.sqrt(along / (4 * drone.thrust_coefficient))
    up = _direction(force)
    ahead = Vector(jnp.cos(target.yaw), jnp.sin(target.yaw), jnp.zeros_like(target.yaw))
    left = _direction(v.cross(up, ahead))
    pwm = (rpm - gains.rpm_of_no_pwm) / gains.pwm_to_rpm
    return integral, pwm, Axes(v.cross(left, up), left, up)


def _direction(a: Vector) -> Vector:
    return v.scale(a, 1.0 / jnp.maximum(v.norm(a), 1e-9))


def _attitude_error(wanted: Axes, axes: Axes) -> Vector:
    """Twice the sine of the angle between two attitudes, times the axis of that rotation.

    The entries of wanted^T actual - actual^T wanted, for rotation matrices.
    """
    return Vector(
        v.dot(wanted.z, axes.y) - v.dot(axes.z, wanted.y),
        v.dot(wanted.x, axes.z) - v.dot(axes.x, wanted.z),
        v.dot(wanted.y, axes.x) - v.dot(axes.y, wanted.x),
    )
