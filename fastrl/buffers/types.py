"""What every buffer is made of."""

from collections.abc import Callable
from typing import NamedTuple

from fastrl.buffers.ring import Ring
from fastrl.types import Array, Key, PyTree


class Draw(NamedTuple):
    """Where the windows of a batch begin, and how likely each was. Leaves are `[B]`."""

    row: Array  # int32, of the ring
    env: Array  # int32
    probability: Array  # float32; of `uniform` draws 1 / size


class Buffer(NamedTuple):
    """Pure functions of a buffer; jit them, scan them, let a loop carry the state in place."""

    init: Callable[[PyTree], PyTree]  # (one item, without batch axes) -> state
    add: Callable[[PyTree, PyTree], PyTree]  # (state, items [T, N, ...]) -> state
    sample: Callable[[PyTree, Key, int], Draw]  # (state, key, B); windows are complete
    reweigh: Callable[[PyTree, Draw, Array], PyTree]  # (state, draw, priorities [B]) -> state
    ring: Callable[[PyTree], Ring]  # where the items are
    size: Callable[[PyTree], Array]  # int32: how many windows there are to draw from
