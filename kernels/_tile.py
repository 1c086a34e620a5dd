"""Products of small float32 matrices in numba: a tile of the result lives in registers.

LLVM's own vectoriser does not keep a block of sums in registers, so the innermost loop is written
as instructions on vectors of 8 floats.  Matrices are addresses and strides, in floats.
"""

# Intrinsics are written with a typing context in front and called without.
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrl.kernels._buffers import apart

WIDTH = 8  # floats in a vector
_FLOAT, _WORD = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, WIDTH)
_LANE = ir.IntType(32)


def _tile(rows: int, vectors: int) -> Any:
    """`c[rows, 8 vectors] = start + a[rows, depth] b[depth, 8 vectors]`, an intrinsic.

    Arguments: addresses and row strides of start and c, address, row and column stride of a,
    address and row stride of b, depth.  The rows of b and c have no gaps.
    """

    @intrinsic
    def tile(typingctx, start, start_row, c, c_row, a, a_row, a_column, b, b_row, depth):
        def codegen(context, builder, signature, args):
            _emit(builder, rows, vectors, *args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return tile


def _emit(
    builder: Any, rows: int, vectors: int, start: Any, start_row: Any, c: Any, c_row: Any,
    a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, depth: Any,
) -> None:  # fmt: skip
    each = [(i, j) for i in range(rows) for j in range(vectors)]
    vector = lambda base, row, i, j: at(builder, base, row, i, 8 * j)  # noqa: E731
    first = {(i, j): load(builder, vector(start, start_row, i, j)) for i, j in each}
    before, loop, after = (
        builder.block, builder.append_basic_block("depth"), builder.append_basic_block("store")
    )  # fmt: skip
    a_first = [at(builder, a, a_row, i, 0) for i in range(rows)]
    builder.branch(loop)
    builder.position_at_end(loop)

    def carried(kind: Any, value: Any) -> Any:
        phi = builder.phi(kind)
        phi.add_incoming(value, before)
        return phi

    step, b_now = carried(_WORD, _WORD(0)), carried(_WORD, b)
    a_now = [carried(_WORD, x) for x in a_first]
    sums = {ij: carried(_VECTOR, first[ij]) for ij in each}
    columns = [load(builder, builder.add(b_now, _WORD(32 * j))) for j in range(vectors)]
    factors = [spread(builder, x) for x in a_now]
    new = {(i, j): fma(builder, factors[i], columns[j], sums[i, j]) for i, j in each}
    for ij in each:
        sums[ij].add_incoming(new[ij], loop)
    for x in a_now:
        x.add_incoming(at(builder, x, a_column, 1, 0), loop)
    b_now.add_incoming(at(builder, b_now, b_row, 1, 0), loop)
    later = builder.add(step, _WORD(1))
    step.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", later, depth), loop, after)
    builder.position_at_end(after)
    for i, j in each:
        builder.store(new[i, j], pointer(builder, vector(c, c_row, i, j)), align=4)


def at(builder: Any, base: Any, row: Any, i: int, j: int) -> Any:
    """The address of element `[i, j]`."""
    floats = builder.add(builder.mul(row, _WORD(i)), _WORD(j))
    return builder.add(base, builder.mul(floats, _WORD(4)))


def pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _VECTOR.as_pointer())


def load(builder: Any, address: Any) -> Any:
    return builder.load(pointer(builder, address), align=4)


def spread(builder: Any, address: Any) -> Any:
    """The float at `address` in all lanes."""
    one = builder.load(builder.inttoptr(address, _FLOAT.as_pointer()))
    empty = ir.Constant(_VECTOR, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(_LANE, WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(builder.insert_element(empty, one, _LANE(0)), empty, lanes)


def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{WIDTH}f32")
    return builder.call(function, [x, y, z])


@intrinsic
def _widen(typingctx, to, source, count):
    """Writes 8 floats, of which `count` are read and the others 0."""

    def codegen(context, builder, signature, args):
        flags = ir.VectorType(ir.IntType(1), WIDTH)
        kind = ir.FunctionType(_VECTOR, [_VECTOR.as_pointer(), _LANE, flags, _VECTOR])
        name = f"llvm.masked.load.v{WIDTH}f32.p0v{WIDTH}f32"
        masked = cgutils.get_or_insert_function(builder.module, kind, name)
        zeros = ir.Constant(_VECTOR, [0.0] * WIDTH)
        first = _first_lanes(builder, args[2])
        read = builder.call(masked, [pointer(builder, args[1]), _LANE(4), first, zeros])
        builder.store(read, pointer(builder, args[0]), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


def _first_lanes(builder: Any, count: Any) -> Any:
    """Flags of the lanes before lane `count`."""
    kind = ir.VectorType(_LANE, WIDTH)
    empty = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(empty, builder.trunc(count, _LANE), _LANE(0))
    spread = builder.shuffle_vector(one, empty, ir.Constant(kind, [0] * WIDTH))
    return builder.icmp_signed("<", ir.Constant(kind, list(range(WIDTH))), spread)


@intrinsic
def move(typingctx, to, source):
    """Copies a float."""

    def codegen(context, builder, signature, args):
        there, here = (builder.inttoptr(x, _FLOAT.as_pointer()) for x in args)
        builder.store(builder.load(here), there)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@apart
def widen(to, source, columns, rows):
    """Rows of a matrix into one whose rows end with a whole vector, with zeros there."""
    wide = columns + -columns % WIDTH
    for j in range(0, columns, WIDTH):
        count = min(columns - j, WIDTH)
        for i in range(rows):
            _widen(to + 4 * (i * wide + j), source + 4 * (i * columns + j), count)


@apart
def narrow(to, source, columns, rows):
    """The inverse of `widen`."""
    wide = columns + -columns % WIDTH
    for i in range(rows):
        x, y = to + 4 * i * columns, source + 4 * i * wide
        for j in range(0, columns, WIDTH):
            for lane in range(WIDTH):  # vector instructions that skip lanes write slowly
                if j + lane < columns:
                    move(x + 4 * (j + lane), y + 4 * (j + lane))


_six_by_two, _six_by_one = _tile(6, 2), _tile(6, 1)
_four_by_two, _four_by_one = _tile(4, 2), _tile(4, 1)
_one_by_eight, _one_by_two, _one_by_one = _tile(1, 8), _tile(1, 2), _tile(1, 1)


@apart
def product(start, start_row, c, c_row, a, a_row, a_column, b, b_row, m, n, depth):
    """`c[m, n] = start + a[m, depth] b[depth, n]`; `n` is a multiple of 8, `depth` at least 1.

    Arguments: addresses, each with the strides of its rows (and of a's columns); sizes.
    """
    for j in range(0, n, 16):
        wide, y = j + 16 <= n, b + 4 * j
        i = 0
        while i < m:
            s, t, x = start + 4 * (i * start_row + j), c + 4 * (i * c_row + j), a + 4 * i * a_row
            left = m - i
            if left >= 6 and left != 8:
                if wide:
                    _six_by_two(s, start_row, t, c_row, x, a_row, a_column, y, b_row, depth)
                else:
                    _six_by_one(s, start_row, t, c_row, x, a_row, a_column, y, b_row, depth)
                i += 6
            elif left >= 4:
                if wide:
                    _four_by_two(s, start_row, t, c_row, x, a_row, a_column, y, b_row, depth)
                else:
                    _four_by_one(s, start_row, t, c_row, x, a_row, a_column, y, b_row, depth)
                i += 4
            else:
                if wide:
                    _one_by_two(s, start_row, t, c_row, x, a_row, a_column, y, b_row, depth)
                else:
                    _one_by_one(s, start_row, t, c_row, x, a_row, a_column, y, b_row, depth)
                i += 1


@apart
def thin_product(start, start_row, c, c_row, a, a_row, a_column, b, b_row, m, n, depth):
    """As `product`, for an m of less than 4."""
    for i in range(m):
        s, t, x = start + 4 * i * start_row, c + 4 * i * c_row, a + 4 * i * a_row
        j = 0
        while j < n:
            if j + 64 <= n:
                _one_by_eight(
                    s + 4 * j, 0, t + 4 * j, 0, x, a_row, a_column, b + 4 * j, b_row, depth
                )
                j += 64
            elif j + 16 <= n:
                _one_by_two(s + 4 * j, 0, t + 4 * j, 0, x, a_row, a_column, b + 4 * j, b_row, depth)
                j += 16
            else:
                _one_by_one(s + 4 * j, 0, t + 4 * j, 0, x, a_row, a_column, b + 4 * j, b_row, depth)
                j += 8
