"""Multilayer perceptrons forwards and backwards in numba: see `mlp.py`, which calls these.

`forward` and `backward` make the kernel for chains of so many dense layers, of the form that
`_numba_ffi.numba_call` says.  All arrays are float32 `[rows, columns]`.  A task is one chain on one
group of the batch's rows, which it takes in blocks that stay in the first-level cache through all
layers.  Matrix products need whole vectors, so a task has a copy of the last layer with zeros
beside its units, in its row of the last result, scratch `[tasks, floats]`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from fastrl.kernels._buffers import apart, matrix, view
from fastrl.kernels._tile import WIDTH, narrow, product, thin_product, widen
from fastrl.kernels.mlp import WIDEST

BLOCK = 48  # rows at a time
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
_ZEROS = np.zeros(WIDEST, np.float32)


def _tanh(h, count):
    x = view(h, 1, count)[0]
    for i in range(count):
        t = min(max(x[i], -_END), _END)
        s = t * t
        p = _P0 + s * (_P1 + s * (_P2 + s * (_P3 + s * (_P4 + s * (_P5 + s * _P6)))))
        x[i] = t * p / (_Q0 + s * (_Q1 + s * (_Q2 + s * _Q3)))


def _relu(h, count):
    x = view(h, 1, count)[0]
    for i in range(count):
        x[i] = max(x[i], np.float32(0.0))


def _tanh_slope(d, h, count):
    by, x = view(d, 1, count)[0], view(h, 1, count)[0]
    for i in range(count):
        by[i] *= np.float32(1.0) - x[i] * x[i]


def _relu_slope(d, h, count):
    by, x = view(d, 1, count)[0], view(h, 1, count)[0]
    for i in range(count):
        by[i] = by[i] if x[i] > np.float32(0.0) else np.float32(0.0)


@functools.cache
def _activation(name: str) -> Any:
    """The activation `(h, count)`, in place, and `(d, h, count)`, which multiplies d by its slope
    where it gave h."""
    return {
        "tanh": lambda: (apart(_tanh), apart(_tanh_slope)),
        "relu": lambda: (apart(_relu), apart(_relu_slope)),
    }[name]()


@apart
def _transpose(to, source, rows, columns):
    x, y = view(to, columns, rows), view(source, rows, columns)
    for j in range(columns):
        for i in range(rows):
            x[j, i] = y[i, j]


@apart
def _add_rows(to, d, columns, rows, fresh):
    """Adds the sum of the rows of d to `to`, which is zero before if `fresh`."""
    sums, x = view(to, 1, columns)[0], view(d, rows, columns)
    if fresh:
        for j in range(columns):
            sums[j] = 0.0
    for i in range(rows):
        for j in range(columns):
            sums[j] += x[i, j]


def wide(units: int) -> int:
    """The units of a last layer with those that fill its last vector."""
    return units + -units % WIDTH


_wide = numba.njit(wide)


def scratch(direction: str, layers: Sequence[tuple[int, int]]) -> int:
    """The floats that a task needs for a chain of layers with these inputs and outputs."""
    k, n = layers[-1]
    if direction == "forward":
        return wide(n) * (k + BLOCK + 1)
    return n * k + sum(i * j for i, j in layers[1:])


def forward(*, depths: tuple[int, ...], activation: str) -> Callable[..., None]:
    """Arguments of each chain: x, then weights `[K, N]` and bias `[1, N]` of its layers; results:
    the layers' outputs `[B, N]`, those of hidden ones after the activation; then scratch."""
    inputs, outputs = starts([1 + 2 * n for n in depths]), starts(depths)
    activate = _activation(activation)[0]

    def mlp_forward(task, arguments, results, index):
        groups = matrix(results, outputs[-1], index)[1] // len(depths)
        chain, group = task // groups, task % groups
        at, to, last = inputs[chain], outputs[chain], depths[chain] - 1
        own = _own_row(results, outputs[-1], index, task)
        first, end = _rows_of(arguments, at, index, group, groups)
        for r in range(first, end, BLOCK):
            m = min(BLOCK, end - r)
            x, _, k = matrix(arguments, at, index)
            x += 4 * r * k
            for layer in range(last + 1):
                w, _, n = matrix(arguments, at + 1 + 2 * layer, index)
                b, _, _ = matrix(arguments, at + 2 + 2 * layer, index)
                h = matrix(results, to + layer, index)[0] + 4 * r * n
                if layer == last:
                    full, units = _wide(n), n
                    w_full, b_full, h_full = own, own + 4 * k * full, own + 4 * (k + 1) * full
                    if r == first:
                        widen(w_full, w, n, k)
                        widen(b_full, b, n, 1)
                    product(b_full, 0, h_full, full, x, k, 1, w_full, full, m, full, k)
                    narrow(h, h_full, units, m)
                else:
                    product(b, 0, h, n, x, k, 1, w, n, m, n, k)
                    activate(h, m * n)
                x, k = h, n

    return mlp_forward


def backward(*, depths: tuple[int, ...], activation: str) -> Callable[..., None]:
    """Arguments of each chain: x and hidden outputs `[B, K]`, weights of its layers `[K, N]`,
    derivatives by its output `[B, N]`; results: derivatives by the weights `[groups K, N]` and
    biases `[groups, N]` of its layers, a part of the sum from each group, and by what its hidden
    layers had before the activation `[B, N]`; then scratch.  A chain has a hidden layer."""
    inputs, outputs = starts([2 * n + 1 for n in depths]), starts([3 * n - 1 for n in depths])
    slope = _activation(activation)[1]

    def mlp_backward(task, arguments, results, index):
        groups = matrix(results, outputs[-1], index)[1] // len(depths)
        chain, group = task // groups, task % groups
        at, to, depth = inputs[chain], outputs[chain], depths[chain]
        first, end = _rows_of(arguments, at, index, group, groups)
        zero = _ZEROS.ctypes.data
        by_output, _, units = matrix(arguments, at + 2 * depth, index)
        sums = _own_row(results, outputs[-1], index, task)
        w, last, _ = matrix(arguments, at + 2 * depth - 1, index)
        transposed = sums + 4 * units * last
        t = transposed
        for layer in range(depth - 1, 0, -1):
            w, k, n = matrix(arguments, at + depth + layer, index)
            _transpose(t, w, k, n)
            t += 4 * k * n
        for r in range(first, end, BLOCK):
            m = min(BLOCK, end - r)
            fresh = r == first
            d, n, t = by_output + 4 * r * units, units, transposed
            for layer in range(depth - 1, -1, -1):
                x, _, k = matrix(arguments, at + layer, index)
                x += 4 * r * k
                b = matrix(results, to + 2 * layer + 1, index)[0]
                _add_rows(b + 4 * group * n, d, n, m, fresh)
                if layer < depth - 1:
                    here = matrix(results, to + 2 * layer, index)[0] + 4 * group * k * n
                    start, row = (zero, 0) if fresh else (here, n)
                    product(start, row, here, n, x, 1, k, d, n, k, n, m)
                else:  # the transpose: rows of whole vectors
                    start, row = (zero, 0) if fresh else (sums, k)
                    if n < 4:
                        thin_product(start, row, sums, k, d, 1, n, x, k, n, k, m)
                    else:
                        product(start, row, sums, k, d, 1, n, x, k, n, k, m)
                if layer > 0:
                    before = matrix(results, to + 2 * depth + layer - 1, index)[0] + 4 * r * k
                    product(zero, 0, before, k, d, n, 1, t, k, m, k, n)
                    slope(before, x, m * k)
                    t += 4 * k * n
                    d, n = before, k
        by_w, _, _ = matrix(results, to + 2 * (depth - 1), index)
        _transpose(by_w + 4 * group * last * units, sums, units, last)

    return mlp_backward


@numba.njit
def _rows_of(arguments, at, index, group, groups):
    rows = matrix(arguments, at, index)[1]
    return rows * group // groups, rows * (group + 1) // groups


@numba.njit
def _own_row(results, number, index, task):
    address, _, columns = matrix(results, number, index)
    return address + 4 * task * columns


def starts(lengths: Sequence[int]) -> tuple[int, ...]:
    """Where each stretch begins if they follow each other, and where the last one ends."""
    return tuple(sum(lengths[:i]) for i in range(len(lengths) + 1))
