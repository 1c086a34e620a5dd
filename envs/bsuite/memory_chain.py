"""MemoryChain: bits are shown at the start; at the end one of them is asked for.

Rules and observation of bsuite's `memory_chain`, as its experiments `memory_len` and
`memory_size` use it (Osband et al. 2020).
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.door import integer
from fastrl.envs import checks, compiling
from fastrl.envs.bsuite import _draws
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    memory_length: int = 5  # an episode has one step more


class State(NamedTuple):
    context: Array  # bool [num_bits]
    query: Array  # int32, which bit is asked for
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class MemoryChain:
    """Observation: float32 `[2 + num_bits]`: the time left, the query, the bits as +1 or -1.

    Action: 0 or 1, which counts in the last step only: reward +1 if it is the bit asked for
    and -1 if it is not, and the episode terminates.  The query is shown before the last step,
    else it is 0; bits are shown at the start, else they are 0.

    As in bsuite a step shows the time before it, so the bits are seen twice, at reset and
    after the first step.
    """

    num_bits: int = 1

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("num_bits", self.num_bits, 1)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        words = _draws.words(key, 1 + _draws.num_words(self.num_bits))
        query = _draws.below(words[0], self.num_bits)
        state = State(_draws.coins(words[1:], self.num_bits), query, jnp.int32(0))
        return state, self._observe(state, params)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        over = state.time >= params.memory_length
        asked = jax.lax.iota(jnp.int32, self.num_bits) == state.query
        right = (action == 1) == (asked & state.context).any()
        answer = jnp.where(right, jnp.float32(1.0), jnp.float32(-1.0))
        reward = jnp.where(over, answer, jnp.float32(0.0))
        step = Step(self._observe(state, params), reward, over, jnp.zeros_like(over))
        return state._replace(time=state.time + 1), step

    def observation_space(self, params: Params) -> Box:
        n = self.num_bits
        return Box((0.0, 0.0, *[-1.0] * n), (1.0, max(n - 1.0, 0.0), *[1.0] * n), (2 + n,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)

    def render(self, state: State, params: Params) -> np.ndarray:
        """The bits (orange 1, blue 0), the query ringed, the time: uint8 `[160, 480, 3]`."""
        from fastrl.envs import drawing

        canvas = drawing.Canvas(480, 160, left=0, right=3, bottom=0)
        canvas.rod((0.2, 0.25), (2.8, 0.25), 0.03, drawing.GREY)
        past = min(int(state.time) / max(int(params.memory_length) + 1, 1), 1.0)
        canvas.disc((0.2 + 2.6 * past, 0.25), 0.06, drawing.INK)
        pitch = 2.6 / self.num_bits
        radius = min(0.2, 0.4 * pitch)
        for i, bit in enumerate(np.asarray(state.context)):
            centre = (0.2 + (i + 0.5) * pitch, 0.65)
            canvas.disc(centre, radius, drawing.ORANGE if bit else drawing.BLUE)
            if i == int(state.query):
                canvas.circle(centre, 1.1 * radius, 0.15 * radius, drawing.INK)
        return canvas.image()

    def _observe(self, state: State, params: Params) -> Array:
        first, last = state.time == 0, state.time == params.memory_length - 1
        left = (params.memory_length - state.time).astype(jnp.float32) / params.memory_length
        query = jnp.where(last, state.query, 0).astype(jnp.float32)
        sign = jnp.where(state.context, jnp.float32(1.0), jnp.float32(-1.0))
        bits = jnp.where(first, sign, jnp.float32(0.0))
        return compiling.put(compiling.put(jnp.pad(bits, (2, 0)), left, 0), query, 1)
