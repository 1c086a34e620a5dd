"""Random mazes, and random changes of mazes.

The generator and the first mutation are those of minimax and jaxued, the second is jaxued's
(DramaCow/jaxued 0f8f128, `environments/maze/util.py`; facebookresearch/minimax d053054,
`envs/maze/maze_mutators.py`).  None of them makes sure that the goal can be reached: see
`fastrl.envs.maze.solve`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs import bitset
from fastrl.envs.maze.level import MAX_SIZE, MAX_STEPS, Level
from fastrl.types import Array, Key


def sample_level(
    key: Key, size: int = 13, num_walls: int = 25, max_steps: int = MAX_STEPS
) -> Level:
    """A random level: walls, then the agent and the goal in free cells. Consumes `key`.

    Walls are drawn with replacement, so there are at most `num_walls`.
    """
    size = door.integer("size", size, 2, MAX_SIZE)
    num_walls = door.integer("num_walls", num_walls, 0, size * size - 2)
    draws = jax.random.uniform(key, (num_walls + 3,))
    cells = bitset.scaled(draws[3:], jnp.int32(size * size))
    rows = jnp.zeros(size, jnp.uint32)
    if num_walls:
        rows = jax.lax.reduce(
            jax.vmap(_cell, (None, 0))(size, cells), np.uint32(0), jax.lax.bitwise_or, (0,)
        )
    start = _free(draws[0], rows)
    goal = _free(draws[1], rows | _cell(size, start))
    return Level(rows, start, bitset.scaled(draws[2], jnp.int32(4)), goal, jnp.int32(max_steps))


def mutate(key: Key, level: Level, num_edits: Array | int = 20, max_edits: int = 20) -> Level:
    """`num_edits` edits in sequence, each with equal chance one of three. Consumes `key`.

    Nothing; a wall is put or taken away in a cell that is neither start nor goal; the goal moves
    to another free cell.  The start never moves.  `num_edits` may be traced, up to `max_edits`.
    """
    max_edits, level = _checked(num_edits, max_edits), _arrays(level)
    size = level.rows.shape[-1]
    start = _cell(size, level.start)

    def edit(carry: tuple[Array, Array], draw: tuple[Array, Array]) -> tuple[tuple, None]:
        (rows, goal), (i, u) = carry, draw
        kind = jnp.where(i < num_edits, bitset.scaled(u[0], jnp.int32(3)), 0)
        ends = start | _cell(size, goal)
        flipped = rows ^ _cell(size, _free(u[1], ends))
        moved = _free(u[1], rows | ends)
        return (jnp.where(kind == 1, flipped, rows), jnp.where(kind == 2, moved, goal)), None

    draws = jnp.arange(max_edits), jax.random.uniform(key, (max_edits, 2))
    (rows, goal), _ = jax.lax.scan(edit, (level.rows, level.goal), draws)
    return level._replace(rows=rows, goal=goal)


def mutate_all(key: Key, level: Level, num_edits: Array | int = 5, max_edits: int = 5) -> Level:
    """Up to `num_edits` edits in different cells, each one of four. Consumes `key`.

    A wall is put there; or taken away; or the agent, with another direction, or the goal is put
    there, on no wall.  A start or goal whose cell was edited in another way then goes to a
    random free cell.  `max_edits` cells are drawn with replacement, those that repeat are left
    out, and the first `num_edits` of the rest are edited.
    """
    max_edits, level = _checked(num_edits, max_edits), _arrays(level)
    size = level.rows.shape[-1]
    edit_draws, end_draws = jnp.split(
        jax.random.uniform(key, (3 * max_edits + 3,)), np.array([3 * max_edits])
    )

    def edit(carry: tuple, u: Array) -> tuple[tuple, None]:
        edited, count, now, agent_lost, goal_lost = carry
        cell = bitset.scaled(u[0], jnp.int32(size * size))
        one = _cell(size, cell)
        on = ((edited & one) == 0).all() & (count < num_edits)
        kind = jnp.where(on, bitset.scaled(u[1], jnp.int32(4)), -1)
        to_agent, to_goal = kind == 2, kind == 3
        agent_lost = (agent_lost | (on & (now.start == cell))) & ~to_agent
        goal_lost = (goal_lost | (on & (now.goal == cell))) & ~to_goal
        rows = jnp.where(kind == 0, now.rows | one, jnp.where(on, now.rows & ~one, now.rows))
        turned = bitset.scaled(u[2], jnp.int32(4))
        now = now._replace(
            rows=rows,
            start=jnp.where(to_agent, cell, now.start),
            direction=jnp.where(to_agent, turned, now.direction),
            goal=jnp.where(to_goal, cell, now.goal),
        )
        return (edited | one, count + on, now, agent_lost, goal_lost), None

    none = jnp.bool_(False)
    carry = (jnp.zeros_like(level.rows), jnp.int32(0), level, none, none)
    carry, _ = jax.lax.scan(edit, carry, edit_draws.reshape(max_edits, 3))
    _, _, level, agent_lost, goal_lost = carry
    agent = jnp.where(agent_lost, jnp.uint32(0), _cell(size, level.start))
    goal = jnp.where(goal_lost, _free(end_draws[0], level.rows | agent), level.goal)
    start = _free(end_draws[1], level.rows | _cell(size, goal))
    direction = bitset.scaled(end_draws[2], jnp.int32(4))
    return level._replace(
        start=jnp.where(agent_lost, start, level.start),
        direction=jnp.where(agent_lost, direction, level.direction),
        goal=goal,
    )


def _checked(num_edits: Array | int, max_edits: int) -> int:
    max_edits = door.integer("max_edits", max_edits, 1)
    if isinstance(num_edits, int):
        door.integer("num_edits", num_edits, 0, max_edits)
    return max_edits


def _arrays(level: Level) -> Level:
    return Level(*map(jnp.asarray, level))


def _cell(size: int, cell: Array) -> Array:
    """The set of one cell, a word for each row."""
    row = cell // size
    return jnp.stack(bitset.single(size, row, cell - size * row))


def _free(uniform: Array, taken: Array) -> Array:
    """A random cell that is not `taken`, uint32 `[S]`; cell 0 where all are."""
    size = taken.shape[-1]
    free = ~taken & np.uint32((1 << size) - 1)
    row, column = bitset.member(uniform, bitset.split(free))
    return size * row + column
