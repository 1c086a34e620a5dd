"""FourRooms: find the goal in one of four rooms. MiniGrid's `FourRoomsEnv`."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task
from fastrl.envs.minigrid.world import State
from fastrl.types import Array

_MIDDLE, _SIDE = 9, 8  # the walls between the rooms, and the side of a room
_FREE = 4 * _SIDE**2 + 4  # cells of the rooms and of the gaps


@dataclasses.dataclass(frozen=True)
class FourRooms(Task):
    """Agent, goal and the gaps in the four walls are anywhere."""

    num_words: ClassVar[int] = 7

    @property
    def shape(self) -> lines.Shape:
        return 2 * _MIDDLE + 1, 2 * _MIDDLE + 1

    def max_steps(self) -> int:
        return 100

    def level(self, drawn: Any) -> State:
        near = [1 + draws.below(word, _SIDE) for word in drawn[:2]]
        far = [1 + _MIDDLE + draws.below(word, _SIDE) for word in drawn[2:4]]
        gaps = [
            *((jnp.full_like(y, _MIDDLE), y) for y in (near[0], far[0])),
            *((x, jnp.full_like(x, _MIDDLE)) for x in (near[1], far[1])),
        ]
        axes, last = near[0].ndim, 2 * _MIDDLE
        open = lines.inside(self.shape, axes)
        open = open & ~lines.rectangle(self.shape, _MIDDLE, 0, _MIDDLE + 1, last, axes)
        open = open & ~lines.rectangle(self.shape, 0, _MIDDLE, last, _MIDDLE + 1, axes)
        for x, y in gaps:
            open = open | lines.cell(self.shape, x, y)
        place = draws.below(drawn[4], _FREE)
        other = draws.skip(draws.below(drawn[5], _FREE - 1), place)
        goal = _cell(other, gaps), cells.GOAL_CODE
        return world.start(_cell(place, gaps), draws.below(drawn[6], 4), open, [goal])


def _cell(place: Array, gaps: list[tuple[Array, Array]]) -> Array:
    """The `place`-th free cell: of the rooms, one after the other, then of the gaps."""
    room, within = place // _SIDE**2, place % _SIDE**2
    x = 1 + (room % 2) * _MIDDLE + within % _SIDE
    cell = cells.at(x, 1 + (room // 2) * _MIDDLE + within // _SIDE)
    for i, gap in enumerate(gaps):
        cell = jnp.where(place == 4 * _SIDE**2 + i, cells.at(*gap), cell)
    return cell
