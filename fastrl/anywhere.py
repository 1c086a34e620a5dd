"""A condition over all members of a batch, for branches that vmap leaves branches."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from fastrl.types import Array


def anywhere(flags: Array) -> Array:
    """Whether any of `flags` is set, in any member: a scalar, under `vmap` one for all members.

    `jax.lax.cond` with it is still a branch under `vmap`, which makes `any` in its place a choice
    between two results that are both computed.  So it is right only where members without a flag
    get the same from either branch.
    """
    return _anywhere_p.bind(jnp.asarray(flags, bool))


def _any(flags: Array) -> Array:
    return flags.any()


def _batched(args: tuple[Array], axes: tuple[int]) -> tuple[Array, None]:
    return _anywhere_p.bind(args[0]), None


def _derivative(primals: tuple[Array], tangents: Any) -> tuple[Array, Any]:
    found = anywhere(*primals)
    return found, ad.Zero(ShapedArray((), jax.dtypes.float0))


_anywhere_p = Primitive("anywhere")
_anywhere_p.def_impl(jax.jit(_any))
_anywhere_p.def_abstract_eval(lambda flags: ShapedArray((), jnp.bool_))
batching.primitive_batchers[_anywhere_p] = _batched
ad.primitive_jvps[_anywhere_p] = _derivative
mlir.register_lowering(_anywhere_p, mlir.lower_fun(_any, multiple_results=False))
