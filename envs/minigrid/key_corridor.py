"""KeyCorridor: find the key in the rooms of a corridor, fetch the ball behind the locked door.

MiniGrid's `KeyCorridorEnv` with its `RoomGrid`: three columns of rooms, of which the middle one
has no walls within; doors are added in a random order until all rooms can be reached.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task, Verdict
from fastrl.envs.minigrid.world import Front, Object, State
from fastrl.types import Array, Key

_LEFT, _RIGHT = 0, 1  # the outer columns
_NEVER = np.uint32(2**32 - 1)


@dataclasses.dataclass(frozen=True)
class KeyCorridor(Task):
    """Won by picking up the ball. The mission names its colour.

    Objects: ball, key, then a door for every wall between rooms, GONE where there is none.
    """

    doors: ClassVar[bool] = True
    mission: ClassVar[bool] = True

    room_size: int = 3
    rows: int = 3

    def __post_init__(self) -> None:
        door.integer("room_size", self.room_size, 3, 1 + (cells.LARGEST - 1) // 3)
        door.integer("rows", self.rows, 1, (cells.LARGEST - 1) // (self.room_size - 1))

    @property
    def shape(self) -> lines.Shape:
        return self._step * self.rows + 1, self._step * 3 + 1

    @property
    def _step(self) -> int:
        """From a room to the next one."""
        return self.room_size - 1

    def max_steps(self) -> int:
        return 30 * self.room_size**2

    def draw(self, key: Key) -> Any:
        return jax.random.bits(key, (9 + 4 * self.rows - 2,), jnp.uint32)

    def level(self, drawn: Any) -> State:
        colours = len(cells.COLOURS)
        row, key_row = (draws.below(word, self.rows) for word in drawn[:2])
        ball_colour, colour = (draws.below(word, colours) for word in drawn[2:4])
        doors, gates = self._doors(row, colour, drawn[9:])
        objects: list[Object] = [
            (self._place(drawn[4], drawn[5], 2, row), cells.BALL + 16 * ball_colour),
            (self._place(drawn[6], drawn[7], 0, key_row), cells.KEY + 16 * colour),
            *doors,
        ]
        locked = self._locked(row, doors)
        agent, direction = self._start(drawn[8], row, locked)
        open = self._open(row.ndim) | gates
        return world.start(agent, direction, open, objects, mission=ball_colour)

    def judge(self, before: State, ahead: Front, action: Array, after: State) -> Verdict:
        held = (after.object_cell == cells.CARRIED) & (
            after.object_code == cells.BALL + 16 * after.mission[None]
        )
        won = held.any(0) & (action == cells.MOVES.pickup)
        return Verdict(won, jnp.zeros_like(won))

    def _place(self, x: Array, y: Array, column: int, row: Array) -> Array:
        """A random cell of a room."""
        side = self.room_size - 2
        return cells.at(
            column * self._step + 1 + draws.below(x, side),
            row * self._step + 1 + draws.below(y, side),
        )

    def _open(self, axes: int) -> Array:
        """The rooms and the corridor."""
        shape, step = self.shape, self._step
        open = lines.rectangle(shape, step + 1, 1, 2 * step, shape[0] - 1, axes)
        for column in (0, 2):
            for row in range(self.rows):
                x, y = column * step, row * step
                open = open | lines.rectangle(shape, x + 1, y + 1, x + step, y + step, axes)
        return open

    def _start(self, word: Array, row: Array, locked: Array) -> tuple[Array, Array]:
        """The agent in the middle of the corridor, not facing the locked door."""
        step, side, middle = self._step, self.room_size - 2, self.rows // 2
        top = middle * step + (0 if middle > 0 else 1)  # there is no wall but at the ends
        bottom = (middle + 1) * step + (1 if middle < self.rows - 1 else 0)
        count = side * (bottom - top)
        before_door = side * (cells.row(locked) - top) + side - 1  # and facing right, 0
        faces = row == middle
        place = draws.below(word, 4 * count - faces.astype(jnp.int32))
        place = jnp.where(faces, draws.skip(place, before_door), place)
        direction, cell = place // count, place % count
        return cells.at(step + 1 + cell % side, top + cell // side), direction

    def _locked(self, row: Array, doors: list[Object]) -> Array:
        """The cell of the locked door."""
        cell = doors[0][0]
        for i in range(self.rows):
            cell = jnp.where(row == i, doors[2 * i + _RIGHT][0], cell)
        return cell

    def _doors(self, row: Array, colour: Array, words: Array) -> tuple[list[Object], Array]:
        """A door for every wall, GONE where there is none, and the cells of doors as lines.

        In this order: to the left and to the right of the corridor by rows, then the walls
        within the left and the right column by rows.
        """
        step, side, rows = self._step, self.room_size - 2, self.rows
        order = self._order(words, row)
        last = self._last(order, row)
        doors, gates = [], jnp.zeros((sum(self.shape), *row.shape), jnp.uint32)
        for i, word in enumerate(words):
            choice = draws.below(word << 14, side * len(cells.COLOURS))
            along, own = 1 + choice % side, cells.CLOSED_DOOR + 16 * (choice // side)
            across = 0 * along + (i // 2 - rows + 1) * step
            x, y = (0 if i % 2 == _LEFT else 2 * step) + along, across
            locked = jnp.zeros(row.shape, bool)
            if i < 2 * rows:
                across = 0 * along + (step if i % 2 == _LEFT else 2 * step)
                x, y = across, i // 2 * step + along
                locked = (row == i // 2) & (i % 2 == _RIGHT)
            there = (order[i] <= last) | locked
            gates = gates | jnp.where(there[None], lines.cell(self.shape, x, y), jnp.uint32(0))
            code = jnp.where(locked, cells.LOCKED_DOOR + 16 * colour, own)
            doors.append((jnp.where(there, cells.at(x, y), cells.GONE), code))
        return doors, gates

    def _order(self, words: Array, row: Array) -> list[Array]:
        """When each door is added: never to the room behind the locked one."""
        order = []
        for i, word in enumerate(words):
            when = ((word >> 18) << 6) + np.uint32(i)
            at = i // 2 if i < 2 * self.rows else i // 2 - self.rows
            touches = (row == at) | ((row == at + 1) & (i >= 2 * self.rows))
            order.append(jnp.where(touches & (i % 2 == _RIGHT), _NEVER, when))
        return order

    def _last(self, order: list[Array], row: Array) -> Array:
        """When all rooms can be reached, the last of them.

        A room is reached from the corridor or from the next room, once the door and that room
        are there; a sweep down a column and one up settle it.
        """
        rows, last = self.rows, jnp.zeros(row.shape, jnp.uint32)
        for column in (_LEFT, _RIGHT):
            when = [order[2 * i + column] for i in range(rows)]
            if column == _RIGHT:  # the room behind the locked door counts as reached
                when = [jnp.where(row == i, jnp.uint32(0), w) for i, w in enumerate(when)]
            walls = [order[2 * (rows + i) + column] for i in range(rows - 1)]
            for i in range(1, rows):
                when[i] = jnp.minimum(when[i], jnp.maximum(walls[i - 1], when[i - 1]))
            for i in range(rows - 2, -1, -1):
                when[i] = jnp.minimum(when[i], jnp.maximum(walls[i], when[i + 1]))
            for w in when:
                last = jnp.maximum(last, w)
        return last
