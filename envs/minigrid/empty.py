"""Empty: walk to the goal in the corner of an empty room. MiniGrid's `EmptyEnv`."""

import dataclasses
from typing import Any, ClassVar

from fastrl import door
from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task
from fastrl.envs.minigrid.world import State
from fastrl.types import Key


@dataclasses.dataclass(frozen=True)
class Empty(Task):
    """Starts in the opposite corner, or anywhere and in any direction. Nothing hides anything."""

    see_through: ClassVar[bool] = True
    num_words: ClassVar[int] = 2

    size: int = 8
    random_start: bool = False

    def __post_init__(self) -> None:
        door.integer("size", self.size, 4, cells.LARGEST)
        door.flag("random_start", self.random_start)

    @property
    def shape(self) -> lines.Shape:
        return self.size, self.size

    def max_steps(self) -> int:
        return 4 * self.size**2

    def draw(self, key: Key) -> Any:
        return super().draw(key) if self.random_start else ()

    def level(self, drawn: Any) -> State:
        side, agent, direction = self.size - 2, cells.at(1, 1), 0
        if self.random_start:
            place = draws.below(drawn[0], side**2 - 1)  # the last place is the goal's
            agent = cells.at(1 + place % side, 1 + place // side)
            direction = draws.below(drawn[1], 4)
        goal = cells.at(side, side), cells.GOAL_CODE
        return world.start(agent, direction, lines.inside(self.shape), [goal])
