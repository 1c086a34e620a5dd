"""One operation, several implementations: which one runs, and where gradients come from.

    find = op(reference, cpu=Numba(build), gpu=pallas_function)
    find(*arrays, impl="auto", **static)

The choice is made when a program is lowered, so a traced program is right for whichever
device it is compiled for.  Derivatives are always those of the reference.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from fastrl.kernels import _numba_ffi

_CHOICES = ("auto", "ref", "numba", "pallas")


class Numba(NamedTuple):
    """A numba implementation: `build(**static)` returns the kernel, `numba_call` says of what form.

    Arguments and results are the leaves of the reference's, in order.  `in_place` each result is
    written where the argument of its number is; `flat` arrays have one axis.  One that is not
    `preferred` runs only when it is asked for.
    """

    build: Callable[..., Callable[..., None]]
    in_place: bool = False
    flat: bool = False
    preferred: bool = True


class Op(Protocol):
    """`op(*arrays, impl="auto", **static)`; see `op`."""

    __name__: str
    implementations: tuple[str, ...]

    def __call__(self, *arrays: Any, impl: str = "auto", **static: Any) -> Any: ...


ops: dict[str, Op] = {}  # every operation by name, for the contract suite


def op(
    reference: Callable[..., Any],
    cpu: Numba | None = None,
    gpu: Callable[..., Any] | None = None,
) -> Op:
    """The operation `reference(*arrays, **static)` with faster implementations beside it.

    `reference` takes and returns pytrees of arrays; the keyword arguments are static and hashable.
    `cpu` is a numba kernel; `gpu` a function with the reference's signature (Pallas).

    The result takes `impl`: "auto" (numba on CPU where it is preferred, Pallas on CUDA, the
    reference elsewhere), "ref", "numba" or "pallas"; ValueError for one that the operation lacks.
    Where `impl` is "auto", the environment variable FASTRL_KERNELS, read when a program is traced,
    forces one on all operations that have it.
    """
    name = f"{reference.__module__.rsplit('.', 1)[-1]}.{reference.__name__.strip('_')}"
    has = ("ref", *(["numba"] if cpu else []), *(["pallas"] if gpu else []))

    @functools.wraps(reference)
    def call(*arrays: Any, impl: str = "auto", **static: Any) -> Any:
        chosen = _choose(name, has, impl)
        ref = functools.partial(reference, **static)
        fast: dict[str, Callable[..., Any]] = {}
        if cpu and chosen in ("auto", "numba"):
            strict = chosen == "numba"
            if strict or (cpu.preferred and all(map(_numba_ffi.supports, _leaves(arrays)))):
                fast["cpu"] = functools.partial(_run_numba, cpu, ref, static, strict)
        if gpu and chosen in ("auto", "pallas"):
            fast["cuda"] = functools.partial(gpu, **static)
        if not fast:
            return ref(*arrays)
        if chosen == "auto":
            return _with_gradient(_by_platform(fast, ref), ref)(*arrays)
        return _with_gradient(fast.popitem()[1], ref)(*arrays)

    call.implementations = has  # type: ignore[attr-defined]
    ops[name] = call  # type: ignore[assignment]
    return call  # type: ignore[return-value]


def forced() -> str:
    """What FASTRL_KERNELS asks for ("auto" if nothing); ValueError if that is no choice."""
    name = os.environ.get("FASTRL_KERNELS", "") or "auto"
    if name not in _CHOICES:
        raise ValueError(f"FASTRL_KERNELS={name!r}: choose one of {', '.join(_CHOICES)}")
    return name


def _choose(name: str, has: tuple[str, ...], impl: str) -> str:
    if impl == "auto":
        from_environment = forced()
        # One word for all operations: those that lack the implementation choose themselves.
        return from_environment if from_environment in has else "auto"
    if impl not in has:
        raise ValueError(f"impl={impl!r}: {name} has {', '.join(('auto', *has))}")
    return impl


def _leaves(arrays: Any) -> list[Any]:
    return [jax.numpy.asarray(x) for x in jax.tree.leaves(arrays)]


def _by_platform(fast: dict[str, Callable[..., Any]], ref: Callable[..., Any]) -> Any:
    return lambda *arrays: jax.lax.platform_dependent(*arrays, **fast, default=ref)


def _with_gradient(run: Callable[..., Any], ref: Callable[..., Any]) -> Callable[..., Any]:
    """`run` with the derivative of `ref`, of which the value is then dead code."""
    differentiable = jax.custom_jvp(run)

    @differentiable.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return differentiable(*primals), jax.jvp(ref, primals, tangents)[1]

    return differentiable


def _run_numba(
    cpu: Numba, ref: Callable[..., Any], static: dict[str, Any], strict: bool, *arrays: Any
) -> Any:
    flat, inside = jax.tree.flatten(arrays)
    outputs, outside = jax.tree.flatten(jax.eval_shape(ref, *arrays))

    def fallback(*flat: Any) -> list[Any]:
        return jax.tree.leaves(ref(*jax.tree.unflatten(inside, flat)))

    kernel = _build(cpu.build, **static)
    aliases = {i: i for i in range(len(outputs))} if cpu.in_place else {}
    results = _numba_ffi.numba_call(
        kernel, outputs, *flat, aliases=aliases, fallback=None if strict else fallback,
        flat=cpu.flat,
    )  # fmt: skip
    return jax.tree.unflatten(outside, results)


@functools.cache
def _build(build: Callable[..., Callable[..., None]], **static: Any) -> Callable[..., None]:
    """The same function for the same static values, so that a kernel is compiled once."""
    return build(**static)
