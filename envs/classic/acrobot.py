"""Acrobot: swing a two-link arm, driven at its elbow only, until its tip is high up.

Dynamics, limits and reward of Gymnasium's `Acrobot-v1` (Sutton 1996), with the equations of
motion of Sutton and Barto's book (1998, section 11.3) and one Runge-Kutta step of fourth
order for each action.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import checks
from fastrl.kernels.trigonometry import sin_cos
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """Units: metres, kilograms, seconds, radians, newton metres."""

    gravity: float = 9.8
    length_1: float = 1.0  # of the upper link; the lower one's has no part in the dynamics
    mass_1: float = 1.0
    mass_2: float = 1.0
    centre_1: float = 0.5  # from the joint to the centre of mass
    centre_2: float = 0.5
    inertia: float = 1.0  # of each link about its centre of mass
    torque: float = 1.0
    time_step: float = 0.2
    max_velocity_1: float = 4 * math.pi
    max_velocity_2: float = 9 * math.pi
    goal_height: float = 1.0  # of the tip above the shoulder, with links of length 1
    max_steps: int = 500


class State(NamedTuple):
    """Angles within [-pi, pi]: the first from hanging down, the second from the first link."""

    angle_1: Array
    angle_2: Array
    velocity_1: Array
    velocity_2: Array
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class Acrobot:
    """Observation: cos and sin of both angles, both velocities. Action: torque -1, 0 or +1.

    Reward -1 a step, 0 on the last. Terminates when the tip is above the goal height.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        a, b, v, w = jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)
        state = State(a, b, v, w, jnp.int32(0))
        return state, _observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        p = params
        torque = (action - 1) * p.torque
        a, b, v, w = runge_kutta(lambda y: _motion(y, torque, p), state[:4], p.time_step)
        state = State(
            _wrap(a),
            _wrap(b),
            jnp.clip(v, -p.max_velocity_1, p.max_velocity_1),
            jnp.clip(w, -p.max_velocity_2, p.max_velocity_2),
            state.time + 1,
        )
        (sin_1, cos_1), (sin_2, cos_2) = sin_cos(state.angle_1), sin_cos(state.angle_2)
        height = -cos_1 - (cos_1 * cos_2 - sin_1 * sin_2)
        terminated = height > p.goal_height
        truncated = (state.time >= p.max_steps) & ~terminated
        reward = jnp.where(terminated, jnp.float32(0.0), jnp.float32(-1.0))
        return state, Step(_observe(state), reward, terminated, truncated)

    def observation_space(self, params: Params) -> Box:
        standard = Params()
        high = (1.0, 1.0, 1.0, 1.0, standard.max_velocity_1, standard.max_velocity_2)
        return Box(tuple(-h for h in high), high, (6,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(3)

    def render(self, state: State, params: Params) -> np.ndarray:
        """Both links and the goal line: uint8 `[400, 400, 3]`."""
        from fastrl.envs import drawing

        canvas = drawing.Canvas(400, 400, left=-2.3, right=2.3, bottom=-2.3)
        canvas.dashes((-2.3, float(params.goal_height)), (2.3, float(params.goal_height)), 0.03)
        first, second = float(state.angle_1), float(state.angle_1 + state.angle_2)
        elbow = (math.sin(first), -math.cos(first))
        tip = (elbow[0] + math.sin(second), elbow[1] - math.cos(second))
        canvas.rod((0.0, 0.0), elbow, 0.2, drawing.BLUE)
        canvas.rod(elbow, tip, 0.17, drawing.ORANGE)
        for joint in ((0.0, 0.0), elbow):
            canvas.disc(joint, 0.06, drawing.PAPER)
        canvas.disc(tip, 0.05, drawing.INK)
        return canvas.image()


Vector = tuple[Any, ...]  # scalars: the same code traces into a kernel, which has no arrays


def runge_kutta(slope: Callable[[Vector], Vector], y: Vector, h: Any) -> Vector:
    """`y` after a time `h` under `dy/dt = slope(y)`, by the classical method of order four."""
    k1 = slope(y)
    k2 = slope(_along(y, h / 2, k1))
    k3 = slope(_along(y, h / 2, k2))
    k4 = slope(_along(y, h, k3))
    mean = tuple((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
    return _along(y, h, mean)


def _along(y: Vector, h: Any, slope: Vector) -> Vector:
    return tuple(a + h * b for a, b in zip(y, slope, strict=True))


def _motion(y: Vector, torque: Any, p: Params) -> Vector:
    """The time derivatives of (angle 1, angle 2, velocity 1, velocity 2)."""
    a, b, v, w = y
    sin_a, cos_a = sin_cos(a)
    sin, cos = sin_cos(b)
    coupling = p.mass_2 * p.length_1 * p.centre_2
    inertia_2 = p.mass_2 * p.centre_2**2 + p.inertia
    d_2 = inertia_2 + coupling * cos
    d_1 = (
        (p.mass_1 * p.centre_1**2 + p.mass_2 * p.length_1**2 + p.inertia)
        + inertia_2
        + 2 * coupling * cos
    )
    weight_2 = p.mass_2 * p.centre_2 * p.gravity * (sin_a * cos + cos_a * sin)
    weight_1 = (p.mass_1 * p.centre_1 + p.mass_2 * p.length_1) * p.gravity * sin_a
    phi_1 = weight_1 + weight_2 - coupling * sin * w * (w + 2 * v)
    ratio = d_2 / d_1
    acceleration_2 = (torque + ratio * phi_1 - coupling * v**2 * sin - weight_2) / (
        inertia_2 - ratio * d_2
    )
    acceleration_1 = -(d_2 * acceleration_2 + phi_1) / d_1
    return v, w, acceleration_1, acceleration_2


def _wrap(angle: Array) -> Array:
    """The same angle within (-pi, pi]."""
    return angle - 2 * math.pi * jnp.ceil((angle - math.pi) / (2 * math.pi))


def _observe(state: State) -> Array:
    (sin_1, cos_1), (sin_2, cos_2) = sin_cos(state.angle_1), sin_cos(state.angle_2)
    return jnp.stack([cos_1, sin_1, cos_2, sin_2, state.velocity_1, state.velocity_2])
