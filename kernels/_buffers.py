"""XLA's buffers as numba sees them: words of memory in the structs of its typed FFI.

Layouts are those of jaxlib's `xla/ffi/api/c_api.h` (version 0.1; later ones of 0.x may only add
fields).
"""

# Intrinsics are written with a typing context in front and called without.
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

import inspect
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Offsets in words of 8 bytes, in `XLA_FFI_CallFrame` and `XLA_FFI_Buffer`.
FRAME_EXTENSION, FRAME_API, FRAME_CONTEXT, FRAME_ARGS, FRAME_RETS = 1, 2, 3, 9, 14
BUFFER_DATA, BUFFER_RANK, BUFFER_DIMS = 3, 4, 5

WORD = ir.IntType(64)


def load(builder: Any, address: Any, number: Any) -> Any:
    """In generated code: the word with that number (int or LLVM value) from `address`."""
    index = WORD(number) if isinstance(number, int) else number
    return builder.load(builder.gep(builder.inttoptr(address, WORD.as_pointer()), [index]))


@intrinsic
def word(typingctx, address, number):
    """The word with that number from `address`."""
    return types.int64(types.int64, types.int64), lambda c, b, s, a: load(b, *a)


@intrinsic
def pointer(typingctx, address):
    """The address as a pointer, for `numba.carray`."""
    to_pointer = lambda c, b, s, a: b.inttoptr(a[0], cgutils.voidptr_t)  # noqa: E731
    return types.voidptr(types.int64), to_pointer


@numba.njit
def matrix(buffers: Any, number: Any, index: Any) -> tuple[Any, Any, Any]:
    """Address, rows and columns of the float32 matrix in buffer `number`, of a batch that at
    `index`; a buffer without batch axes is the same for all of them."""
    buffer = word(buffers, number)
    rank, dims = word(buffer, BUFFER_RANK), word(buffer, BUFFER_DIMS)
    rows, columns = word(dims, rank - 2), word(dims, rank - 1)
    start = word(buffer, BUFFER_DATA)
    if rank > 2:
        start += 4 * index * rows * columns
    return start, rows, columns


@numba.njit
def view(address, rows, columns):
    """The float32 matrix `[rows, columns]` at an address."""
    return numba.carray(pointer(address), (rows, columns), np.float32)


def apart(function: Any) -> Any:
    """The plain function of addresses and integers, compiled by itself and called by its address.

    Numba compiles a function anew into each one that calls it; this one it compiles once.
    """
    names = ", ".join(inspect.signature(function).parameters)
    inner = numba.njit(fastmath=True, error_model="numpy")(function)
    outer = eval(f"lambda {names}: inner({names})", {"inner": inner})  # a cfunc takes no *arguments
    compiled = numba.cfunc(types.void(*[types.int64] * (names.count(",") + 1)))(outer)
    call: Any = compiled.ctypes
    call.py_func, call.compiled = function, compiled  # what it is, and its machine code
    return call
