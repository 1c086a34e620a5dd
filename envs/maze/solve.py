"""Shortest ways through mazes, by floods of whole rows of bits.

Lengths are in actions: turning by a quarter costs one, a step forward costs one, and the last
one is the step that would enter the goal.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import bitset
from fastrl.envs.maze.level import Level
from fastrl.types import Array

UNREACHABLE = 2**30


class Plan(NamedTuple):
    """The way to the goal from everywhere."""

    distance: Array  # int32 [4, S, S]: actions from (direction, row, column), or UNREACHABLE
    action: Array  # int32 [4, S, S]: a best one, 0 left, 1 right, 2 forward


def shortest_path(level: Level) -> Array:
    """The fewest actions from the start to the goal, int32; `UNREACHABLE` where there is no way.

    A policy that takes them has the return `1 - 0.9 * length / max_steps`.
    """
    size = level.rows.shape[-1]
    row, column = level.start // size, level.start % size

    def arrived(near: Array) -> Array:
        return jnp.stack([bitset.has(bitset.split(near[d]), row, column) for d in range(4)])[
            level.direction
        ]

    def going(carry: tuple[Array, Array, Array]) -> Array:
        near, _, grew = carry
        return grew & ~arrived(near)

    def grow(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        near, length, _ = carry
        wider = _wider(near, free)
        return wider, length + 1, (wider != near).any()

    free, near = _free_rows(level), _at_goal(level)
    near, length, _ = jax.lax.while_loop(going, grow, (near, jnp.int32(0), jnp.bool_(True)))
    return jnp.where(arrived(near), length, UNREACHABLE)


def is_solvable(level: Level) -> Array:
    """Whether there is a way from the start to the goal, bool.

    The time limit does not count: compare `shortest_path` with it.
    """
    size = level.rows.shape[-1]
    free = _free_rows(level)

    def grow(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        near, _ = carry
        wider = near
        for direction in range(4):
            wider = wider | (_behind(near, direction) & free)
        return wider, (wider != near).any()

    near = _at_goal(level)[0]
    near, _ = jax.lax.while_loop(lambda c: c[1], grow, (near, jnp.bool_(True)))
    return bitset.has(bitset.split(near), level.start // size, level.start % size)


def plan(level: Level) -> Plan:
    """The distances and best actions of all states, for oracles and optimal policies."""
    size = level.rows.shape[-1]
    free, near = _free_rows(level), _at_goal(level)
    far = jnp.full((4, size, size), UNREACHABLE, jnp.int32)

    def grow(carry: tuple) -> tuple:
        near, distance, length, _ = carry
        wider = _wider(near, free)
        new = bitset.unpack(wider & ~near, size)
        return wider, jnp.where(new, length + 1, distance), length + 1, new.any()

    first = jnp.where(bitset.unpack(near, size), 0, far)
    carry = (near, first, jnp.int32(0), jnp.bool_(True))
    _, distance, _, _ = jax.lax.while_loop(lambda c: c[3], grow, carry)
    after = [jnp.roll(distance, 1, 0), jnp.roll(distance, -1, 0), _ahead(distance)]
    return Plan(distance, jnp.argmin(jnp.stack(after), 0).astype(jnp.int32))


def _free_rows(level: Level) -> Array:
    return ~jnp.asarray(level.rows) & np.uint32((1 << level.rows.shape[-1]) - 1)


def _at_goal(level: Level) -> Array:
    """The states in the goal's cell, uint32 `[4, S]`: a word for each direction and row."""
    size = level.rows.shape[-1]
    goal = jnp.stack(bitset.single(size, level.goal // size, level.goal % size))
    return jnp.tile(goal, (4, 1))


def _wider(near: Array, free: Array) -> Array:
    """The states `[4, S]` from which one action leads into `near`, and `near` itself."""
    turned = jnp.roll(near, 1, 0) | jnp.roll(near, -1, 0)
    forward = jnp.stack([_behind(near[d], d) for d in range(4)])
    return near | ((turned | forward) & free[None])


def _behind(near: Array, direction: int) -> Array:
    """The cells from which a step in `direction` leads into `near` `[S]`."""
    nothing = jnp.zeros((1,), jnp.uint32)
    if direction == 0:
        return near >> 1
    if direction == 1:
        return jnp.concatenate([near[1:], nothing])
    if direction == 2:
        return near << 1
    return jnp.concatenate([nothing, near[:-1]])


def _ahead(distance: Array) -> Array:
    """The distance `[4, S, S]` after a step forward."""
    edge = jnp.pad(distance, ((0, 0), (1, 1), (1, 1)), constant_values=UNREACHABLE)
    right, down, left, up = edge
    return jnp.stack([right[1:-1, 2:], down[2:, 1:-1], left[1:-1, :-2], up[:-2, 1:-1]])
