"""What stands between the products of the dense layers: activations, layer norm, sums over rows."""

# Intrinsics are written with a typing context in front and called without.
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrl.kernels._buffers import apart, view
from fastrl.kernels._tile import WIDTH, load, pointer

EPSILON = 1e-6  # added to the variance that a layer is divided by the root of
# tanh(x) = x p(x^2) / q(x^2) to the last bits of float32 where |x| < 7.905: coefficients of Eigen
# (Eigen/src/Core/MathFunctionsImpl.h), which XLA has too.
_END = np.float32(7.90531110763549805)
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = map(np.float32, (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
))  # fmt: skip
_Q0, _Q1, _Q2, _Q3 = map(np.float32, (
    4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06,
))  # fmt: skip
_ONE, _EPSILON = np.float32(1.0), np.float32(EPSILON)


def _tanh(to, source, count):
    x, y = view(source, 1, count)[0], view(to, 1, count)[0]
    for i in range(count):
        t = min(max(x[i], -_END), _END)
        s = t * t
        p = _P0 + s * (_P1 + s * (_P2 + s * (_P3 + s * (_P4 + s * (_P5 + s * _P6)))))
        y[i] = t * p / (_Q0 + s * (_Q1 + s * (_Q2 + s * _Q3)))


@intrinsic
def _relu_of_eight(typingctx, to, source):
    """8 floats: what numba makes of a loop over them writes in lanes, which is slow."""

    def codegen(context, builder, signature, args):
        x = load(builder, args[1])
        zeros = ir.Constant(x.type, [0.0] * WIDTH)
        above = builder.fcmp_unordered(">", x, zeros)  # or no number: that stays
        builder.store(builder.select(above, x, zeros), pointer(builder, args[0]), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _relu(to, source, count):
    for i in range(0, count, WIDTH):
        _relu_of_eight(to + 4 * i, source + 4 * i)


def _tanh_slope(d, h, count):
    by, x = view(d, 1, count)[0], view(h, 1, count)[0]
    for i in range(count):
        by[i] *= np.float32(1.0) - x[i] * x[i]


def _relu_slope(d, h, count):
    by, x = view(d, 1, count)[0], view(h, 1, count)[0]
    for i in range(count):
        by[i] = by[i] if x[i] > np.float32(0.0) else np.float32(0.0)


@functools.cache
def by_name(name: str) -> Any:
    """The activation `(to, source, count)`, from one place to another, and `(d, h, count)`, which
    multiplies d by its slope where it gave h."""
    return {
        "tanh": lambda: (apart(_tanh), apart(_tanh_slope)),
        "relu": lambda: (apart(_relu), apart(_relu_slope)),
    }[name]()


@functools.cache
def norm() -> Any:
    """`(z, h, inverse, scale, shift, rows, columns)` forwards, and the function backwards."""
    return apart(_norm_forward), apart(_norm_backward)


@apart
def add_rows(to, d, columns, rows, fresh):
    """Adds the sum of the rows of d to `to`, which is zero before if `fresh`."""
    sums, x = view(to, 1, columns)[0], view(d, rows, columns)
    if fresh:
        for j in range(columns):
            sums[j] = 0.0
    for i in range(rows):
        for j in range(columns):
            sums[j] += x[i, j]


@apart
def dots(y, x, w, b, rows, n, k):
    """`y[rows, n] = b + x[rows, k] w^T`, of each row with each row of `w[n, k]` by itself."""
    to, a, c = view(y, rows, n), view(x, rows, k), view(w, n, k)
    start = view(b, 1, n)[0]
    for i in range(rows):
        for j in range(n):
            total = start[j]
            for p in range(k):
                total += a[i, p] * c[j, p]
            to[i, j] = total


def _norm_forward(z, h, inverse, scale, shift, rows, columns):
    """Rows of z to mean 0 and variance 1, in place, and `h = scale z + shift`; the inverse standard
    deviations."""
    x, y, by = view(z, rows, columns), view(h, rows, columns), view(inverse, 1, rows)[0]
    a, b = view(scale, 1, columns)[0], view(shift, 1, columns)[0]
    share = _ONE / np.float32(columns)
    for i in range(rows):
        total, squares = np.float32(0.0), np.float32(0.0)
        for j in range(columns):
            total += x[i, j]
        mean = total * share
        for j in range(columns):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
        factor = _ONE / np.sqrt(squares * share + _EPSILON)
        by[i] = factor
        for j in range(columns):
            value = (x[i, j] - mean) * factor
            x[i, j] = value
            y[i, j] = a[j] * value + b[j]


def _norm_backward(d, z, inverse, scale, by_scale, by_shift, rows, columns, fresh, wanted):
    """Derivatives by `h` of `_norm_forward` into those by what it was given, in place; and, if
    `wanted`, adds those by scale and shift, which are zero before if `fresh`."""
    by, x, factors = view(d, rows, columns), view(z, rows, columns), view(inverse, 1, rows)[0]
    a, share = view(scale, 1, columns)[0], _ONE / np.float32(columns)
    if wanted:
        to_a, to_b = view(by_scale, 1, columns)[0], view(by_shift, 1, columns)[0]
        if fresh:
            for j in range(columns):
                to_a[j] = 0.0
                to_b[j] = 0.0
        for i in range(rows):
            for j in range(columns):
                to_a[j] += by[i, j] * x[i, j]
                to_b[j] += by[i, j]
    for i in range(rows):
        total, along = np.float32(0.0), np.float32(0.0)
        for j in range(columns):
            g = by[i, j] * a[j]
            total += g
            along += g * x[i, j]
        total, along, factor = total * share, along * share, factors[i]
        for j in range(columns):
            by[i, j] = factor * (by[i, j] * a[j] - total - along * x[i, j])
