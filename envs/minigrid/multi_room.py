"""MultiRoom: walk through a chain of rooms, opening doors, to the goal in the last one.

MiniGrid's `MultiRoomEnv`: rooms of random sizes are attached one to the other where there is
place; after eight failures for one room all is begun anew.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs.minigrid import cells, draws, lines, task, world
from fastrl.envs.minigrid.task import Params, Task
from fastrl.envs.minigrid.world import State
from fastrl.types import Array, Key

_GRID = 25
_SMALLEST = 4  # room, with its walls
_TRIES = 8  # for a room, before all is begun anew
_STEPS = 3000  # tries in all, after which the level has the rooms that it has


class Rooms(NamedTuple):
    """A chain of rooms, int32 `[R]` each."""

    x: Array  # the corner
    y: Array
    width: Array
    height: Array
    door_x: Array  # the entry; of the first room it means nothing
    door_y: Array
    side: Array  # of the entry: 0 right, 1 below, 2 left, 3 above


class Search(NamedTuple):
    """A chain that is being built."""

    rooms: Rooms
    built: Array  # int32, rooms so far
    tries: Array  # int32, failures for the next room
    step: Array  # int32


@dataclasses.dataclass(frozen=True)
class MultiRoom(Task):
    """Objects: the goal, then the doors in order."""

    doors: ClassVar[bool] = True

    num_rooms: int = 6
    max_room_size: int = 10

    def __post_init__(self) -> None:
        door.integer("num_rooms", self.num_rooms, 1, 8)
        door.integer("max_room_size", self.max_room_size, _SMALLEST, 12)

    @property
    def shape(self) -> lines.Shape:
        return _GRID, _GRID

    def max_steps(self) -> int:
        return 20 * self.num_rooms

    def draw(self, key: Key) -> Any:
        return self._draw(key, jnp.bool_(True))

    def reset_where(self, keys: Key, params: Params, wanted: Array) -> tuple[State, Any]:
        """As `reset` of a batch, where only the `wanted` ones need be levels."""
        drawn = jax.vmap(self._draw)(keys, wanted)
        return jax.vmap(lambda d: task.begin(self, d))(drawn)

    def level(self, drawn: Any) -> State:
        rooms, count, words = drawn
        shape = self.shape
        walls = jnp.zeros((sum(shape), *count.shape), jnp.uint32)
        gates = jnp.zeros_like(walls)
        doors = []
        colour = draws.below(words[0], len(cells.COLOURS))
        for i in range(self.num_rooms):
            room = Rooms(*(r[i] for r in rooms))
            there = (i < count)[None]
            walls = walls | jnp.where(there, _ring(shape, room), jnp.uint32(0))
            if i > 0:
                gate = lines.cell(shape, room.door_x, room.door_y)
                gates = gates | jnp.where(there, gate, jnp.uint32(0))
                place = jnp.where(i < count, cells.at(room.door_x, room.door_y), cells.GONE)
                doors.append((place, cells.CLOSED_DOOR + 16 * colour))
                # The next door has another colour, any other alike.
                colour = draws.skip(draws.below(words[i], len(cells.COLOURS) - 1), colour)
        agent, goal = self._ends(rooms, count, words[-4:-1])
        everywhere = lines.rectangle(shape, 0, 0, _GRID, _GRID, count.ndim)
        open = (everywhere & ~walls) | gates
        objects = [(goal, jnp.full_like(goal, cells.GOAL_CODE)), *doors]
        return world.start(agent, draws.below(words[-1], 4), open, objects)

    def _ends(self, rooms: Rooms, count: Array, words: Array) -> tuple[Array, Array]:
        """A random cell of the first room, and another one, of the last room."""
        first, last = (Rooms(*(r[0] for r in rooms)) for _ in range(2))
        for i in range(1, self.num_rooms):
            last = Rooms(
                *(jnp.where(i < count, r[i], at) for r, at in zip(rooms, last, strict=True))
            )
        area = (last.width - 2) * (last.height - 2)
        start = draws.below(words[0], (first.width - 2) * (first.height - 2))
        place = draws.below(words[1], area - (count == 1).astype(jnp.int32))
        place = jnp.where(count == 1, draws.skip(place, start), place)

        def cell(room: Rooms, place: Array) -> Array:
            columns = room.width - 2
            return cells.at(room.x + 1 + place % columns, room.y + 1 + place // columns)

        return cell(first, start), cell(last, place)

    def _draw(self, key: Key, wanted: Array) -> tuple[Rooms, Array, Array]:
        """A chain of rooms, how many there are, and words for the rest. Without batch axes."""
        rooms_key, key = jax.random.split(key)

        def go_on(search: Search) -> Array:
            return wanted & (search.built < self.num_rooms) & (search.step < _STEPS)

        def attempt(search: Search) -> Search:
            words = jax.random.bits(jax.random.fold_in(rooms_key, search.step), (5,), jnp.uint32)
            return self._attempt(search, words)

        zero = jnp.zeros(self.num_rooms, jnp.int32)
        smallest = jnp.full(self.num_rooms, _SMALLEST, jnp.int32)
        nothing = Rooms(zero, zero, smallest, smallest, zero, zero, zero)
        search = Search(nothing, jnp.int32(0), jnp.int32(0), jnp.int32(0))
        search = jax.lax.while_loop(go_on, attempt, search)
        words = jax.random.bits(key, (self.num_rooms + 4,), jnp.uint32)
        return search.rooms, jnp.maximum(search.built, 1), words

    def _attempt(self, search: Search, words: Array) -> Search:
        """One try for the next room."""
        rooms, count = search.rooms, search.built
        index = np.arange(self.num_rooms, dtype=np.int32)
        before = Rooms(*(jnp.sum(jnp.where(index == count - 1, r, 0)) for r in rooms))
        room = self._candidate(before, count, words)
        x, y, width, height = room[:4]
        fits = (x >= 0) & (y >= 0) & (x + width <= _GRID) & (y + height < _GRID)
        apart = (
            (x + width < rooms.x) | (rooms.x + rooms.width <= x)
            | (y + height < rooms.y) | (rooms.y + rooms.height <= y)
        )  # fmt: skip
        fits = fits & (apart | (index >= count - 1)).all()
        here = fits & (index == count)
        rooms = Rooms(*(jnp.where(here, new, old) for new, old in zip(room, rooms, strict=True)))
        tries = jnp.where(fits, 0, search.tries + 1)
        anew = tries == _TRIES
        count = jnp.where(anew, 0, count + fits.astype(jnp.int32))
        return Search(rooms, count, jnp.where(anew, 0, tries), search.step + 1)

    def _candidate(self, before: Rooms, count: Array, words: Array) -> Rooms:
        """A room behind a random door in a wall of the room before, or the first one."""
        sizes = self.max_room_size - _SMALLEST + 1
        width, height = (_SMALLEST + draws.below(word, sizes) for word in words[:2])
        wall = draws.skip(draws.below(words[2], 3), before.side)
        upright = wall % 2 == 0  # the wall with the door
        along = 1 + draws.below(words[3], jnp.where(upright, before.height, before.width) - 2)
        far_x, far_y = before.width - 1, before.height - 1
        door_x = before.x + jnp.where(upright, jnp.where(wall == 0, far_x, 0), along)
        door_y = before.y + jnp.where(upright, along, jnp.where(wall == 1, far_y, 0))
        side = (wall + 2) % 4
        shift = 2 - jnp.where(upright, height, width)
        shift = shift + draws.below(words[4], -shift)
        x = door_x + jnp.where(upright, jnp.where(side == 0, 1 - width, 0), shift)
        y = door_y + jnp.where(upright, shift, jnp.where(side == 1, 1 - height, 0))
        first = count == 0
        x = jnp.where(first, draws.below(words[2], _GRID - 2), x)
        y = jnp.where(first, draws.below(words[3], _GRID - 2), y)
        return Rooms(x, y, width, height, door_x, door_y, jnp.where(first, 2, side))


def _ring(shape: lines.Shape, room: Rooms) -> Array:
    """The walls around a room."""
    x, y, to_x, to_y = room.x, room.y, room.x + room.width, room.y + room.height
    inner = lines.rectangle(shape, x + 1, y + 1, to_x - 1, to_y - 1)
    return lines.rectangle(shape, x, y, to_x, to_y) & ~inner
