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

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np import numpy_support
from numba.np.arrayobj import make_array, populate_array

from fastrl.kernels import _buffers
from fastrl.kernels._buffers import WORD, load, matrix, pointer, word

Specs = tuple[tuple[str, int], ...]  # of each array: dtype and rank without the batch

# Offsets in bytes in `XLA_FFI_Extension_Base` and what comes after it.
_EXTENSION_TYPE_BYTES, _EXTENSION_METADATA, _METADATA_VERSION_BYTES = 8, 3, 24
_METADATA, _API_MAJOR, _API_MINOR = 1, 0, 1

_registered: dict[str, Any] = {}  # keeps the machine code alive


def register(
    kernel: Callable[..., None], args: Specs, rets: Specs, tasks: bool = False,
    threads: bool = True, flat: bool = False,
) -> str:  # fmt: skip
    """The name under which XLA finds `kernel(*arguments, *results)`; compiled on first use.

    The arrays have one axis each if they are to be `flat`.
    With `tasks` it is `kernel(task, arguments, results, index)`, called for each row of the last
    result, on all of XLA's threads or on one.

    A compiled program in JAX's persistent cache finds its kernel by name in the next process,
    so the name is a hash of the content: source, what it closes over, types, numba's version.
    """
    text = repr((describe(kernel), args, rets, tasks, threads, flat, numba.__version__))
    name = f"fastrl_{kernel.__name__}_{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    if name not in _registered:
        if tasks:
            call, code = _in_tasks(kernel, rets, threads)
        else:
            call, code = _at_once(kernel, args, rets, flat), None
        handler = _handler(call, rets[0][1])
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler.ctypes), platform="cpu")
        _registered[name] = handler, code
    return name


def describe(value: Any) -> str:
    """All that the code of a kernel depends on: functions by source, other values by repr."""
    value = getattr(value, "py_func", getattr(value, "_defn", value))  # of numba's own functions
    if isinstance(value, types.ExternalFunction):
        return value.symbol
    if not inspect.isfunction(value):
        return repr(value)
    used = inspect.getclosurevars(value)
    names = {**used.globals, **used.nonlocals}
    below = {n: describe(v) for n, v in sorted(names.items()) if not inspect.ismodule(v)}
    return repr((inspect.getsource(value), below))


def _handler(call: Any, core: int) -> Any:
    """What XLA calls: `call(frame, arguments, results, index)` for each index into the batch; the
    first result has `core` axes without it."""

    @numba.cfunc(types.int64(types.int64))
    def handler(frame):
        extension = word(frame, _buffers.FRAME_EXTENSION)
        if extension != 0:
            _answer(extension)
            return 0
        inputs, outputs = word(frame, _buffers.FRAME_ARGS), word(frame, _buffers.FRAME_RETS)
        for index in range(_batch(word(outputs, 0), core)):
            call(frame, inputs, outputs, index)
        return 0

    return handler


def _at_once(kernel: Callable[..., None], args: Specs, rets: Specs, flat: bool) -> Any:
    """The kernel on arrays over XLA's buffers."""
    run = numba.njit(nogil=True, error_model="numpy")(kernel)
    get_args, get_rets = _arrays(args, flat), _arrays(rets, flat)

    @numba.njit
    def call(frame, inputs, outputs, index):
        run(*get_args(inputs, index), *get_rets(outputs, index))

    return call


def _in_tasks(kernel: Callable[..., None], rets: Specs, threads: bool) -> tuple[Any, Any]:
    """The kernel for each row of the last result, on the threads of XLA's pool; and its code."""
    from fastrl.kernels import _threads  # takes a second to compile

    run = numba.njit(nogil=True, error_model="numpy")(kernel)

    @numba.cfunc(types.void(types.int64, types.int64, types.int64, types.int64))
    def one(inputs, outputs, index, task):
        run(task, inputs, outputs, index)

    address, alone, last = one.address, int(not threads), len(rets) - 1

    @numba.njit
    def call(frame, inputs, outputs, index):
        tasks = matrix(outputs, last, 0)[1]
        _threads.share(frame, tasks, address, inputs, outputs, index, alone)

    return call, one


@numba.njit
def _answer(extension):
    """XLA asks each handler once for the version of the interface that it was built for."""
    if numba.carray(pointer(extension + _EXTENSION_TYPE_BYTES), (1,), np.int32)[0] == _METADATA:
        metadata = word(extension, _EXTENSION_METADATA)
        version = numba.carray(pointer(metadata + _METADATA_VERSION_BYTES), (2,), np.int32)
        version[0], version[1] = _API_MAJOR, _API_MINOR


@numba.njit
def _batch(buffer, core):
    """The number of kernel calls: the product of the dimensions before the last `core`."""
    count = 1
    dims = word(buffer, _buffers.BUFFER_DIMS)
    for axis in range(word(buffer, _buffers.BUFFER_RANK) - core):
        count *= word(dims, axis)
    return count


def _arrays(specs: Specs, flat: bool) -> Any:
    """An intrinsic: (address of the pointers to buffers, batch index) -> tuple of arrays."""
    dtypes, ranks = zip(*specs, strict=True)
    axes = [1] * len(ranks) if flat else ranks
    kinds = [
        types.Array(numpy_support.from_dtype(np.dtype(d)), n, "C")
        for d, n in zip(dtypes, axes, strict=True)
    ]

    @intrinsic
    def arrays(typingctx, pointers, index):
        def codegen(context, builder, signature, args):
            each = enumerate(zip(kinds, ranks, strict=True))
            out = [_array(context, builder, k, rank, i, *args) for i, (k, rank) in each]
            return context.make_tuple(builder, signature.return_type, out)

        return types.Tuple(kinds)(types.int64, types.int64), codegen

    return arrays


def _array(
    context: Any, builder: Any, kind: Any, rank: int, number: int, pointers: Any, index: Any
) -> Any:
    """The array over buffer `number` of that rank at batch index `index`."""
    element = context.get_data_type(kind.dtype)
    size = WORD(context.get_abi_sizeof(element))
    buffer = load(builder, pointers, number)
    batch_rank = builder.sub(load(builder, buffer, _buffers.BUFFER_RANK), WORD(rank))
    dims = load(builder, buffer, _buffers.BUFFER_DIMS)
    axes = [builder.add(batch_rank, WORD(axis)) for axis in range(rank)]
    shape = [load(builder, dims, axis) for axis in axes]
    if kind.ndim != rank:
        shape = [functools.reduce(builder.mul, shape, WORD(1))]
    strides, step = [], size
    for length in reversed(shape):
        strides.insert(0, step)
        step = builder.mul(step, length)
    shared = builder.icmp_signed("==", batch_rank, WORD(0))
    offset = builder.select(shared, WORD(0), builder.mul(index, step))
    start = builder.add(load(builder, buffer, _buffers.BUFFER_DATA), offset)
    array = make_array(kind)(context, builder)
    populate_array(array, builder.inttoptr(start, element.as_pointer()), shape, strides, size, None)
    return array._getvalue()
