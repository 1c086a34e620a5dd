"""MountainCar: a car too weak for the hill must rock in the valley to get up to the flag.

Dynamics, limits and rewards of Gymnasium's `MountainCar-v0` (Moore 1990), with three actions
and -1 a step, and of `MountainCarContinuous-v0`, with a force and 100 at the goal. Units are
those of the task: positions in units of length, velocities in lengths a step.
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
    """`force` is what a full push adds to the velocity each step, `gravity` what a slope takes."""

    force: float = 0.001
    gravity: float = 0.0025
    min_position: float = -1.2
    max_position: float = 0.6
    max_speed: float = 0.07
    goal_position: float = 0.5
    goal_velocity: float = 0.0
    max_steps: int = 200


class State(NamedTuple):
    """Where the car is along the horizontal axis, and how fast it moves along it."""

    position: Array
    velocity: Array
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class MountainCar:
    """Observation: position, velocity. Action: 0 push left, 1 not at all, 2 right.

    Reward -1 a step. Terminates at the flag.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        return _reset(key)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        state, terminated, truncated = _drive(state, action - 1, params)
        return state, Step(_observe(state), jnp.float32(-1.0), terminated, truncated)

    def observation_space(self, params: Params) -> Box:
        return _observation_space()

    def action_space(self, params: Params) -> Discrete:
        return Discrete(3)

    def render(self, state: State, params: Params) -> np.ndarray:
        """The car on its hills and the flag: uint8 `[400, 600, 3]`."""
        return _render(state, params)


@dataclasses.dataclass(frozen=True)
class MountainCarContinuous:
    """Observation: position, velocity. Action: float32 `[1]`, the push within [-1, 1].

    Reward 100 at the flag, less a tenth of the squared action; the push is clipped to
    [-1, 1], what is paid for is the action as given. Terminates at the flag.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params(force=0.0015, goal_position=0.45, max_steps=999)

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        return _reset(key)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        action = jnp.reshape(action, ())
        state, terminated, truncated = _drive(state, jnp.clip(action, -1.0, 1.0), params)
        reward = jnp.where(terminated, jnp.float32(100.0), jnp.float32(0.0)) - 0.1 * action**2
        return state, Step(_observe(state), reward, terminated, truncated)

    def observation_space(self, params: Params) -> Box:
        return _observation_space()

    def action_space(self, params: Params) -> Box:
        return Box(-1.0, 1.0, (1,))

    def render(self, state: State, params: Params) -> np.ndarray:
        """The car on its hills and the flag: uint8 `[400, 600, 3]`."""
        return _render(state, params)


def _reset(key: Key) -> tuple[State, Array]:
    position = jax.random.uniform(key, (), minval=-0.6, maxval=-0.4)
    state = State(position, jnp.float32(0.0), jnp.int32(0))
    return state, _observe(state)


def _drive(state: State, push: Array, p: Params) -> tuple[State, Array, Array]:
    """The successor state and whether the episode terminated or was truncated there."""
    velocity = state.velocity + (push * p.force - p.gravity * sin_cos(3 * state.position)[1])
    velocity = jnp.clip(velocity, -p.max_speed, p.max_speed)
    position = jnp.clip(state.position + velocity, p.min_position, p.max_position)
    at_wall = (position <= p.min_position) & (velocity < 0)  # an inelastic collision
    velocity = jnp.where(at_wall, 0.0, velocity)
    time = state.time + 1
    terminated = (position >= p.goal_position) & (velocity >= p.goal_velocity)
    return State(position, velocity, time), terminated, (time >= p.max_steps) & ~terminated


def _observe(state: State) -> Array:
    return jnp.stack([state.position, state.velocity])


def _observation_space() -> Box:
    standard = Params()
    low = (standard.min_position, -standard.max_speed)
    return Box(low, (standard.max_position, standard.max_speed), (2,))


def _height(x: float) -> float:
    return 0.45 * math.sin(3 * x) + 0.55


def _render(state: State, params: Params) -> np.ndarray:
    from fastrl.envs import drawing

    left, right = float(params.min_position) - 0.06, float(params.max_position) + 0.06
    canvas = drawing.Canvas(600, 400, left=left, right=right, bottom=-0.05)
    hill = [(float(x), _height(float(x))) for x in np.linspace(left, right, 120)]
    canvas.polygon([*hill, (right, -1.0), (left, -1.0)], drawing.FIELD)
    canvas.curve(hill, 0.015, drawing.INK)

    foot = float(params.goal_position), _height(float(params.goal_position))
    top = foot[0], foot[1] + 0.17
    canvas.rod(foot, top, 0.012, drawing.INK)
    canvas.polygon([top, (top[0] + 0.09, top[1] - 0.03), (top[0], top[1] - 0.06)], drawing.ORANGE)

    x = float(state.position)
    along = drawing.unit(1.0, 1.35 * math.cos(3 * x))  # the hill's tangent
    up = (-along[1], along[0])

    def body(forward: float, above: float) -> tuple[float, float]:
        """A point of the car, from where its middle touches the hill."""
        return (
            x + forward * along[0] + above * up[0],
            _height(x) + forward * along[1] + above * up[1],
        )

    canvas.rod(body(-0.055, 0.062), body(0.055, 0.062), 0.05, drawing.BLUE)
    canvas.rod(body(-0.025, 0.085), body(0.02, 0.085), 0.05, drawing.BLUE)
    for wheel in (-0.045, 0.045):
        canvas.disc(body(wheel, 0.03), 0.026, drawing.INK)
        canvas.disc(body(wheel, 0.03), 0.01, drawing.PAPER)
    return canvas.image()
