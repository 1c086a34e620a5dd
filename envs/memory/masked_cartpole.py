"""CartPole without velocities: what is not shown must be told from what was shown before.

The task of Gymnasium's `CartPole-v1`, of whose observation only the position and the angle are
left, as in POPGym's `PositionOnlyCartPole` and, before it, Gomez and Miikkulainen 1999.
"""

import dataclasses

import jax.numpy as jnp

from fastrl.envs.classic.cartpole import CartPole, Params, State
from fastrl.spaces import Box
from fastrl.types import Array, Key, Step


@dataclasses.dataclass(frozen=True)
class CartPoleNoVelocity(CartPole):
    """Observation: position, angle. All else is that of CartPole."""

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        state, _ = super().reset(key, params)
        return state, _observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        state, step = super().step(key, state, action, params)
        return state, step._replace(observation=_observe(state))

    def observation_space(self, params: Params) -> Box:
        standard = Params()  # twice the limits, as in CartPole
        high = (2 * standard.max_position, 2 * standard.max_angle)
        return Box(tuple(-h for h in high), high, (2,))


def _observe(state: State) -> Array:
    return jnp.stack([state.position, state.angle])
