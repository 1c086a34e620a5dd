"""Dynamic-Obstacles: walk to the goal past balls that move at random.

MiniGrid's `DynamicObstaclesEnv`, whose balls move one after the other before the agent does.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs import bitset
from fastrl.envs.compiling import batch_last, branch
from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task, Verdict
from fastrl.envs.minigrid.world import Front, State
from fastrl.types import Array, Key


@dataclasses.dataclass(frozen=True)
class DynamicObstacles(Task):
    """Reward -1, and the end, for walking into what was there before the balls moved.

    Actions: left, right, forward. Objects: the goal, then the balls.
    """

    see_through: ClassVar[bool] = True
    num_actions: ClassVar[int] = 3
    reward_lost: ClassVar[float] = -1.0

    size: int = 8
    obstacles: int = 4
    random_start: bool = False

    def __post_init__(self) -> None:
        door.integer("size", self.size, 5, cells.LARGEST)
        door.integer("obstacles", self.obstacles, 1, self.size // 2 + 1)
        door.flag("random_start", self.random_start)

    @property
    def shape(self) -> lines.Shape:
        return self.size, self.size

    def max_steps(self) -> int:
        return 4 * self.size**2

    def draw(self, key: Key) -> Any:
        return jax.random.bits(key, (2 + self.obstacles,), jnp.uint32)

    def level(self, drawn: Any) -> State:
        side = self.size - 2
        agent, direction = jnp.zeros_like(drawn[0]).astype(jnp.int32), 0  # places, by rows
        if self.random_start:
            agent, direction = draws.below(drawn[0], side**2 - 1), draws.below(drawn[1], 4)
        taken = [agent]
        for i, word in enumerate(drawn[2:]):
            place = draws.below(word, side**2 - 2 - i)
            for other in _ascending(taken):
                place = draws.skip(place, other)
            taken.append(place)
        at = [cells.at(1 + place % side, 1 + place // side) for place in taken]
        ball = cells.BALL + 16 * cells.BLUE
        objects = [(cells.at(side, side), cells.GOAL_CODE), *((cell, ball) for cell in at[1:])]
        return world.start(at[0], direction, lines.inside(self.shape, agent.ndim), objects)

    def prepare(self, key: Key, state: State) -> State:
        words = jax.random.bits(key, (self.obstacles,), jnp.uint32)
        moved = batch_last(self._wander)(state.agent, state.open, state.object_cell, words)
        return state._replace(object_cell=moved)

    def moves(self, action: Array) -> Array:
        """MiniGrid takes other actions for a turn to the left."""
        return jnp.where(action <= cells.MOVES.forward, action, cells.MOVES.left)

    def judge(self, before: State, ahead: Front, action: Array, after: State) -> Verdict:
        verdict = super().judge(before, ahead, action, after)
        was = world.front(before, self.shape)
        hits = (action == cells.MOVES.forward) & ~was.free & (was.kind != cells.GOAL)
        return Verdict(verdict.won & ~hits, hits)

    def _wander(self, *arguments: Array) -> Array:
        return jnp.stack(branch(self._places, *arguments))

    def _places(self, agent: Array, open: Array, cell: Array, words: Array) -> list[Array]:
        """Each ball goes to a free one of the eight cells around it, if there is one."""
        place = [cell[k] for k in range(cell.shape[0])]
        for k, word in enumerate(words, 1):
            free = _around(open[: self.size], place[k])
            for other in (agent, *place):  # itself among them: it does not stay
                free = free & ~_bit(other, place[k])
            count = jax.lax.population_count(free).astype(jnp.int32)
            nth = bitset.nth([free], draws.below(word, count))[1]
            to = place[k] + cells.at(nth % 3 - 1, nth // 3 - 1)
            place[k] = jnp.where(count > 0, to, place[k])
        return place


def _around(rows: Array, cell: Array) -> Array:
    """The 3 by 3 cells around `cell` that are no walls, as bits by rows."""
    bits, x = jnp.zeros(cell.shape, jnp.uint32), cells.column(cell)
    for i in range(3):
        row = bitset.pick(list(rows), cells.row(cell) + (i - 1))
        bits = bits | (((row >> (x + lines.MARGIN - 1).astype(jnp.uint32)) & 7) << (3 * i))
    return bits


def _bit(cell: Array, centre: Array) -> Array:
    """The bit of `cell` among the 3 by 3 around `centre`, or none."""
    dx, dy = cells.column(cell) - cells.column(centre), cells.row(cell) - cells.row(centre)
    near = (jnp.abs(dx) <= 1) & (jnp.abs(dy) <= 1)
    place = jnp.where(near, 3 * dy + dx + 4, 0).astype(jnp.uint32)
    return jnp.where(near, jnp.uint32(1) << place, np.uint32(0))


def _ascending(numbers: list[Array]) -> list[Array]:
    """A few numbers in order."""
    numbers = list(numbers)
    for end in range(len(numbers) - 1, 0, -1):
        for i in range(end):
            a, b = numbers[i], numbers[i + 1]
            numbers[i], numbers[i + 1] = jnp.minimum(a, b), jnp.maximum(a, b)
    return numbers
