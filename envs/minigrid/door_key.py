"""DoorKey: fetch the key, unlock the door, walk to the goal behind it. MiniGrid's `DoorKeyEnv`."""

import dataclasses
from typing import Any, ClassVar

from fastrl import door
from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task
from fastrl.envs.minigrid.world import State


@dataclasses.dataclass(frozen=True)
class DoorKey(Task):
    """A wall anywhere parts the room; agent and key are to its left, the goal is to its right."""

    doors: ClassVar[bool] = True
    num_words: ClassVar[int] = 5

    size: int = 8

    def __post_init__(self) -> None:
        door.integer("size", self.size, 5, cells.LARGEST)

    @property
    def shape(self) -> lines.Shape:
        return self.size, self.size

    def max_steps(self) -> int:
        return 10 * self.size**2

    def level(self, drawn: Any) -> State:
        n, shape = self.size, self.shape
        wall = draws.between(drawn[0], 2, n - 2)
        door_y = draws.between(drawn[1], 1, n - 2)
        open = lines.inside(shape, wall.ndim) & ~lines.rectangle(shape, wall, 0, wall + 1, n)
        places, columns = (wall - 1) * (n - 2), n - 2  # counted down the columns
        place = draws.below(drawn[2], places)
        other = draws.skip(draws.below(drawn[3], places - 1), place)
        agent, key = (cells.at(1 + p // columns, 1 + p % columns) for p in (place, other))
        objects = [
            (cells.at(wall, door_y), cells.LOCKED_DOOR + 16 * cells.YELLOW),
            (key, cells.KEY + 16 * cells.YELLOW),
            (cells.at(n - 2, n - 2), cells.GOAL_CODE),
        ]
        open = open | lines.cell(shape, wall, door_y)
        return world.start(agent, draws.below(drawn[4], 4), open, objects)
