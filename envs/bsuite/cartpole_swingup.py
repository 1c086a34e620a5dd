"""CartPoleSwingup: swing a hanging pole up and balance it, where every push costs.

Dynamics, limits and rewards of bsuite's `cartpole_swingup` (Osband et al. 2020), which takes
the equations of Barto, Sutton and Anderson (1983) with explicit Euler steps.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import checks
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """Units: metres, kilograms, seconds, radians, newtons."""

    height: float = 0.5  # the pole is up where the cosine of its angle is above
    max_angular_velocity: float = 1.0  # ... its velocity is below
    max_reward_position: float = 1.0  # ... and the cart is closer to the centre
    move_cost: float = 0.1
    max_position: float = 3.0
    time_step: float = 0.01
    max_time: float = 10.0
    start_range: float = 0.05
    gravity: float = 9.8
    mass_cart: float = 1.0
    mass_pole: float = 0.1
    half_length: float = 0.5
    force: float = 10.0


class State(NamedTuple):
    """The cart's position and velocity, the pole's angle (0 is upright) and its velocity."""

    position: Array
    velocity: Array
    angle: Array  # within [0, 2 pi)
    angular_velocity: Array
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class CartPoleSwingup:
    """Observation: float32 `[8]`, see `_observe`. Action: 0 left, 1 no push, 2 right.

    Reward 1 where the pole is up, slow, and the cart near the centre, less `move_cost` for a
    push.  Terminates when the cart leaves the track, and when the time, which is observed, is
    up: bsuite gives both ends a discount of 0.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        x, v, a, w = params.start_range * jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
        state = State(x, v, jnp.float32(math.pi) + a, w, jnp.int32(0))
        return state, _observe(state, params)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        p, push = params, action.astype(jnp.float32) - 1.0
        state = _swing(state, push * p.force, p)
        up = (
            (jnp.cos(state.angle) > p.height)
            & (jnp.abs(state.angular_velocity) < p.max_angular_velocity)
            & (jnp.abs(state.position) < p.max_reward_position)
        )
        reward = jnp.where(up, 1.0, 0.0) - jnp.abs(push) * p.move_cost
        time_is_up = state.time.astype(jnp.float32) * p.time_step > p.max_time
        over = time_is_up | (jnp.abs(state.position) > p.max_position)
        observation = _observe(state, p)
        return state, Step(observation, reward.astype(jnp.float32), over, jnp.zeros_like(over))

    def observation_space(self, params: Params) -> Box:
        least = (-math.inf, -math.inf, -1.0, -1.0, -math.inf, 0.0, -1.0, -1.0)
        return Box(least, (math.inf, math.inf, 1.0, 1.0, math.inf, math.inf, 1.0, 1.0), (8,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(3)

    def render(self, state: State, params: Params) -> np.ndarray:
        """The cart, the pole and where both are paid for: uint8 `[300, 600, 3]`."""
        from fastrl.envs import drawing

        reach, near = float(params.max_position), float(params.max_reward_position)
        canvas = drawing.Canvas(
            600, 300, left=-1.1 * reach, right=1.1 * reach, bottom=-0.55 * reach
        )
        canvas.rod((-reach, 0.0), (reach, 0.0), 0.04, drawing.GREY)
        canvas.rod((-near, 0.0), (near, 0.0), 0.04, drawing.INK)
        x, angle, length = float(state.position), float(state.angle), 2 * float(params.half_length)
        tip = (x + length * math.sin(angle), length * math.cos(angle))
        canvas.box((x, 0.0), 0.5, 0.25, 0.05, drawing.BLUE)
        canvas.rod((x, 0.0), tip, 0.1, drawing.ORANGE)
        canvas.disc((x, 0.0), 0.04, drawing.PAPER)
        return canvas.image()


def _swing(state: State, force: Array, p: Params) -> State:
    """One Euler step under `force`."""
    cos, sin = jnp.cos(state.angle), jnp.sin(state.angle)
    mass, moment = p.mass_cart + p.mass_pole, p.mass_pole * p.half_length
    push = (force + moment * state.angular_velocity**2 * sin) / mass
    angular_acceleration = (p.gravity * sin - cos * push) / (
        p.half_length * (4.0 / 3.0 - p.mass_pole * cos**2 / mass)
    )
    acceleration = push - moment * angular_acceleration * cos / mass
    angle = state.angle + p.time_step * state.angular_velocity
    return State(
        state.position + p.time_step * state.velocity,
        state.velocity + p.time_step * acceleration,
        angle - 2 * math.pi * jnp.floor(angle / (2 * math.pi)),
        state.angular_velocity + p.time_step * angular_acceleration,
        state.time + 1,
    )


def _observe(state: State, p: Params) -> Array:
    """Position and velocity over the limit of the position, sine, cosine and velocity of the
    angle, the share of the time, and as +1 or -1 whether the cart is near and the pole slow."""
    near = jnp.abs(state.position) < p.max_reward_position
    slow = jnp.abs(state.angular_velocity) < p.max_angular_velocity
    seen = (
        state.position / p.max_position,
        state.velocity / p.max_position,
        jnp.sin(state.angle),
        jnp.cos(state.angle),
        state.angular_velocity,
        state.time.astype(jnp.float32) * p.time_step / p.max_time,
        jnp.where(near, 1.0, -1.0),
        jnp.where(slow, 1.0, -1.0),
    )
    return jnp.stack([x.astype(jnp.float32) for x in seen])
