"""DelayedChain: the first of two actions decides what is paid at the end of a chain.

The delayed-chain MDPs on which Oh et al. 2020 ("Discovering Reinforcement Learning Algorithms",
arXiv:2007.08794, appendix) train a learned update rule, in the spirit of bsuite's `umbrella_chain`:
a task has a length of its own, drawn from 5 to `longest`, and a right first action.  Between start
and end nothing is paid, or with `noisy` +1 or -1 by chance; `distractors` are random bits.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.door import flag, integer
from fastrl.envs import checks
from fastrl.envs.bsuite import _draws
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step

SHORTEST = 5  # steps of a sampled chain


class Params(NamedTuple):
    chain_length: int | Array = 15  # steps of an episode, at most `longest`
    right: int | Array = 1  # the first action that pays


class State(NamedTuple):
    choice: Array  # int32, the first action; 0 before it
    time: Array  # int32, steps taken


@dataclasses.dataclass(frozen=True)
class DelayedChain:
    """Observation: float32 `[1 + 2 longest + distractors]`: one-hot where, then random bits.

    Entry 0 is the start, entry `1 + a longest + t - 1` the place after `t` steps of which the
    first was `a`: a linear agent is a tabular one.  Action: 0 or 1, which counts in the first step
    only.  Reward: in the last step +1 if it was `right` and else -1; before it 0, or a fair coin's
    +1 or -1 if `noisy`.  Terminates after `chain_length` steps.
    """

    longest: int = 30
    noisy: bool = False
    distractors: int = 0

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer("longest", self.longest, SHORTEST)
        flag("noisy", self.noisy)
        integer("distractors", self.distractors, 0)

    def default_params(self) -> Params:
        return Params(chain_length=(SHORTEST + self.longest) // 2)

    def sample_level(self, key: Key) -> Params:
        """A task: its length uniform in 5 .. `longest`, the right action a coin. Consumes `key`."""
        word, other = _draws.words(key, 2)
        length = SHORTEST + _draws.below(word, self.longest - SHORTEST + 1)
        return Params(length, _draws.below(other, 2))

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        state = State(jnp.int32(0), jnp.int32(0))
        return state, self._observe(state, self._coins(key, 0))

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        coins = self._coins(key, int(self.noisy))
        coin, bits = (coins[0], coins[1:]) if self.noisy else (jnp.bool_(False), coins)
        return self.walk(state, action, coin, bits, params)

    def walk(
        self, state: State, action: Array, coin: Array, bits: Array, params: Params
    ) -> tuple[State, Step]:
        """A step whose chance events are given: bool the reward's coin, `[distractors]` bits."""
        choice = jnp.where(state.time == 0, action, state.choice).astype(jnp.int32)
        state = State(choice, state.time + 1)
        over = state.time >= params.chain_length
        paid = jnp.where(choice == params.right, jnp.float32(1.0), jnp.float32(-1.0))
        between = jnp.where(coin, jnp.float32(1.0), jnp.float32(-1.0))
        reward = jnp.where(over, paid, between if self.noisy else jnp.float32(0.0))
        return state, Step(self._observe(state, bits), reward, over, jnp.zeros_like(over))

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, 1.0, (1 + 2 * self.longest + self.distractors,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)

    def render(self, state: State, params: Params) -> np.ndarray:
        """Both ways, the one that pays in orange at its end: uint8 `[160, 600, 3]`."""
        from fastrl.envs import drawing

        length = max(int(params.chain_length), 1)
        canvas = drawing.Canvas(600, 160, left=-0.06 * length, right=1.06 * length, bottom=0)
        low, high, middle = (share * length for share in (0.08, 0.22, 0.15))
        for action, y in ((0, low), (1, high)):
            chosen = state.time > 0 and action == int(state.choice)
            colour = drawing.INK if chosen else drawing.GREY
            canvas.rod((0.0, middle), (0.08 * length, y), 0.008 * length, colour)
            canvas.rod((0.08 * length, y), (length, y), 0.008 * length, colour)
            pays = action == int(params.right)
            canvas.disc((length, y), 0.02 * length, drawing.ORANGE if pays else drawing.BLUE)
        at = min(int(state.time), length)
        y = middle if at == 0 else (low, high)[int(state.choice)]
        canvas.disc((max(at, 0.08 * length) if at else 0.0, y), 0.025 * length, drawing.INK)
        return canvas.image()

    def _coins(self, key: Key, more: int) -> Array:
        """`more` coins and those of the distractors, bool, all from one draw."""
        count = more + self.distractors
        if not count:
            return jnp.zeros(0, bool)
        return _draws.coins(_draws.words(key, _draws.num_words(count)), count)

    def _observe(self, state: State, bits: Array) -> Array:
        after = state.choice * self.longest + state.time
        place = jnp.where(state.time == 0, 0, after)
        where = (jax.lax.iota(jnp.int32, 1 + 2 * self.longest) == place).astype(jnp.float32)
        if not self.distractors:
            return where
        return jnp.concatenate([where, bits.astype(jnp.float32)])
