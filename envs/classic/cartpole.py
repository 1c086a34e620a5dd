"""CartPole: balance a pole on a cart by pushing left or right.

Dynamics, limits and reward of Gymnasium's `CartPole-v1` (Barto, Sutton and Anderson 1983),
explicit Euler integration.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import checks
from fastrl.kernels.trigonometry import sin_cos
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """Units: metres, kilograms, seconds, radians, newtons."""

    gravity: float = 9.8
    mass_cart: float = 1.0
    mass_pole: float = 0.1
    half_length: float = 0.5
    force: float = 10.0
    time_step: float = 0.02
    max_angle: float = 12 * 2 * math.pi / 360
    max_position: float = 2.4
    max_steps: int = 500


class State(NamedTuple):
    """The cart's position and velocity, the pole's angle (0 is upright) and its velocity."""

    position: Array
    velocity: Array
    angle: Array
    angular_velocity: Array
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class CartPole:
    """Observation: position, velocity, angle, angular velocity. Action: 0 left, 1 right.

    Reward 1 a step. Terminates when the cart leaves the track or the pole falls.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        x, v, a, w = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        state = State(x, v, a, w, jnp.int32(0))
        return state, _observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        p = params
        force = jnp.where(action == 1, p.force, -p.force)
        sin, cos = sin_cos(state.angle)
        per_mass = 1.0 / (p.mass_cart + p.mass_pole)
        pole_moment = p.mass_pole * p.half_length
        push = (force + pole_moment * state.angular_velocity**2 * sin) * per_mass
        angular_acceleration = (p.gravity * sin - cos * push) / (
            p.half_length * (4.0 / 3.0 - p.mass_pole * cos**2 * per_mass)
        )
        acceleration = push - pole_moment * angular_acceleration * cos * per_mass
        state = State(
            state.position + p.time_step * state.velocity,
            state.velocity + p.time_step * acceleration,
            state.angle + p.time_step * state.angular_velocity,
            state.angular_velocity + p.time_step * angular_acceleration,
            state.time + 1,
        )
        terminated = (jnp.abs(state.position) > p.max_position) | (
            jnp.abs(state.angle) > p.max_angle
        )
        truncated = (state.time >= p.max_steps) & ~terminated
        return state, Step(_observe(state), jnp.float32(1.0), terminated, truncated)

    def observation_space(self, params: Params) -> Box:
        standard = Params()  # twice the limits, so that the last observation is inside
        high = (2 * standard.max_position, math.inf, 2 * standard.max_angle, math.inf)
        return Box(tuple(-h for h in high), high, (4,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)

    def render(self, state: State, params: Params) -> np.ndarray:
        """The cart on its track: uint8 `[400, 600, 3]`."""
        from fastrl.envs import drawing

        reach = float(params.max_position)
        canvas = drawing.Canvas(600, 400, left=-1.15 * reach, right=1.15 * reach, bottom=-1.1)
        x, angle = float(state.position), float(state.angle)
        for limit in (-reach, reach):
            canvas.rod((limit, -0.12), (limit, 0.12), 0.03, drawing.GREY)
        canvas.rod((-reach, 0.0), (reach, 0.0), 0.03, drawing.INK)
        for wheel in (-0.18, 0.18):
            canvas.disc((x + wheel, 0.07), 0.07, drawing.INK)
        canvas.box((x, 0.22), 0.62, 0.26, 0.05, drawing.BLUE)
        pivot, length = (x, 0.3), 2 * float(params.half_length)
        tip = (pivot[0] + length * math.sin(angle), pivot[1] + length * math.cos(angle))
        canvas.rod(pivot, tip, 0.11, drawing.ORANGE)
        canvas.disc(pivot, 0.035, drawing.PAPER)
        return canvas.image()


def _observe(state: State) -> Array:
    return jnp.stack([state.position, state.velocity, state.angle, state.angular_velocity])
