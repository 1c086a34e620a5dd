"""Rules of `fastrl.kernels.scalarize` for indices that are known only when the program runs.

A kernel's values cannot be indexed: what an index might mean is all computed, and selected from.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels.scalarize_cells import Cells, Rule, choose, each, single, where


def _dynamic_slice(equation: Any, inputs: list[Cells]) -> list[Cells]:
    x, *start = inputs
    return [_read_window(x, [s[()] for s in start], equation.params["slice_sizes"])]


def _dynamic_update_slice(equation: Any, inputs: list[Cells]) -> list[Cells]:
    x, window, *start = inputs
    start = _clamped(x.shape, window.shape, [s[()] for s in start])
    return [_write_window(x, start, window, lambda old, new: new)]


def _gather(equation: Any, inputs: list[Cells]) -> list[Cells]:
    """`x[..., i, ...]` with one index."""
    (x, index), p = inputs, equation.params
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    start = _full_start(x.ndim, numbers.start_index_map, index)
    window = _read_window(x, start, sizes)
    if p["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP:
        dtype = equation.outvars[0].aval.dtype
        fill = dtype.type(_default_fill(dtype) if p["fill_value"] is None else p["fill_value"])
        clamped = _clamped(x.shape, sizes, start)
        fits = functools.reduce(
            functools.partial(each, jnp.logical_and),
            [each(jnp.equal, single(a), single(b)) for a, b in zip(start, clamped, strict=True)],
        )
        window = each(where, fits, window, single(fill))
    return [np.asarray(np.squeeze(window, numbers.collapsed_slice_dims), object)]


def _scatter(equation: Any, inputs: list[Cells]) -> list[Cells]:
    """`x.at[..., i, ...].set(v)` and `.add(v)` with one index."""
    (x, index, update), p = inputs, equation.params
    numbers = p["dimension_numbers"]
    window = np.expand_dims(update, numbers.inserted_window_dims)
    start = _full_start(x.ndim, numbers.scatter_dims_to_operand_dims, index)
    if p["mode"] == jax.lax.GatherScatterMode.CLIP:
        start = _clamped(x.shape, window.shape, start)
    adds = equation.primitive.name == "scatter-add"
    return [_write_window(x, start, window, jnp.add if adds else lambda old, new: new)]


def _full_start(rank: int, axes: Sequence[int], index: Cells) -> list[Any]:
    start: list[Any] = [index.flat[0].dtype.type(0) if index.size else np.int32(0)] * rank
    for position, axis in enumerate(axes):
        start[axis] = index[position]
    return start


def _default_fill(dtype: np.dtype) -> Any:
    """What JAX puts in for an index out of bounds."""
    if dtype.kind == "b":
        return True
    if dtype.kind == "u":
        return np.iinfo(dtype).max
    return np.iinfo(dtype).min if dtype.kind == "i" else np.nan


def _read_window(x: Cells, start: Sequence[Any], sizes: Sequence[int]) -> Cells:
    """A window at a dynamic place, clamped, by selects along one axis after the other."""
    for axis, (s, size) in enumerate(zip(start, sizes, strict=True)):
        places = range(x.shape[axis] - size + 1)
        x = choose(s, [np.take(x, range(p, p + size), axis) for p in places])
    return x


def _write_window(
    x: Cells, start: Sequence[Any], window: Cells, f: Callable[[Any, Any], Any]
) -> Cells:
    """`f(old, new)` in the window at `start`; nothing where the window does not fit."""
    out = x.copy()
    for place in _windows(x.shape, window.shape):
        free = [k for k, n in enumerate(x.shape) if n != window.shape[k]]
        inside = _at(place, window.shape)
        hit = _all([(start[k], place[k]) for k in free])
        out[inside] = each(where, hit, each(f, out[inside], window), out[inside])
    return out


def _windows(shape: tuple[int, ...], sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every place at which a window of `sizes` fits."""
    return list(itertools.product(*(range(n - k + 1) for n, k in zip(shape, sizes, strict=True))))


def _at(start: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(s, s + k) for s, k in zip(start, sizes, strict=True))


def _clamped(shape: tuple[int, ...], sizes: Sequence[int], start: Sequence[Any]) -> list[Any]:
    """`start` moved to where the window fits."""

    def fit(s: Any, n: int, k: int) -> Any:
        return each(lambda s: jnp.clip(s, 0, n - k), single(s))[()]

    return list(map(fit, start, shape, sizes))


def _all(pairs: Sequence[tuple[Any, Any]]) -> Cells:
    """Whether the members of every pair are equal, as a single cell."""
    tests = [each(jnp.equal, single(a), single(np.asarray(b)[()])) for a, b in pairs]
    return functools.reduce(functools.partial(each, jnp.logical_and), tests, single(np.bool_(True)))


RULES: dict[str, Rule] = {
    "dynamic_slice": _dynamic_slice, "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather, "scatter": _scatter, "scatter-add": _scatter,
}  # fmt: skip
