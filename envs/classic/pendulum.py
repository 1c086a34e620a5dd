"""Pendulum: swing a rod up with a weak motor and hold it upright.

Dynamics, limits and reward of Gymnasium's `Pendulum-v1`: semi-implicit Euler integration, no
terminal states, a time limit of 200 steps.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import checks
from fastrl.kernels.trigonometry import sin_cos
from fastrl.spaces import Box
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """Units: metres, kilograms, seconds, radians."""

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    time_step: float = 0.05
    max_speed: float = 8.0
    max_steps: int = 200


class State(NamedTuple):
    """The angle from upright, at most one step outside [-pi, pi], and its velocity."""

    angle: Array
    velocity: Array
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """Observation: cos and sin of the angle, velocity. Action: float32 `[1]`, the torque.

    The torque (newton metres) is clipped to `max_torque`, a field of the environment since it
    is the bound of the action space. Reward: minus angle^2 + 0.1 velocity^2 + 0.001 torque^2
    of the state before the step, with the angle within [-pi, pi] and the clipped torque.
    """

    max_torque: float = 2.0
    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        a, v = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        state = State(a * math.pi, v, jnp.int32(0))
        return state, _observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        p = params
        torque = jnp.clip(jnp.reshape(action, ()), -self.max_torque, self.max_torque)
        angle = _normalise(state.angle)
        cost = angle**2 + 0.1 * state.velocity**2 + 0.001 * torque**2
        acceleration = 1.5 * p.gravity / p.length * sin_cos(angle)[0] + (
            3.0 / (p.mass * p.length**2) * torque
        )
        velocity = state.velocity + p.time_step * acceleration
        velocity = jnp.clip(velocity, -p.max_speed, p.max_speed)
        state = State(angle + p.time_step * velocity, velocity, state.time + 1)
        truncated = state.time >= p.max_steps
        return state, Step(_observe(state), -cost, jnp.zeros_like(truncated), truncated)

    def observation_space(self, params: Params) -> Box:
        high = (1.0, 1.0, Params().max_speed)
        return Box(tuple(-h for h in high), high, (3,))

    def action_space(self, params: Params) -> Box:
        return Box(-self.max_torque, self.max_torque, (1,))

    def render(self, state: State, params: Params) -> np.ndarray:
        """The rod: uint8 `[400, 400, 3]`."""
        from fastrl.envs import drawing

        reach, angle = float(params.length), float(state.angle)
        side = 1.4 * reach
        canvas = drawing.Canvas(400, 400, left=-side, right=side, bottom=-side)
        canvas.circle((0.0, 0.0), reach, 0.012 * reach, drawing.FIELD)
        canvas.rod((0.0, reach), (0.0, 1.12 * reach), 0.02 * reach, drawing.GREY)  # the aim
        tip = (-reach * math.sin(angle), reach * math.cos(angle))  # angles turn to the left
        canvas.rod((0.0, 0.0), tip, 0.16 * reach, drawing.ORANGE)
        canvas.disc((0.0, 0.0), 0.05 * reach, drawing.INK)
        return canvas.image()


def _normalise(angle: Array) -> Array:
    """The same angle within [-pi, pi].

    A turn is taken off in two parts, of which the first has so few bits that its multiples
    are exact: after many turns nothing is lost but the rounding of `angle` itself.
    """
    turns = jnp.floor(angle / (2 * math.pi) + 0.5)
    return angle - turns * 6.28125 - turns * (2 * math.pi - 6.28125)


def _observe(state: State) -> Array:
    sin, cos = sin_cos(state.angle)
    return jnp.stack([cos, sin, state.velocity])
