"""Which primitives have a scalar form, and the rule for each, for `fastrl.kernels.scalarize`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels import scalarize_arrays, scalarize_indexing, scalarize_keys
from fastrl.kernels.scalarize_cells import Cells, Rule

RULES: dict[str, Rule] = scalarize_arrays.RULES | scalarize_indexing.RULES | scalarize_keys.RULES


class UnsupportedError(NotImplementedError):
    """A primitive that has no scalar form; `primitive` names it, `where` the line in the source."""

    def __init__(self, primitive: str, why: str = "", where: str = "") -> None:
        self.primitive, self.why, self.where = primitive, why, where
        message = f"the primitive '{primitive}'" + (f" {why}" if why else "")
        super().__init__(message + (f" at {where}" if where else ""))

    def at(self, where: str) -> "UnsupportedError":
        """The same with a place in the source, unless it has one."""
        return self if self.where else UnsupportedError(self.primitive, self.why, where)


def check(equation: Any) -> None:
    """Raises `UnsupportedError` if there is no rule for `equation`."""
    name, parameters = equation.primitive.name, equation.params
    avals = [v.aval for v in equation.invars]
    if name in ("scatter", "scatter-add", "gather"):
        numbers = parameters["dimension_numbers"]
        batched = numbers.operand_batching_dims or avals[1].ndim != 1
        if batched:
            raise UnsupportedError(name, "at more than one index")
    elif name == "dot_general" and any(parameters["dimension_numbers"][1]):
        raise UnsupportedError(name, "with batch axes")
    elif name == "bitcast_convert_type":
        if avals[0].dtype.itemsize != np.dtype(parameters["new_dtype"]).itemsize:
            raise UnsupportedError(name, "to a type of another size")
    elif name == "pad" and any(min(p) < 0 or p[2] for p in parameters["padding_config"]):
        raise UnsupportedError(name, "with negative or interior padding")
    elif name in ("argmax", "argmin") and len(parameters["axes"]) != 1:
        raise UnsupportedError(name, "over several axes")
    elif name == "random_bits" and parameters["bit_width"] not in (8, 16, 32):
        raise UnsupportedError(name, f"of {parameters['bit_width']} bits")
    elif name not in RULES:
        raise UnsupportedError(name)
    for key in (a for a in avals if jnp.issubdtype(a.dtype, jax.dtypes.prng_key)):
        if key.dtype != scalarize_keys.key_struct().dtype:
            raise UnsupportedError(name, f"on a key of type {key.dtype}, not hash32")


def apply(equation: Any, inputs: list[Cells]) -> list[Cells]:
    """The outputs of `equation`, for which `check` has found a rule."""
    return RULES[equation.primitive.name](equation, inputs)
