"""LavaGap, LavaCrossing, SimpleCrossing: find the gaps. MiniGrid's `LavaGapEnv`, `CrossingEnv`."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.envs.minigrid import cells, draws, lines, world
from fastrl.envs.minigrid.task import Task
from fastrl.envs.minigrid.world import State
from fastrl.types import Array, Key


@dataclasses.dataclass(frozen=True)
class LavaGap(Task):
    """A column of lava with one gap lies between the start and the goal."""

    num_words: ClassVar[int] = 2

    size: int = 7

    def __post_init__(self) -> None:
        door.integer("size", self.size, 5, cells.LARGEST)

    @property
    def shape(self) -> lines.Shape:
        return self.size, self.size

    def max_steps(self) -> int:
        return 4 * self.size**2

    def level(self, drawn: Any) -> State:
        n, shape = self.size, self.shape
        x, y = draws.between(drawn[0], 2, n - 2), draws.between(drawn[1], 1, n - 1)
        lava = lines.rectangle(shape, x, 1, x + 1, n - 1) & ~lines.cell(shape, x, y)
        goal = cells.at(n - 2, n - 2), cells.GOAL_CODE
        return world.start(cells.at(1, 1), 0, lines.inside(shape), [goal], lava)


@dataclasses.dataclass(frozen=True)
class Crossing(Task):
    """Rivers of lava, or walls, cross the room; each has a gap on one way to the goal."""

    size: int = 9
    crossings: int = 1
    lava: bool = True

    def __post_init__(self) -> None:
        door.integer("size", self.size, 5, cells.LARGEST)
        if self.size % 2 == 0:
            raise ValueError(f"size={self.size}: needs an odd number, rivers are at even places")
        door.integer("crossings", self.crossings, 1, self.size - 3)
        door.flag("lava", self.lava)

    @property
    def shape(self) -> lines.Shape:
        return self.size, self.size

    def max_steps(self) -> int:
        return 4 * self.size**2

    def draw(self, key: Key) -> Any:
        return jax.random.bits(key, (3 * self.crossings,), jnp.uint32)

    def level(self, drawn: Any) -> State:
        n, count = self.size, self.crossings
        columns, rows = self._rivers(drawn[:count])
        gaps = self._gaps(columns, rows, drawn[count : 2 * count], drawn[2 * count :])
        river = self._lines(columns, rows) & ~gaps
        goal = cells.at(n - 2, n - 2), cells.GOAL_CODE
        open = lines.inside(self.shape, river.ndim - 1)
        if self.lava:
            return world.start(cells.at(1, 1), 0, open, [goal], river)
        return world.start(cells.at(1, 1), 0, open & ~river, [goal])

    def _rivers(self, words: Array) -> tuple[Array, Array]:
        """The columns and the rows that are rivers, as bits."""
        each = (self.size - 3) // 2
        columns = rows = jnp.zeros(words.shape[1:], jnp.uint32)
        for river in draws.distinct(words, self.crossings, 2 * each):
            bit = jnp.uint32(1) << (2 + 2 * (river % each)).astype(jnp.uint32)
            columns = columns | jnp.where(river < each, bit, jnp.uint32(0))
            rows = rows | jnp.where(river < each, jnp.uint32(0), bit)
        return columns, rows

    def _lines(self, columns: Array, rows: Array) -> Array:
        """All cells of the rivers."""
        n, axes = self.size, columns.ndim
        place = jnp.arange(n, dtype=jnp.uint32).reshape(-1, *(1,) * axes)
        whole = lines.span(jnp.int32(1), jnp.int32(n - 1))

        def along(own: Array, others: Array) -> Array:
            crossed = (others << lines.MARGIN)[None] & whole
            line = jnp.where(((own[None] >> place) & 1) == 1, whole, crossed)
            return jnp.where((place >= 1) & (place <= n - 2), line, jnp.uint32(0))

        return jnp.concatenate([along(rows, columns), along(columns, rows)])

    def _gaps(self, columns: Array, rows: Array, turns: Array, places: Array) -> Array:
        """One gap in each river, on a way that crosses columns and rows in a random order."""
        end, shape = jnp.uint32(1 << self.size - 1), self.shape
        x = y = jnp.zeros(columns.shape, jnp.int32)
        gaps = jnp.zeros((sum(shape), *columns.shape), jnp.uint32)
        for turn, place in zip(turns, places, strict=True):
            left = [jax.lax.population_count(river).astype(jnp.int32) for river in (columns, rows)]
            crosses_column = draws.below(turn, left[0] + left[1]) < left[0]
            next_x, next_y = _lowest(columns | end), _lowest(rows | end)
            low, high = jnp.where(crosses_column, y, x), jnp.where(crosses_column, next_y, next_x)
            gap = draws.between(place, low + 1, high)
            gap_x = jnp.where(crosses_column, next_x, gap)
            gap_y = jnp.where(crosses_column, gap, next_y)
            gaps = gaps | lines.cell(shape, gap_x, gap_y)
            x, y = jnp.where(crosses_column, next_x, x), jnp.where(crosses_column, y, next_y)
            columns = jnp.where(crosses_column, columns & (columns - 1), columns)
            rows = jnp.where(crosses_column, rows, rows & (rows - 1))
        return gaps


def _lowest(bits: Array) -> Array:
    """The place of the lowest bit."""
    below = (bits & (~bits + 1)) - 1
    return jax.lax.population_count(below).astype(jnp.int32)
