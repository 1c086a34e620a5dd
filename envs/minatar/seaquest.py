"""Seaquest: a submarine shoots enemies, takes divers aboard and must surface for oxygen.

Rules of MinAtar's `seaquest.py`, in `seaquest_rules.py`.
"""

import dataclasses
import functools
import operator
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs.minatar import game
from fastrl.envs.minatar import seaquest_rules as rules
from fastrl.envs.minatar.game import SIZE, Colour, Game, Rows, bit, cell, inner
from fastrl.envs.minatar.seaquest_rules import Diver, Enemies, Events, Params, Shot, State
from fastrl.types import Array, Key, Step


@dataclasses.dataclass(frozen=True)
class Seaquest(Game):
    """Reward 1 for each enemy shot and, with six divers brought up, 1 for each cell of oxygen left.

    Terminates when an enemy or its shot is met, without oxygen, or at the surface without divers.
    """

    channels: ClassVar[tuple[str, ...]] = (
        "submarine's front", "submarine's back", "shot", "trail", "enemy shot", "fish",
        "enemy submarine", "oxygen", "divers aboard", "diver",
    )  # fmt: skip
    colours: ClassVar[tuple[Colour, ...]] = (
        (64, 120, 178), (138, 174, 212), (222, 178, 52), (214, 218, 224), (196, 78, 82),
        (224, 122, 62), (142, 68, 96), (108, 178, 190), (122, 158, 126), (122, 158, 126),
    )  # fmt: skip
    useful_actions: ClassVar[tuple[int, ...]] = tuple(range(6))

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        """An empty sea: nothing is random."""
        zero, no, small = jnp.int32(0), jnp.bool_(False), jnp.int8(0)
        lanes, none = jnp.zeros(rules.NUM_ENEMIES, jnp.int8), jnp.zeros(rules.NUM_ENEMIES, bool)
        interval = jnp.int32(rules.ENEMY_INTERVAL)
        shot, diver = Shot(no, small, small, no), Diver(no, small, small, no, small)
        state = State(
            x=jnp.int8(5), y=jnp.int8(0), to_right=no, surfaced=~no,
            oxygen=jnp.int32(rules.MAX_OXYGEN), aboard=zero, shots=(shot, shot),
            divers=(diver, diver), enemies=Enemies(none, none, lanes, lanes, none, lanes, lanes),
            next_slot=small, enemy_shots=jnp.zeros(rules.ROWS.shape, jnp.uint32),
            enemy_interval=interval, enemy_timer=interval,
            diver_timer=jnp.int32(rules.DIVER_INTERVAL),
            move_interval=jnp.int32(rules.MOVE_INTERVAL), shot_timer=zero, ramp_index=zero,
            last_action=zero, time=zero,
        )  # fmt: skip
        return state, self.observe(state)

    def events(self, key: Key, params: Params) -> Events:
        """Side and row are the lower bits of words, chance and kind the upper ones."""
        first, enemy, diver = jax.random.bits(key, (3,))
        return Events(
            repeat=game.uniform(first) < params.sticky_action_prob,
            enemy_to_right=(enemy & 1) == 0,
            enemy_submarine=game.uniform(enemy) < 1 / 3,
            enemy_y=_row(enemy),
            diver_to_right=(diver & 1) == 0,
            diver_y=_row(diver),
        )

    def advance(
        self, state: State, action: Array, events: Events, params: Params
    ) -> tuple[State, Step]:
        action = self.played(state, action, events.repeat)
        s = rules.act(rules.enter(state, events), action)
        s, shot = rules.move_shots(s)
        s = rules.move_divers(s)
        s, met, rammed = rules.move_enemies(s)
        s, met_shot = rules.move_enemy_shots(s)
        s, lost, brought = rules.breathe(s, params)
        s = s._replace(
            enemy_timer=_less(s.enemy_timer), diver_timer=_less(s.diver_timer),
            shot_timer=_less(s.shot_timer), last_action=action, time=s.time + 1,
        )  # fmt: skip
        return self.ended(s, shot + rammed + brought, met | met_shot | lost, params)

    def observe(self, state: State) -> Array:
        s = state
        enemies = _enemy_rows(s.enemies)
        front = cell(s.x, s.y)
        back = cell(s.x + rules.way(~s.to_right), s.y)
        shots = _either(*(_cell(shot) for shot in s.shots))
        divers = _either(*(_cell(diver) for diver in s.divers))
        behind = [d._replace(x=d.x + rules.way(~d.to_right)) for d in s.divers]
        trails = _either(inner(enemies >> (2 * SIZE)), *(_cell(d) for d in behind))
        enemy_shots = s.enemy_shots | s.enemy_shots >> SIZE
        aboard = jnp.clip(s.aboard, 0, rules.MAX_DIVERS)
        oxygen = bit(jnp.maximum(s.oxygen, 0) * SIZE // rules.MAX_OXYGEN) - 1
        gauge = (bit(aboard) - 1) << (SIZE - 1 - aboard).astype(jnp.uint32)
        return game.board([
            front, back, shots, trails, inner(enemy_shots), inner(enemies), inner(enemies >> SIZE),
            [None] * 9 + [oxygen], [None] * 9 + [gauge], divers,
        ])  # fmt: skip


def _enemy_rows(enemies: Enemies) -> Array:
    """uint32 `[8]` by row: bits 0 to 9 fish, 10 to 19 submarines, 20 to 29 their trails."""
    e, here = enemies, bit(enemies.x)
    thing = jnp.where(e.submarine, here << SIZE, here)
    trail = jnp.where(e.to_right, here >> 1, here << 1) & np.uint32(2**SIZE - 1)
    return rules.by_row(e.y, jnp.where(e.alive, thing | trail << (2 * SIZE), jnp.uint32(0)))


def _cell(thing: Shot | Diver) -> Rows:
    """A channel with the one thing, if it is alive and inside."""
    word = jnp.where(thing.alive & rules.inside(thing.x), bit(thing.x), jnp.uint32(0))
    return [jnp.where(thing.y == row, word, jnp.uint32(0)) for row in range(SIZE)]


def _either(*channels: Rows) -> Rows:
    """The things of all `channels`."""
    rows = zip(*channels, strict=True)
    return [functools.reduce(operator.or_, [r for r in row if r is not None]) for row in rows]


def _less(timer: Array) -> Array:
    return timer - (timer > 0)


def _row(word: Array) -> Array:
    """A row that is not the surface: int8, 1 to 8."""
    return (1 + ((word >> 1) & 7)).astype(jnp.int8)
