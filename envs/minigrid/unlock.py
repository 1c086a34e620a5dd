"""Unlock, UnlockPickup: a key, a locked door, a box behind it. MiniGrid's envs of these names."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task, Verdict
from fastrl.envs.minigrid.world import Front, Object, State
from fastrl.types import Array

_ROOM, _SIDE = 6, 4  # a room with and without its walls
_DOOR = _ROOM - 1  # the column of the wall with the door
# Places in the right room for the box, by rows: MiniGrid keeps it two steps from the room's
# middle, where it has the agent before it is placed.
_AWAY = [x + _SIDE * y for y in range(_SIDE) for x in range(_SIDE) if abs(x - 2) + abs(y - 2) >= 2]


@dataclasses.dataclass(frozen=True)
class Unlock(Task):
    """Two rooms with a locked door between them; agent and key are in the left one.

    Won by opening the door.
    """

    doors: ClassVar[bool] = True
    num_words: ClassVar[int] = 4

    @property
    def shape(self) -> lines.Shape:
        return _ROOM, 2 * _ROOM - 1

    def max_steps(self) -> int:
        return 8 * _ROOM**2

    def level(self, drawn: Any) -> State:
        return self._rooms(drawn, [], ())

    def judge(self, before: State, ahead: Front, action: Array, after: State) -> Verdict:
        opened = (cells.kind_of(after.object_code) == cells.OPEN_DOOR).any(0)
        won = opened & (action == cells.MOVES.toggle)
        return Verdict(won, jnp.zeros_like(won))

    def _rooms(self, drawn: Any, others: list[Object], mission: Any) -> State:
        """Both rooms, with door, key and agent of the left one, and `others`."""
        door_y, colour = 1 + draws.below(drawn[0], _SIDE), draws.below(drawn[1], len(cells.COLOURS))
        key = draws.below(drawn[2], _SIDE**2)
        place = draws.member(drawn[3], _free_starts(key, door_y))
        direction, start = place // _SIDE**2, place % _SIDE**2
        open = lines.inside(self.shape, door_y.ndim)
        open = open & ~lines.rectangle(self.shape, _DOOR, 0, _DOOR + 1, _ROOM, door_y.ndim)
        open = open | lines.cell(self.shape, _DOOR, door_y)
        objects = [
            (cells.at(_DOOR, door_y), cells.LOCKED_DOOR + 16 * colour),
            (_cell(key), cells.KEY + 16 * colour),
            *others,
        ]
        return world.start(_cell(start), direction, open, objects, mission=mission)


@dataclasses.dataclass(frozen=True)
class UnlockPickup(Unlock):
    """As `Unlock`, with a box in the right room. Won by picking it up."""

    mission: ClassVar[bool] = True
    num_words: ClassVar[int] = 6

    def level(self, drawn: Any) -> State:
        allowed = jnp.full_like(drawn[4], sum(1 << i for i in _AWAY))
        place, colour = draws.member(drawn[4], [allowed]), draws.below(drawn[5], len(cells.COLOURS))
        box = _cell(place) + _DOOR, cells.BOX + 16 * colour
        return self._rooms(drawn, [box], colour)

    def judge(self, before: State, ahead: Front, action: Array, after: State) -> Verdict:
        held = (after.object_cell == cells.CARRIED) & (
            after.object_code == cells.BOX + 16 * after.mission[None]
        )
        won = held.any(0) & (action == cells.MOVES.pickup)
        return Verdict(won, jnp.zeros_like(won))


def _cell(place: Array) -> Array:
    """The `place`-th cell of the left room, by rows."""
    return cells.at(1 + place % _SIDE, 1 + place // _SIDE)


def _free_starts(key: Array, door_y: Array) -> list[Array]:
    """For each direction 16 bits: where the agent is not on the key and faces no object."""
    one = jnp.uint32(1)
    x, at_key = key % _SIDE, one << key.astype(jnp.uint32)
    whole = np.uint32(2 ** (_SIDE**2) - 1)
    none = jnp.zeros_like(at_key)
    at_door = one << (_SIDE * door_y - 1).astype(jnp.uint32)
    facing = [
        jnp.where(x > 0, at_key >> 1, none) | at_door,
        at_key >> _SIDE,
        jnp.where(x < _SIDE - 1, at_key << 1, none),
        at_key << _SIDE,
    ]
    free = [whole & ~(at_key | f) for f in facing]
    return [free[0] | (free[1] << 16), free[2] | (free[3] << 16)]
