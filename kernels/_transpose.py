"""Transposes of float32 matrices in numba, eight by eight in registers."""

# Intrinsics are written with a typing context in front and called without.
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrl.kernels._buffers import apart
from fastrl.kernels._tile import WIDTH, at, load, move, pointer

# Where the entries of each vector come from, in terms of the two given, in each of three steps:
# neighbours are mixed within halves, then pairs of them, then halves change places.
_STEPS = (
    ((0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)),
    ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
    ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
)
_ZERO = np.zeros(1, np.float32)


@intrinsic
def _eight(typingctx, to, to_row, source, source_row):
    """The transpose of 8 by 8 floats; addresses and row strides."""

    def codegen(context, builder, signature, args):
        to, to_row, source, source_row = args
        rows = [load(builder, at(builder, source, source_row, i, 0)) for i in range(WIDTH)]
        for i, x in enumerate(_turned(builder, rows)):
            builder.store(x, pointer(builder, at(builder, to, to_row, i, 0)), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    mix = lambda x, y, places: builder.shuffle_vector(  # noqa: E731
        x, y, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), list(places))
    )
    t = [mix(rows[i], rows[i + 1], p) for i in range(0, 8, 2) for p in _STEPS[0]]
    u = [mix(t[i], t[i + 2], p) for i in (0, 1, 4, 5) for p in _STEPS[1]]
    return [mix(u[i], u[i + 4], p) for p in _STEPS[2] for i in range(4)]


@apart
def transpose(to, to_row, source, source_row, rows, columns):
    """`to[columns, rows]`, followed by zeros up to a multiple of 8 where its rows have room for
    them, of `source[rows, columns]`; addresses, each with its rows' stride."""
    for j in range(0, columns, WIDTH):
        for i in range(0, rows, WIDTH):
            x, y = to + 4 * (j * to_row + i), source + 4 * (i * source_row + j)
            if i + WIDTH <= rows and j + WIDTH <= columns:
                _eight(x, to_row, y, source_row)
            else:
                for b in range(min(WIDTH, columns - j)):
                    for a in range(min(WIDTH, rows - i)):
                        move(x + 4 * (b * to_row + a), y + 4 * (a * source_row + b))
                    for a in range(rows - i, min(WIDTH, to_row - i)):
                        move(x + 4 * (b * to_row + a), _ZERO.ctypes.data)
