"""The rules of Seaquest: what happens in a step, one function after the other.

Those of MinAtar's `seaquest.py`, which keeps lists without a limit.  Here things have slots, as
many as its intervals let be alive at a time: 32 enemies (they enter at most once a step, and are
gone after 30 steps when they do), 2 divers, 2 shots.  Slots are used in turn, so that their order
is that of the lists; enemy shots in the same cell that go the same way are one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs.minatar import game
from fastrl.envs.minatar.game import SIZE, UNLIMITED, bit
from fastrl.types import Array

NUM_ENEMIES = 32
_LANES = np.arange(NUM_ENEMIES, dtype=np.int8)
ROWS = np.arange(1, SIZE - 1, dtype=np.int8)  # where things are; row 0 is the surface
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


def enter(state: State, events: Events) -> State:
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
        next_slot=(s.next_slot + enters) & jnp.int8(NUM_ENEMIES - 1),
        enemy_timer=jnp.where(due, s.enemy_interval, s.enemy_timer),
        divers=_where(diver_due, (s.divers[1], diver), s.divers),
        diver_timer=jnp.where(diver_due, DIVER_INTERVAL, s.diver_timer),
    )


def act(state: State, action: Array) -> State:
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


def move_shots(state: State) -> tuple[State, Array]:
    """The player's shots move and hit: the state, and how many enemies.

    Of several enemies in a cell the fish that is there longest is hit, or else that submarine.
    """
    enemies, hits, shots = state.enemies, jnp.int32(0), []
    age = (_LANES - state.next_slot) & jnp.int8(NUM_ENEMIES - 1)  # 0 is the oldest
    rank = jnp.where(enemies.submarine, age + jnp.int8(NUM_ENEMIES), age)
    for shot in state.shots:
        shot = shot._replace(x=shot.x + way(shot.to_right))
        shot = shot._replace(alive=shot.alive & inside(shot.x))
        here = enemies.alive & shot.alive & (enemies.x == shot.x) & (enemies.y == shot.y)
        first = jnp.where(here, rank, jnp.int8(127)).min()
        hit = here.any()
        enemies = enemies._replace(alive=enemies.alive & ~(here & (rank == first)))
        shots.append(shot._replace(alive=shot.alive & ~hit))
        hits = hits + hit
    return state._replace(enemies=enemies, shots=(shots[0], shots[1])), hits


def move_divers(state: State) -> State:
    """Divers come aboard where the submarine is, or else move; the younger one first."""
    s, divers, aboard = state, [], state.aboard
    for d in reversed(s.divers):
        room = aboard < MAX_DIVERS
        saved = d.alive & (d.x == s.x) & (d.y == s.y) & room
        moves = d.timer == 0
        x = jnp.where(moves, d.x + way(d.to_right), d.x)
        saved = saved | (d.alive & (x == s.x) & (d.y == s.y) & room)
        timer = jnp.where(moves, jnp.int8(MOVE_INTERVAL), d.timer - jnp.int8(1))
        divers.append(d._replace(alive=d.alive & ~saved & inside(x), x=x, timer=timer))
        aboard = aboard + saved
    return s._replace(divers=(divers[1], divers[0]), aboard=aboard)


def move_enemies(state: State) -> tuple[State, Array, Array]:
    """Enemies move and their submarines shoot.

    Returns the state, whether the player's submarine was met, and how many enemies ran into shots.
    """
    s, all_ = state, state.enemies
    moves = all_.alive & (all_.timer == 0)
    x = jnp.where(moves, all_.x + way(all_.to_right), all_.x)
    alive = all_.alive & inside(x)
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
    fired = jnp.where(shoots & inside(x), bit(x), jnp.uint32(0))
    fired = jnp.where(all_.to_right, fired, fired << SIZE)
    enemies = all_._replace(
        alive=alive, x=x,
        timer=jnp.where(moves, s.move_interval.astype(jnp.int8), all_.timer - jnp.int8(1)),
        shot_timer=jnp.where(
            shoots, jnp.int8(ENEMY_SHOT_INTERVAL), all_.shot_timer - jnp.int8(1)
        ),
    )  # fmt: skip
    enemy_shots = s.enemy_shots | by_row(all_.y, fired)
    s = s._replace(enemies=enemies, enemy_shots=enemy_shots, shots=(shots[0], shots[1]))
    return s, met, hits


def move_enemy_shots(state: State) -> tuple[State, Array]:
    """Enemies' shots move: the state, and whether one met the submarine, before or after."""
    s, before = state, state.enemy_shots
    right = (before & _ROW) << 1 & _ROW
    left = (before >> SIZE) >> 1
    after = right | left << SIZE
    both = before | before >> SIZE | after | after >> SIZE
    met = (s.y == ROWS) & (both & bit(s.x) != 0)
    return s._replace(enemy_shots=after), met.any()


def breathe(state: State, params: Params) -> tuple[State, Array, Array]:
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


def by_row(y: Array, words: Array) -> Array:
    """The bits that are set in any of `words` `[32]` of a row: uint32 `[8]`."""
    sorted_ = jnp.where(y[None, :] == ROWS[:, None], words[None, :], jnp.uint32(0))
    return jax.lax.reduce(sorted_, np.uint32(0), jax.lax.bitwise_or, (1,))


def _where(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _edge(to_right: Array) -> Array:
    """The column where something enters that goes to the right, or to the left."""
    return jnp.where(to_right, jnp.int8(0), jnp.int8(SIZE - 1))


def way(to_right: Array) -> Array:
    return jnp.where(to_right, jnp.int8(1), jnp.int8(-1))


def inside(x: Array) -> Array:
    return (x >= 0) & (x < SIZE)
