"""Freeway: cross eight lanes of traffic, again and again, until the time is up.

Rules of MinAtar's `freeway.py`. The chicken can move every third step; a car sends it back to the
bottom. After each crossing the cars get new speeds and directions. The game is over after 2,500
steps and one more, which is its own rule and therefore a termination.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs.minatar import game
from fastrl.envs.minatar.game import SIZE, UNLIMITED, Colour, Game, bit, inner, int32
from fastrl.types import Array, Key, Step

_LANES = np.arange(SIZE - 2)
_COLUMN = 4  # of the chicken
_SLOWEST = 5


class Params(NamedTuple):
    sticky_action_prob: float = 0.1
    player_interval: int = 3  # steps from one move of the chicken to the next
    frames: int = 2500  # the game is over when so many steps have passed, and one more
    max_steps: int = UNLIMITED


class State(NamedTuple):
    """int32; `[8]` are the cars, car `i` in row `i + 1`."""

    y: Array  # the chicken's row
    x: Array  # [8]
    speed: Array  # [8]: steps between two moves, 1 to 5; negative to the left
    timer: Array  # [8]: steps until the next move
    move_timer: Array  # until the chicken can move again
    last_action: Array
    time: Array


class Events(NamedTuple):
    repeat: Array  # bool: the last action is played again
    speed: Array  # int32 [8]: of the cars, should the chicken get across


@dataclasses.dataclass(frozen=True)
class Freeway(Game):
    """Reward 1 for each crossing; terminates when the time is up."""

    channels: ClassVar[tuple[str, ...]] = (
        "chicken", "car", "speed 1", "speed 2", "speed 3", "speed 4", "speed 5",
    )  # fmt: skip
    colours: ClassVar[tuple[Colour, ...]] = (
        (222, 178, 52), (64, 120, 178), (196, 78, 82), (224, 122, 62), (236, 176, 130),
        (196, 202, 212), (222, 226, 232),
    )  # fmt: skip
    useful_actions: ClassVar[tuple[int, ...]] = (game.NOTHING, game.UP, game.DOWN)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        """All cars at the left edge, with random speeds. Consumes `key`."""
        return self.started(_speeds(jax.random.bits(key, _LANES.shape)), params)

    def started(self, speed: Array, params: Params) -> tuple[State, Array]:
        """The start with the cars' `speed`, int32 `[8]`."""
        state = State(
            y=jnp.int32(SIZE - 1), x=jnp.zeros_like(speed), speed=speed, timer=jnp.abs(speed),
            move_timer=int32(params.player_interval), last_action=jnp.int32(game.NOTHING),
            time=jnp.int32(0),
        )  # fmt: skip
        return state, self.observe(state)

    def events(self, key: Key, params: Params) -> Events:
        words = jax.random.bits(key, (1 + len(_LANES),))
        repeat = game.uniform(words[0]) < params.sticky_action_prob
        return Events(repeat, _speeds(words[1:]))

    def advance(
        self, state: State, action: Array, events: Events, params: Params
    ) -> tuple[State, Step]:
        s, action = state, self.played(state, action, events.repeat)
        moves = ((action == game.UP) | (action == game.DOWN)) & (s.move_timer == 0)
        way = jnp.where(action == game.UP, -1, 1)
        y = jnp.where(moves, jnp.minimum(s.y + way, SIZE - 1), s.y)
        move_timer = jnp.where(moves, int32(params.player_interval), s.move_timer)
        across = y == 0
        y = jnp.where(across, SIZE - 1, y)
        speed = jnp.where(across, events.speed, s.speed)
        timer = jnp.where(across, jnp.abs(events.speed), s.timer)

        drives = timer == 0
        x = s.x + jnp.where(drives, jnp.sign(speed), 0)
        x = jnp.where(x < 0, SIZE - 1, jnp.where(x >= SIZE, 0, x))
        timer = jnp.where(drives, jnp.abs(speed), timer - 1)
        hit = ((y == _LANES + 1) & ((s.x == _COLUMN) | (x == _COLUMN))).any()
        y = jnp.where(hit, SIZE - 1, y)

        move_timer = move_timer - (move_timer > 0)
        state = State(y, x, speed, timer, move_timer, action, s.time + 1)
        return self.ended(state, across, state.time > params.frames, params)

    def observe(self, state: State) -> Array:
        s, none = state, jnp.uint32(0)
        behind = jnp.where(s.speed > 0, s.x - 1, s.x + 1)
        behind = bit(jnp.where(behind < 0, SIZE - 1, jnp.where(behind >= SIZE, 0, behind)))
        steps = jnp.abs(s.speed)
        trails = [inner(jnp.where(steps == n, behind, none)) for n in range(1, _SLOWEST + 1)]
        here = bit(jnp.int32(_COLUMN))
        chicken = [jnp.where(s.y == row, here, none) for row in range(SIZE)]
        return game.board([chicken, inner(bit(s.x)), *trails])


def _speeds(words: Array) -> Array:
    """A speed of 1 to 5 in either direction for each random word: int32 of `words`' shape."""
    steps = 1 + (((words >> 8) * _SLOWEST) >> 24).astype(jnp.int32)
    return jnp.where((words & 1) == 0, steps, -steps)
