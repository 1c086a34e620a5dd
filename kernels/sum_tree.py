"""A sum tree for prioritised replay: draw a leaf in proportion to its priority.

Schaul et al. 2016, "Prioritized Experience Replay", appendix B.2.1, keep priorities in a binary
tree of sums.  On a CPU every step of a scatter costs, and on any device every level does, so
here a node has 8 children: a million leaves are 7 levels, not 20.  (4 and 16 children are about
as fast on a CPU; with 32 reading the children costs more than the levels saved.)

All nodes are one matrix `[rows, 8]` of float32; a row holds the children of one node, the
first row those of the root, the last rows the leaves.  A set recomputes the sums on the way up,
so rounding does not add up over time.  Under jit a tree that is a loop's carry, or is donated, is
updated in place.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fastrl.kernels import _rows, _sum_tree_numba
from fastrl.kernels._dispatch import Numba, op

_WIDTH = _sum_tree_numba.WIDTH
_LARGEST = 2**30  # leaves; all indices are int32
_TINY = np.finfo(np.float32).tiny  # what is below is zero to a processor that flushes it
_MOST = 2**24  # positions in one update that float32 tells apart


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["nodes"], meta_fields=["capacity"]
)
@dataclasses.dataclass(frozen=True)
class SumTree:
    """`nodes` float32 `[rows, 8]`, under vmap with further axes in front; `capacity` leaves."""

    nodes: jax.Array
    capacity: int


def init(capacity: int) -> SumTree:
    """A tree with all priorities zero. Raises ValueError unless 1 <= `capacity` <= 2**30."""
    if type(capacity) is not int or not 1 <= capacity <= _LARGEST:
        raise ValueError(f"capacity={capacity!r}: needs an integer of 1 to 2**30")
    rows = levels(capacity)[-1] + -(-capacity // _WIDTH)
    return SumTree(jnp.zeros((rows, _WIDTH), jnp.float32), capacity)


def update(
    tree: SumTree, indices: jax.Array, priorities: jax.Array, *, impl: str = "auto"
) -> SumTree:
    """`tree` with `priorities` `[n]` (or one for all) at the leaves `indices` `[n]`.

    Where an index comes twice, the last of its priorities holds.  Priorities below 1e-38 are zero.
    Raises ValueError for priorities that are negative or not finite and for indices that are no
    leaves.  Where the values are traced there is nobody to raise: such priorities count as
    zero, such indices are passed over.
    """
    indices = _integers("indices", indices)
    priorities = jnp.asarray(priorities)
    if indices.ndim != 1 or priorities.shape not in ((), indices.shape):
        raise ValueError(
            f"indices of shape {list(indices.shape)} and priorities of shape "
            f"{list(priorities.shape)}: needs [n] and [n] or []"
        )
    if len(indices) > _MOST:
        raise ValueError(f"{len(indices)} priorities at once: needs at most 2**24")
    _check_values(tree.capacity, indices, priorities)
    priorities = jnp.broadcast_to(priorities.astype(jnp.float32), indices.shape)
    usable = (priorities >= _TINY) & (priorities < jnp.inf)
    priorities = jnp.where(usable, priorities, 0.0)
    nodes = write(tree.nodes, indices, priorities, capacity=tree.capacity, impl=impl)
    return SumTree(nodes, tree.capacity)


def get(tree: SumTree, indices: jax.Array) -> jax.Array:
    """The priorities `[...]` of the leaves `indices` `[...]`."""
    indices = _integers("indices", indices)
    _check_values(tree.capacity, indices)
    return tree.nodes[levels(tree.capacity)[-1] + indices // _WIDTH, indices % _WIDTH]


def total(tree: SumTree) -> jax.Array:
    """The sum of all priorities, float32 `[]`."""
    return _rows.total(tree.nodes[0])


def find(tree: SumTree, mass: jax.Array, *, impl: str = "auto") -> jax.Array:
    """The leaves, int32 `[...]`, at which the running sum of priorities exceeds `mass` `[...]`.

    For `mass` uniform in [0, total) these are draws in proportion to priority, up to the resolution
    of float32: 2**-24 of the total.  What is below or beyond goes to the first or last leaf that
    has a priority; one without is never returned, unless all are zero (then leaf 0).
    """
    mass = jnp.asarray(mass, jnp.float32)
    leaves, _ = search(tree.nodes, mass.reshape(-1), capacity=tree.capacity, impl=impl)
    return leaves.reshape(mass.shape)


def sample(
    tree: SumTree, key: jax.Array, n: int, *, stratified: bool = True, impl: str = "auto"
) -> tuple[jax.Array, jax.Array]:
    """`n` leaves, int32 `[n]`, and the probability `[n]` of each. Consumes `key`.

    Drawn with replacement; if `stratified`, one from each of `n` equal parts of the total, as
    Schaul et al. do: the same expectations, less variance.  Raises ValueError unless `n` >= 1.
    """
    if type(n) is not int or n < 1:
        raise ValueError(f"n={n!r}: needs an integer of at least 1")
    uniform = jax.random.uniform(key, (n,))
    if stratified:
        uniform = (jnp.arange(n) + uniform) / n
    whole = total(tree)
    leaves, priorities = search(tree.nodes, uniform * whole, capacity=tree.capacity, impl=impl)
    return leaves, priorities / jnp.maximum(whole, _TINY)


@functools.cache
def levels(capacity: int) -> tuple[int, ...]:
    """The first row of each level, from the root's children to the leaves."""
    rows = [-(-capacity // _WIDTH)]
    while rows[0] > 1:
        rows.insert(0, -(-rows[0] // _WIDTH))
    return tuple(int(sum(rows[:i])) for i in range(len(rows)))


def _write(
    nodes: jax.Array, indices: jax.Array, priorities: jax.Array, *, capacity: int
) -> jax.Array:
    """`nodes` `[rows, 8]` with `priorities` `[n]` at the leaves `indices` `[n]` and new sums."""
    starts = levels(capacity)
    nodes, priorities = jax.lax.stop_gradient((nodes, priorities))
    valid = (indices >= 0) & (indices < capacity)
    node = jnp.where(valid, indices, 0)
    row, column = jnp.where(valid, starts[-1] + node // _WIDTH, len(nodes)), node % _WIDTH
    # XLA leaves open which of several writes to one place is the last.  So the places themselves
    # first find out who comes last: the greatest of the positions that are written there.
    position = jnp.arange(len(indices), dtype=nodes.dtype)
    nodes = nodes.at[row, column].set(-1.0, mode="drop")
    nodes = nodes.at[row, column].max(position, mode="drop")
    last = nodes.at[row, column].get(mode="fill", fill_value=-1.0) == position
    nodes = nodes.at[jnp.where(last, row, len(nodes)), column].set(priorities, mode="drop")
    for above, start in zip(reversed(starts[:-1]), reversed(starts[1:]), strict=True):
        node = node // _WIDTH
        sums = _rows.total(nodes[start + node])
        nodes = nodes.at[above + node // _WIDTH, node % _WIDTH].set(sums)
    return nodes


def _search(nodes: jax.Array, mass: jax.Array, *, capacity: int) -> tuple[jax.Array, jax.Array]:
    """The leaves, int32 `[n]`, at `mass` `[n]`, and their priorities `[n]`.

    Both by one operation, so that what depends on the leaves comes after the last reading of the
    tree, and may write to it in place.
    """

    def descend(place: Any, start: jax.Array) -> Any:
        node, left, _ = place
        child, left, value = _rows.choose(nodes[start + node], left)
        return (node * _WIDTH + child, left, value), None

    # A loop, as XLA would fuse unrolled levels and recompute all above for each child below.
    place = (jnp.zeros(mass.shape, jnp.int32), jnp.maximum(mass, 0.0), mass)
    (leaves, _, values), _ = jax.lax.scan(descend, place, jnp.array(levels(capacity), jnp.int32))
    return leaves, values


def _numba_write(*, capacity: int) -> Callable[..., None]:
    return _sum_tree_numba.write(levels(capacity), capacity)


def _numba_search(*, capacity: int) -> Callable[..., None]:
    return _sum_tree_numba.search(levels(capacity))


# Numba saves some microseconds an update and costs seconds at the start: only when asked for.
write = op(_write, cpu=Numba(_numba_write, in_place=True, preferred=False))
search = op(_search, cpu=Numba(_numba_search, preferred=False))


def _integers(name: str, x: Any) -> jax.Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{name} are {x.dtype}{list(x.shape)}: needs integers")
    return x.astype(jnp.int32)


def _check_values(capacity: int, indices: jax.Array, priorities: jax.Array | None = None) -> None:
    """Names the first value that cannot be right, if the values are known."""
    leaves = lambda x: (x >= 0) & (x < capacity)  # noqa: E731
    _first_bad("indices", indices, leaves, f"a leaf of 0 to {capacity - 1}")
    if priorities is not None:
        right = lambda x: (x >= 0) & (x < np.inf)  # noqa: E731
        _first_bad("priorities", priorities, right, "a finite number that is not negative")


def _first_bad(
    name: str, x: jax.Array, right: Callable[[np.ndarray], np.ndarray], needs: str
) -> None:
    if isinstance(x, Tracer):
        return
    values = np.asarray(x).reshape(-1)
    bad = np.flatnonzero(~right(values))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}]={values[bad[0]]}: needs {needs}")
