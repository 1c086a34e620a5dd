"""Numba functions as handlers of XLA's typed FFI: the side that imports numba.

XLA calls a handler with one pointer, to an `XLA_FFI_CallFrame` (jaxlib's header
`xla/ffi/api/c_api.h`).  Here a numba `@cfunc` takes that frame apart by pointer arithmetic, builds
arrays over XLA's buffers and calls the kernel: no C compiler, no Python and no interpreter lock
at run time.  `_numba_ffi.py` is the side that JAX sees; it imports this file when a program
with a numba kernel is lowered, as numba takes a second to import.

A kernel is written for arrays of its own ranks.  Leading axes beyond those are the batch: the
handler calls the kernel once for each index into them, and an operand without them is the same
in every call.  An exception in a kernel would be printed and taken for success, so kernels must
not raise; integers are divided as NumPy does it.
"""

# Intrinsics are written with a typing context in front and called without.
# pyright: reportCallIssue=false, reportPrivateImportUsage=false

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import numpy_support
from numba.np.arrayobj import make_array, populate_array

Specs = tuple[tuple[str, int], ...]  # of each array: dtype and rank without the batch

# Offsets in words of 8 bytes, in the structs of c_api.h (version 0.1 and later ones of 0.x,
# which may only add fields).
_FRAME_EXTENSION, _FRAME_ARGS, _FRAME_RETS = 1, 9, 14
_BUFFER_DATA, _BUFFER_RANK, _BUFFER_DIMS = 3, 4, 5
_EXTENSION_TYPE_BYTES, _EXTENSION_METADATA, _METADATA_VERSION_BYTES = 8, 3, 24
_METADATA, _API_MAJOR, _API_MINOR = 1, 0, 1

_WORD = ir.IntType(64)
_registered: dict[str, Any] = {}  # keeps the machine code alive


def register(kernel: Callable[..., None], args: Specs, rets: Specs) -> str:
    """The name under which XLA finds `kernel(*arguments, *results)`; compiled on first use.

    A compiled program in JAX's persistent cache finds its kernel by name in the next process,
    so the name is a hash of the content: source, what it closes over, types, numba's version.
    """
    text = repr((describe(kernel), args, rets, numba.__version__))
    name = f"fastrl_{kernel.__name__}_{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    if name not in _registered:
        handler = _handler(kernel, args, rets)
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler.ctypes), platform="cpu")
        _registered[name] = handler
    return name


def describe(value: Any) -> str:
    """All that the code of a kernel depends on: functions by source, other values by repr."""
    if not inspect.isfunction(value):
        return repr(value)
    used = inspect.getclosurevars(value)
    names = {**used.globals, **used.nonlocals}
    below = {n: describe(v) for n, v in sorted(names.items()) if not inspect.ismodule(v)}
    return repr((inspect.getsource(value), below))


def _handler(kernel: Callable[..., None], args: Specs, rets: Specs) -> Any:
    run = numba.njit(nogil=True, error_model="numpy")(kernel)
    get_args, get_rets = _arrays(args), _arrays(rets)
    core = rets[0][1]

    @numba.cfunc(types.int64(types.int64))
    def handler(frame):
        extension = _word(frame, _FRAME_EXTENSION)
        if extension != 0:
            _answer(extension)
            return 0
        inputs, outputs = _word(frame, _FRAME_ARGS), _word(frame, _FRAME_RETS)
        for index in range(_batch(_word(outputs, 0), core)):
            run(*get_args(inputs, index), *get_rets(outputs, index))
        return 0

    return handler


@numba.njit
def _answer(extension):
    """XLA asks each handler once for the version of the interface that it was built for."""
    if numba.carray(_pointer(extension + _EXTENSION_TYPE_BYTES), (1,), np.int32)[0] == _METADATA:
        metadata = _word(extension, _EXTENSION_METADATA)
        version = numba.carray(_pointer(metadata + _METADATA_VERSION_BYTES), (2,), np.int32)
        version[0], version[1] = _API_MAJOR, _API_MINOR


@numba.njit
def _batch(buffer, core):
    """The number of kernel calls: the product of the dimensions before the last `core`."""
    count = 1
    dims = _word(buffer, _BUFFER_DIMS)
    for axis in range(_word(buffer, _BUFFER_RANK) - core):
        count *= _word(dims, axis)
    return count


def _load(builder: Any, address: Any, word: Any) -> Any:
    """The word number `word` (int or LLVM value) from `address`."""
    index = _WORD(word) if isinstance(word, int) else word
    return builder.load(builder.gep(builder.inttoptr(address, _WORD.as_pointer()), [index]))


@intrinsic
def _word(typingctx, address, word):
    return types.int64(types.int64, types.int64), lambda c, b, s, a: _load(b, *a)


@intrinsic
def _pointer(typingctx, address):
    to_pointer = lambda c, b, s, a: b.inttoptr(a[0], cgutils.voidptr_t)  # noqa: E731
    return types.voidptr(types.int64), to_pointer


def _arrays(specs: Specs) -> Any:
    """An intrinsic: (address of the pointers to buffers, batch index) -> tuple of arrays."""
    kinds = [types.Array(numpy_support.from_dtype(np.dtype(d)), n, "C") for d, n in specs]

    @intrinsic
    def arrays(typingctx, pointers, index):
        def codegen(context, builder, signature, args):
            out = [_array(context, builder, k, i, *args) for i, k in enumerate(kinds)]
            return context.make_tuple(builder, signature.return_type, out)

        return types.Tuple(kinds)(types.int64, types.int64), codegen

    return arrays


def _array(context: Any, builder: Any, kind: Any, number: int, pointers: Any, index: Any) -> Any:
    """The array over buffer `number` at batch index `index`."""
    element = context.get_data_type(kind.dtype)
    size = _WORD(context.get_abi_sizeof(element))
    buffer = _load(builder, pointers, number)
    batch_rank = builder.sub(_load(builder, buffer, _BUFFER_RANK), _WORD(kind.ndim))
    dims = _load(builder, buffer, _BUFFER_DIMS)
    axes = [builder.add(batch_rank, _WORD(axis)) for axis in range(kind.ndim)]
    shape = [_load(builder, dims, axis) for axis in axes]
    strides, step = [], size
    for length in reversed(shape):
        strides.insert(0, step)
        step = builder.mul(step, length)
    shared = builder.icmp_signed("==", batch_rank, _WORD(0))
    offset = builder.select(shared, _WORD(0), builder.mul(index, step))
    start = builder.add(_load(builder, buffer, _BUFFER_DATA), offset)
    array = make_array(kind)(context, builder)
    populate_array(array, builder.inttoptr(start, element.as_pointer()), shape, strides, size, None)
    return array._getvalue()
