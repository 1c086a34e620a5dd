"""TMaze: a sign at the start of a corridor says where to turn at its end.

The task of Bakker 2001, "Reinforcement Learning with Long Short-Term Memory", section 4: the
time between sign and turn is the length of the corridor.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import checks
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step

NORTH, EAST, SOUTH, WEST = range(4)


class Params(NamedTuple):
    length: int = 10  # steps from the start to the junction
    noise: float = 0.0  # 1: observations in the corridor are (a, 0, b), both uniform in [0, 1]
    goal_reward: float = 4.0
    penalty: float = -0.1  # for the wrong turn, and for standing still
    max_steps: int = 150


class State(NamedTuple):
    goal_north: Array  # bool
    position: Array  # int32, 0 at the start, `length` at the junction
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class TMaze:
    """Observation: at the start (0, 1, 1) or (1, 1, 0) for a goal north or south, in the corridor
    (1, 0, 1), at the junction (0, 1, 0).  Action: 0 north, 1 east, 2 south, 3 west.

    Terminates at a turn north or south at the junction: reward 4 towards the goal, else -0.1.
    A step against a wall pays -0.1, one along the corridor 0.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        goal_north = jax.random.bits(key) < jnp.uint32(2**31)
        state = State(goal_north, jnp.int32(0), jnp.int32(0))
        return state, _observe(state, jnp.zeros(2), params)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        move = jnp.where(action == EAST, 1, jnp.where(action == WEST, -1, 0))
        position = jnp.clip(state.position + move, 0, jnp.int32(params.length))
        turned = (state.position >= params.length) & (move == 0)
        towards = (action == NORTH) == state.goal_north
        paid = jnp.where(turned & towards, params.goal_reward, params.penalty)
        reward = jnp.where(position == state.position, paid, 0.0).astype(jnp.float32)
        state = State(state.goal_north, position, state.time + 1)
        truncated = (state.time >= params.max_steps) & ~turned
        observation = _observe(state, jax.random.uniform(key, (2,)), params)
        return state, Step(observation, reward, turned, truncated)

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, 1.0, (3,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(4)

    def render(self, state: State, params: Params) -> np.ndarray:
        """The maze, the goal and the agent: uint8 `[120, 480, 3]`."""
        from fastrl.envs import drawing

        length = int(params.length)
        pitch = 4.4 / (length + 1)
        canvas = drawing.Canvas(480, 120, left=0.0, right=4.8, bottom=-0.6)
        end = 0.2 + (length + 0.5) * pitch
        width = min(0.3, 0.9 * pitch)
        canvas.rod((0.2 + pitch / 2, 0.0), (end, 0.0), width, drawing.FIELD)
        canvas.rod((end, -0.4), (end, 0.4), width, drawing.FIELD)
        canvas.disc((end, 0.4 if state.goal_north else -0.4), 0.4 * width, drawing.ORANGE)
        canvas.disc((0.2 + (int(state.position) + 0.5) * pitch, 0.0), 0.4 * width, drawing.BLUE)
        return canvas.image()


def _observe(state: State, shares: Array, params: Params) -> Array:
    start, end = state.position == 0, state.position >= params.length
    left, right = 1.0 - params.noise * shares[0], 1.0 - params.noise * shares[1]
    north = state.goal_north.astype(jnp.float32)
    edges = (
        jnp.where(start, 1.0 - north, jnp.where(end, 0.0, left)),
        (start | end).astype(jnp.float32),
        jnp.where(start, north, jnp.where(end, 0.0, right)),
    )
    return jnp.stack([x.astype(jnp.float32) for x in edges])
