"""Array code as scalar code: what an environment's own `step` needs to run inside a GPU kernel.

Pallas kernels lowered through Triton have no arrays of odd shapes: no slices, no stacks, no
indexing, no keys.  `scalarize(f, ...)` traces `f`, which is written for one environment, and
gives a function that does the same on *cells*: an array of shape S becomes a NumPy object array
of shape S whose every cell is a vector over a block of environments (or a number that all of
them share).  Slicing, stacking and padding are then bookkeeping while tracing, dynamic indexing
becomes a chain of selects, and `jax.random` on `hash32` keys becomes integer arithmetic with
the very same results (`fastrl.kernels.prng`).

Small arrays only: an array of a thousand entries becomes a thousand vectors.  The rules, one per
primitive, are found through `scalarize_rules`.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import source_info_util

from fastrl.kernels import scalarize_rules as rules
from fastrl.kernels.scalarize_cells import Cells, choose, constant, rows
from fastrl.kernels.scalarize_rules import UnsupportedError

__all__ = ["Cells", "UnsupportedError", "scalarize"]

# Calls of inner programs, and the parameter that holds the program.
_CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}  # fmt: skip
_LONGEST_SCAN = 64  # loops are unrolled: programs of longer ones would be too large


def scalarize(f: Callable[..., Any], *example: Any) -> tuple[Callable[..., Any], Any]:
    """`f` on cells, and the shapes and types of its result as `jax.ShapeDtypeStruct`s.

    `example` gives the shapes and types of the arguments: arrays or `jax.ShapeDtypeStruct`s,
    typed keys of the implementation `hash32` included.  The function takes pytrees like those of
    `example` with a `Cells` (NumPy object array) of the same shape for every leaf, and returns
    such a pytree.  Raises `UnsupportedError`, which names the primitive and the line, where a
    primitive has no scalar form; this happens here, not in the call.
    """
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*example)
    _check(closed.jaxpr)
    treedef = jax.tree.structure(shape)

    def on_cells(*arguments: Any) -> Any:
        leaves = [np.asarray(leaf, object) for leaf in jax.tree.leaves(arguments)]
        return treedef.unflatten(_run(closed.jaxpr, closed.consts, leaves))

    return on_cells, shape


def _check(jaxpr: Any) -> None:
    """Raises `UnsupportedError` for the first equation without a rule."""
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        try:
            if name in _CALLS:
                _check(_inner(parameters[_CALLS[name]])[0])
            elif name == "cond":
                for branch in parameters["branches"]:
                    _check(branch.jaxpr)
            elif name == "scan":
                if parameters["length"] > _LONGEST_SCAN:
                    length = parameters["length"]
                    raise UnsupportedError(name, f"of {length} rounds, more than {_LONGEST_SCAN}")
                _check(parameters["jaxpr"].jaxpr)
            else:
                rules.check(equation)
        except UnsupportedError as error:
            raise error.at(source_info_util.summarize(equation.source_info)) from None


def _run(jaxpr: Any, constants: Any, arguments: list[Cells]) -> list[Cells]:
    """Evaluates `jaxpr` on cells."""
    values: dict[Any, Cells] = {}

    def read(variable: Any) -> Cells:
        if hasattr(variable, "val"):  # a literal
            return constant(np.asarray(variable.val, variable.aval.dtype))
        return values[variable]

    values.update(zip(jaxpr.constvars, map(constant, constants), strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        inputs = [read(v) for v in equation.invars]
        values.update(zip(equation.outvars, _evaluate(equation, inputs), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _evaluate(equation: Any, inputs: list[Cells]) -> list[Cells]:
    name, parameters = equation.primitive.name, equation.params
    if name in _CALLS:
        return _run(*_inner(parameters[_CALLS[name]]), inputs)
    if name == "cond":
        return _cond(parameters, inputs)
    if name == "scan":
        return _scan(parameters, inputs)
    return rules.apply(equation, inputs)


def _inner(program: Any) -> tuple[Any, Any]:
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def _cond(parameters: dict[str, Any], inputs: list[Cells]) -> list[Cells]:
    """All branches, and a select: every environment of a block may want another one."""
    index, *operands = inputs
    branches = [_run(b.jaxpr, b.consts, operands) for b in parameters["branches"]]
    return [choose(index[()], list(options)) for options in zip(*branches, strict=True)]


def _scan(parameters: dict[str, Any], inputs: list[Cells]) -> list[Cells]:
    """Unrolled."""
    program, length = parameters["jaxpr"], parameters["length"]
    ends = np.cumsum([parameters["num_consts"], parameters["num_carry"]])
    shared, carry, sliced = inputs[: ends[0]], inputs[ends[0] : ends[1]], inputs[ends[1] :]
    order = range(length)[:: -1 if parameters["reverse"] else 1]
    stacked: list[list[Cells]] = [[]] * length
    for t in order:
        now = [rows(x)[t] for x in sliced]
        results = _run(program.jaxpr, program.consts, [*shared, *carry, *now])
        carry, stacked[t] = results[: len(carry)], results[len(carry) :]
    return [*carry, *(np.stack(cells) for cells in zip(*stacked, strict=True))]
