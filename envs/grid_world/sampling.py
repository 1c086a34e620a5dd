"""Drawing levels and lifetimes of a mode."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import bitset
from fastrl.envs.grid_world.level import Params, wall_words
from fastrl.envs.grid_world.modes import Count, Interval, Mode
from fastrl.types import Array, Key


def sample_level(key: Key, mode: Mode) -> Params:
    """A level of `mode`. Nothing makes sure that its objects can be reached. Consumes `key`.

    Walls are drawn from the cells of the largest grid, so a small one keeps few of them; the
    start and the objects lie in different free cells.
    """
    kinds, objects = mode.num_types, mode.max_objects
    sizes = (3 * kinds, 3, mode.num_walls, 1 + objects)
    parts = jnp.split(jax.random.uniform(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    types, counts, wall_draws, cell_draws = parts
    rewards, terminates, respawns = types.reshape(3, kinds)
    grid_size = _uniform_int(counts[0], mode.grid_size)
    walls = bitset.split(wall_words(mode.walls, mode.size))
    if mode.num_walls:
        walls = _distinct_cells(wall_draws, mode.size**2)
    inside = bitset.below(len(walls), grid_size * grid_size)
    cells = distinct_members(cell_draws, bitset.minus(inside, walls))
    of_object = np.array(mode.types)
    return Params(
        grid_size,
        jnp.stack(walls),
        cells[0],
        _uniform_int(counts[1], mode.num_objects),
        cells[1:],
        _uniform(rewards, mode.rewards)[of_object],
        _log_uniform(terminates, mode.terminates)[of_object],
        _log_uniform(respawns, mode.respawns)[of_object],
        _log_uniform_int(counts[2], mode.max_steps),
    )


def sample_lifetime(key: Key, mode: Mode) -> Array:
    """A lifetime of `mode`, in agent updates: int32. Consumes `key`."""
    return _log_uniform_int(jax.random.uniform(key), mode.lifetime)


def distinct_members(uniform: Array, words: bitset.Words) -> Array:
    """Different random members of a set of cells, int32 `[n]` from `uniform` `[n]`."""

    def draw(words: bitset.Words, u: Array) -> tuple[bitset.Words, Array]:
        index, bit = bitset.member(u, words)
        taken = bitset.single(len(words), index, bit)
        return bitset.minus(words, taken), index * bitset.BITS + bit

    return jax.lax.scan(draw, words, uniform)[1]


def _distinct_cells(uniform: Array, count: int) -> bitset.Words:
    """A random set of `len(uniform)` of the cells 0 .. count-1.

    R. W. Floyd's algorithm: every set is equally likely, without a sort or a table.
    """
    num = uniform.shape[0]

    def add(chosen: bitset.Words, draw: tuple[Array, Array]) -> tuple[bitset.Words, None]:
        u, last = draw
        cell = bitset.scaled(u, last + 1)
        taken = bitset.has(chosen, cell // bitset.BITS, cell % bitset.BITS)
        cell = jnp.where(taken, last, cell)
        one = bitset.single(len(chosen), cell // bitset.BITS, cell % bitset.BITS)
        return bitset.union(chosen, one), None

    nothing = bitset.split(np.zeros(bitset.num_words(count), np.uint32))
    lasts = jnp.arange(count - num, count, dtype=jnp.int32)
    return jax.lax.scan(add, nothing, (uniform, lasts))[0]


def _uniform(uniform: Array, intervals: Sequence[Interval]) -> Array:
    low, high = (np.array(end, np.float32) for end in zip(*intervals, strict=True))
    return jnp.asarray(low) + uniform * (high - low)


def _log_uniform(uniform: Array, intervals: Sequence[Interval]) -> Array:
    """Constants are kept exactly, among them 0, which has no logarithm."""
    low, high = (np.array(end, np.float32) for end in zip(*intervals, strict=True))
    varies = low < high
    logs = [np.log(np.where(varies, end, 1.0), dtype=np.float32) for end in (low, high)]
    return jnp.where(varies, jnp.exp(logs[0] + uniform * (logs[1] - logs[0])), low)


def _uniform_int(uniform: Array, ends: Count) -> Array:
    return ends[0] + bitset.scaled(uniform, jnp.int32(ends[1] - ends[0] + 1))


def _log_uniform_int(uniform: Array, ends: Count) -> Array:
    """Log-uniform between the ends, then rounded: the ends themselves are half as likely."""
    low, high = map(math.log, ends)
    return jnp.round(jnp.exp(low + uniform * (high - low))).astype(jnp.int32)
