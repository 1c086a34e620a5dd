"""What the five MinAtar games share: actions, spaces, time limit, the board and its picture.

The games are those of the package MinAtar, version 1.0.15 (Young and Tian 2019,
arXiv:1903.03176, https://github.com/kenjyoung/MinAtar).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fastrl import door
from fastrl.spaces import Box, Discrete
from fastrl.types import Action, Array, Key, Step

SIZE = 10  # cells along each side of the board
UNLIMITED = 2**31 - 1  # `max_steps` of a game that nothing cuts off
ACTIONS = ("nothing", "left", "up", "right", "down", "fire")
NOTHING, LEFT, UP, RIGHT, DOWN, FIRE = range(6)

Colour = tuple[int, int, int]
Rows = Sequence[Array | None]  # ten uint32 words: bit x is the cell in column x; None is empty


class GameState(Protocol):
    """What the state of every game has."""

    @property
    def last_action(self) -> Array: ...  # int32, one of the six

    @property
    def time(self) -> Array: ...  # int32, steps taken


StateT = TypeVar("StateT", bound=GameState)


@dataclasses.dataclass(frozen=True)
class Game:
    """A game on a board of 10 by 10 cells.

    Observation: bool `[10, 10, channels]`, by row (from the top), column and kind of thing.
    Action: 0 nothing, 1 left, 2 up, 3 right, 4 down, 5 fire; with `minimal_actions` an index
    into `useful_actions` instead.  With probability `sticky_action_prob` the action of the step
    before is taken again.

    A game writes `reset`, `events`, `advance` and `observe`.
    """

    minimal_actions: bool = False

    version: ClassVar[int] = 1
    channels: ClassVar[tuple[str, ...]]
    colours: ClassVar[tuple[Colour, ...]]  # of the channels; later ones are drawn on top
    useful_actions: ClassVar[tuple[int, ...]]

    def __post_init__(self) -> None:
        door.flag("minimal_actions", self.minimal_actions)

    def observation_space(self, params: Any) -> Box:
        return Box(False, True, (SIZE, SIZE, len(self.channels)), np.dtype(bool))

    def action_space(self, params: Any) -> Discrete:
        return Discrete(len(self.useful_actions) if self.minimal_actions else len(ACTIONS))

    def step(self, key: Key, state: Any, action: Action, params: Any) -> tuple[Any, Step]:
        self._check(action, params)
        return self.advance(state, action, self.events(key, params), params)

    def events(self, key: Key, params: Any) -> Any:
        """All that chance decides in a step, whether or not it matters. Consumes `key`."""
        raise NotImplementedError

    def advance(self, state: Any, action: Array, events: Any, params: Any) -> tuple[Any, Step]:
        """The step that follows from `events`: nothing in it is random."""
        raise NotImplementedError

    def observe(self, state: Any) -> Array:
        """The board: bool `[10, 10, channels]`."""
        raise NotImplementedError

    def render(self, state: Any, params: Any) -> np.ndarray:
        """The board, a colour for each channel: uint8 `[320, 320, 3]`."""
        from fastrl.envs import drawing

        canvas = drawing.Canvas(320, 320, left=0.0, right=10.0, bottom=0.0)
        board = np.asarray(self.observe(state))
        for channel, colour in enumerate(self.colours):
            for y, x in np.argwhere(board[:, :, channel]):
                canvas.box((x + 0.5, 9.5 - y), 0.9, 0.9, 0.15, colour)
        return canvas.image()

    def played(self, state: GameState, action: Array, repeat: Array) -> Array:
        """The one of the six actions that is played; the last one again where `repeat`."""
        chosen = jnp.asarray(action, jnp.int32)
        if self.minimal_actions:
            index, chosen = chosen, jnp.int32(self.useful_actions[0])
            for i, meant in enumerate(self.useful_actions[1:], start=1):
                chosen = jnp.where(index == i, jnp.int32(meant), chosen)
        return jnp.where(repeat, state.last_action, chosen)

    def ended(
        self, state: StateT, reward: Array, terminated: Array, params: Any
    ) -> tuple[StateT, Step]:
        """What a step returns once the game has moved on to `state`."""
        truncated = (state.time >= params.max_steps) & ~terminated
        happened = Step(self.observe(state), reward.astype(jnp.float32), terminated, truncated)
        return state, happened

    def _check(self, action: Any, params: Any) -> None:
        """Raises ValueError for a concrete action or parameter that is none."""
        count = self.action_space(params).n
        if not isinstance(action, Tracer):
            value = np.asarray(action)
            if value.shape != () or value.dtype.kind not in "iu" or not 0 <= value < count:
                meant = [ACTIONS[i] for i in self.useful_actions] if count < 6 else ACTIONS
                listed = ", ".join(f"{i} {name}" for i, name in enumerate(meant))
                raise ValueError(f"action={value.tolist()!r}: needs one integer of {listed}")
        probability = params.sticky_action_prob
        if not isinstance(probability, Tracer) and not np.all(
            (np.asarray(probability) >= 0) & (np.asarray(probability) <= 1)
        ):
            raise ValueError(f"sticky_action_prob={probability!r}: needs a number from 0 to 1")
        door.time_limits(params)


def board(channels: Sequence[Rows]) -> Array:
    """The observation, bool `[10, 10, C]`, from `C` channels of ten rows of bits each.

    On CPU this takes a good part of a step, so that it is written for the loops that XLA makes of
    it.  Rows are made one by one and put behind one another: each is a loop over a lane for every
    column and channel, where a broadcast over `[10, 10, C]` would have an innermost loop over `C`.
    And three channels share a word, so that a lane is a bit of one of a few words.
    """
    column = np.repeat(np.arange(SIZE), len(channels))
    channel = np.tile(np.arange(len(channels)), SIZE)
    lane_bit = 1 << (column + SIZE * (channel % 3))
    rows = []
    for y in range(SIZE):
        row = jnp.zeros(len(column), jnp.uint32)
        for i in range(0, len(channels), 3):
            word = _packed([rows_[y] for rows_ in channels[i : i + 3]])
            if word is not None:
                row = row | (word & np.where(channel // 3 == i // 3, lane_bit, 0).astype(np.uint32))
        rows.append(row != 0)
    return jnp.concatenate(rows).reshape(SIZE, SIZE, len(channels))


def _packed(words: Sequence[Array | None]) -> Array | None:
    """Up to three words of ten bits as one of thirty; None if there is nothing."""
    packed = None
    for i, word in enumerate(words):
        if word is not None:
            word = (word & np.uint32(2**SIZE - 1)) << np.uint32(SIZE * i)
            packed = word if packed is None else packed | word
    return packed


def bit(x: Array) -> Array:
    """A row of bits with the cell in column `x`, of `x`'s shape."""
    return jnp.uint32(1) << x.astype(jnp.uint32)


def cell(x: Array, y: Array) -> Rows:
    """A channel with the one cell in column `x` and row `y`."""
    return [jnp.where(y == row, bit(x), jnp.uint32(0)) for row in range(SIZE)]


def inner(rows: Array) -> Rows:
    """A channel with `rows` uint32 `[8]` between an empty first and an empty last row."""
    return [None, *(rows[i] for i in range(SIZE - 2)), None]


def int32(number: Any) -> Array:
    """A parameter as a number of the state."""
    return jnp.asarray(number, jnp.int32)


def uniform(word: Array) -> Array:
    """float32 in [0, 1) from the upper 24 bits of random words; the lower ones stay for coins."""
    return (word >> 8).astype(jnp.float32) * 2.0**-24
