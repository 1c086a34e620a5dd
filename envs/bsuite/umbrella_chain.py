"""UmbrellaChain: the first action takes an umbrella or not; whether that was right pays at the end.

Rules and observation of bsuite's `umbrella_chain` (Osband et al. 2020): rewards of +-1 by
chance at all other steps and distractors in the observation hide what matters.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from fastrl.door import integer
from fastrl.envs import checks, compiling
from fastrl.envs.bsuite import _draws
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    chain_length: int = 10  # steps of an episode


class State(NamedTuple):
    needed: Array  # bool
    carried: Array  # bool; before the first step by chance
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class UmbrellaChain:
    """Observation: float32 `[3 + distractors]`: needed, carried, time left, random bits.

    Action: 1 takes the umbrella and 0 leaves it, at the first step only.  Reward +1 or -1 by
    a fair coin, but in the last step +1 if the umbrella is carried just when it is needed, and
    else -1; there the episode terminates.
    """

    distractors: int = 20

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("distractors", self.distractors, 0)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        coins = self._coins(key, 2)
        state = State(coins[0], coins[1], jnp.int32(0))
        return state, _observe(state, coins[2:], params)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        coins = self._coins(key, 1)
        return self.walk(state, action, coins[0], coins[1:], params)

    def walk(
        self, state: State, action: Array, coin: Array, distractors: Array, params: Params
    ) -> tuple[State, Step]:
        """A step whose chance events are given: bool the reward's coin, `[distractors]` bits."""
        carried = jnp.where(state.time == 0, action == 1, state.carried)
        state = State(state.needed, carried, state.time + 1)
        over = state.time >= params.chain_length
        good = jnp.where(over, carried == state.needed, coin)
        reward = jnp.where(good, jnp.float32(1.0), jnp.float32(-1.0))
        observation = _observe(state, distractors, params)
        return state, Step(observation, reward, over, jnp.zeros_like(over))

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, 1.0, (3 + self.distractors,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)

    def render(self, state: State, params: Params) -> np.ndarray:
        """Rain if it is needed, the umbrella if it is carried, the way: uint8 `[200, 480, 3]`."""
        from fastrl.envs import drawing

        canvas = drawing.Canvas(480, 200, left=0, right=4.8, bottom=0)
        canvas.rod((0.3, 0.2), (4.5, 0.2), 0.04, drawing.GREY)
        x = 0.3 + 4.2 * min(int(state.time) / max(int(params.chain_length), 1), 1.0)
        if state.needed:
            for i in range(16):
                at = (0.2 + 0.3 * i, 1.5 + 0.25 * (i % 3))
                canvas.rod(at, (at[0] - 0.06, at[1] - 0.2), 0.03, drawing.BLUE)
        if state.carried:
            canvas.rod((x, 0.6), (x, 1.1), 0.04, drawing.INK)
            canvas.polygon([(x - 0.4, 1.0), (x, 1.3), (x + 0.4, 1.0)], drawing.ORANGE)
        canvas.rod((x, 0.28), (x, 0.55), 0.14, drawing.INK)
        canvas.disc((x, 0.72), 0.1, drawing.INK)
        return canvas.image()

    def _coins(self, key: Key, more: int) -> Array:
        """`more` coins and those of the distractors, bool, all from one draw."""
        count = more + self.distractors
        return _draws.coins(_draws.words(key, _draws.num_words(count)), count)


def _observe(state: State, distractors: Array, params: Params) -> Array:
    left = (params.chain_length - state.time).astype(jnp.float32) / params.chain_length
    seen = jnp.pad(distractors.astype(jnp.float32), (3, 0))
    for i, x in enumerate((state.needed, state.carried, left)):
        seen = compiling.put(seen, x, i)
    return seen
