"""Rules of `fastrl.kernels.scalarize` for arithmetic, reductions and the shape of arrays."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels.scalarize_cells import (
    Cells,
    Rule,
    choose,
    constant,
    each,
    make,
    rows,
    single,
    where,
)

ELEMENTWISE = (
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2",
    "atanh", "bitcast_convert_type", "cbrt", "ceil", "clamp", "clz", "convert_element_type",
    "cos", "cosh", "div", "eq", "erf_inv", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul",
    "ne", "neg", "nextafter", "not", "or", "population_count", "pow", "rem", "rsqrt",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh",
    "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
)  # fmt: skip


_REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "reduce_sum": jnp.add, "reduce_prod": jnp.multiply, "reduce_max": jnp.maximum,
    "reduce_min": jnp.minimum, "reduce_or": jnp.bitwise_or, "reduce_and": jnp.bitwise_and,
    "reduce_xor": jnp.bitwise_xor,
}  # fmt: skip


_CUMULATIVE = {
    "cumsum": jnp.add, "cumprod": jnp.multiply, "cummax": jnp.maximum, "cummin": jnp.minimum,
}  # fmt: skip
# No other value than rearranged inputs.


def _elementwise(equation: Any, inputs: list[Cells]) -> list[Cells]:
    def f(*values: Any) -> Any:
        return equation.primitive.bind(*jnp.broadcast_arrays(*values), **equation.params)

    return [each(f, *inputs)]


def _rearranged(equation: Any, inputs: list[Cells]) -> list[Cells]:
    return [_REARRANGED[equation.primitive.name](inputs[0], equation.params)]


def _broadcast_in_dim(x: Cells, parameters: dict[str, Any]) -> Cells:
    shape = [1] * len(parameters["shape"])
    for axis, size in zip(parameters["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), parameters["shape"])


def _concatenate(equation: Any, inputs: list[Cells]) -> list[Cells]:
    return [np.concatenate(inputs, equation.params["dimension"])]


def _stack(equation: Any, inputs: list[Cells]) -> list[Cells]:
    return [np.stack(inputs, equation.params["axis"])]


def _unstack(equation: Any, inputs: list[Cells]) -> list[Cells]:
    return rows(np.moveaxis(inputs[0], equation.params["axis"], 0))


def _split(equation: Any, inputs: list[Cells]) -> list[Cells]:
    cuts = np.cumsum(equation.params["sizes"])[:-1]
    return list(np.split(inputs[0], cuts, equation.params["axis"]))


def _pad(equation: Any, inputs: list[Cells]) -> list[Cells]:
    x, value = inputs
    out = make(equation.outvars[0].aval.shape, lambda _: value[()])
    padding = equation.params["padding_config"]
    out[tuple(slice(p[0], p[0] + n) for p, n in zip(padding, x.shape, strict=True))] = x
    return [out]


def _iota(equation: Any, inputs: list[Cells]) -> list[Cells]:
    p = equation.params
    index = np.indices(p["shape"])[p["dimension"]] if p["shape"] else np.zeros(())
    return [constant(index.astype(p["dtype"]))]


def _reduce(equation: Any, inputs: list[Cells]) -> list[Cells]:
    axes, out = equation.params["axes"], equation.outvars[0].aval
    combine = functools.partial(each, _REDUCTIONS[equation.primitive.name])
    moved = np.moveaxis(inputs[0], axes, range(len(axes)))
    return [functools.reduce(combine, rows(moved.reshape(-1, *out.shape)))]


def _cumulative(equation: Any, inputs: list[Cells]) -> list[Cells]:
    axis, reverse = equation.params["axis"], equation.params["reverse"]
    combine = functools.partial(each, _CUMULATIVE[equation.primitive.name])
    order = slice(None, None, -1 if reverse else 1)
    terms = rows(np.moveaxis(inputs[0], axis, 0))[order]
    return [np.stack(list(itertools.accumulate(terms, combine))[order], axis)]


def _arg_extreme(equation: Any, inputs: list[Cells]) -> list[Cells]:
    """The first of the largest (smallest) entries. NaN counts as no extreme."""
    larger = jnp.greater if equation.primitive.name == "argmax" else jnp.less
    best, *others = rows(np.moveaxis(inputs[0], equation.params["axes"][0], 0))
    dtype = np.dtype(equation.params["index_dtype"])
    index = make(best.shape, lambda i: dtype.type(0))
    for k, row in enumerate(others, 1):
        wins = each(larger, row, best)
        index = each(lambda w, i, k=k: jnp.where(w, dtype.type(k), i), wins, index)
        best = each(where, wins, row, best)
    return [index]


def _dot_general(equation: Any, inputs: list[Cells]) -> list[Cells]:
    (axes_a, axes_b), _ = equation.params["dimension_numbers"]
    a = np.moveaxis(inputs[0], axes_a, range(len(axes_a)))
    b = np.moveaxis(inputs[1], axes_b, range(len(axes_b)))
    free_a, free_b = a.shape[len(axes_a) :], b.shape[len(axes_b) :]
    ones = (1,) * len(free_b)
    rows_a = rows(a.reshape(-1, *free_a, *ones))
    rows_b = rows(b.reshape(-1, *free_b))
    products = [each(jnp.multiply, x, y) for x, y in zip(rows_a, rows_b, strict=True)]
    return [functools.reduce(functools.partial(each, jnp.add), products)]


def _select_n(equation: Any, inputs: list[Cells]) -> list[Cells]:
    which, *options = np.broadcast_arrays(*inputs)

    def cell(i: tuple[int, ...]) -> Any:
        return choose(which[i], [single(option[i]) for option in options])[()]

    return [make(options[0].shape, cell)]


def _round(equation: Any, inputs: list[Cells]) -> list[Cells]:
    """By `floor`, for Triton has no rounding of its own."""
    to_even = equation.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN

    def f(x: Any) -> Any:
        below = jnp.floor(x)
        rest = x - below
        tie_up = below * 0.5 != jnp.floor(below * 0.5) if to_even else x > 0
        return jnp.where((rest > 0.5) | ((rest == 0.5) & tie_up), below + 1.0, below)

    return [each(f, *inputs)]


_REARRANGED: dict[str, Callable[[Cells, dict[str, Any]], Cells]] = {
    "reshape": lambda x, p: x.reshape(p["new_sizes"]),
    "squeeze": lambda x, p: np.asarray(np.squeeze(x, p["dimensions"]), object),
    "transpose": lambda x, p: x.transpose(p["permutation"]),
    "rev": lambda x, p: np.flip(x, p["dimensions"]),
    "slice": lambda x, p: x[
        tuple(map(slice, p["start_indices"], p["limit_indices"], p["strides"] or (1,) * x.ndim))
    ],
    "copy": lambda x, p: x,
    "optimization_barrier": lambda x, p: x,
    "broadcast_in_dim": lambda x, p: _broadcast_in_dim(x, p),
}


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REARRANGED, _rearranged),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(_CUMULATIVE, _cumulative),
    **dict.fromkeys(("argmax", "argmin"), _arg_extreme),
    "concatenate": _concatenate, "stack": _stack, "unstack": _unstack, "split": _split,
    "pad": _pad, "iota": _iota, "dot_general": _dot_general, "select_n": _select_n,
    "round": _round,
}  # fmt: skip
