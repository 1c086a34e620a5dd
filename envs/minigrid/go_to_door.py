"""GoToDoor: stand before the door of the colour that is named. MiniGrid's `GoToDoorEnv`."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from fastrl import door
from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task, Verdict
from fastrl.envs.minigrid.world import Front, State
from fastrl.types import Array


@dataclasses.dataclass(frozen=True)
class GoToDoor(Task):
    """A room of any size up to `size` has four doors. Won by `done` next to the right one."""

    see_through: ClassVar[bool] = True
    doors: ClassVar[bool] = True
    mission: ClassVar[bool] = True
    num_words: ClassVar[int] = 14

    size: int = 5

    def __post_init__(self) -> None:
        door.integer("size", self.size, 5, cells.LARGEST)

    @property
    def shape(self) -> lines.Shape:
        return self.size, self.size

    def max_steps(self) -> int:
        return 4 * self.size**2

    def level(self, drawn: Any) -> State:
        n, shape = self.size, self.shape
        width, height = (draws.between(word, 5, n + 1) for word in drawn[:2])
        across = [draws.between(word, 2, width - 2) for word in drawn[2:4]]
        down = [draws.between(word, 2, height - 2) for word in drawn[4:6]]
        zero = jnp.zeros_like(width)
        places = [
            (across[0], zero), (across[1], height - 1), (zero, down[0]), (width - 1, down[1])
        ]  # fmt: skip
        colours = draws.distinct(drawn[6:10], 4, len(cells.COLOURS))
        x, y = draws.between(drawn[10], 1, width - 1), draws.between(drawn[11], 1, height - 1)
        room = lines.rectangle(shape, zero, zero, width, height)
        floor = lines.rectangle(shape, zero + 1, zero + 1, width - 1, height - 1)
        open = lines.rectangle(shape, 0, 0, n, n, width.ndim) & (~room | floor)
        for place in places:
            open = open | lines.cell(shape, *place)
        objects = [
            (cells.at(*place), cells.CLOSED_DOOR + 16 * colour)
            for place, colour in zip(places, colours, strict=True)
        ]
        target, mission = draws.below(drawn[13], 4), colours[0]
        for i in range(1, 4):
            mission = jnp.where(target == i, colours[i], mission)
        direction = draws.below(drawn[12], 4)
        return world.start(cells.at(x, y), direction, open, objects, mission=mission)

    def judge(self, before: State, ahead: Front, action: Array, after: State) -> Verdict:
        kind, colour = cells.kind_of(after.object_code), cells.colour_of(after.object_code)
        target = cells.is_door(kind) & (colour == after.mission[None])
        apart = jnp.abs(after.object_cell - after.agent[None])
        beside = (target & ((apart == 1) | (apart == cells.STRIDE))).any(0)
        done = action == cells.MOVES.done
        return Verdict(done & beside, (action == cells.MOVES.toggle) | (done & ~beside))
