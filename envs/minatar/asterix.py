"""Asterix: pick up the gold that crosses the board and keep clear of the enemies.

Rules of MinAtar's `asterix.py`. The rows 1 to 8 hold at most one thing each. Things enter from
either side at intervals and move at intervals; both shrink as time goes by.
"""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.envs.minatar import bits, game
from fastrl.envs.minatar.bits import Bits
from fastrl.envs.minatar.game import SIZE, UNLIMITED, Colour, Game, int32
from fastrl.types import Array, Key, Step

_WORDS = 3  # of a board: things are in the rows 1 to 8
_EMPTY = (0, 0, 0)


class Params(NamedTuple):
    """Intervals are in steps."""

    sticky_action_prob: float = 0.1
    ramping: bool = True  # whether the intervals shrink
    spawn_interval: int = 10  # at first
    move_interval: int = 5  # at first
    ramp_interval: int = 100
    max_steps: int = UNLIMITED


class Things(NamedTuple):
    """Boards of bits by kind and by where they go; a row has one thing at most."""

    enemies_right: Bits
    enemies_left: Bits
    gold_right: Bits
    gold_left: Bits


class State(NamedTuple):
    """int32 but for the things."""

    player_x: Array
    player_y: Array
    things: Things
    spawn_speed: Array  # the intervals now
    move_speed: Array
    spawn_timer: Array
    move_timer: Array
    ramp_timer: Array
    ramp_index: Array
    last_action: Array
    time: Array


class Events(NamedTuple):
    """What chance decides in a step; all but `repeat` are of use only when something enters."""

    repeat: Array  # bool: the last action is played again
    to_right: Array  # bool: it comes from the left
    gold: Array  # bool
    row: Array  # float32 in [0, 1): its place among the free rows, counted from the top


@dataclasses.dataclass(frozen=True)
class Asterix(Game):
    """Reward 1 for each piece of gold; terminates when an enemy is met."""

    channels: ClassVar[tuple[str, ...]] = ("player", "enemy", "trail", "gold")
    colours: ClassVar[tuple[Colour, ...]] = (
        (64, 120, 178), (196, 78, 82), (214, 218, 224), (222, 178, 52),
    )  # fmt: skip
    useful_actions: ClassVar[tuple[int, ...]] = (
        game.NOTHING, game.LEFT, game.UP, game.RIGHT, game.DOWN,
    )  # fmt: skip

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        """An empty board: nothing is random."""
        spawn, move = int32(params.spawn_interval), int32(params.move_interval)
        state = State(
            player_x=jnp.int32(5), player_y=jnp.int32(5),
            things=Things(*(bits.board(*_EMPTY) for _ in Things._fields)), spawn_speed=spawn,
            move_speed=move, spawn_timer=spawn, move_timer=move,
            ramp_timer=int32(params.ramp_interval), ramp_index=jnp.int32(0),
            last_action=jnp.int32(game.NOTHING), time=jnp.int32(0),
        )  # fmt: skip
        return state, self.observe(state)

    def events(self, key: Key, params: Params) -> Events:
        """The row is chosen by what the number that chose the kind has beyond a whole third."""
        first, second = jax.random.bits(key, (2,))
        kind = game.uniform(second) * 3
        repeat = game.uniform(first) < params.sticky_action_prob
        return Events(repeat, (first & 1) == 0, kind < 1, kind - jnp.floor(kind))

    def advance(
        self, state: State, action: Array, events: Events, params: Params
    ) -> tuple[State, Step]:
        action = self.played(state, action, events.repeat)
        s = _spawn(state, events)
        x = jnp.clip(s.player_x + (action == game.RIGHT) - (action == game.LEFT), 0, SIZE - 1)
        y = jnp.clip(s.player_y + (action == game.DOWN) - (action == game.UP), 1, SIZE - 2)
        player, moves = bits.cell(x, y, _WORDS), s.move_timer == 0
        things, gold, enemy = _meet(s.things, player)
        moved, gold_then, enemy_then = _meet(_move(things), player)
        move_timer = jnp.where(moves, s.move_speed, s.move_timer) - 1
        state = _ramp(s._replace(
            player_x=x, player_y=y, move_timer=move_timer, spawn_timer=s.spawn_timer - 1,
            things=Things(*(bits.where(moves, a, b) for a, b in zip(moved, things, strict=True))),
            last_action=action, time=s.time + 1,
        ), params)  # fmt: skip
        return self.ended(state, gold | (moves & gold_then), enemy | (moves & enemy_then), params)

    def observe(self, state: State) -> Array:
        things = state.things
        back = _move(Things(things.enemies_left, things.enemies_right, *things[:1:-1]))
        return game.board([
            game.cell(state.player_x, state.player_y),
            bits.rows(_union(things.enemies_right, things.enemies_left)),
            bits.rows(functools.reduce(_union, back)),
            bits.rows(_union(things.gold_right, things.gold_left)),
        ])  # fmt: skip


def _spawn(state: State, events: Events) -> State:
    """Something enters a free row, if it is time."""
    due = state.spawn_timer == 0
    taken = bits.rows(functools.reduce(_union, state.things))[1 : SIZE - 1]
    free = [(row & bits.ROW) == 0 for row in taken if row is not None]
    count = sum(free, jnp.int32(0))
    chosen = jnp.floor(events.row * count.astype(jnp.float32)).astype(jnp.int32)
    y, above = jnp.int32(0), jnp.int32(0)
    for i, is_free in enumerate(free, start=1):
        y = jnp.where(is_free & (above == chosen), i, y)
        above = above + is_free
    new = bits.cell(jnp.where(events.to_right, 0, SIZE - 1), y, _WORDS)
    enters = due & (count > 0)

    def with_new(board: Bits, gold: Array, to_right: Array) -> Bits:
        return bits.where(enters & gold & to_right, _union(board, new), board)

    enemy, to_left, t = ~events.gold, ~events.to_right, state.things
    things = Things(
        with_new(t.enemies_right, enemy, events.to_right), with_new(t.enemies_left, enemy, to_left),
        with_new(t.gold_right, events.gold, events.to_right),
        with_new(t.gold_left, events.gold, to_left),
    )  # fmt: skip
    spawn_timer = jnp.where(due, state.spawn_speed, state.spawn_timer)
    return state._replace(things=things, spawn_timer=spawn_timer)


def _meet(things: Things, player: Bits) -> tuple[Things, Array, Array]:
    """What is left when the player takes the gold it meets, whether it did, or met an enemy."""

    def met(a: Bits, b: Bits) -> Array:
        return bits.anything(bits.each(lambda x, y, p: (x | y) & p, a, b, player))

    def rest(gold: Bits) -> Bits:
        return bits.each(lambda g, p: g & ~p, gold, player)

    left = things._replace(gold_right=rest(things.gold_right), gold_left=rest(things.gold_left))
    return left, met(*things[2:]), met(*things[:2])


def _move(things: Things) -> Things:
    """Everything moves a column; what leaves the board is gone."""
    return Things(
        bits.right(things.enemies_right), bits.left(things.enemies_left),
        bits.right(things.gold_right), bits.left(things.gold_left),
    )  # fmt: skip


def _union(a: Bits, b: Bits) -> Bits:
    return bits.each(jnp.bitwise_or, a, b)


def _ramp(state: State, params: Params) -> State:
    """Shrinks the intervals whenever `ramp_interval` has passed."""
    s = state
    running = params.ramping & ((s.spawn_speed > 1) | (s.move_speed > 1))
    now = running & (s.ramp_timer < 0)
    faster = now & (s.move_speed > 1) & (s.ramp_index % 2 == 1)
    ramp_timer = jnp.where(now, int32(params.ramp_interval), s.ramp_timer - running)
    return s._replace(
        move_speed=s.move_speed - faster,
        spawn_speed=s.spawn_speed - (now & (s.spawn_speed > 1)),
        ramp_timer=ramp_timer,
        ramp_index=s.ramp_index + now,
    )
