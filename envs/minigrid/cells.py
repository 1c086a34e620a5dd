"""What a cell of a grid can hold, and how cells and their contents are numbered.

A cell is `x + 32 y`.  An object is one small integer, `kind + 16 * colour`; kinds and colours
are numbered as in MiniGrid's encoding of images, but that closed and locked doors are kinds.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fastrl.types import Array

UNSEEN, EMPTY, WALL, FLOOR, OPEN_DOOR, KEY, BALL, BOX, GOAL, LAVA = range(10)
CLOSED_DOOR, LOCKED_DOOR = 12, 13
OBJECTS = (OPEN_DOOR, KEY, BALL, BOX, GOAL, CLOSED_DOOR, LOCKED_DOOR)

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
RED, GREEN, BLUE, PURPLE, YELLOW, GREY = range(6)

STRIDE = 32
LARGEST = 25  # the sides of a grid: with what a view adds to them they fit into 32
CARRIED = 31 + STRIDE * 31  # the cell of the object that the agent carries: in no view
GONE = 30 + STRIDE * 31  # the cell of objects that are nowhere

WALL_CODE = WALL + 16 * GREY
LAVA_CODE = LAVA + 16 * RED
GOAL_CODE = GOAL + 16 * GREEN

Number = int | np.ndarray | Array


class Moves(NamedTuple):
    """The actions."""

    left: int = 0
    right: int = 1
    forward: int = 2
    pickup: int = 3
    drop: int = 4
    toggle: int = 5
    done: int = 6


MOVES = Moves()


def at(x: Number, y: Number) -> Any:
    """The number of a cell."""
    return x + STRIDE * y


def column(cell: Array) -> Array:
    """The x of a cell."""
    return cell & (STRIDE - 1)


def row(cell: Array) -> Array:
    """The y of a cell."""
    return cell >> 5


def kind_of(code: Array) -> Array:
    """The kind of an object; 0 for the code 0, which is no object."""
    return code & 15


def colour_of(code: Array) -> Array:
    """The colour of an object."""
    return code >> 4


def is_carriable(kind: Array) -> Array:
    """Whether the agent can pick it up."""
    return (kind == KEY) | (kind == BALL) | (kind == BOX)


def is_enterable(kind: Array) -> Array:
    """Whether the agent can walk onto it."""
    return (kind == GOAL) | (kind == OPEN_DOOR)


def is_door(kind: Array) -> Array:
    """Whether an object is a door, in any state."""
    return (kind == OPEN_DOOR) | (kind >= CLOSED_DOOR)


def is_opaque(kind: Array) -> Array:
    """Whether an object hides what is behind it (so do walls, which are no objects)."""
    return kind >= CLOSED_DOOR


def channels(codes: Array) -> tuple[Array, Array, Array]:
    """MiniGrid's type, colour and state of codes, of their type."""
    kind = codes & 15
    shut = kind >= CLOSED_DOOR
    state = jnp.where(shut, kind - jnp.asarray(CLOSED_DOOR - 1, codes.dtype), 0)
    return jnp.where(shut, OPEN_DOOR, kind), codes >> 4, state
