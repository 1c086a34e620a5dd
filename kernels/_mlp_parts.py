"""What the kernels of multilayer perceptrons share: their form, where things are, their products.

All arrays are float32 `[rows, columns]`; those of an ensemble have its members one below the other.
A task is one member on one group of the batch's rows, which it takes in blocks that stay in the
cache through all layers.  Matrix products need whole vectors, so a task has a copy of a last layer
with zeros beside its units, in its row of the last result, scratch `[tasks, floats]`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from fastrl.kernels import _sparse
from fastrl.kernels._activations import dots
from fastrl.kernels._buffers import matrix
from fastrl.kernels._tile import WIDTH, narrow, product, thin_product, widen
from fastrl.kernels._transpose import transpose
from fastrl.kernels.mlp import WIDEST

ZEROS = np.zeros(WIDEST, np.float32)
_LINE = 16  # floats of a line of the cache
_SHORT = 8  # depth of a product up to which rows are taken one by one
_FEW = 4  # outputs below which they are taken one by one


class Form(NamedTuple):
    """What a kernel is made for: the layers of each chain, and what all chains share."""

    depths: tuple[int, ...]
    activation: str
    norm: bool  # hidden layers are normalised before their activation, with scale and shift
    block: int  # rows at a time


def block(activation: str, widest: int) -> int:
    """The rows that are taken at a time, where layers have up to `widest` units."""
    if activation == "tanh":
        return 48
    return 64 if widest <= _sparse.COLUMNS else 128


def scratch(direction: str, layers: Sequence[tuple[int, int]], rows: int) -> int:
    """The floats that a task needs for a chain of layers with these inputs and outputs, with so
    many rows at a time."""
    widest = max(padded(k) for k, _ in layers)
    k, n = layers[-1]
    if direction == "forward":
        parts = [k * padded(n), padded(n), rows * padded(n), rows * widest, rows]
        parts += [rows * width for _, width in layers[:-1]] + [_sparse.scratch(rows)]
    else:
        parts = [n * k, padded(rows) * widest, rows * widest, rows * widest]
        parts += [padded(k) * n for k, n in layers] + [_sparse.scratch(max(rows, widest))]
    return sum(x + _LINE for x in parts)


def starts(lengths: Sequence[int]) -> tuple[int, ...]:
    """Where each stretch begins if they follow each other, and where the last one ends."""
    return tuple(sum(lengths[:i]) for i in range(len(lengths) + 1))


def padded(units: int) -> int:
    """The units of a layer with those that fill its last vector."""
    return units + -units % WIDTH


wide = numba.njit(padded)


@numba.njit
def task_of(task, tasks, batch, buffers, ends, index):
    """Chain, member, members of the chain, group and groups of a task.

    The buffer before each of `ends` but the first has all members of a chain, `[E B, N]`.
    """
    total = 0
    for end in ends[1:]:
        total += matrix(buffers, end - 1, index)[1] // batch
    groups = tasks // total
    member, chain = task // groups, 0
    members = matrix(buffers, ends[1] - 1, index)[1] // batch
    while member >= members:
        member, chain = member - members, chain + 1
        members = matrix(buffers, ends[chain + 1] - 1, index)[1] // batch
    return chain, member, members, task % groups, groups


@numba.njit
def layer_of(arguments, number, index, member, members):
    """The weights of a member: address, inputs, units."""
    address, rows, n = matrix(arguments, number, index)
    k = rows // members
    return address + 4 * member * k * n, k, n


@numba.njit
def row_of(buffers, number, index, row):
    """The address of a row."""
    address, _, columns = matrix(buffers, number, index)
    return address + 4 * row * columns


@numba.njit
def ahead(address, floats):
    """The line of the cache after so many floats."""
    return address + 4 * (floats + -floats % _LINE)


@numba.njit
def dense(start, start_row, c, n, a, a_row, b, m, depth):
    """`c[m, n] = start + a[m, depth] b[depth, n]`, of matrices without gaps but for a."""
    if depth <= _SHORT:
        thin_product(start, start_row, c, n, a, a_row, 1, b, n, m, n, depth)
    else:
        product(start, start_row, c, n, a, a_row, 1, b, n, m, n, depth)


@numba.njit
def outputs(y, x, w, b, w_full, b_full, h_full, m, n, k, fresh):
    """`y[m, n] = b + x[m, k] w[k, n]` for any n; if `fresh` makes the copies of w and b."""
    if n < _FEW:
        if fresh:
            transpose(w_full, k, w, n, k, n)
        dots(y, x, w_full, b, m, n, k)
    else:
        full = wide(n)
        if fresh:
            widen(w_full, w, n, k)
            widen(b_full, b, n, 1)
        product(b_full, 0, h_full, full, x, k, 1, w_full, full, m, full, k)
        narrow(y, h_full, n, m)


@numba.njit
def add_last_layer(sums, x, d, m, k, n, fresh):
    """Adds the transpose of `x[m, k]^T d[m, n]`: rows of whole vectors."""
    start, row = (ZEROS.ctypes.data, 0) if fresh else (sums, k)
    if n < _FEW:
        thin_product(start, row, sums, k, d, 1, n, x, k, n, k, m)
    else:
        product(start, row, sums, k, d, 1, n, x, k, n, k, m)
