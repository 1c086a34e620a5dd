"""DiscountingChain: choose by the first action when to be paid; one of the choices pays more.

Rules and observation of bsuite's `discounting_chain` (Osband et al. 2020).
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import checks
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """When the chains pay, and which one pays more (bsuite's `mapping_seed`, modulo 5)."""

    delays: tuple[Any, ...] = (1, 3, 10, 30, 100)  # steps, one a chain; its length is the actions'
    bonus_chain: int = 0
    bonus: float = 0.1
    length: int = 100  # steps of an episode


class State(NamedTuple):
    chain: Array  # int32, the first action; -1 before it
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class DiscountingChain:
    """Observation: the chain (-1 at first), time / length. Action: a chain, at the first step only.

    Reward 1 at the delay of the chain, 1.1 for the one with the bonus, else 0.  Terminates
    after `length` steps.
    """

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        state = State(jnp.int32(-1), jnp.int32(0))
        return state, _observe(state, params)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        chain = jnp.where(state.time == 0, action, state.chain)
        state = State(chain, state.time + 1)
        due = jnp.int32(0)
        for i, delay in enumerate(params.delays):
            due = jnp.where(chain == i, delay, due)
        amount = jnp.where(chain == params.bonus_chain, 1.0 + params.bonus, 1.0)
        reward = jnp.where(state.time == due, amount, 0.0).astype(jnp.float32)
        over = state.time >= params.length
        return state, Step(_observe(state, params), reward, over, jnp.zeros_like(over))

    def observation_space(self, params: Params) -> Box:
        return Box((-1.0, 0.0), (len(params.delays) - 1.0, 1.0), (2,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(len(params.delays))

    def render(self, state: State, params: Params) -> np.ndarray:
        """The chains with their payments, the best in orange: uint8 `[200, 600, 3]`."""
        from fastrl.envs import drawing

        num_chains, length = len(params.delays), int(params.length)
        pitch = length / 3 / num_chains
        canvas = drawing.Canvas(600, 200, left=-0.05 * length, right=1.05 * length, bottom=0)
        at, chain = int(state.time), int(state.chain)
        for i, delay in enumerate(params.delays):
            y = (num_chains - i) * pitch
            colour = drawing.INK if i == chain else drawing.GREY
            canvas.rod((0.0, y), (length, y), 0.01 * length, colour)
            best = i == int(params.bonus_chain)
            canvas.disc((int(delay), y), 0.02 * length, drawing.ORANGE if best else drawing.INK)
        y = (num_chains - chain) * pitch if chain >= 0 else (num_chains + 1) * pitch / 2
        canvas.disc((at, y), 0.025 * length, drawing.BLUE)
        return canvas.image()


def _observe(state: State, params: Params) -> Array:
    share = state.time.astype(jnp.float32) / params.length
    # A choice, which is faster here than to stack the two.
    return jnp.where(jax.lax.iota(jnp.int32, 2) == 0, state.chain.astype(jnp.float32), share)
