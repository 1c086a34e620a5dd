"""What an action means: from numbers in [-1, 1] to the speeds that the motors are told.

The action types of gym-pybullet-drones' `BaseRLAviary._preprocessAction`, and `motors`, the
mapping of `BaseAviary._normalizedActionToRPM`. Entries are `[D]`, actions `[D, A]`.
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from fastrl.envs.quadrotor import controllers, drones
from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.controllers import Gains, Setpoint
from fastrl.envs.quadrotor.drones import Drone, Motors
from fastrl.envs.quadrotor.forces import Body
from fastrl.envs.quadrotor.vectors import Vector
from fastrl.types import Array, Scalar

ActionType = Literal["rpm", "motors", "one_d_rpm", "vel", "pid", "one_d_pid"]
SIZES = {"rpm": 4, "motors": 4, "one_d_rpm": 1, "vel": 4, "pid": 3, "one_d_pid": 1}
THROUGH_PID = ("vel", "pid", "one_d_pid")

_SPEED_SHARE = 0.03  # of the drone's greatest speed, that an action "vel" can ask for
_STEP = 1.0  # metres, how far ahead at most "pid" puts the target
_CLIMB = 0.1  # metres, the same for "one_d_pid"


class Machine(NamedTuple):
    """The params that actions depend on."""

    drone: Drone
    gains: Gains
    gravity: Scalar
    authority: Scalar  # of "rpm": the change of speed at action 1, as a share of hovering speed
    control_period: Scalar  # seconds from action to action


def command(
    kind: ActionType, action: Array, body: Body, memory: Any, machine: Machine
) -> tuple[Any, Motors]:
    """The controller's new memory and the motors' speeds, RPM."""
    entries = tuple(action[:, i] for i in range(SIZES[kind]))
    if kind in THROUGH_PID:
        return controllers.control(
            machine.gains, machine.drone, machine.gravity, machine.control_period, memory, body,
            _setpoint(kind, entries, body, machine.drone),
        )  # fmt: skip
    hover = drones.hover_rpm(machine.drone, machine.gravity)
    if kind == "motors":
        spare = drones.max_rpm(machine.drone, machine.gravity) - hover
        rpm = (hover + jnp.where(x > 0.0, spare, hover) * x for x in entries)
    else:
        rpm = (hover * (1 + machine.authority * x) for x in entries * (4 // len(entries)))
    return memory, Motors(*rpm)


def inverse(kind: ActionType, rpm: Motors, machine: Machine) -> Array:
    """The action `[D, A]` that comes nearest to `rpm`.

    Where [-1, 1] does not reach so far, what turns the drone comes first: the differences
    between motors are kept as far as possible, then their mean.
    """
    hover = drones.hover_rpm(machine.drone, machine.gravity)
    if kind == "motors":
        spare = drones.max_rpm(machine.drone, machine.gravity) - hover
        entries = [(r - hover) / jnp.where(r > hover, spare, hover) for r in rpm]
    elif kind in ("rpm", "one_d_rpm"):
        entries = [(r / hover - 1) / machine.authority for r in rpm]
    else:
        raise ValueError(f"action={kind!r} goes through a controller: needs 'rpm' or 'motors'")
    asked = jnp.stack(entries, axis=-1)
    mean = asked.mean(axis=-1, keepdims=True)
    if kind == "one_d_rpm":
        return jnp.clip(mean, -1.0, 1.0)
    apart = asked - mean
    widest = jnp.maximum(jnp.abs(apart).max(axis=-1, keepdims=True), 1e-9)
    apart = apart * jnp.minimum(1.0, 1.0 / widest)
    low, high = apart.min(axis=-1, keepdims=True), apart.max(axis=-1, keepdims=True)
    return jnp.clip(jnp.clip(mean, -1.0 - low, 1.0 - high) + apart, -1.0, 1.0)


def _setpoint(kind: ActionType, entries: tuple[Array, ...], body: Body, drone: Drone) -> Setpoint:
    """What the controller is to reach."""
    still = Vector(*(jnp.zeros_like(entries[0]) for _ in range(3)))
    if kind == "vel":
        speed = _SPEED_SHARE * drone.max_speed * jnp.abs(entries[3])
        towards = Vector(*entries[:3])
        length = v.norm(towards)
        velocity = v.scale(towards, speed / jnp.where(length > 0.0, length, 1.0))
        return Setpoint(body.position, velocity, v.to_angles(body.attitude).z)
    if kind == "pid":
        away = v.subtract(Vector(*entries), body.position)
        share = jnp.minimum(1.0, _STEP / jnp.maximum(v.norm(away), _STEP))
    else:
        away, share = still._replace(z=entries[0]), _CLIMB
    return Setpoint(v.add(body.position, v.scale(away, share)), still, still.x)
