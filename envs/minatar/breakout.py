"""Breakout: keep a ball in play with a paddle, and break bricks with it.

Rules of MinAtar's `breakout.py`. The ball flies along diagonals. It is reflected by walls and
bricks, straight back by the paddle's cell under it, and sideways by the paddle's corner; a brick
breaks when the ball meets it, unless it met one in the step before.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.envs.minatar import game
from fastrl.envs.minatar.game import SIZE, UNLIMITED, Colour, Game, bit, cell
from fastrl.types import Array, Key, Step

_WALL = 2**30 - 1  # three full rows
_WALL_ROWS = (1, 2, 3)


class Params(NamedTuple):
    sticky_action_prob: float = 0.1
    max_steps: int = UNLIMITED


class State(NamedTuple):
    """Columns `x` from the left, rows `y` from the top. int32 but where noted."""

    paddle: Array  # x
    ball_x: Array
    ball_y: Array
    to_right: Array  # bool, where the ball flies
    to_bottom: Array  # bool
    last_x: Array  # where the ball was before
    last_y: Array
    bricks: Array  # uint32: bit 10 (y - 1) + x
    strike: Array  # bool: the ball has just met a brick
    last_action: Array
    time: Array


class Events(NamedTuple):
    repeat: Array  # bool: the last action is played again


@dataclasses.dataclass(frozen=True)
class Breakout(Game):
    """Reward 1 for each brick; terminates when the ball passes the paddle."""

    channels: ClassVar[tuple[str, ...]] = ("paddle", "ball", "trail", "brick")
    colours: ClassVar[tuple[Colour, ...]] = (
        (64, 120, 178), (224, 122, 62), (244, 208, 180), (122, 158, 126),
    )  # fmt: skip
    useful_actions: ClassVar[tuple[int, ...]] = (game.NOTHING, game.LEFT, game.RIGHT)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        """The ball starts at the left or the right wall. Consumes `key`."""
        return self.started(jax.random.uniform(key) < 0.5)

    def started(self, from_left: Array) -> tuple[State, Array]:
        x, y = jnp.where(from_left, jnp.int32(0), jnp.int32(9)), jnp.int32(3)
        state = State(
            paddle=jnp.int32(4), ball_x=x, ball_y=y, to_right=from_left, to_bottom=jnp.bool_(True),
            last_x=x, last_y=y, bricks=jnp.uint32(_WALL), strike=jnp.bool_(False),
            last_action=jnp.int32(game.NOTHING), time=jnp.int32(0),
        )  # fmt: skip
        return state, self.observe(state)

    def events(self, key: Key, params: Params) -> Events:
        return Events(jax.random.uniform(key) < params.sticky_action_prob)

    def advance(
        self, state: State, action: Array, events: Events, params: Params
    ) -> tuple[State, Step]:
        s, action = state, self.played(state, action, events.repeat)
        paddle = s.paddle + (action == game.RIGHT) - (action == game.LEFT)
        paddle = jnp.clip(paddle, 0, SIZE - 1)
        x, y = s.ball_x + jnp.where(s.to_right, 1, -1), s.ball_y + jnp.where(s.to_bottom, 1, -1)
        at_side, at_top, at_bottom = (x < 0) | (x >= SIZE), y < 0, y == SIZE - 1
        x, y = jnp.clip(x, 0, SIZE - 1), jnp.maximum(y, 0)

        brick = _brick(x, y)
        meets = (s.bricks & brick) != 0
        breaks = meets & ~s.strike
        bricks = jnp.where(breaks, s.bricks & ~brick, s.bricks)
        bricks = jnp.where(at_bottom & (bricks == 0), jnp.uint32(_WALL), bricks)

        on_top = at_bottom & (s.ball_x == paddle)
        on_corner = at_bottom & (x == paddle) & ~on_top
        bounces = breaks | on_top | on_corner
        state = State(
            paddle, x, jnp.where(bounces, s.ball_y, y), s.to_right ^ at_side ^ on_corner,
            s.to_bottom ^ (at_top | bounces), s.ball_x, s.ball_y, bricks, meets, action, s.time + 1,
        )  # fmt: skip
        return self.ended(state, breaks, at_bottom & ~on_top & ~on_corner, params)

    def observe(self, state: State) -> Array:
        wall = [state.bricks >> jnp.uint32(SIZE * i) for i in range(len(_WALL_ROWS))]
        return game.board([
            [None] * 9 + [bit(state.paddle)],
            cell(state.ball_x, state.ball_y),
            cell(state.last_x, state.last_y),
            [None, *wall, *[None] * 6],
        ])  # fmt: skip


def _brick(x: Array, y: Array) -> Array:
    """The bit of the brick at `(x, y)`, 0 outside the wall's rows."""
    in_wall = (y >= _WALL_ROWS[0]) & (y <= _WALL_ROWS[-1])
    return jnp.where(in_wall, bit((SIZE * (y - 1) + x) & 31), jnp.uint32(0))
