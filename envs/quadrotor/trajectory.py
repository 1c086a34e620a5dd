"""Follow a reference path: a circle, a figure of eight, or anything between.

The original has no such learning task; its example `pid.py` flies drones along a circle, apart
from each other by their phase. Physics, actions and observation are those of `Hover`.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax.numpy as jnp

from fastrl.envs.quadrotor import flight
from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.controllers import Gains, Setpoint
from fastrl.envs.quadrotor.drones import Air, Drone
from fastrl.envs.quadrotor.flight import Flight, State
from fastrl.envs.quadrotor.vectors import Vector
from fastrl.types import Array, Scalar


class Params(NamedTuple):
    """Units: metres, seconds, radians."""

    drone: Drone = Drone()
    air: Air = Air()
    gains: Gains = Gains()  # of the PID, for actions that go through it and for `baseline`
    gravity: Scalar = 9.8
    time_step: Scalar = 1 / 240  # of the physics
    authority: Scalar = 0.05  # of actions "rpm", as a share of hovering speed
    centre: Vector = Vector(0.0, 0.0, 1.0)
    radius: Scalar = 0.5
    period: Scalar = 6.0
    eight: Scalar = 0.0  # 0: a circle, 1: a figure of eight
    rise: Scalar = 0.0  # the height's amplitude, once a round
    layer: Scalar = 0.0  # how much higher each further drone flies
    start_spread: Vector = Vector(0.05, 0.05, 0.05)  # half the width around the path's start
    start_tilt: Scalar = 0.05
    start_yaw: Scalar = 0.0
    start_phase: Scalar = math.pi  # half the width of the phases that episodes start at
    max_distance: Scalar = 1.0  # from the reference
    max_tilt: Scalar = 0.4
    reward_width: Scalar = 0.1
    max_steps: int = 300


@dataclasses.dataclass(frozen=True)
class Trajectory(Flight):
    """Reward: exp(-(distance / reward_width)^2) of every drone to its reference, summed.

    After the 12 kinematic entries the observation has the way to the next reference (3) and the
    reference's velocity (3). Terminates too far from the reference and when tilted.
    """

    _extra_size: ClassVar[int] = 6

    def default_params(self) -> Params:
        return Params(*flight.standard(self))

    def setpoint(self, state: State, params: Params) -> Setpoint:
        return self._reference(state.time + 1, state.phase, params)

    def _starts(self, draws: Array, phase: Array, params: Params) -> tuple[Vector, Vector]:
        reference = self._reference(jnp.int32(0), phase, params)
        spread = v.times(params.start_spread, Vector(*draws))
        return v.add(reference.position, spread), reference.velocity

    def _judge(self, state: State, params: Params) -> tuple[Array, Array]:
        reference = self._reference(state.time, state.phase, params).position
        distance = v.norm(v.subtract(reference, state.body.position))
        reward = jnp.exp(-((distance / params.reward_width) ** 2)).sum()
        lost = (distance > params.max_distance) | self._tilted(state.body, params.max_tilt)
        return reward, lost.any()

    def _extra(self, state: State, params: Params) -> tuple[Array, ...]:
        target = self.setpoint(state, params)
        return (*v.subtract(target.position, state.body.position), *target.velocity)

    def _reference(self, time: Array, phase: Array, params: Params) -> Setpoint:
        """Where every drone is to be at step `time`, and how fast.

        x = radius cos(a), y = radius ((1 - eight) sin(a) + eight sin(a) cos(a)),
        z = rise sin(a), from the centre, with a = phase + 2 pi t / period.
        """
        n, p = self.num_drones, params
        index = jnp.arange(n, dtype=jnp.float32)
        seconds = time.astype(jnp.float32) * (p.time_step * self.substeps)
        angle = phase + 2 * math.pi * (seconds / p.period) + (2 * math.pi / n) * index
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        round_, crossed = 1.0 - p.eight, p.eight
        offset = Vector(
            p.radius * cos,
            p.radius * sin * (round_ + crossed * cos),
            p.rise * sin + p.layer * index,
        )
        per_radian = Vector(
            -p.radius * sin,
            p.radius * (round_ * cos + crossed * (2 * cos * cos - 1)),
            p.rise * cos,
        )
        velocity = v.scale(per_radian, 2 * math.pi / p.period)
        return Setpoint(v.add(Vector(*p.centre), offset), velocity, jnp.zeros_like(angle))
