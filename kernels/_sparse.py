"""Products of float32 matrices of which the left one has many zeros, in numba.

After a relu about half of all entries are zero, before it the same of derivatives.  One row of the
result takes eight vectors of registers, so a factor that is zero is left out, and each of the
others costs what it costs in `_tile.product`: a full matrix is no slower.  The places that are
not zero are found eight at a time, from a table of all masks of eight bits.

The right matrix is taken in panels of 64 by 64, which stay in the first-level cache.
"""

# Intrinsics are written with a typing context in front and called without.
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrl.kernels._buffers import apart
from fastrl.kernels._tile import WIDTH, fma, load, pointer, spread

DEPTH, COLUMNS = 64, 64  # of a panel
_WORD, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(8), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
_PANEL = DEPTH * COLUMNS
# Of each mask: the places of its bits, a byte each from the lowest; and how many there are.
_PLACES = np.zeros((256, 8), np.uint8)
_COUNTS = np.zeros(256, np.int64)
for _mask in range(256):
    _bits = [i for i in range(8) if _mask >> i & 1]
    _PLACES[_mask, : len(_bits)] = _bits
    _COUNTS[_mask] = len(_bits)
_PLACES = _PLACES.view(np.int64)[:, 0]
_EIGHT = 0x0808080808080808  # added to eight places at once


def scratch(rows: int) -> int:
    """The floats that `product` needs beside its arguments, for so many rows."""
    return _PANEL + rows * (2 + DEPTH // 4) + 2


@intrinsic
def _nonzero(typingctx, address):
    """A bit for each of 8 floats that is not zero."""

    def codegen(context, builder, signature, args):
        zeros = ir.Constant(_VECTOR, [0.0] * WIDTH)
        flags = builder.fcmp_unordered("!=", load(builder, args[0]), zeros)
        return builder.zext(builder.bitcast(flags, _BYTE), _WORD)

    return types.int64(types.int64), codegen


@intrinsic
def _get(typingctx, address):
    """The word at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], _WORD.as_pointer()), align=1)

    return types.int64(types.int64), codegen


@intrinsic
def _put(typingctx, address, value):
    """Writes a word."""

    def codegen(context, builder, signature, args):
        builder.store(args[1], builder.inttoptr(args[0], _WORD.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def _copy(typingctx, to, source):
    """Copies 8 floats."""

    def codegen(context, builder, signature, args):
        builder.store(load(builder, args[1]), pointer(builder, args[0]), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _row(vectors: int) -> Any:
    """`c[8 vectors] = start + sum a[p] b[p, 8 vectors]` over `count` places p, an intrinsic.

    Arguments: addresses of start, c, a, places (bytes) and b, the rows of b in bytes, count.
    """

    @intrinsic
    def row(typingctx, start, c, a, places, b, b_row, count):
        def codegen(context, builder, signature, args):
            _emit(builder, vectors, *args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return row


def _emit(
    builder: Any, vectors: int, start: Any, c: Any, a: Any, places: Any, b: Any, b_row: Any,
    count: Any,
) -> None:  # fmt: skip
    at = lambda base, j: builder.add(base, _WORD(4 * WIDTH * j))  # noqa: E731
    first = [load(builder, at(start, j)) for j in range(vectors)]
    before = builder.block
    loop, after = builder.append_basic_block("place"), builder.append_basic_block("store")
    builder.cbranch(builder.icmp_signed(">", count, _WORD(0)), loop, after)
    builder.position_at_end(loop)

    def carried(kind: Any, value: Any, incoming: Any = before) -> Any:
        phi = builder.phi(kind)
        phi.add_incoming(value, incoming)
        return phi

    step = carried(_WORD, _WORD(0))
    sums = [carried(_VECTOR, x) for x in first]
    byte = builder.load(builder.inttoptr(builder.add(places, step), _BYTE.as_pointer()))
    place = builder.zext(byte, _WORD)
    factor = spread(builder, builder.add(a, builder.shl(place, _WORD(2))))
    here = builder.add(b, builder.mul(place, b_row))
    new = [fma(builder, factor, load(builder, at(here, j)), sums[j]) for j in range(vectors)]
    later = builder.add(step, _WORD(1))
    step.add_incoming(later, loop)
    for phi, value in zip(sums, new, strict=True):
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", later, count), loop, after)
    builder.position_at_end(after)
    for j in range(vectors):
        total = carried(_VECTOR, first[j])
        total.add_incoming(new[j], loop)
    # Phis stand together at the head of a block: stores come after all of them.
    for j, total in enumerate(builder.block.instructions[:vectors]):
        builder.store(total, pointer(builder, at(c, j)), align=4)


_eight, _four, _two, _one = _row(8), _row(4), _row(2), _row(1)


def _find(places, counts, a, a_row, m, depth):
    """Where the rows of a `[m, depth]` are not zero: bytes `[m, 64]` and words `[m]`."""
    for i in range(m):
        x, to, count, base = a + 4 * i * a_row, places + DEPTH * i, 0, 0
        for p in range(0, depth, WIDTH):
            mask = _nonzero(x + 4 * p)
            _put(to + count, _PLACES[mask] + base)
            count += _COUNTS[mask]
            base += _EIGHT
        _put(counts + 8 * i, count)


def _pack(to, b, b_row, depth, columns):
    for p in range(depth):
        for j in range(0, columns, WIDTH):
            _copy(to + 4 * (p * COLUMNS + j), b + 4 * (p * b_row + j))


@functools.cache
def product() -> Any:
    """The function that does a product, compiled where it is first asked for.

    `c[m, n] = start + a[m, depth] b[depth, n]`; `n` is a multiple of 8.  Arguments: addresses, each
    with the strides of its rows; sizes; the address of `scratch(m)` floats.  Rows of a are read up
    to a multiple of 8, with zeros beyond `depth`.
    """
    find, pack = apart(_find), apart(_pack)

    def sparse_product(start, start_row, c, c_row, a, a_row, b, b_row, m, n, depth, own):
        counts = own + 4 * _PANEL
        places = counts + 8 * m
        for first in range(0, depth, DEPTH):
            d = min(DEPTH, depth - first)
            find(places, counts, a + 4 * first, a_row, m, d)
            s, s_row = (start, start_row) if first == 0 else (c, c_row)
            for j in range(0, n, COLUMNS):
                width = min(COLUMNS, n - j)
                panel, row = b + 4 * (first * b_row + j), b_row
                if n > COLUMNS:
                    pack(own, panel, b_row, d, width)
                    panel, row = own, COLUMNS
                for i in range(m):
                    at, to, x = (
                        s + 4 * (i * s_row + j),
                        c + 4 * (i * c_row + j),
                        a + 4 * (i * a_row + first),
                    )
                    found, count = places + DEPTH * i, _get(counts + 8 * i)
                    k = 0
                    if width == COLUMNS:
                        _eight(at, to, x, found, panel, 4 * row, count)
                        k = COLUMNS
                    if k + 32 <= width:
                        _four(at + 4 * k, to + 4 * k, x, found, panel + 4 * k, 4 * row, count)
                        k += 32
                    if k + 16 <= width:
                        _two(at + 4 * k, to + 4 * k, x, found, panel + 4 * k, 4 * row, count)
                        k += 16
                    if k + 8 <= width:
                        _one(at + 4 * k, to + 4 * k, x, found, panel + 4 * k, 4 * row, count)

    return apart(sparse_product)
