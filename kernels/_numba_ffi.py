"""A numba kernel as a JAX operation on CPU, without callbacks into Python.

`numba_call(kernel, outputs, *arrays)` runs the plain function `kernel(*arrays, *outputs)`, which
fills its outputs, compiled by numba.  It works under jit, scan and vmap, costs some 0.4 us a call
inside a program, and can write in place (`aliases`).  Numba is imported and the kernel compiled
when a program is lowered for CPU, not when it is traced.  There is no derivative: see `op`.
"""

import contextlib
import contextvars
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

Arrays = Sequence[jax.Array]

MOST_TASKS = 31  # of a kernel that runs on all threads

_KINDS = "biuf"
_complaints: set[str] = set()
_to_go = contextvars.ContextVar("to_go", default=False)


@dataclasses.dataclass(frozen=True)
class _Call:
    """The static half of a call.

    `ranks` are the operands' without the batch axes; those that are `batched` have all of
    `batch` in front, the others none of it.
    """

    kernel: Callable[..., None]
    outputs: tuple[jax.ShapeDtypeStruct, ...]  # without the batch
    aliases: tuple[tuple[int, int], ...]
    batched: tuple[bool, ...]
    batch: tuple[int, ...] = ()
    tasks: bool = False
    flat: bool = False
    # Does what the kernel does, so it makes no difference to which calls are the same.
    fallback: Callable[..., Arrays] | None = dataclasses.field(default=None, compare=False)


def numba_call(
    kernel: Callable[..., None],
    outputs: Sequence[Any],
    *arrays: Any,
    aliases: dict[int, int] | None = None,
    fallback: Callable[..., Arrays] | None = None,
    tasks: bool = False,
    flat: bool = False,
) -> list[jax.Array]:
    """The results of `kernel(*arrays, *results)`, shaped like `outputs` (shape and dtype each).

    `kernel` is a plain function in numba's subset of Python that calls no other Python function,
    does not raise, and writes all of its results.  `aliases` {argument: result} gives a result
    its argument's memory and contents.  `fallback(*arrays)` is what is lowered instead, with
    a warning, where numba cannot be used; without it that is a RuntimeError.

    With `tasks` the kernel is `kernel(task, arguments, results, index)` of addresses, from which
    `_buffers.matrix` takes the float32 arrays `[rows, columns]`, and is called for each row of the
    last result, at most `MOST_TASKS`, on the threads that XLA has.  With `flat` all its arrays have
    one axis: a reshape outside may cost a copy where results share memory with arguments.

    Raises TypeError for dtypes that numba lacks, ValueError for aliases that do not fit.
    """
    arrays = tuple(map(jnp.asarray, arrays))
    shapes = tuple(jax.ShapeDtypeStruct(o.shape, o.dtype) for o in outputs)
    pairs = tuple(sorted((aliases or {}).items()))
    _check(kernel.__name__, arrays, shapes, pairs)
    call = _Call(kernel, shapes, pairs, (False,) * len(arrays), tasks=tasks, flat=flat,
                 fallback=fallback)  # fmt: skip
    return _numba_call_p.bind(*arrays, call=call)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Programs lowered in here have fallbacks instead of machine code of this process."""
    token = _to_go.set(True)
    try:
        yield
    finally:
        _to_go.reset(token)


def supports(array: Any) -> bool:
    """Whether numba has the dtype: bool, integers of 8 to 64 bits, float32 and float64."""
    dtype = array.dtype
    return isinstance(dtype, np.dtype) and dtype.kind in _KINDS and dtype != np.float16


def _check(name: str, arrays: Arrays, outputs: Sequence[Any], aliases: Sequence[Any]) -> None:
    if not outputs:
        raise ValueError(f"numba kernel {name!r}: needs at least one output")
    for kind, group in (("argument", arrays), ("output", outputs)):
        for i, x in enumerate(group):
            if not supports(x):
                raise TypeError(
                    f"numba kernel {name!r}: {kind} {i} is {x.dtype}{list(x.shape)}; "
                    "numba takes bool, integers, float32 and float64"
                )
    for i, o in aliases:
        if not 0 <= i < len(arrays) or not 0 <= o < len(outputs):
            raise ValueError(
                f"numba kernel {name!r}: alias {i} -> {o}, but there are {len(arrays)} arguments "
                f"and {len(outputs)} outputs"
            )
        x, y = arrays[i], outputs[o]
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise ValueError(
                f"numba kernel {name!r}: argument {i}, {x.dtype}{list(x.shape)}, cannot share "
                f"memory with output {o}, {y.dtype}{list(y.shape)}"
            )


_numba_call_p = Primitive("numba_call")
_numba_call_p.multiple_results = True


@_numba_call_p.def_impl
def _run(*arrays: jax.Array, call: _Call) -> Arrays:
    return _jitted(call)(*arrays)


@functools.lru_cache(256)
def _jitted(call: _Call) -> Callable[..., Arrays]:
    return jax.jit(lambda *arrays: _numba_call_p.bind(*arrays, call=call))


@_numba_call_p.def_abstract_eval
def _shapes(*arrays: Any, call: _Call) -> list[Any]:
    return [ShapedArray((*call.batch, *o.shape), o.dtype) for o in call.outputs]


def _vmap(arrays: Arrays, axes: Sequence[int | None], *, call: _Call) -> Any:
    """One more batch axis, the outermost; what is shared by the whole batch stays one array."""
    size = next(x.shape[a] for x, a in zip(arrays, axes, strict=True) if a is not None)
    written = {i for i, _ in call.aliases}
    moved, batched = [], []
    for i, (x, axis) in enumerate(zip(arrays, axes, strict=True)):
        shared = axis is None and not call.batched[i] and i not in written
        batched.append(not shared)
        if not shared:
            x = jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
            if not call.batched[i]:
                core = x.shape[1:]
                x = x.reshape(size, *(1,) * len(call.batch), *core)
                x = jnp.broadcast_to(x, (size, *call.batch, *core))
        moved.append(x)
    call = dataclasses.replace(call, batched=tuple(batched), batch=(size, *call.batch))
    return _numba_call_p.bind(*moved, call=call), [0] * len(call.outputs)


batching.primitive_batchers[_numba_call_p] = _vmap


def _lower(context: Any, *operands: Any, call: _Call) -> Any:
    if call.fallback is not None and _to_go.get():
        return _lower_fallback(context, *operands, call=call)
    try:
        from fastrl.kernels import _numba_handler

        name = _numba_handler.register(
            call.kernel, *_specs(context.avals_in, call), call.tasks, _is_alone(), call.flat
        )
    except Exception as error:  # numba missing, or not for this machine: many kinds of errors
        why = f"{call.kernel.__name__}: {type(error).__name__}: {str(error).strip()}"
        if call.fallback is None:
            raise RuntimeError(f"no numba kernel for {why}") from error
        _complain(why)
        return _lower_fallback(context, *operands, call=call)
    aliases = dict(call.aliases)
    return jax.ffi.ffi_lowering(name, operand_output_aliases=aliases)(context, *operands)


def _lower_elsewhere(context: Any, *operands: Any, call: _Call) -> Any:
    platforms = ", ".join(context.module_context.platforms)
    raise RuntimeError(
        f"the numba implementation of {call.kernel.__name__!r} runs on CPU only, and the program "
        f"is for {platforms}: leave impl and FASTRL_KERNELS at 'auto'"
    )


def _is_alone() -> bool:
    """Whether the CPU is one device; otherwise its cores have work from the other ones."""
    return jax.local_device_count("cpu") == 1


mlir.register_lowering(_numba_call_p, _lower_elsewhere)
mlir.register_lowering(_numba_call_p, _lower, platform="cpu")


def _specs(avals: Sequence[Any], call: _Call) -> tuple[Any, Any]:
    """dtype and rank without the batch, of operands and results."""
    extra = [len(call.batch) if b else 0 for b in call.batched]
    ins = tuple((a.dtype.str, a.ndim - n) for a, n in zip(avals, extra, strict=True))
    return ins, tuple((np.dtype(o.dtype).str, len(o.shape)) for o in call.outputs)


def _lower_fallback(context: Any, *operands: Any, call: _Call) -> Any:
    return mlir.lower_fun(_batched_fallback(call), multiple_results=True)(context, *operands)


def _batched_fallback(call: _Call) -> Callable[..., Arrays]:
    fallback = call.fallback
    assert fallback is not None
    in_axes = tuple(0 if b else None for b in call.batched)
    for _ in call.batch:
        fallback = jax.vmap(fallback, in_axes)
    return fallback


def _complain(why: str) -> None:
    """Warns of each reason once per process."""
    if why not in _complaints:
        _complaints.add(why)
        warnings.warn(
            f"a numba kernel cannot be used, the slower reference runs instead ({why})",
            RuntimeWarning,
            stacklevel=2,
        )
