"""Memory: walk down a hallway to the object that was seen at its start. MiniGrid's `MemoryEnv`."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from fastrl import door
from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task, Verdict
from fastrl.envs.minigrid.world import Front, State
from fastrl.types import Array


@dataclasses.dataclass(frozen=True)
class Memory(Task):
    """Ends before one of two objects at the hallway's end: won if it is like the first one.

    Objects are listed by rows: the upper one at the end, that of the start, the lower one.
    """

    num_words: ClassVar[int] = 4

    size: int = 7
    random_length: bool = False

    def __post_init__(self) -> None:
        door.integer("size", self.size, 7, cells.LARGEST)
        if self.size % 2 == 0:
            raise ValueError(f"size={self.size}: needs an odd number, the hallway is in the middle")
        door.flag("random_length", self.random_length)

    @property
    def shape(self) -> lines.Shape:
        return self.size, self.size

    def max_steps(self) -> int:
        return 5 * self.size**2

    def level(self, drawn: Any) -> State:
        n, middle = self.size, self.size // 2
        end = jnp.full_like(drawn[0], n - 3).astype(jnp.int32)
        if self.random_length:
            end = draws.between(drawn[0], 4, n - 2)
        agent = cells.at(1 + draws.below(drawn[1], end), middle)
        key, ball = cells.KEY + 16 * cells.GREEN, cells.BALL + 16 * cells.GREEN
        first = jnp.where(draws.below(drawn[2], 2) == 0, key, ball)
        upper = jnp.where(draws.below(drawn[3], 2) == 0, key, ball)
        objects = [
            (cells.at(end + 1, middle - 2), upper),
            (cells.at(1, middle - 1), first),
            (cells.at(end + 1, middle + 2), key + ball - upper),
        ]
        return world.start(agent, 0, self._open(end), objects)

    def _open(self, end: Array) -> Array:
        n, middle, shape = self.size, self.size // 2, self.shape

        def block(x: Any, y: int, to_x: Any, to_y: int) -> Array:
            return lines.rectangle(shape, x, y, to_x, to_y, end.ndim)

        walls = block(end, 0, end + 1, middle) | block(end, middle + 1, end + 1, n)
        walls = walls | block(end + 2, 0, end + 3, n)
        for outer, inner in ((middle - 2, middle - 1), (middle + 2, middle + 1)):
            walls = walls | block(1, outer, 5, outer + 1)
            walls = walls | block(4, inner, jnp.maximum(end, 5), inner + 1)
        return lines.inside(shape, end.ndim) & ~walls

    def judge(self, before: State, ahead: Front, action: Array, after: State) -> Verdict:
        upper, first = after.object_code[0], after.object_code[1]
        beside = (after.object_cell[0] + cells.STRIDE, after.object_cell[2] - cells.STRIDE)
        at_upper, at_lower = (after.agent == cell for cell in beside)
        like_upper = upper == first
        return Verdict(
            jnp.where(like_upper, at_upper, at_lower), jnp.where(like_upper, at_lower, at_upper)
        )

    def moves(self, action: Array) -> Array:
        """Nothing can be picked up: MiniGrid makes it a toggle."""
        return jnp.where(action == cells.MOVES.pickup, cells.MOVES.toggle, action)
