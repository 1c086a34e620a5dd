"""Hover at a point, one drone or several: `HoverAviary` and `MultiHoverAviary`.

Reward, ends and observation of gym-pybullet-drones 2.1.0. Leaving the permitted box and tilting
too far end the task here (the original calls them truncations): whoever flew away is not to be
credited with the rewards of flying on. The time limit is a truncation, as there.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from fastrl.envs.quadrotor import flight
from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.controllers import Gains, Setpoint
from fastrl.envs.quadrotor.drones import Air, Drone
from fastrl.envs.quadrotor.flight import Flight, State
from fastrl.envs.quadrotor.vectors import Vector
from fastrl.types import Array, Scalar


class Params(NamedTuple):
    """Units: metres, seconds, radians. All `start_` numbers at 0 give the original's start."""

    drone: Drone = Drone()
    air: Air = Air()
    gains: Gains = Gains()  # of the PID, for actions that go through it and for `baseline`
    gravity: Scalar = 9.8
    time_step: Scalar = 1 / 240  # of the physics
    authority: Scalar = 0.05  # of actions "rpm", as a share of hovering speed
    start: Vector = Vector(0.0, 0.0, 0.1125)
    target: Vector = Vector(0.0, 0.0, 1.0)
    spacing: Scalar = 4 * 0.0397  # between drones at the start, in x and in y
    start_spread: Vector = Vector(0.1, 0.1, 0.05)  # half the width that starts are drawn from
    start_tilt: Scalar = 0.05
    start_yaw: Scalar = 0.0
    start_phase: Scalar = 0.0  # nothing here depends on it
    max_distance: Scalar = 1.5  # in x and in y, of the origin
    max_height: Scalar = 2.0
    max_tilt: Scalar = 0.4
    success_distance: Scalar = 1e-4  # summed over drones: nearer is a success, and the end
    max_steps: int = 242


@dataclasses.dataclass(frozen=True)
class Hover(Flight):
    """Reward: max(0, 2 - distance^4) of every drone, summed.

    The i-th drone starts at `start` + i `spacing` (x and y) and is to hover above that, shifted as
    `target` is from `start`, and by 1 / (i + 1) of its height. Terminates outside the box, when
    tilted, and on success.
    """

    def default_params(self) -> Params:
        drone, air, gains = flight.standard(self)
        params = Params(drone, air, gains)
        if self.action == "one_d_rpm":  # which can't correct anything but the height
            params = params._replace(start_spread=Vector(0.0, 0.0, 0.05), start_tilt=0.0)
        if self.num_drones == 1:
            return params
        return params._replace(target=Vector(0.0, 0.0, 1.1125), max_distance=2.0)

    def setpoint(self, state: State, params: Params) -> Setpoint:
        index = jnp.arange(self.num_drones, dtype=jnp.float32)
        shift = v.subtract(params.target, params.start)
        aim = _nominal(index, params)
        aim = v.add(aim, Vector(shift.x, shift.y, shift.z / (index + 1)))
        still = jnp.zeros_like(index)
        return Setpoint(aim, Vector(still, still, still), still)

    def _starts(self, draws: Array, phase: Array, params: Params) -> tuple[Vector, Vector]:
        index = jnp.arange(self.num_drones, dtype=jnp.float32)
        still = Vector(*(jnp.zeros_like(index) for _ in range(3)))
        spread = v.times(params.start_spread, Vector(*draws))
        return v.add(_nominal(index, params), spread), still

    def _judge(self, state: State, params: Params) -> tuple[Array, Array]:
        position = state.body.position
        aim = self.setpoint(state, params).position
        distance = v.norm(v.subtract(aim, position))
        reward = jnp.maximum(0.0, 2.0 - distance**4).sum()
        far = (jnp.abs(position.x) > params.max_distance) | (
            jnp.abs(position.y) > params.max_distance
        )
        lost = far | (position.z > params.max_height) | self._tilted(state.body, params.max_tilt)
        return reward, lost.any() | (distance.sum() < params.success_distance)


def _nominal(index: Array, params: Params) -> Vector:
    """Start positions without spread, of the drones `index` `[D]`."""
    along = params.spacing * index
    x, y, z = params.start
    return Vector(x + along, y + along, z + 0.0 * index)
