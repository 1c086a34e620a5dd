"""Cells: an array of one environment as a NumPy object array, for `fastrl.kernels.scalarize`.

A cell is a vector over a block of environments, a traced number that they share, a NumPy number
that is known while tracing, or a `KeyCell`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Cells = np.ndarray  # of objects: a cell for every entry of an array


Rule = Callable[[Any, list[Cells]], list[Cells]]  # (equation, inputs) -> outputs


class KeyCell(NamedTuple):
    """The two words of one `hash32` key."""

    first: Any
    second: Any


# Entry by entry; all of these are known to Pallas' lowering to Triton.


def constant(value: Any) -> Cells:
    """Cells of numbers that are known while tracing."""
    if jnp.issubdtype(getattr(value, "dtype", np.dtype(object)), jax.dtypes.prng_key):
        words = np.asarray(jax.random.key_data(value))
        return make(value.shape, lambda i: KeyCell(*words[i]))
    array = np.asarray(value)
    return make(array.shape, lambda i: array[i])


def make(shape: tuple[int, ...], cell: Callable[[tuple[int, ...]], Any]) -> Cells:
    """The cells `cell(index)` for every index of an array of `shape`."""
    out = np.empty(shape, object)
    for i in np.ndindex(shape):
        out[i] = cell(i)
    return out


def single(cell: Any) -> Cells:
    """One cell, as the cells of an array of rank 0."""
    return make((), lambda _: cell)


def rows(x: Cells) -> list[Cells]:
    """Along the leading axis; arrays of objects also where nothing but a cell is left."""
    return [x[i : i + 1].reshape(x.shape[1:]) for i in range(x.shape[0])]


def each(f: Callable[..., Any], *arguments: Cells) -> Cells:
    """`f` on corresponding cells; on known numbers it is evaluated now."""
    arguments = tuple(np.broadcast_arrays(*arguments))

    def cell(i: tuple[int, ...]) -> Any:
        values = [x[i] for x in arguments]
        if not all(map(is_known, values)):
            return f(*values)
        with jax.ensure_compile_time_eval():
            return np.asarray(f(*map(jnp.asarray, values)))[()]

    return make(arguments[0].shape, cell)


def choose(index: Any, options: Sequence[Cells]) -> Cells:
    """`options[index]`, clamped, entry by entry; `index` is one cell, integer or bool."""
    last = len(options) - 1
    if is_known(index):
        return options[min(max(int(index), 0), last)]
    if index.dtype == bool:
        return each(where, single(index), options[1], options[0])
    chosen = options[last]
    for k in range(last - 1, -1, -1):
        chosen = each(where, single(index <= k), options[k], chosen)
    return chosen


def where(condition: Any, on_true: Any, on_false: Any) -> Any:
    """`jnp.where` of single cells, keys as well."""
    if isinstance(on_true, KeyCell):
        return KeyCell(*(where(condition, a, b) for a, b in zip(on_true, on_false, strict=True)))
    return jnp.where(condition, on_true, on_false)


def is_known(value: Any) -> bool:
    """Whether a cell is a number already while tracing."""
    return isinstance(value, (np.generic, np.ndarray))
