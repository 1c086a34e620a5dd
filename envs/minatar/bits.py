"""Boards of bits: three rows of ten cells in a uint32 word, so that a few operations move all.

Bit `10 r + x` of word `w` is the cell in column `x` and row `3 w + r`. Four words hold the ten rows
of a game, three the first nine.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs.minatar.game import SIZE, Rows
from fastrl.types import Array

Bits = tuple[Array, ...]  # uint32 words

ROW = 2**SIZE - 1  # a full row
WORD = 2 ** (3 * SIZE) - 1  # three full rows
FIRST_COLUMN = 0x100401  # of three rows


def board(*words: int) -> Bits:
    """A board of constants."""
    return tuple(jnp.uint32(w) for w in words)


def each(f: Callable[..., Array], *boards: Bits) -> Bits:
    """`f` of every word."""
    return tuple(map(f, *boards))


def where(condition: Array, a: Bits, b: Bits) -> Bits:
    """One of two boards; `condition` is a scalar."""
    return each(lambda x, y: jnp.where(condition, x, y), a, b)


def cell(x: Array, y: Array, words: int) -> Bits:
    """A board with the one cell `(x, y)`."""
    index = (SIZE * y + x).astype(jnp.uint32)
    within = [index - np.uint32(3 * SIZE * i) for i in range(words)]  # huge if it is before
    return tuple(jnp.where(k < 3 * SIZE, jnp.uint32(1) << k, jnp.uint32(0)) for k in within)


def right(b: Bits) -> Bits:
    """All cells a column further; the last column leaves."""
    return each(lambda w: w << 1 & np.uint32(WORD & ~FIRST_COLUMN), b)


def left(b: Bits) -> Bits:
    """All cells a column back; the first column leaves."""
    return each(lambda w: (w & np.uint32(WORD & ~FIRST_COLUMN)) >> 1, b)


def up(b: Bits) -> Bits:
    """All rows a row up; the first row leaves."""
    following = (*b[1:], jnp.uint32(0))
    return each(lambda w, f: w >> SIZE | (f & np.uint32(ROW)) << (2 * SIZE), b, following)


def down(b: Bits) -> Bits:
    """All of ten rows a row down; the last row leaves."""
    full = board(WORD, WORD, WORD, ROW)
    before = (jnp.uint32(0), *b[:-1])
    return each(lambda w, p, f: (w << SIZE | p >> (2 * SIZE)) & f, b, before, full)


def anything(b: Bits) -> Array:
    """Whether any cell is set."""
    return functools.reduce(operator.or_, b) != 0


def count(b: Bits) -> Array:
    """How many cells are set: int32."""
    counts = [jax.lax.population_count(w).astype(jnp.int32) for w in b]
    return sum(counts[1:], counts[0])


def rows(b: Bits) -> Rows:
    """The board as a channel: ten rows, words with further bits above the ten."""
    words = [b[y // 3] >> np.uint32(SIZE * (y % 3)) for y in range(min(SIZE, 3 * len(b)))]
    return [*words, *[None] * (SIZE - len(words))]
