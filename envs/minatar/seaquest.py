"""Seaquest: a submarine shoots enemies, takes divers aboard and must surface for oxygen.

Rules of MinAtar's `seaquest.py`. That keeps lists without a limit; here things have slots, as many
as its intervals let be alive at a time: 32 enemies (they enter at most once a step and are gone
after 30 steps when they do), 2 divers, 2 shots. Slots are used in turn, so that their order is that
of the lists.
"""

import dataclasses
import functools
import operator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs.minatar import game
from fastrl.envs.minatar.game import SIZE, UNLIMITED, Colour, Game, Rows, bit, cell, inner
from fastrl.types import Array, Key, Step

_ENEMIES = 32
_LANES = np.arange(_ENEMIES, dtype=np.int8)
_ROWS = np.arange(1, SIZE - 1, dtype=np.int8)  # where things are; row 0 is the surface
_ROW = np.uint32(2**SIZE - 1)

MAX_OXYGEN = 200
MAX_DIVERS = 6  # aboard
ENEMY_INTERVAL = 20  # steps between two enemies, at first
DIVER_INTERVAL = 30
MOVE_INTERVAL = 5  # steps between two moves less one: of divers, and of enemies at first
FASTEST = 2
SHOT_INTERVAL = 5  # of the submarine
ENEMY_SHOT_INTERVAL = 10


class Params(NamedTuple):
    sticky_action_prob: float = 0.1
    ramping: bool = True  # whether each surfacing makes enemies faster and more frequent
    max_steps: int = UNLIMITED


class Enemies(NamedTuple):
    """Fish and submarines: int8 or bool `[32]`."""

    alive: Array
    submarine: Array
    x: Array
    y: Array
    to_right: Array
    timer: Array  # until the next move
    shot_timer: Array  # of submarines


class Shot(NamedTuple):
    """A shot of the player's: int8 and bool."""

    alive: Array
    x: Array
    y: Array
    to_right: Array


class Diver(NamedTuple):
    """int8 and bool."""

    alive: Array
    x: Array
    y: Array
    to_right: Array
    timer: Array


class State(NamedTuple):
    """int32 but where noted."""

    x: Array  # int8: the front of the submarine
    y: Array  # int8
    to_right: Array  # bool: where it points
    surfaced: Array  # bool
    oxygen: Array
    aboard: Array  # divers; one below 0 after all six were brought up, as in the package
    shots: tuple[Shot, Shot]  # the older one first
    divers: tuple[Diver, Diver]
    enemies: Enemies
    next_slot: Array  # int8: of the next enemy
    enemy_shots: Array  # uint32 [8] by row: bits 0 to 9 go right, 10 to 19 left
    enemy_interval: Array
    enemy_timer: Array
    diver_timer: Array
    move_interval: Array
    shot_timer: Array
    ramp_index: Array
    last_action: Array
    time: Array


class Events(NamedTuple):
    """What chance decides in a step; all but `repeat` are of use only when something enters."""

    repeat: Array  # bool: the last action is played again
    enemy_to_right: Array  # bool: it comes from the left
    enemy_submarine: Array  # bool: it is no fish
    enemy_y: Array  # int8, 1 to 8
    diver_to_right: Array
    diver_y: Array


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
    useful_actions: ClassVar[tuple[int, ...]] = (
        game.NOTHING,
        game.LEFT,
        game.UP,
        game.RIGHT,
        game.DOWN,
        game.FIRE,
    )

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        """An empty sea: nothing is random."""
        zero, no, small = jnp.int32(0), jnp.bool_(False), jnp.int8(0)
        lanes, none = jnp.zeros(_ENEMIES, jnp.int8), jnp.zeros(_ENEMIES, bool)
        shot, diver = Shot(no, small, small, no), Diver(no, small, small, no, small)
        state = State(
            x=jnp.int8(5), y=jnp.int8(0), to_right=no, surfaced=~no, oxygen=jnp.int32(MAX_OXYGEN),
            aboard=zero, shots=(shot, shot), divers=(diver, diver),
            enemies=Enemies(none, none, lanes, lanes, none, lanes, lanes), next_slot=small,
            enemy_shots=jnp.zeros(_ROWS.shape, jnp.uint32),
            enemy_interval=jnp.int32(ENEMY_INTERVAL), enemy_timer=jnp.int32(ENEMY_INTERVAL),
            diver_timer=jnp.int32(DIVER_INTERVAL), move_interval=jnp.int32(MOVE_INTERVAL),
            shot_timer=zero, ramp_index=zero, last_action=zero, time=zero,
        )  # fmt: skip
        return state, self.observe(state)

    def events(self, key: Key, params: Params) -> Events:
        """Side, row and kind are other bits of the same random words."""
        words = jax.random.bits(key, (3,))
        first, enemy, diver = (words[i] for i in range(3))
        number = (jnp.stack([first, enemy]) >> 8).astype(jnp.float32) * 2.0**-24
        return Events(
            number[0] < params.sticky_action_prob,
            (enemy & 1) == 0, number[1] < 1 / 3, _row(enemy), (diver & 1) == 0, _row(diver),
        )  # fmt: skip

    def advance(
        self, state: State, action: Array, events: Events, params: Params
    ) -> tuple[State, Step]:
        action = self.played(state, action, events.repeat)
        s = _act(_enter(state, events), action)
        s, shot = _move_shots(s)
        s = _move_divers(s)
        s, met, rammed = _move_enemies(s)
        s, met_shot = _move_enemy_shots(s)
        s, lost, brought = _breathe(s, params)
        s = s._replace(
            enemy_timer=_less(s.enemy_timer), diver_timer=_less(s.diver_timer),
            shot_timer=_less(s.shot_timer), last_action=action, time=s.time + 1,
        )  # fmt: skip
        return self.ended(s, shot + rammed + brought, met | met_shot | lost, params)

    def observe(self, state: State) -> Array:
        s = state
        enemies, trails = _enemy_rows(s.enemies), [jnp.uint32(0)] * SIZE
        front = cell(s.x, s.y)
        back = cell(s.x + _way(~s.to_right), s.y)
        shots = _either(*(_cell(shot) for shot in s.shots))
        divers = _either(*(_cell(diver) for diver in s.divers))
        behind = [d._replace(x=d.x + _way(~d.to_right)) for d in s.divers]
        trails = _either(inner(enemies >> 20), *(_cell(d) for d in behind))
        enemy_shots = s.enemy_shots | s.enemy_shots >> SIZE
        aboard = jnp.clip(s.aboard, 0, MAX_DIVERS)
        oxygen = bit(jnp.maximum(s.oxygen, 0) * SIZE // MAX_OXYGEN) - 1
        gauge = (bit(aboard) - 1) << (SIZE - 1 - aboard).astype(jnp.uint32)
        return game.board([
            front, back, shots, trails, inner(enemy_shots), inner(enemies), inner(enemies >> SIZE),
            [None] * 9 + [oxygen], [None] * 9 + [gauge], divers,
        ])  # fmt: skip


def _enter(state: State, events: Events) -> State:
    """An enemy and a diver enter when it is time, no enemy against the traffic in its row."""
    s, e = state, events
    all_, due = s.enemies, s.enemy_timer == 0
    against = all_.alive & (all_.y == e.enemy_y) & (all_.to_right != e.enemy_to_right)
    enters = due & ~against.any()
    here = enters & (s.next_slot == _LANES)
    new = Enemies(
        jnp.bool_(True), e.enemy_submarine, _edge(e.enemy_to_right), e.enemy_y, e.enemy_to_right,
        s.move_interval.astype(jnp.int8), jnp.int8(ENEMY_SHOT_INTERVAL),
    )  # fmt: skip
    diver_due = s.diver_timer == 0
    diver = Diver(
        jnp.bool_(True), _edge(e.diver_to_right), e.diver_y, e.diver_to_right,
        jnp.int8(MOVE_INTERVAL),
    )  # fmt: skip
    return s._replace(
        enemies=_where(here, new, all_),
        next_slot=(s.next_slot + enters) & jnp.int8(_ENEMIES - 1),
        enemy_timer=jnp.where(due, s.enemy_interval, s.enemy_timer),
        divers=_where(diver_due, (s.divers[1], diver), s.divers),
        diver_timer=jnp.where(diver_due, DIVER_INTERVAL, s.diver_timer),
    )


def _act(state: State, action: Array) -> State:
    """The player shoots or moves."""
    s = state
    fires = (action == game.FIRE) & (s.shot_timer == 0)
    left, right = action == game.LEFT, action == game.RIGHT
    shot = Shot(jnp.bool_(True), s.x, s.y, s.to_right)
    x = s.x + right.astype(jnp.int8) - left.astype(jnp.int8)
    y = s.y + (action == game.DOWN).astype(jnp.int8) - (action == game.UP).astype(jnp.int8)
    return s._replace(
        x=jnp.clip(x, 0, SIZE - 1),
        y=jnp.clip(y, 0, SIZE - 2),
        to_right=(s.to_right | right) & ~left,
        shots=_where(fires, (s.shots[1], shot), s.shots),
        shot_timer=jnp.where(fires, SHOT_INTERVAL, s.shot_timer),
    )


def _move_shots(state: State) -> tuple[State, Array]:
    """The player's shots move and hit: the state, and how many enemies.

    Of several enemies in a cell the fish that is there longest is hit, or else that submarine.
    """
    enemies, hits, shots = state.enemies, jnp.int32(0), []
    age = (_LANES - state.next_slot) & jnp.int8(_ENEMIES - 1)  # 0 is the oldest
    rank = jnp.where(enemies.submarine, age + jnp.int8(_ENEMIES), age)
    for shot in state.shots:
        shot = shot._replace(x=shot.x + _way(shot.to_right))
        shot = shot._replace(alive=shot.alive & _inside(shot.x))
        here = enemies.alive & shot.alive & (enemies.x == shot.x) & (enemies.y == shot.y)
        first = jnp.where(here, rank, jnp.int8(127)).min()
        hit = here.any()
        enemies = enemies._replace(alive=enemies.alive & ~(here & (rank == first)))
        shots.append(shot._replace(alive=shot.alive & ~hit))
        hits = hits + hit
    return state._replace(enemies=enemies, shots=(shots[0], shots[1])), hits


def _move_divers(state: State) -> State:
    """Divers come aboard where the submarine is, or else move; the younger one first."""
    s, divers, aboard = state, [], state.aboard
    for d in reversed(s.divers):
        room = aboard < MAX_DIVERS
        saved = d.alive & (d.x == s.x) & (d.y == s.y) & room
        moves = d.timer == 0
        x = jnp.where(moves, d.x + _way(d.to_right), d.x)
        saved = saved | (d.alive & (x == s.x) & (d.y == s.y) & room)
        timer = jnp.where(moves, jnp.int8(MOVE_INTERVAL), d.timer - jnp.int8(1))
        divers.append(d._replace(alive=d.alive & ~saved & _inside(x), x=x, timer=timer))
        aboard = aboard + saved
    return s._replace(divers=(divers[1], divers[0]), aboard=aboard)


def _move_enemies(state: State) -> tuple[State, Array, Array]:
    """Enemies move and their submarines shoot.

    Returns the state, whether the player's submarine was met, and how many enemies ran into shots.
    """
    s, all_ = state, state.enemies
    moves = all_.alive & (all_.timer == 0)
    x = jnp.where(moves, all_.x + _way(all_.to_right), all_.x)
    alive = all_.alive & _inside(x)
    in_row = all_.y == s.y
    now_met = alive & in_row & (x == s.x)
    met = ((all_.alive & in_row & (all_.x == s.x)) | now_met).any()

    hits, shots = jnp.int32(0), []
    arrived = moves & alive & ~now_met
    for shot in s.shots:
        here = arrived & alive & shot.alive & (x == shot.x) & (all_.y == shot.y)
        submarine = (here & all_.submarine).any()  # they move before the fish
        alive = alive & ~(here & (all_.submarine == submarine))
        shots.append(shot._replace(alive=shot.alive & ~here.any()))
        hits = hits + here.any()

    shoots = all_.alive & all_.submarine & (all_.shot_timer == 0)
    fired = jnp.where(shoots & _inside(x), bit(x), jnp.uint32(0))
    fired = jnp.where(all_.to_right, fired, fired << SIZE)
    enemies = all_._replace(
        alive=alive, x=x,
        timer=jnp.where(moves, s.move_interval.astype(jnp.int8), all_.timer - jnp.int8(1)),
        shot_timer=jnp.where(
            shoots, jnp.int8(ENEMY_SHOT_INTERVAL), all_.shot_timer - jnp.int8(1)
        ),
    )  # fmt: skip
    enemy_shots = s.enemy_shots | _by_row(all_.y, fired)
    s = s._replace(enemies=enemies, enemy_shots=enemy_shots, shots=(shots[0], shots[1]))
    return s, met, hits


def _move_enemy_shots(state: State) -> tuple[State, Array]:
    """Enemies' shots move: the state, and whether one met the submarine, before or after."""
    s, before = state, state.enemy_shots
    right = (before & _ROW) << 1 & _ROW
    left = (before >> SIZE) >> 1
    after = right | left << SIZE
    both = before | before >> SIZE | after | after >> SIZE
    met = (s.y == _ROWS) & (both & bit(s.x) != 0)
    return s._replace(enemy_shots=after), met.any()


def _breathe(state: State, params: Params) -> tuple[State, Array, Array]:
    """Oxygen and surfacing: the state, whether the game is lost, and the reward for six divers."""
    s = state
    below = s.y > 0
    up = ~below & ~s.surfaced
    lost = (s.oxygen <= 0) | (up & (s.aboard == 0))
    up = up & (s.aboard != 0)
    full = up & (s.aboard == MAX_DIVERS)
    reward = jnp.where(full, s.oxygen * SIZE // MAX_OXYGEN, 0)
    aboard = jnp.where(full, 0, s.aboard) - up

    ramps = up & params.ramping & ((s.enemy_interval > 1) | (s.move_interval > FASTEST))
    faster = ramps & (s.move_interval > FASTEST) & (s.ramp_index % 2 == 1)
    s = s._replace(
        oxygen=jnp.where(up, MAX_OXYGEN, s.oxygen - below),
        aboard=aboard,
        surfaced=~below & (s.surfaced | up),
        enemy_interval=s.enemy_interval - (ramps & (s.enemy_interval > 1)),
        move_interval=s.move_interval - faster,
        ramp_index=s.ramp_index + ramps,
    )
    return s, lost, reward


def _enemy_rows(enemies: Enemies) -> Array:
    """uint32 `[8]` by row: bits 0 to 9 fish, 10 to 19 submarines, 20 to 29 their trails."""
    e, here = enemies, bit(enemies.x)
    thing = jnp.where(e.submarine, here << SIZE, here)
    trail = jnp.where(e.to_right, here >> 1, here << 1) & _ROW
    return _by_row(e.y, jnp.where(e.alive, thing | trail << (2 * SIZE), jnp.uint32(0)))


def _by_row(y: Array, words: Array) -> Array:
    """The bits that are set in any of `words` `[32]` of a row: uint32 `[8]`."""
    sorted_ = jnp.where(y[None, :] == _ROWS[:, None], words[None, :], jnp.uint32(0))
    return jax.lax.reduce(sorted_, np.uint32(0), jax.lax.bitwise_or, (1,))


def _cell(thing: Shot | Diver) -> Rows:
    """A channel with the one thing, if it is alive and inside."""
    word = jnp.where(thing.alive & _inside(thing.x), bit(thing.x), jnp.uint32(0))
    return [jnp.where(thing.y == row, word, jnp.uint32(0)) for row in range(SIZE)]


def _either(*channels: Rows) -> Rows:
    """The things of all `channels`."""
    rows = zip(*channels, strict=True)
    return [functools.reduce(operator.or_, [r for r in row if r is not None]) for row in rows]


def _where(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _edge(to_right: Array) -> Array:
    """The column where something enters that goes to the right, or to the left."""
    return jnp.where(to_right, jnp.int8(0), jnp.int8(SIZE - 1))


def _way(to_right: Array) -> Array:
    return jnp.where(to_right, jnp.int8(1), jnp.int8(-1))


def _inside(x: Array) -> Array:
    return (x >= 0) & (x < SIZE)


def _less(timer: Array) -> Array:
    return timer - (timer > 0)


def _row(word: Array) -> Array:
    """A row that is not the surface: int8, 1 to 8."""
    return (1 + ((word >> 1) & 7)).astype(jnp.int8)
