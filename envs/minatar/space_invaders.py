"""SpaceInvaders: shoot the aliens before they come down; they shoot too.

Rules of MinAtar's `space_invaders.py`. The aliens march as one, down and back at the edges, the
faster the fewer are left; the alien nearest to the cannon shoots. Each wave that is shot brings the
next one, which marches at shorter intervals. Nothing is random but sticky actions.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs.minatar import bits, game
from fastrl.envs.minatar.bits import Bits
from fastrl.envs.minatar.game import SIZE, UNLIMITED, Colour, Game, bit, int32
from fastrl.types import Array, Key, Step

_EMPTY = (0, 0, 0, 0)
_WAVE = (0b0011111100 * bits.FIRST_COLUMN, 0b0011111100, 0, 0)  # the rows 0 to 3
_SHORTEST = 6  # interval of moves at which ramping stops


class Params(NamedTuple):
    """Intervals are in steps."""

    sticky_action_prob: float = 0.1
    ramping: bool = True  # whether later waves are faster
    move_interval: int = 12  # of the first wave, while there are as many aliens
    alien_shot_interval: int = 10
    shot_interval: int = 5  # of the cannon
    max_steps: int = UNLIMITED


class State(NamedTuple):
    """int32 but where noted."""

    cannon: Array  # column
    shots: Bits  # of the cannon
    alien_shots: Bits
    aliens: Bits
    to_right: Array  # bool: where the aliens go
    move_interval: Array
    alien_move_timer: Array
    alien_shot_timer: Array
    shot_timer: Array
    ramp_index: Array
    last_action: Array
    time: Array


class Events(NamedTuple):
    repeat: Array  # bool: the last action is played again


@dataclasses.dataclass(frozen=True)
class SpaceInvaders(Game):
    """Reward 1 for each alien; terminates when a shot or an alien meets the cannon or gets past."""

    channels: ClassVar[tuple[str, ...]] = (
        "cannon", "alien", "alien to left", "alien to right", "shot", "alien shot",
    )  # fmt: skip
    colours: ClassVar[tuple[Colour, ...]] = (
        (64, 120, 178), (122, 158, 126), (108, 148, 112), (148, 182, 142), (222, 178, 52),
        (196, 78, 82),
    )  # fmt: skip
    useful_actions: ClassVar[tuple[int, ...]] = (game.NOTHING, game.LEFT, game.RIGHT, game.FIRE)

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        """The first wave: nothing is random."""
        interval, zero = int32(params.move_interval), jnp.int32(0)
        state = State(
            cannon=jnp.int32(5), shots=bits.board(*_EMPTY), alien_shots=bits.board(*_EMPTY),
            aliens=bits.board(*_WAVE), to_right=jnp.bool_(False), move_interval=interval,
            alien_move_timer=interval, alien_shot_timer=int32(params.alien_shot_interval),
            shot_timer=zero, ramp_index=zero, last_action=zero, time=zero,
        )  # fmt: skip
        return state, self.observe(state)

    def events(self, key: Key, params: Params) -> Events:
        return Events(jax.random.uniform(key) < params.sticky_action_prob)

    def advance(
        self, state: State, action: Array, events: Events, params: Params
    ) -> tuple[State, Step]:
        s, p, action = state, params, self.played(state, action, events.repeat)
        fires = (action == game.FIRE) & (s.shot_timer == 0)
        cannon = jnp.clip(s.cannon + (action == game.RIGHT) - (action == game.LEFT), 0, SIZE - 1)
        shot_timer = jnp.where(fires, int32(p.shot_interval), s.shot_timer)
        shots = _add(bits.up(s.shots), cannon, jnp.int32(SIZE - 2), fires)
        alien_shots = bits.down(s.alien_shots)
        lost = _in_last_row(alien_shots, cannon) | _in_last_row(s.aliens, cannon)

        moves = s.alien_move_timer == 0
        aliens, to_right, landed = _march(s.aliens, s.to_right)
        aliens = bits.where(moves, aliens, s.aliens)
        to_right = jnp.where(moves, to_right, s.to_right)
        lost |= moves & (landed | _in_last_row(aliens, cannon))
        interval = jnp.minimum(bits.count(s.aliens), s.move_interval)
        move_timer = jnp.where(moves, interval, s.alien_move_timer) - 1

        shoots = s.alien_shot_timer == 0
        alien_shots = _add(alien_shots, *_nearest(aliens, cannon), shoots)
        reload = jnp.where(shoots, int32(p.alien_shot_interval), s.alien_shot_timer) - 1

        hits = bits.each(jnp.bitwise_and, aliens, shots)
        aliens, shots = (bits.each(jnp.bitwise_xor, b, hits) for b in (aliens, shots))
        cleared = bits.count(aliens) == 0
        faster = cleared & (s.move_interval > _SHORTEST) & p.ramping
        state = State(
            cannon, shots, alien_shots, bits.where(cleared, bits.board(*_WAVE), aliens), to_right,
            s.move_interval - faster, move_timer, reload, shot_timer - (shot_timer > 0),
            s.ramp_index + faster, action, s.time + 1,
        )  # fmt: skip
        return self.ended(state, bits.count(hits), lost, params)

    def observe(self, state: State) -> Array:
        s = state
        nothing = bits.board(*_EMPTY)
        return game.board([
            [None] * 9 + [bit(s.cannon)],
            bits.rows(s.aliens),
            bits.rows(bits.where(s.to_right, nothing, s.aliens)),
            bits.rows(bits.where(s.to_right, s.aliens, nothing)),
            bits.rows(s.shots),
            bits.rows(s.alien_shots),
        ])  # fmt: skip


def _march(aliens: Bits, to_right: Array) -> tuple[Bits, Array, Array]:
    """The aliens after a move, their direction, and whether one was in the last row to move down.

    At the edge they move down and turn; from the last row they come back in the first.
    """
    edge = jnp.where(to_right, np.uint32(bits.FIRST_COLUMN << (SIZE - 1)), bits.FIRST_COLUMN)
    turns = bits.anything(bits.each(lambda word: word & edge, aliens))
    first, *others = bits.down(aliens)
    down = (first | aliens[3], *others)
    sideways = bits.where(to_right, bits.right(aliens), bits.left(aliens))
    return bits.where(turns, down, sideways), to_right ^ turns, turns & (aliens[3] != 0)


def _nearest(aliens: Bits, cannon: Array) -> tuple[Array, Array]:
    """Column and row of the lowest alien in the column nearest to `cannon`, of two the left one."""
    triple = aliens[0] | aliens[1] | aliens[2]
    columns = (triple | triple >> 10 | triple >> 20 | aliens[3]) & bits.ROW
    upto = (bit(cannon) << 1) - 1
    left, right = columns & upto, columns & ~upto
    left_x, right_x = _highest(left), _highest(right & (~right + 1))
    nearer = (left != 0) & ((right == 0) | (cannon - left_x <= right_x - cannon))
    x = jnp.where(nearer, left_x, right_x)
    y = jnp.int32(0)
    for i, word in enumerate(aliens):
        here = (word >> x.astype(jnp.uint32)) & bits.FIRST_COLUMN
        y = jnp.where(here != 0, 3 * i + (here >= 2**10) + (here >= 2**20), y)
    return x, y


def _highest(word: Array) -> Array:
    """The index of the highest bit that is set, -1 if none is: int32."""
    return 31 - jax.lax.clz(word).astype(jnp.int32)


def _in_last_row(board: Bits, x: Array) -> Array:
    return (board[3] & bit(x)) != 0


def _add(board: Bits, x: Array, y: Array, condition: Array) -> Bits:
    """With the cell `(x, y)`, if `condition`."""
    new = bits.cell(x, y, len(board))
    return bits.where(condition, bits.each(jnp.bitwise_or, board, new), board)
